package extproc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// decided is a module whose verdict a test sets.
type decided struct {
	class  modules.Class
	decide func(context.Context, *modules.Request) (modules.Verdict, error)
}

func (d decided) Class() modules.Class { return d.class }
func (d decided) Decide(ctx context.Context, r *modules.Request) (modules.Verdict, error) {
	return d.decide(ctx, r)
}
func (d decided) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// doubling is an exchange that sends the body twice and answers with what came, shouted.
type doubling struct {
	body  bool
	route bool
}

func (d doubling) End()                   {}
func (d doubling) NeedBody() bool         { return d.body }
func (d doubling) Record() modules.Record { return modules.Record{Verb: neutral.Create} }
func (d doubling) Request(_ context.Context, body []byte) (modules.Rewrite, *modules.Verdict, error) {
	if d.route {
		return modules.Rewrite{}, &modules.Verdict{Route: &modules.Route{Upstream: names.Bridge}}, nil
	}
	if string(body) == "bad" {
		return modules.Rewrite{}, nil, fault.New(fault.Invalid, "a bad body")
	}
	return modules.Rewrite{Route: modules.Route{Upstream: names.Orchestrator, Method: "POST", Path: "/native",
		Set: http.Header{"X-Native": {"yes"}}}, Body: append(slices.Clone(body), body...)}, nil, nil
}
func (d doubling) Response(_ context.Context, native modules.Answer) (modules.Answer, error) {
	if native.Status >= 500 {
		return modules.Answer{}, fault.New(fault.Unavailable, "the orchestrator is ill")
	}
	return modules.Answer{Status: 201, Header: http.Header{"Content-Type": {"application/json"}},
		Body: []byte(strings.ToUpper(string(native.Body)))}, nil
}

func serve(t *testing.T, decide func(context.Context, *modules.Request) (modules.Verdict, error)) extprocv3.ExternalProcessorClient {
	t.Helper()
	module := decided{class: modules.ContainerOperation, decide: decide}
	server := New(Config{
		Zone: NewZone("east", "isthmus.internal"), Modules: []modules.Module{module},
		Fallback: decided{class: modules.Unknown, decide: func(context.Context, *modules.Request) (modules.Verdict, error) {
			return modules.Verdict{}, fault.New(fault.NotFound, "no such name")
		}},
		Peer: func(id string) modules.Peer {
			if id == "spiffe://west/cluster/west" {
				return modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true}
			}
			return modules.Peer{}
		},
		Deadline: 200 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	server.Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		<-done
	})
	return extprocv3.NewExternalProcessorClient(conn)
}

func headers(end bool, pairs ...string) *extprocv3.HttpHeaders {
	m := &corev3.HeaderMap{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Headers = append(m.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return &extprocv3.HttpHeaders{Headers: m, EndOfStream: end}
}

func requestHeaders(end bool, extra ...string) *extprocv3.ProcessingRequest {
	all := append([]string{":method", "GET", ":path", "/x", ":authority", "api.east.isthmus.internal",
		names.HeaderPeer, "spiffe://west/cluster/west", "accept", "text/html"}, extra...)
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: headers(end, all...)}}
}

func responseHeaders(end bool, pairs ...string) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: headers(end, pairs...)}}
}

// talk sends messages one after the other and gives the answers.
func talk(t *testing.T, client extprocv3.ExternalProcessorClient, messages ...*extprocv3.ProcessingRequest) []*extprocv3.ProcessingResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := client.Process(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var answers []*extprocv3.ProcessingResponse
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatalf("no answer to %T: %v", m.GetRequest(), err)
		}
		answers = append(answers, answer)
		if answer.GetImmediateResponse() != nil {
			break
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end: %v", err)
	}
	return answers
}

func value(mutation *extprocv3.HeaderMutation, key string) string {
	for _, h := range mutation.GetSetHeaders() {
		if h.GetHeader().GetKey() == key {
			return string(h.GetHeader().GetRawValue())
		}
	}
	return ""
}

func TestRoute(t *testing.T) {
	t.Parallel()
	client := serve(t, func(_ context.Context, r *modules.Request) (modules.Verdict, error) {
		if r.Peer.Name != "west" || r.Method != http.MethodGet || r.Path != "/x" || r.Header.Get("Accept") != "text/html" {
			return modules.Verdict{}, fault.New(fault.Internal, "read wrongly: %+v", r)
		}
		return modules.Verdict{Route: &modules.Route{Upstream: names.Orchestrator, Authority: "native", Remove: []string{"authorization"}}}, nil
	})
	answer := talk(t, client, requestHeaders(false))[0].GetRequestHeaders().GetResponse()
	if got := value(answer.GetHeaderMutation(), names.HeaderRoute); got != names.Orchestrator {
		t.Errorf("route header %q", got)
	}
	if got := value(answer.GetHeaderMutation(), ":authority"); got != "native" {
		t.Errorf("authority %q", got)
	}
	if !answer.GetClearRouteCache() {
		t.Error("the route is not looked up again")
	}
}

// Every way in which a decision fails is an answer, never silence or a clean end.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		decide func(context.Context, *modules.Request) (modules.Verdict, error)
		status int
	}{
		"denied": {func(context.Context, *modules.Request) (modules.Verdict, error) {
			return modules.Verdict{}, fault.New(fault.Denied, "no permission")
		}, 403},
		"panic": {func(context.Context, *modules.Request) (modules.Verdict, error) { panic("oh") }, 500},
		"slow": {func(ctx context.Context, _ *modules.Request) (modules.Verdict, error) {
			<-ctx.Done()
			return modules.Verdict{}, ctx.Err()
		}, 504},
		"undecided": {func(context.Context, *modules.Request) (modules.Verdict, error) { return modules.Verdict{}, nil }, 500},
		"bare error": {func(context.Context, *modules.Request) (modules.Verdict, error) {
			return modules.Verdict{}, errors.New("dial tcp 10.1.2.3:6443: refused")
		}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := talk(t, serve(t, test.decide), requestHeaders(true))[0].GetImmediateResponse()
			if int(answer.GetStatus().GetCode()) != test.status {
				t.Errorf("status %v, want %d", answer.GetStatus(), test.status)
			}
			if strings.Contains(string(answer.GetBody()), "10.1.2.3") {
				t.Errorf("an address leaks: %s", answer.GetBody())
			}
		})
	}
}

