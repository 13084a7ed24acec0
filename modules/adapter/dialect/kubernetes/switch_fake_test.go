package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakedynamic "k8s.io/client-go/dynamic/fake"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// someTemplate is a template as somebody may write one, with fields of which nobody here knows.
func someTemplate(r *rand.Rand) map[string]any {
	spec := map[string]any{"restartPolicy": "Always"}
	if r.IntN(4) > 0 {
		spec["dnsPolicy"] = []string{"ClusterFirst", "Default", "None", "ClusterFirstWithHostNet"}[r.IntN(4)]
	}
	if r.IntN(3) == 0 {
		spec["field-of-another-day"] = map[string]any{"a": []any{int64(1), 0.5, true, ""}}
	}
	for _, list := range []string{"containers", "initContainers"} {
		var containers []any
		for i := range r.IntN(3) {
			container := map[string]any{"name": fmt.Sprintf("c%d", i), "image": "busybox"}
			var ports []any
			for range r.IntN(3) {
				port := map[string]any{"containerPort": int64(1 + r.IntN(1000))}
				if r.IntN(2) == 0 {
					port["protocol"] = []string{"TCP", "UDP", "SCTP"}[r.IntN(3)]
				}
				if r.IntN(4) == 0 {
					port["hostPort"] = int64(1 + r.IntN(1000))
				}
				ports = append(ports, port)
			}
			if ports != nil {
				container["ports"] = ports
			}
			containers = append(containers, container)
		}
		if containers != nil {
			spec[list] = containers
		}
	}
	return map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}, "creationTimestamp": nil}, "spec": spec}
}

// aSwitching is a switch of what note says, whose journal is in memory.
func aSwitching(t *testing.T, note *switchNote, from, to neutral.NetworkMode) (*neutral.Switching, *[]string) {
	t.Helper()
	raw, err := note.raw()
	if err != nil {
		t.Fatal(err)
	}
	steps := &[]string{}
	s := &neutral.Switching{ID: "l1", Peer: "west", Plan: neutral.SwitchPlan{From: from, To: to, Native: raw}}
	s.Step = func(_ context.Context, step string, native json.RawMessage) error {
		*steps = append(*steps, step)
		if native != nil {
			s.Plan.Native = native
		}
		return nil
	}
	return s, steps
}

// fakeWorkload is a fake cluster with one workload at rest, whose one Pod is in a mode.
func fakeWorkload(t *testing.T, kind string, template, strategy map[string]any, annotations map[string]any) (*fakeCluster, func(neutral.NetworkMode), func() *unstructured.Unstructured) {
	t.Helper()
	metadata := map[string]any{"name": "web", "namespace": "a", "uid": "u1"}
	if annotations != nil {
		metadata["annotations"] = annotations
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
		"spec": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}, "template": template, switchedKinds[kind].strategy: strategy},
		"status": map[string]any{"replicas": int64(1), "updatedReplicas": int64(1), "readyReplicas": int64(1), "desiredNumberScheduled": int64(1),
			"updatedNumberScheduled": int64(1), "numberReady": int64(1)}}}
	controller := true
	pod := newPod("web-1", "10.0.0.1")
	pod.Labels = map[string]string{"app": "web"}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "web", UID: "u1", Controller: &controller}}
	f := newFakeCluster(t, pod)
	waitFor(t, f.pods.informer.HasSynced)
	gvr := switchedKinds[kind].resource
	f.dynamic = fakedynamic.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{gvr: kind + "List"}, object)
	move := func(mode neutral.NetworkMode) {
		next := pod.DeepCopy()
		next.Spec.HostNetwork = mode == neutral.NetworkHost
		if _, err := f.client.CoreV1().Pods("a").Update(t.Context(), next, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}
	live := func() *unstructured.Unstructured {
		u, err := f.dynamic.Resource(gvr).Namespace("a").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		u.SetResourceVersion("")
		if len(u.GetAnnotations()) == 0 { // the API says so by saying nothing
			u.SetAnnotations(nil)
		}
		return u
	}
	return f, move, live
}

