package adapter_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestChangedType asks as a peer that has become another orchestrator, and has not said so in a handshake yet: nothing
// is read as what it is not, and the refusal is in the words of who asks.
func TestChangedType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		known, said  neutral.Orchestrator
		path, answer string
	}{
		{"docker, was kubernetes", neutral.Kubernetes, neutral.Docker, "/version", `{"message":`},
		{"kubernetes, was docker", neutral.Docker, neutral.Kubernetes, "/version", `"kind":"Status"`},
		{"something new", neutral.Docker, "nomad", "/version", "another orchestrator"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(t, nil, nil)
			module := decider(fakePolicy{foresee: always(allowed), judge: always(allowed)}, api.connect("team-a"))
			req := &modules.Request{Class: modules.ContainerOperation, Method: http.MethodGet, Path: c.path, Header: http.Header{},
				Peer: modules.Peer{Name: "west", Orchestrator: c.known, Ready: true}}
			req.Header.Set(names.HeaderOrchestrator, string(c.said))
			verdict, err := module.Decide(t.Context(), req)
			if !fault.Is(err, fault.Unavailable) || verdict.Route != nil || verdict.Answer != nil || verdict.Exchange != nil {
				t.Fatalf("%+v, %v", verdict, err)
			}
			if a := module.Refuse(req, err); a.Status != http.StatusServiceUnavailable || !strings.Contains(strings.ReplaceAll(string(a.Body), `": `, `":`), c.answer) {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			req.Header.Set(names.HeaderOrchestrator, string(c.known))
			if _, err := module.Decide(t.Context(), req); err != nil {
				t.Errorf("the type of the handshake: %v", err)
			}
			if asked := api.asked(); asked != "" {
				t.Errorf("the cluster was asked %s", asked)
			}
		})
	}
}
