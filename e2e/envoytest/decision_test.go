package envoytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// pair is two gateways that know each other and run; set changes what east is before it starts.
func pair(t *testing.T, set func(east *gateway)) (west, east *gateway) {
	t.Helper()
	west, east = newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	if set != nil {
		set(east)
	}
	west.start()
	east.start()
	return west, east
}

// orchestrator gives east an orchestrator on a Unix socket.
func (g *gateway) orchestrator(h http.Handler) {
	g.t.Helper()
	socket := g.socket("orchestrator.sock")
	g.model.Upstream = neutral.Upstream{Socket: socket, Token: "s3cret", Host: "orchestrator.local"}
	serveOn(g.t, listen(g.t, "unix", socket), h)
}

// on runs one of isthmus' own servers.
func (g *gateway) on(socket string, h http.Handler) {
	g.t.Helper()
	_ = os.Remove(g.socket(socket))
	serveOn(g.t, listen(g.t, "unix", g.socket(socket)), h)
}

// refusal checks that an answer is the gateway's own refusal, in a body for all callers.
func refusal(t *testing.T, a answer, code int, message string) {
	t.Helper()
	var status struct {
		Kind, APIVersion, Status, Message, Reason string
		Metadata                                  *struct{}
		Code                                      int
	}
	if a.code != code || a.header.Get("content-type") != "application/json" {
		t.Errorf("refused with %d %s, want %d application/json\n%s", a.code, a.header.Get("content-type"), code, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &status); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
	if status.Kind != "Status" || status.APIVersion != "v1" || status.Status != "Failure" || status.Code != a.code ||
		status.Reason == "" || status.Metadata == nil || !strings.Contains(status.Message, message) {
		t.Errorf("body %s, want a failure that says %q", a.body, message)
	}
	for _, word := range []string{"127.", ".sock", "transport", "ext_proc", "upstream connect"} {
		if strings.Contains(a.body, word) {
			t.Errorf("the refusal tells %q: %s", word, a.body)
		}
	}
}

func TestDecidedUpstreams(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(echo))
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		container := serve(t, http.HandlerFunc(echo))
		east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
			path := head(m.GetRequestHeaders().GetHeaders())[":path"]
			return routed(strings.Trim(path, "/"), names.HeaderDestination, container.String())(m)
		})
	})
	for _, upstream := range []string{toOrchestrator, names.Bridge, names.Access} {
		t.Run(upstream, func(t *testing.T) {
			r := request(t, http.MethodPost, "http://"+east.host("api")+"/"+upstream, strings.NewReader("hello"))
			r.Header.Set("authorization", "Bearer of-the-caller")
			r.Header.Set(names.HeaderNode, "node-1")
			r.Header.Set(names.HeaderPeer, "spiffe://evil.test/cluster/evil")
			a := call(t, west.local(), r)
			if a.code != http.StatusOK || !strings.HasPrefix(a.body, "POST ") {
				t.Fatalf("%d %s", a.code, a.body)
			}
			body := strings.ToLower(a.body)
			if strings.Contains(body, "of-the-caller") {
				t.Error("the caller's credential crossed")
			}
			switch upstream {
			case names.Bridge:
				for _, h := range []string{names.HeaderRoute + ": bridge", names.HeaderPeer + ": " + id("west"), names.HeaderNode + ": node-1"} {
					if !strings.Contains(body, h) {
						t.Errorf("the bridge did not get %q", h)
					}
				}
			default:
				if strings.Contains(body, names.HeaderPrefix) {
					t.Error("a gateway's header left the gateway")
				}
			}
			if upstream == toOrchestrator && (!strings.Contains(body, "bearer s3cret") || !strings.Contains(body, "orchestrator.local")) {
				t.Error("the orchestrator's own credential or host is missing")
			}
		})
	}
	// What was decided for an orchestrator of another type, as just before or after a restart with another one.
	for _, upstream := range []string{names.OrchestratorRoute(neutral.Kubernetes), names.Orchestrator} {
		t.Run("not "+upstream, func(t *testing.T) {
			a := call(t, west.local(), request(t, http.MethodPost, "http://"+east.host("api")+"/"+upstream, strings.NewReader("hello")))
			refusal(t, a, http.StatusServiceUnavailable, "no decision")
		})
	}
}

