package extproc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	grpcmetadata "google.golang.org/grpc/metadata"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

func TestClassifyEdge(t *testing.T) {
	t.Parallel()
	z := NewZone("west", "isthmus.internal")
	for _, c := range []struct {
		edge, authority string
		class           modules.Class
		peer            string
	}{
		{"api/east", "localhost:16443", modules.ContainerOperation, "east"},
		{"api/east", "web.shop.svc.north.isthmus.internal", modules.ContainerOperation, "east"},
		{"edge", "web.shop.svc.east.isthmus.internal", modules.ServiceQuery, "east"},
		{"edge", "Web.shop.SVC.East.isthmus.internal:80", modules.ServiceQuery, "east"},
		{"edge", "db.shop.ctr.east.isthmus.internal:5432", modules.ContainerAccess, "east"},
		{"edge", "api.east.isthmus.internal", modules.ContainerOperation, "east"},
		{"edge", "shop.east.isthmus.internal", modules.Unknown, "east"},
		{"edge", "east.isthmus.internal", modules.Unknown, ""},
		{"edge", "svc.east.isthmus.internal", modules.Unknown, "east"},
		{"edge", "ctr.east.isthmus.internal", modules.ContainerAccess, "east"},
		{"edge", "web.shop.svc.east.example", modules.Unknown, ""},
		{"edge", "", modules.Unknown, ""},
	} {
		if class, peer := z.ClassifyEdge(c.edge, c.authority); class != c.class || peer != c.peer {
			t.Errorf("%s %q is %s of %q", c.edge, c.authority, class, peer)
		}
	}
}

// TestEdge holds that requests of this cluster's own callers go to the edge's module alone, known by what Envoy says of
// its stream and by nothing that is in the request.
func TestEdge(t *testing.T) {
	t.Parallel()
	seen := make(chan *modules.Request, 1)
	var refusal error
	edge := decided{decide: func(_ context.Context, r *modules.Request) (modules.Verdict, error) {
		seen <- r
		return modules.Verdict{Route: &modules.Route{Upstream: names.PeerCluster(r.To), Set: http.Header{names.HeaderCaller: {"ci"}},
			Remove: []string{"authorization"}}}, refusal
	}}
	peer := decided{class: modules.ContainerOperation, decide: func(context.Context, *modules.Request) (modules.Verdict, error) {
		return modules.Verdict{}, fault.New(fault.Denied, "by the peer link")
	}}
	s := New(Config{Zone: NewZone("east", "isthmus.internal"), Modules: []modules.Module{peer}, Fallback: peer, Edge: edge,
		Peer: func(string) modules.Peer { return modules.Peer{Name: "west"} }, Deadline: time.Second, Log: slog.New(slog.DiscardHandler)})
	ask := func(edge string, m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		ctx := t.Context()
		if edge != "" {
			ctx = grpcmetadata.NewIncomingContext(ctx, grpcmetadata.Pairs(names.MetadataEdge, edge))
		}
		return (&stream{server: s, ctx: ctx, edge: edgeOf(ctx)}).step(m)
	}
	m := ask("api/west", requestHeaders(true, names.HeaderCaller, "forged", "authorization", "Bearer x"))
	r := <-seen
	if r.To != "west" || r.Class != modules.ContainerOperation || r.Peer.Name != "" || r.Caller != "" || r.Header.Get("authorization") != "Bearer x" {
		t.Errorf("asked about %+v", r)
	}
	mutation := m.GetRequestHeaders().GetResponse().GetHeaderMutation()
	set := map[string]string{}
	for _, h := range mutation.GetSetHeaders() {
		set[h.GetHeader().GetKey()] = string(h.GetHeader().GetRawValue())
	}
	if set[names.HeaderCaller] != "ci" || set[names.HeaderRoute] != "peer/west" || len(mutation.GetRemoveHeaders()) != 1 ||
		!m.GetRequestHeaders().GetResponse().GetClearRouteCache() {
		t.Errorf("said %v", m)
	}
	refusal = fault.New(fault.Unauthenticated, "who are you?")
	if code := ask("edge", requestHeaders(true)).GetImmediateResponse().GetStatus().GetCode(); code != 401 {
		t.Errorf("refused with %d", code)
	}
	<-seen
	// The word of a peer for what only Envoy says.
	if code := ask("", requestHeaders(true, names.MetadataEdge, "api/west", "x-isthmus-edge", "edge")).GetImmediateResponse().GetStatus().GetCode(); code != 403 {
		t.Errorf("answered %d", code)
	}
}

