package kubernetes

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const freezeID = "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// freezePod is a Pod of two containers, of which web is wished to be frozen and answered about.
func freezePod(wish *freezer.Wish, answer *freezer.Answer) *corev1.Pod {
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a", Labels: map[string]string{labelExport: exportTrue}, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}},
			{Name: "db", Ports: []corev1.ContainerPort{{Name: "sql", ContainerPort: 5432}}},
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{ready},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "web", ContainerID: freezeID, State: *running()},
				{Name: "db", ContainerID: strings.Replace(freezeID, "0", "1", 1), State: *running()},
			}},
	}
	if wish != nil {
		pod.Annotations[freezer.Annotation] = freezer.Wishes{"web": *wish}.String()
	}
	if answer != nil {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: freezer.Condition, Message: freezer.Report{"web": *answer}.String()})
	}
	return pod
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("ab", 16)
	wish, old := &freezer.Wish{ID: id, Instance: freezeID, At: time.Now()}, &freezer.Wish{ID: id, Instance: freezeID, At: time.Unix(1, 0)}
	answer := func(state freezer.State, wish, instance string) *freezer.Answer {
		return &freezer.Answer{State: state, Wish: wish, Instance: instance}
	}
	for name, c := range map[string]struct {
		pod           *corev1.Pod
		paused, still bool
	}{
		"nothing":               {pod: freezePod(nil, nil)},
		"wished":                {pod: freezePod(wish, nil), still: true},
		"frozen":                {pod: freezePod(wish, answer(freezer.Frozen, id, freezeID)), paused: true, still: true},
		"wished long ago":       {pod: freezePod(old, nil)},
		"frozen long ago":       {pod: freezePod(old, answer(freezer.Frozen, id, freezeID)), paused: true, still: true},
		"frozen, no wish":       {pod: freezePod(nil, answer(freezer.Frozen, id, freezeID)), paused: true, still: true},
		"refused":               {pod: freezePod(wish, answer(freezer.Refused, id, freezeID))},
		"resumed":               {pod: freezePod(wish, answer(freezer.Resumed, id, freezeID))},
		"another wish refused":  {pod: freezePod(wish, answer(freezer.Refused, "other", freezeID)), still: true},
		"another one frozen":    {pod: freezePod(nil, answer(freezer.Frozen, id, "containerd://before"))},
		"another one is wished": {pod: freezePod(&freezer.Wish{ID: id, Instance: strings.Replace(freezeID, "0", "2", 1)}, nil)},
	} {
		slim, err := slimPod(c.pod.DeepCopy()) // as the cache holds it
		if err != nil {
			t.Fatal(err)
		}
		cached := slim.(*corev1.Pod)
		if got := stateFromPod(c.pod, 0, time.Now()).Status == neutral.StatusPaused; got != c.paused {
			t.Errorf("%s: paused is %t", name, got)
		}
		if stateFromPod(c.pod, 1, time.Now()).Status != neutral.StatusRunning || still(cached, "db") {
			t.Errorf("%s: its sibling does not run", name)
		}
		entry, trouble := podEntry(cached)
		if trouble != "" {
			t.Fatal(trouble)
		}
		if web, db := len(entry.Ports[0].Endpoints), len(entry.Ports[1].Endpoints); web == 1 == c.still || db != 1 {
			t.Errorf("%s: %+v", name, entry.Ports)
		}
		if got := stillAt(cached, 9999); got != c.still {
			t.Errorf("%s: a port that nobody declares: %t", name, got)
		}
		target, err := targetOf(cached, "web")
		if err != nil || target.Running == c.still {
			t.Errorf("%s: %+v, %v", name, target, err)
		}
	}
}

// TestFrozenEndpoint takes one Pod's endpoint out of a Service.
func TestFrozenEndpoint(t *testing.T) {
	t.Parallel()
	frozenPod := freezePod(nil, &freezer.Answer{State: freezer.Frozen, Instance: freezeID})
	podOf := func(target *corev1.ObjectReference) *corev1.Pod {
		if target != nil && target.Name == "p" {
			return frozenPod
		}
		return nil
	}
	number, name := int32(80), "http"
	slice, err := slimSlice(&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &number}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: "p"}},
			{Addresses: []string{"10.0.0.2"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: "q"}},
			{Addresses: []string{"10.0.0.3"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	svc := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	entry, trouble := serviceEntry(svc, []*discoveryv1.EndpointSlice{slice.(*discoveryv1.EndpointSlice)}, podOf)
	if trouble != "" || len(entry.Ports[0].Endpoints) != 2 || entry.Ports[0].Endpoints[0].Addr().String() != "10.0.0.2" {
		t.Errorf("%+v %s", entry, trouble)
	}
	pods, err := podsOfSlice(slice)
	if err != nil || strings.Join(pods, " ") != "a/p a/q" {
		t.Error(pods, err)
	}
}