func TestUnknownName(t *testing.T) {
	t.Parallel()
	client := serve(t, nil)
	m := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestHeaders{
		RequestHeaders: headers(true, ":authority", "example.test", ":path", "/", ":method", "GET")}}
	if got := talk(t, client, m)[0].GetImmediateResponse().GetStatus().GetCode(); got != 404 {
		t.Errorf("status %d", got)
	}
}

func TestExchangeWithBody(t *testing.T) {
	t.Parallel()
	client := serve(t, func(context.Context, *modules.Request) (modules.Verdict, error) {
		return modules.Verdict{Exchange: doubling{body: true}}, nil
	})
	answers := talk(t, client, requestHeaders(false, "content-length", "2", "content-type", "x/y"),
		&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte("ab"), EndOfStream: true}}},
		responseHeaders(false, ":status", "200", "audit-id", "secret"),
		&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: []byte("ok"), EndOfStream: true}}})
	mode := answers[0].GetModeOverride()
	if mode.GetRequestBodyMode() != extprocfilterv3.ProcessingMode_BUFFERED || mode.GetResponseBodyMode() != extprocfilterv3.ProcessingMode_BUFFERED {
		t.Errorf("mode %v", mode)
	}
	request := answers[1].GetRequestBody().GetResponse()
	if string(request.GetBodyMutation().GetBody()) != "abab" || value(request.GetHeaderMutation(), "content-length") != "4" {
		t.Errorf("request %v", request)
	}
	if value(request.GetHeaderMutation(), names.HeaderExchange) == "" {
		t.Error("the exchange is not marked, so a native answer could pass when this server is gone")
	}
	for _, gone := range []string{"accept", "content-type"} {
		if !slices.Contains(request.GetHeaderMutation().GetRemoveHeaders(), gone) {
			t.Errorf("the caller's %s goes to the orchestrator", gone)
		}
	}
	response := answers[3].GetResponseBody().GetResponse()
	if string(response.GetBodyMutation().GetBody()) != "OK" || value(response.GetHeaderMutation(), ":status") != "201" ||
		value(response.GetHeaderMutation(), "content-length") != "2" {
		t.Errorf("response %v", response)
	}
	if !slices.Contains(response.GetHeaderMutation().GetRemoveHeaders(), "audit-id") {
		t.Error("a native header reaches the caller")
	}
}

func TestExchangeFaults(t *testing.T) {
	t.Parallel()
	body := func(s string) *extprocv3.ProcessingRequest {
		return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte(s)}}}
	}
	client := serve(t, func(context.Context, *modules.Request) (modules.Verdict, error) {
		return modules.Verdict{Exchange: doubling{body: true}}, nil
	})
	if got := talk(t, client, requestHeaders(false), body("bad"))[1].GetImmediateResponse().GetStatus().GetCode(); got != 400 {
		t.Errorf("a bad body: %d", got)
	}
	answers := talk(t, client, requestHeaders(false), body("x"), responseHeaders(true, ":status", "500"))
	if got := answers[2].GetImmediateResponse().GetStatus().GetCode(); got != 503 {
		t.Errorf("an ill orchestrator: %d", got)
	}
	// Envoy's own answer in place of a body that it could not hold passes as it is.
	answers = talk(t, client, requestHeaders(false), responseHeaders(false, ":status", "413"),
		&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: []byte("too large")}}})
	if response := answers[2].GetResponseBody().GetResponse(); response == nil || response.GetBodyMutation() != nil {
		t.Errorf("Envoy's own answer is rewritten: %v", answers[2])
	}
	// A body that nobody asked for is refused, not let through.
	client = serve(t, func(context.Context, *modules.Request) (modules.Verdict, error) {
		return modules.Verdict{Route: &modules.Route{Upstream: names.Bridge}}, nil
	})
	if got := talk(t, client, requestHeaders(false), body("x"))[1].GetImmediateResponse().GetStatus().GetCode(); got != 500 {
		t.Errorf("an unasked body: %d", got)
	}
}

func TestExchangeTurnsToBridge(t *testing.T) {
	t.Parallel()
	client := serve(t, func(context.Context, *modules.Request) (modules.Verdict, error) {
		return modules.Verdict{Exchange: doubling{body: true, route: true}}, nil
	})
	// talk sees the stream end once the decision is said: nothing of the bridge's answer is held back for this server. A
	// body that turned out empty is a body all the same: the answer must be of its phase.
	for _, body := range []string{"x", ""} {
		answers := talk(t, client, requestHeaders(false),
			&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte(body), EndOfStream: true}}})
		request := answers[1].GetRequestBody().GetResponse()
		if value(request.GetHeaderMutation(), names.HeaderRoute) != names.Bridge || request.GetBodyMutation() != nil {
			t.Errorf("body %q: %v", body, answers[1])
		}
	}
}

// A first message that is no request head is refused too.
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	client := serve(t, nil)
	for _, m := range []*extprocv3.ProcessingRequest{{}, {Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{}}}} {
		if got := talk(t, client, m)[0].GetImmediateResponse().GetStatus().GetCode(); got != 500 {
			t.Errorf("%T: %d", m.GetRequest(), got)
		}
	}
}