// TestFollow holds that what is let through is held until the stream that follows it ends, and that nothing is said on it.
func TestFollow(t *testing.T) {
	t.Parallel()
	followed, left := make(chan string, 1), make(chan struct{})
	s := New(Config{Zone: NewZone("east", "isthmus.internal"), Log: slog.New(slog.DiscardHandler), Follow: func(hold string) (func(), bool) {
		followed <- hold
		return func() { close(left) }, hold == "token"
	}})
	for _, hold := range []string{"another", "token"} {
		ctx, cancel := context.WithCancel(grpcmetadata.NewIncomingContext(t.Context(), grpcmetadata.Pairs(names.MetadataHold, "1")))
		stream := &silent{ctx: ctx, messages: []*extprocv3.ProcessingRequest{requestHeaders(true, names.HeaderHold, hold)}}
		ended := make(chan error, 1)
		go func() { ended <- s.Process(stream) }()
		if got := <-followed; got != hold {
			t.Errorf("%q is followed", got)
		}
		if hold == "token" {
			select {
			case <-left:
				t.Error("it is given back before its end")
			case err := <-ended:
				t.Errorf("the stream ended by itself: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			cancel()
			<-left
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", hold, err)
		}
		cancel()
	}
}

// silent is a stream of Envoy's that wants no answer.
type silent struct {
	extprocv3.ExternalProcessor_ProcessServer
	ctx      context.Context
	messages []*extprocv3.ProcessingRequest
}

func (s *silent) Context() context.Context { return s.ctx }
func (s *silent) Recv() (*extprocv3.ProcessingRequest, error) {
	if len(s.messages) > 0 {
		m := s.messages[0]
		s.messages = s.messages[1:]
		return m, nil
	}
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

// TestMisnamedCaller refuses a caller that a peer names in a way that no line of a log can hold, before anybody decides.
func TestMisnamedCaller(t *testing.T) {
	t.Parallel()
	client := serve(t, func(_ context.Context, r *modules.Request) (modules.Verdict, error) {
		if r.Caller != "ci" && r.Caller != "" || r.Groups != "" && r.Groups != "a,b" {
			return modules.Verdict{}, errors.New("decided about " + r.Caller)
		}
		return modules.Verdict{Answer: &modules.Answer{Status: 200}}, nil
	})
	for _, c := range []struct {
		callers, groups []string
		code            int32
	}{
		{nil, nil, 200}, {[]string{"ci"}, nil, 200}, {[]string{"ci", "ops"}, nil, 400}, {[]string{""}, nil, 400},
		{[]string{"a\tb"}, nil, 400}, {[]string{"\xff"}, nil, 400},
		{[]string{"ci"}, []string{"a,b"}, 200}, {nil, []string{"a,b"}, 400}, {[]string{"ci"}, []string{"a", "b"}, 400},
		{[]string{"ci"}, []string{""}, 400}, {[]string{"ci"}, []string{"b,a"}, 400}, {[]string{"ci"}, []string{"a,a"}, 400},
		{[]string{"ci"}, []string{"a,"}, 400}, {[]string{"ci"}, []string{"a\tb"}, 400},
		{[]string{"ci"}, []string{"a" + strings.Repeat(","+strings.Repeat("x", 500), 9)}, 400},
	} {
		var pairs []string
		for _, name := range c.callers {
			pairs = append(pairs, names.HeaderCaller, name)
		}
		for _, groups := range c.groups {
			pairs = append(pairs, names.HeaderGroups, groups)
		}
		answer := talk(t, client, requestHeaders(true, pairs...))[0]
		if code := answer.GetImmediateResponse().GetStatus().GetCode(); int32(code) != c.code {
			t.Errorf("%q: %d", c.callers, code)
		}
	}
}