// TestFakeWorkloadThereAndBack holds that a switch of any template changes nothing but the mode, and that its restoration
// changes everything back.
func TestFakeWorkloadThereAndBack(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		kind := []string{kindDaemonSet, kindStatefulSet}[r.IntN(2)]
		template := someTemplate(r)
		from, to := neutral.NetworkPod, neutral.NetworkHost
		if r.IntN(3) == 0 {
			from, to = to, from
			template["spec"] = withMode(replica.Object(template, "spec"), from)
		}
		strategy := map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": int64(1), "maxUnavailable": int64(0)}}
		var annotations map[string]any
		if r.IntN(2) == 0 {
			annotations = map[string]any{"example.com/a": "b"}
		}
		f, move, live := fakeWorkload(t, kind, template, strategy, annotations)
		before := live()
		wrote, _ := replica.Clone(template).(map[string]any)
		wrote["spec"] = withMode(replica.Object(template, "spec"), to)
		note := &switchNote{Kind: kind, Namespace: "a", Name: "web", UID: "u1", Pod: "web-1", Template: template, Wrote: wrote,
			Strategy: strategy, WroteStrategy: oldFirst(kind, strategy)}
		s, steps := aSwitching(t, note, from, to)
		move(to)
		ref, err := f.Switch(t.Context(), s)
		if err != nil || ref.Pod != "web-1" || ref.Namespace != "a" {
			t.Fatalf("%d: %+v, %v", i, ref, err)
		}
		there := live()
		if modeOf(replica.Object(there.Object, "spec", "template", "spec")) != to || there.GetAnnotations()[annotationSwitch] != "l1" {
			t.Fatalf("%d: %v", i, there.Object)
		}
		move(from)
		if err := f.Restore(t.Context(), s); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if diff := cmp.Diff(before.Object, live().Object); diff != "" || len(*steps) != 2 {
			t.Fatalf("%d: steps %q: %s", i, *steps, diff)
		}
		if err := f.Restore(t.Context(), s); err != nil || len(*steps) != 2 {
			t.Fatalf("%d: once more: steps %q, %v", i, *steps, err)
		}
	}
}

