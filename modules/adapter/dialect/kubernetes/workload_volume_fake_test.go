package kubernetes

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestUpdateUndoesVolumes holds that an update that is denied makes no volumes, and that one that fails leaves none.
func TestUpdateUndoesVolumes(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	spec := neutral.Workload{Name: "web", Replicas: 1, Template: neutral.Container{Image: "web:1"}}
	if _, err := f.run(t, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &spec}); err != nil {
		t.Fatal(err)
	}
	claims := func() (made, left int) {
		t.Helper()
		for _, call := range f.client.Actions() {
			if call.Matches("create", "persistentvolumeclaims") {
				made++
			}
		}
		list, err := f.client.CoreV1().PersistentVolumeClaims("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made, len(list.Items)
	}
	spec.Template.Mounts = []neutral.Mount{{Type: "volume", Source: "data", Target: "/srv"}}
	update := neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &spec}
	unmounted := func(object neutral.Object) (dialect.Terms, error) {
		if object.Kind == neutral.KindWorkload && object.Container != nil && len(object.Container.Mounts) > 0 {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission: mounts")
		}
		return dialect.Terms{}, nil
	}
	plan, err := f.Plan(update, unmounted)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Program(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("a denied update: %v", err)
	}
	if made, _ := claims(); made != 0 {
		t.Errorf("an update that was denied made %d volumes", made)
	}
	broken := true
	f.react("update", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		if broken {
			return true, nil, errors.New("broken")
		}
		return false, nil, nil
	})
	if _, err := f.run(t, update); err == nil {
		t.Error("a save that fails is told as done")
	}
	if made, left := claims(); made != 1 || left != 0 {
		t.Errorf("an update that failed made %d volumes, and left %d", made, left)
	}
	broken = false
	if _, err := f.run(t, update); err != nil {
		t.Fatal(err)
	}
	if made, left := claims(); made != 2 || left != 1 {
		t.Errorf("an update made %d volumes, and left %d", made, left)
	}
}
