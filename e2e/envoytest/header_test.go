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
	return modules.Verdict{Route: &modules.Route{Upstream: names.Orchestrator, Set: header}}, nil
}

func (several) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// TestSeveralValues holds that each value of a header that external processing sets arrives, in the place of the caller's
// own: groups that a request is made in, among others.
func TestSeveralValues(t *testing.T) {
	t.Parallel()
	got := make(chan []string, 1)
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Values("X-Several") }))
		server := extproc.New(extproc.Config{Zone: extproc.NewZone("east", names.DefaultSuffix), Modules: []modules.Module{several{}},
			Fallback: several{}, Peer: func(string) modules.Peer { return modules.Peer{Name: "west"} }, Deadline: time.Second, Log: discard()})
		_ = os.Remove(east.socket(names.ExtProcSocket))
		listener, err := net.Listen("unix", east.socket(names.ExtProcSocket))
		if err != nil {
			t.Fatal(err)
		}
		g := grpc.NewServer()
		server.Register(g)
		go func() { _ = g.Serve(listener) }()
		t.Cleanup(g.Stop)
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
