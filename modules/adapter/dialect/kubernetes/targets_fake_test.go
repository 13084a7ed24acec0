package kubernetes

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestTargetsOfFakeCluster(t *testing.T) {
	t.Parallel()
	beside := newPod("beside", "10.0.0.9")
	beside.Spec.InitContainers = []corev1.Container{{Name: "sidecar"}, {Name: "ended"}}
	beside.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "sidecar", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		{Name: "ended", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	f := newFakeCluster(t, append(locatePods(), beside)...)
	waitFor(t, f.pods.informer.HasSynced)
	targets, err := f.Targets(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, target := range targets {
		state := "stands"
		if target.Running {
			state = "runs"
		}
		got = append(got, strings.Join([]string{target.Object.Name, target.Container, string(target.Network), target.Node, state}, " "))
	}
	slices.Sort(got)
	want := []string{
		"agent main host n1 runs", "beside main pod n1 runs", "beside sidecar pod n1 runs", "db-0 main pod n1 runs", "ended main pod n1 stands",
		"my-app main pod n1 runs", "two main pod n1 runs", "two sidecar pod n1 stands", "v1.2 main pod n1 runs", "web main pod n1 runs"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if none, err := f.Targets(t.Context(), "b"); err != nil || len(none) != 0 {
		t.Errorf("of another namespace: %v, %v", none, err)
	}
	f.pods.lost.Store(1) // in 1970
	if _, err := f.Targets(t.Context(), "a"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("of a cache that is cut off: %v", err)
	}
}
