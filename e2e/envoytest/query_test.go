package envoytest

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// echo answers with the request's head.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-isthmus-route", "orchestrator")
	_, _ = fmt.Fprintf(w, "%s %s %s %s\n", r.Method, r.Host, r.URL.RequestURI(), r.Proto)
	_ = r.Header.Write(w)
}

func TestServiceQuery(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
	west.start()
	east.start()
	a := call(t, west.edge(), request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/a/b?c=d", nil))
	t.Logf("%d %v\n%s", a.code, a.header, a.body)
	if a.code != http.StatusOK {
		t.Errorf("code %d", a.code)
	}
}
