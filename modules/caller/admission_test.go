package caller

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
)

// TestSettle holds who waits for a handshake that has just begun: container operations of callers that are let in, and
// nobody else.
func TestSettle(t *testing.T) {
	t.Parallel()
	callers, err := New(Config{Open: []modules.Class{modules.ContainerOperation, modules.ServiceQuery}})
	if err != nil {
		t.Fatal(err)
	}
	var waited []string
	edge := Admission{Callers: func() *Authenticator { return callers },
		Settle: func(_ context.Context, peer string) { waited = append(waited, peer) }}
	ask := func(class modules.Class, peer string) error {
		_, err := edge.Decide(t.Context(), &modules.Request{Class: class, To: peer, Header: http.Header{}})
		return err
	}
	if err := ask(modules.ContainerOperation, "east"); err != nil {
		t.Error(err)
	}
	if err := ask(modules.ServiceQuery, "north"); err != nil {
		t.Error(err)
	}
	if err := ask(modules.ContainerAccess, "south"); err == nil {
		t.Error("a caller that is not known was let in")
	}
	if !slices.Equal(waited, []string{"east"}) {
		t.Errorf("waited for %q", waited)
	}
	edge.Settle = nil
	if err := ask(modules.ContainerOperation, "east"); err != nil {
		t.Error(err)
	}
}
