package envoytest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// decider is an external-processing server for tests: step answers each message, nil closes the stream cleanly.
type decider struct {
	extprocv3.UnimplementedExternalProcessorServer
	step func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse

	mu   sync.Mutex
	seen []map[string]string // heads of requests
}

// decides runs an external-processing server beside the gateway's Envoy; the returned function kills it.
func (g *gateway) decides(step func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse) (*decider, func()) {
	g.t.Helper()
	d := &decider{step: step}
	socket := g.socket(names.ExtProcSocket)
	_ = os.Remove(socket)
	s := grpc.NewServer(grpc.MaxRecvMsgSize(32 << 20))
	extprocv3.RegisterExternalProcessorServer(s, d)
	l := listen(g.t, "unix", socket)
	go func() { _ = s.Serve(l) }()
	g.t.Cleanup(s.Stop)
	return d, s.Stop
}

// undecided waits until Envoy has seen that a killed decider is gone: a request before that goes to its dead connection.
func (g *gateway) undecided() {
	g.t.Helper()
	gone := `envoy_cluster_upstream_cx_active{envoy_cluster_name="` + names.ExtProc + `"} 0`
	eventually(g.t, waits, func() error {
		stats, err := g.supervisor.Stats(g.t.Context())
		if err != nil {
			return err
		}
		if !strings.Contains(string(stats), gone) {
			return fmt.Errorf("no %s", gone)
		}
		return nil
	})
}

func (d *decider) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	if len(metadata.ValueFromIncomingContext(stream.Context(), names.MetadataHold)) > 0 {
		for {
			if _, err := stream.Recv(); err != nil {
				return nil //nolint:nilerr // the end of a request that was let through, about which nothing is asked
			}
		}
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // Envoy has what it wanted
		}
		if h := m.GetRequestHeaders(); h != nil {
			d.mu.Lock()
			d.seen = append(d.seen, head(h.GetHeaders()))
			d.mu.Unlock()
		}
		r := d.step(m)
		if r == nil {
			return nil
		}
		if err := stream.Send(r); err != nil {
			return err
		}
	}
}

// requests are the heads that were seen so far.
func (d *decider) requests() []map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]map[string]string(nil), d.seen...)
}

func head(m *corev3.HeaderMap) map[string]string {
	h := map[string]string{}
	for _, v := range m.GetHeaders() {
		h[v.GetKey()] = string(v.GetRawValue()) + v.GetValue()
	}
	return h
}

// headersAnswer answers the phase of request headers.
func headersAnswer(set map[string]string) *extprocv3.ProcessingResponse {
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
			Response: &extprocv3.CommonResponse{HeaderMutation: mutation(set)},
		}},
		DynamicMetadata: decided("allow"),
	}
}

func decided(decision string) *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{names.Metadata: map[string]any{
		"kind": "container-operation", "peer": "west", "verb": "list", "object": "container", "decision": decision,
	}})
	if err != nil {
		panic(err)
	}
	return s
}

func mutation(set map[string]string) *extprocv3.HeaderMutation {
	m := &extprocv3.HeaderMutation{}
	for k, v := range set {
		m.SetHeaders = append(m.SetHeaders, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: k, RawValue: []byte(v)},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return m
}

// routed decides that every request goes to one upstream.
func routed(upstream string, more ...string) func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
	set := map[string]string{names.HeaderRoute: upstream}
	for i := 0; i < len(more); i += 2 {
		set[more[i]] = more[i+1]
	}
	return func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse { return headersAnswer(set) }
}

// refused decides that every request is refused in words.
func refused(code typev3.StatusCode, body string) func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
	return func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		return &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
				Status: &typev3.HttpStatus{Code: code}, Body: []byte(body), Details: names.Details,
				Headers: mutation(map[string]string{"content-type": "application/json"}),
			}},
			DynamicMetadata: decided("deny"),
		}
	}
}

// rewritten rewrites every request and answer: bodies are made upper case.
func rewritten(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
	body := func(b []byte, set map[string]string) *extprocv3.BodyResponse {
		up := []byte(strings.ToUpper(string(b)))
		set["content-length"] = strconv.Itoa(len(up))
		return &extprocv3.BodyResponse{Response: &extprocv3.CommonResponse{
			HeaderMutation: mutation(set),
			BodyMutation:   &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: up}},
		}}
	}
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		a := headersAnswer(nil)
		a.ModeOverride = &extprocfilterv3.ProcessingMode{
			RequestHeaderMode:  extprocfilterv3.ProcessingMode_SEND,
			ResponseHeaderMode: extprocfilterv3.ProcessingMode_SEND,
			RequestBodyMode:    extprocfilterv3.ProcessingMode_BUFFERED,
			ResponseBodyMode:   extprocfilterv3.ProcessingMode_BUFFERED,
			RequestTrailerMode: extprocfilterv3.ProcessingMode_SKIP, ResponseTrailerMode: extprocfilterv3.ProcessingMode_SKIP,
		}
		return a
	case *extprocv3.ProcessingRequest_RequestBody:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestBody{
			RequestBody: body(r.RequestBody.GetBody(), map[string]string{
				names.HeaderRoute: toOrchestrator, names.HeaderExchange: "1", ":path": "/native",
			}),
		}}
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{
			ResponseHeaders: &extprocv3.HeadersResponse{Response: &extprocv3.CommonResponse{}},
		}}
	case *extprocv3.ProcessingRequest_ResponseBody:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{
			ResponseBody: body(r.ResponseBody.GetBody(), map[string]string{names.HeaderExchange: "1"}),
		}}
	}
	return nil
}