func TestDecisionFailsClosed(t *testing.T) {
	t.Parallel()
	native := `{"native": "10.1.2.3"}`
	var reached atomic.Int32
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			reached.Add(1)
			_, _ = fmt.Fprint(w, native)
		}))
	})
	ask := func() answer {
		return call(t, west.local(), request(t, http.MethodPost, "http://"+east.host("api")+"/x", strings.NewReader("abc")))
	}
	t.Run("nobody there", func(t *testing.T) {
		refusal(t, ask(), http.StatusServiceUnavailable, "cannot decide")
	})
	for _, phase := range []string{"request headers", "request body", "response headers", "response body"} {
		t.Run("closed in "+phase, func(t *testing.T) {
			_, kill := east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
				if at(m) == phase {
					return nil
				}
				return rewritten(m)
			})
			defer func() { kill(); east.undecided() }()
			before := reached.Load()
			a := ask()
			if strings.HasPrefix(phase, "request") {
				refusal(t, a, http.StatusServiceUnavailable, "no decision")
				if reached.Load() != before {
					t.Error("the request reached the orchestrator")
				}
			} else {
				refusal(t, a, http.StatusBadGateway, "lost the answer")
			}
			if strings.Contains(a.body, "native") || strings.Contains(a.header.Get(names.HeaderExchange), "1") {
				t.Error("the native answer crossed")
			}
		})
	}
	t.Run("back again", func(t *testing.T) {
		_, kill := east.decides(rewritten)
		defer func() { kill(); east.undecided() }()
		a := ask()
		if a.code != http.StatusOK || a.body != strings.ToUpper(native) || a.header.Get(names.HeaderExchange) != "" {
			t.Errorf("%d %v %s", a.code, a.header, a.body)
		}
	})
	t.Run("immediate", func(t *testing.T) {
		_, kill := east.decides(refused(http.StatusForbidden, `{"message": "no"}`))
		defer func() { kill(); east.undecided() }()
		if a := ask(); a.code != http.StatusForbidden || a.body != `{"message": "no"}` || a.header.Get("content-type") != "application/json" {
			t.Errorf("%d %v %s", a.code, a.header, a.body)
		}
	})
	for phase, code := range map[string]int{"request headers": 503, "request body": 503, "response headers": 502, "response body": 502} {
		t.Run("killed in "+phase, func(t *testing.T) {
			var kill func()
			_, stop := east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
				if at(m) == phase {
					go kill()
					time.Sleep(time.Second)
				}
				return rewritten(m)
			})
			kill = stop
			defer east.undecided()
			a := ask()
			refusal(t, a, code, "the gateway")
			if strings.Contains(a.body, "native") {
				t.Error("the native answer crossed")
			}
		})
	}
}

// TestSilentOrchestrator waits for an orchestrator that takes a translated request and does not answer, whether external
// processing is still there at the end or not.
func TestSilentOrchestrator(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]bool{"decided to the end": false, "external processing ends before": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			west, east := pair(t, func(east *gateway) {
				east.orchestrator(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
			})
			east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
				switch {
				case gone && m.GetResponseHeaders() != nil:
					return nil
				case m.GetResponseBody() == nil:
					return rewritten(m)
				}
				return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{
					ResponseBody: &extprocv3.BodyResponse{Response: &extprocv3.CommonResponse{
						HeaderMutation: mutation(map[string]string{names.HeaderExchange: "1"}),
					}},
				}}
			})
			c := west.local()
			c.Timeout = time.Minute
			started := time.Now()
			a := call(t, c, request(t, http.MethodPost, "http://"+east.host("api")+"/x", strings.NewReader("abc")))
			refusal(t, a, http.StatusGatewayTimeout, "the orchestrator did not answer in time")
			if took := time.Since(started); took < 29*time.Second || took > 45*time.Second {
				t.Errorf("it took %v", took)
			}
			if v, ok := a.header[http.CanonicalHeaderKey(names.HeaderExchange)]; ok {
				t.Errorf("%s crossed: %v", names.HeaderExchange, v)
			}
		})
	}
}

// at is the phase that a message is of.
func at(m *extprocv3.ProcessingRequest) string {
	switch m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		return "request headers"
	case *extprocv3.ProcessingRequest_RequestBody:
		return "request body"
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return "response headers"
	case *extprocv3.ProcessingRequest_ResponseBody:
		return "response body"
	}
	return ""
}
