package envoytest

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/accesslog"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// sender sends a request where its path says, or translates it.
type sender struct{}

func (sender) Class() modules.Class { return modules.ContainerOperation }

func (sender) Decide(_ context.Context, req *modules.Request) (modules.Verdict, error) {
	where := strings.Trim(req.Path, "/")
	record := modules.Record{Verb: neutral.Get, Object: neutral.Object{Kind: neutral.KindContainer, Namespace: "team-a", Name: "web"},
		Rule: "west/0", Upstream: where}
	if where == "translated" {
		record.Upstream = names.Orchestrator
		return modules.Verdict{Exchange: passing{record}, Record: record}, nil
	}
	route := &modules.Route{Upstream: where}
	if where == names.Orchestrator {
		route.Upstream = toOrchestrator
	}
	return modules.Verdict{Route: route, Record: record}, nil
}

func (sender) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// passing is a translation that changes nothing.
type passing struct{ record modules.Record }

func (passing) NeedBody() bool           { return false }
func (p passing) Record() modules.Record { return p.record }
func (passing) End()                     {}
func (passing) Request(context.Context, []byte) (modules.Rewrite, *modules.Verdict, error) {
	return modules.Rewrite{Route: modules.Route{Upstream: toOrchestrator, Method: http.MethodGet, Path: "/"}, NoBody: true}, nil, nil
}
func (passing) Response(_ context.Context, native modules.Answer) (modules.Answer, error) {
	return native, nil
}

// TestEnds holds that isthmus hears how a request ended that it handed on, and of no other, for of those it knows.
func TestEnds(t *testing.T) {
	t.Parallel()
	ends := make(chan accesslog.End, 16)
	slow := make(chan struct{})
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Slow") != "" {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				close(slow)
				<-r.Context().Done()
				return
			}
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "short and stout")
		}))
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		east.asks(sender{})
		east.grpc(names.ALSSocket, (&accesslog.Server{Ended: func(e accesslog.End) { ends <- e }}).Register)
	})
	heard := func() accesslog.End {
		t.Helper()
		select {
		case e := <-ends:
			return e
		case <-time.After(waits):
			t.Fatal("nothing was heard of the end")
			return accesslog.End{}
		}
	}
	ask := func(where, requestID string) *http.Request {
		r := request(t, http.MethodGet, "http://"+east.host("api")+"/"+where, nil)
		r.Header.Set(names.HeaderRequestID, requestID)
		r.Header.Set(names.HeaderCaller, "ci-1")
		return r
	}
	for _, silent := range []string{"translated", names.Bridge} {
		if a := call(t, west.local(), ask(silent, silent)); a.code >= 500 {
			t.Fatalf("%s: %d %s", silent, a.code, a.body)
		}
	}
	if a := call(t, west.local(), ask(names.Orchestrator, "handed-on")); a.code != http.StatusTeapot {
		t.Fatalf("%d %s", a.code, a.body)
	}
	e := heard()
	took := e.Duration
	e.Duration = 0
	want := accesslog.End{ID: "handed-on", Peer: "west", Caller: "ci-1", Class: "container-operation", Verb: "get", Kind: "container",
		Namespace: "team-a", Name: "web", Rule: "west/0", Upstream: names.Orchestrator, Status: http.StatusTeapot, Sent: 15}
	if e != want || took <= 0 || took > waits {
		t.Errorf("heard %+v after %v, want %+v", e, took, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	broken := ask(names.Orchestrator, "broken").WithContext(ctx)
	broken.Header.Set("X-Slow", "yes")
	response, err := west.local().Do(broken)
	if err != nil {
		t.Fatal(err)
	}
	<-slow
	cancel()
	_ = response.Body.Close()
	if e := heard(); e.ID != "broken" || e.Status != http.StatusOK || !strings.Contains(e.Broke, "went away") {
		t.Errorf("heard %+v", e)
	}
}
