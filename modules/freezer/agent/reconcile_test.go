package agent

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

// TestRead is what a Pod says of itself, wishes and answers included.
func TestRead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0).UTC()
	hex := strings.Repeat("0f", 32)
	id := scheme + hex
	wish := freezer.Wish{ID: "w", Instance: id, At: now.Add(-time.Second)}
	probe := &corev1.Probe{}
	owned := true
	for name, c := range map[string]struct {
		change  func(*corev1.Pod)
		wishes  freezer.Wishes
		before  freezer.Report
		wanted  bool // to be frozen
		refusal string
		state   freezer.State // that is answered without a look
	}{
		"nothing is wished": {},
		"wished":            {wishes: freezer.Wishes{"main": wish}, wanted: true},
		"a liveness probe": {change: func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = probe }, wishes: freezer.Wishes{"main": wish},
			wanted: true, refusal: "liveness probe"},
		"a startup probe": {change: func(p *corev1.Pod) { p.Spec.Containers[0].StartupProbe = probe }, wishes: freezer.Wishes{"main": wish},
			wanted: true, refusal: "startup probe"},
		"a readiness probe kills nothing": {change: func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = probe },
			wishes: freezer.Wishes{"main": wish}, wanted: true},
		"a sibling's liveness probe": {change: func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side", LivenessProbe: probe})
		}, wishes: freezer.Wishes{"main": wish}, wanted: true},
		"a controller's": {change: func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", Controller: &owned}}
		}, wishes: freezer.Wishes{"main": wish}, wanted: true, refusal: "belongs to ReplicaSet web"},
		"started anew since": {change: func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ContainerID = scheme + strings.Repeat("1e", 32) },
			wishes: freezer.Wishes{"main": wish}, state: freezer.Ended},
		"does not run": {change: func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} },
			wishes: freezer.Wishes{"main": wish}, state: freezer.Ended},
		"is being deleted": {change: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} },
			wishes: freezer.Wishes{"main": wish}, state: freezer.Ended},
		"has ended":           {change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, wishes: freezer.Wishes{"main": wish}, state: freezer.Ended},
		"asked too long ago":  {wishes: freezer.Wishes{"main": {ID: "w", Instance: id, At: now.Add(-time.Hour)}}, state: freezer.Refused},
		"asked in the future": {wishes: freezer.Wishes{"main": {ID: "w", Instance: id, At: now.Add(time.Hour)}}, state: freezer.Refused},
		"asked long ago, and frozen since": {wishes: freezer.Wishes{"main": {ID: "w", Instance: id, At: now.Add(-time.Hour)}},
			before: freezer.Report{"main": {Wish: "w", Instance: id, State: freezer.Frozen}}, wanted: true},
		"refused once is refused": {wishes: freezer.Wishes{"main": wish},
			before: freezer.Report{"main": {Wish: "w", Instance: id, State: freezer.Refused}}, state: freezer.Refused},
		"another wish was refused": {wishes: freezer.Wishes{"main": wish},
			before: freezer.Report{"main": {Wish: "v", Instance: id, State: freezer.Refused}}, wanted: true},
		"for a container that is none": {wishes: freezer.Wishes{"other": wish}},
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "uid"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: id,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
		}
		if c.change != nil {
			c.change(pod)
		}
		kept, err := slim(pod) // as the cache holds it
		if err != nil {
			t.Fatal(err)
		}
		report, subjects := read(kept.(*corev1.Pod), c.wishes, c.before, now)
		if len(subjects) != 1 {
			t.Fatalf("%s: %v", name, subjects)
		}
		s := slices.Collect(maps.Values(subjects))[0]
		if (s.Wish != "") != c.wanted || s.Pod != "uid" || !strings.Contains(s.Refusal, c.refusal) || (s.Refusal != "") != (c.refusal != "") {
			t.Errorf("%s: %+v", name, s)
		}
		if report["main"].State != c.state || len(report) > 1 {
			t.Errorf("%s: %+v", name, report)
		}
	}
}