// TestFakeWorkloadOfSomebodyElse holds that nothing is overwritten of what somebody else made, and that only the annotation goes.
func TestFakeWorkloadOfSomebodyElse(t *testing.T) {
	t.Parallel()
	template := map[string]any{"spec": map[string]any{"containers": []any{}}}
	wrote := map[string]any{"spec": withMode(map[string]any{"containers": []any{}}, neutral.NetworkHost)}
	other := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "new"}}}}
	strategy := map[string]any{"type": "RollingUpdate"}
	note := &switchNote{Kind: kindDaemonSet, Namespace: "a", Name: "web", UID: "u1", Template: template, Wrote: wrote, Strategy: strategy, WroteStrategy: strategy}
	for name, c := range map[string]struct {
		template    map[string]any
		annotations map[string]any
		uid         string
		steps       int
		switches    bool
	}{
		"changed":               {other, map[string]any{annotationSwitch: "l1", "example.com/a": "b"}, "u1", 1, false},
		"changed long ago":      {other, map[string]any{"example.com/a": "b"}, "u1", 0, false},
		"switched by another":   {other, map[string]any{annotationSwitch: "l2", "example.com/a": "b"}, "u1", 0, false},
		"another of its name":   {template, map[string]any{"example.com/a": "b"}, "u2", 0, false},
		"in another's switch":   {template, map[string]any{annotationSwitch: "l2"}, "u1", 0, true},
		"switched by its owner": {wrote, map[string]any{"example.com/a": "b"}, "u1", 0, true},
	} {
		f, _, live := fakeWorkload(t, kindDaemonSet, c.template, strategy, c.annotations)
		before := live()
		note.UID = c.uid
		s, steps := aSwitching(t, note, neutral.NetworkPod, neutral.NetworkHost)
		if _, err := f.Switch(t.Context(), s); !fault.Is(err, fault.Conflict) || len(*steps) != 0 {
			t.Errorf("%s: a switch: %v, steps %q", name, err, *steps)
		}
		if c.switches {
			continue
		}
		if err := f.Restore(t.Context(), s); !fault.Is(err, fault.Conflict) || len(*steps) != c.steps {
			t.Errorf("%s: a restoration: %v, steps %q", name, err, *steps)
		}
		annotations := before.GetAnnotations()
		if annotations[annotationSwitch] == "l1" {
			delete(annotations, annotationSwitch)
		}
		before.SetAnnotations(annotations)
		if diff := cmp.Diff(before.Object, live().Object); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestTakeOver holds that what somebody changed of a Pod while it was switched is in the one that comes after it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	object := parsed(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"a","labels":{"a":"1","b":"2"}},
		"spec":{"dnsPolicy":"ClusterFirst","containers":[{"name":"main","image":"busybox:1"}]}}`)
	before := replica.Clone(object)
	s, _ := aSwitching(t, &switchNote{Kind: kindPod, Object: object}, neutral.NetworkPod, neutral.NetworkHost)
	run := &switchRun{switching: s, note: &switchNote{Kind: kindPod, Object: object}}
	live := &unstructured.Unstructured{Object: run.switched()}
	if mode := modeOf(replica.Object(live.Object, "spec")); mode != neutral.NetworkHost || live.GetAnnotations()[annotationSwitch] != "l1" {
		t.Fatalf("%v", live.Object)
	}
	run.takeOver(live)
	if diff := cmp.Diff(before, any(run.note.Object)); diff != "" {
		t.Errorf("nobody changed anything: %s", diff)
	}
	live.SetLabels(map[string]string{"a": "1", "c": "3"})
	live.SetAnnotations(map[string]string{annotationSwitch: "l1", annotationReplacing: "now", "example.com/a": "b", addressNotes[0]: "10.0.0.1/32"})
	replica.List(live.Object, "spec", "containers")[0].(map[string]any)["image"] = "busybox:2"
	for range 2 {
		run.takeOver(live)
	}
	want := parsed(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"a","labels":{"a":"1","c":"3"},"annotations":{"example.com/a":"b"}},
		"spec":{"dnsPolicy":"ClusterFirst","containers":[{"name":"main","image":"busybox:2"}]}}`)
	if diff := cmp.Diff(want, run.note.Object); diff != "" {
		t.Error(diff)
	}
}

// TestChosenPod holds which Pod of a workload takes the target's place.
func TestChosenPod(t *testing.T) {
	t.Parallel()
	pod := func(name, node string, spoil func(*corev1.Pod)) corev1.Pod {
		p := newPod(name, "10.0.0.1")
		p.Spec.NodeName, p.Spec.HostNetwork = node, true
		if spoil != nil {
			spoil(p)
		}
		return *p
	}
	note := &switchNote{Pod: "db-0", Node: "n1"}
	now := metav1.Now()
	for name, c := range map[string]struct {
		pods []corev1.Pod
		want string
	}{
		"its name":        {[]corev1.Pod{pod("a", "n1", nil), pod("db-0", "n2", nil)}, "db-0"},
		"its node":        {[]corev1.Pod{pod("a", "n2", nil), pod("b", "n1", nil)}, "b"},
		"any":             {[]corev1.Pod{pod("b", "n3", nil), pod("a", "n2", nil)}, "a"},
		"a ready one":     {[]corev1.Pod{pod("a", "n1", func(p *corev1.Pod) { p.Status.Conditions = nil }), pod("b", "n2", nil)}, "b"},
		"of the new mode": {[]corev1.Pod{pod("a", "n1", func(p *corev1.Pod) { p.Spec.HostNetwork = false })}, ""},
		"one that stays":  {[]corev1.Pod{pod("a", "n1", func(p *corev1.Pod) { p.DeletionTimestamp = &now })}, ""},
	} {
		got := ""
		if best := chosen(c.pods, note, neutral.NetworkHost); best != nil {
			got = best.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
