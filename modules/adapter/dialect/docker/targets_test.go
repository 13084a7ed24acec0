package docker

import (
	"maps"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestTargets holds that the list tells of each container what a location of it alone does.
func TestTargets(t *testing.T) {
	t.Parallel()
	c := locatable(t)
	for namespace, want := range map[string][]string{
		"":        {"hosted", "isolated", "joined", "orphan", "sidecar", "stopped", "web", "web.1.abc"},
		"shop":    {"web"},
		"nowhere": nil,
	} {
		targets, err := c.Targets(t.Context(), namespace)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]neutral.Target{}
		for _, target := range targets {
			found[target.Object.Name] = target
		}
		if names := slices.Sorted(maps.Keys(found)); !slices.Equal(names, want) || len(targets) != len(want) {
			t.Errorf("of %q: %v, want %v", namespace, names, want)
		}
		for name, target := range found {
			alone, err := c.Locate(t.Context(), neutral.TargetRef{Namespace: target.Object.Namespace, Container: name})
			if err != nil {
				t.Fatal(err)
			}
			if alone.Network != target.Network || alone.Address != target.Address || alone.Node != target.Node || alone.Running != target.Running {
				t.Errorf("%s: %+v, alone %+v", name, target, alone)
			}
			if target.Object.Labels == nil || target.Object.Container == nil {
				t.Errorf("%s: policies would not know it: %+v", name, target.Object)
			}
		}
	}
}
