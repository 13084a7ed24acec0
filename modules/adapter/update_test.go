package adapter_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestUpdateByName holds that a rule for a service's name is asked about its name, though docker's clients put its id
// into the path.
func TestUpdateByName(t *testing.T) {
	t.Parallel()
	byName := func(_ modules.Subject, _ neutral.Verb, object neutral.Object) modules.Judgement {
		if object.Name == "ci-web" {
			return modules.Judgement{Allowed: true, Rule: "ci"}
		}
		return denied
	}
	for name, allow := range map[string]bool{"ci-web": true, "shop": false} {
		target := fakeCluster{plan: func(neutral.Operation, dialect.Guard) (dialect.Plan, error) {
			return program(func(context.Context) (neutral.Result, error) { return neutral.Result{}, nil })
		}}
		module := decider(fakePolicy{foresee: always(open), judge: byName}, target)
		verdict, err := module.Decide(t.Context(), &modules.Request{
			Class: modules.ContainerOperation, Peer: modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true},
			Method: http.MethodPost, Path: "/v1.44/services/1snvdzgqa1fhh5pdsj7blctlz/update?version=1",
			Header: http.Header{"Content-Type": {"application/json"}},
		})
		if err != nil || verdict.Exchange == nil {
			t.Fatalf("the head: %+v, %v", verdict, err)
		}
		_, other, err := verdict.Exchange.Request(t.Context(),
			[]byte(`{"Name":"`+name+`","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`))
		switch {
		case allow && (err != nil || other == nil || other.Route.Upstream != names.Bridge || other.Record.Rule != "ci"):
			t.Errorf("%s: %+v, %v", name, other, err)
		case !allow && !fault.Is(err, fault.Denied):
			t.Errorf("%s: %+v, %v", name, other, err)
		}
	}
}
