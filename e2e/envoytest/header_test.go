package envoytest

import (
	"context"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/extproc"
	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// several is a module that sets a header of several values, on what it routes and on what it answers.
type several struct{}

func (several) Class() modules.Class { return modules.ContainerOperation }

func (several) Decide(_ context.Context, req *modules.Request) (modules.Verdict, error) {
	header := http.Header{"X-Several": {"one", "two", "three"}}
	if req.Path == "/answer" {
		return modules.Verdict{Answer: &modules.Answer{Status: http.StatusOK, Header: header}}, nil
	}
	return modules.Verdict{Route: &modules.Route{Upstream: toOrchestrator, Set: header}}, nil
}

func (several) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// asks runs the gateway's own external-processing server with one module.
func (g *gateway) asks(module modules.Module) {
	g.t.Helper()
	server := extproc.New(extproc.Config{Zone: extproc.NewZone(g.model.Gateway.Cluster, names.DefaultSuffix), Modules: []modules.Module{module},
		Fallback: module, Peer: func(string) modules.Peer { return modules.Peer{Name: "west"} }, Deadline: time.Second, Log: discard()})
	g.grpc(names.ExtProcSocket, server.Register)
}

// grpc runs one of isthmus' own gRPC servers.
func (g *gateway) grpc(socket string, register func(grpc.ServiceRegistrar)) {
	g.t.Helper()
	_ = os.Remove(g.socket(socket))
	listener, err := net.Listen("unix", g.socket(socket))
	if err != nil {
		g.t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	go func() { _ = s.Serve(listener) }()
	g.t.Cleanup(s.Stop)
}

// TestSeveralValues holds that each value of a header that external processing sets arrives, in the place of the caller's
// own: groups that a request is made in, among others.
func TestSeveralValues(t *testing.T) {
	t.Parallel()
	got := make(chan []string, 1)
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Values("X-Several") }))
		east.asks(several{})
	})
	want := []string{"one", "two", "three"}
	r := request(t, http.MethodGet, "http://"+east.host("api")+"/route", nil)
	r.Header["X-Several"] = []string{"of the caller", "another"}
	if a := call(t, west.local(), r); a.code != http.StatusOK {
		t.Fatalf("%d %s", a.code, a.body)
	}
	if values := <-got; !slices.Equal(values, want) {
		t.Errorf("the orchestrator got %q", values)
	}
	if a := call(t, west.local(), request(t, http.MethodGet, "http://"+east.host("api")+"/answer", nil)); !slices.Equal(a.header.Values("X-Several"), want) {
		t.Errorf("the caller got %q", a.header.Values("X-Several"))
	}
}
