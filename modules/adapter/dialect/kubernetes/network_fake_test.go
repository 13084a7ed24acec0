package kubernetes

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// hides is a guard that denies what has one of the names, as if it were not there.
func hides(names ...string) dialect.Guard {
	return func(object neutral.Object) (dialect.Terms, error) {
		if slices.Contains(names, object.Name) {
			return dialect.Terms{}, fault.New(fault.NotFound, "No such %s: %s", object.Kind, object.Name)
		}
		return dialect.Terms{}, nil
	}
}

// runAs is run with another guard.
func (f *fakeCluster) runAs(t *testing.T, guard dialect.Guard, op neutral.Operation) (neutral.Result, error) {
	t.Helper()
	plan, err := f.Plan(op, guard)
	if err != nil {
		return neutral.Result{}, err
	}
	defer f.doing(op.Action)()
	return plan.Program(t.Context())
}

func (f *fakeCluster) makeNetwork(t *testing.T, name string) {
	t.Helper()
	if _, err := f.run(t, neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: name, Driver: "bridge"}}); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkLeavesOthersAlone holds that a Service and a policy that are not a network's are neither taken nor deleted.
func TestNetworkLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	foreign := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "net-front", Namespace: "default", UID: "foreign"}}
	f := newIdleCluster(t, foreign)
	create := neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "front", Driver: "bridge"}}
	if _, err := f.run(t, create); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "a Service net-front of its own") {
		t.Errorf("create beside a foreign Service: %v", err)
	}
	policies := f.client.NetworkingV1().NetworkPolicies("default")
	if list, err := policies.List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("half of a network stays: %v, %v", list, err)
	}
	// A network as one made by an earlier gateway beside that Service.
	policy, err := policyFromNetwork(create.Network, "default")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.NetworkRemove, Ref: "front"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.CoreV1().Services("default").Get(t.Context(), "net-front", metav1.GetOptions{}); err != nil {
		t.Errorf("the foreign Service is gone: %v", err)
	}
	if _, err := policies.Get(t.Context(), "net-front", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the network's policy stays: %v", err)
	}
	// The policy's name is another's: the Service that was made for nothing goes again.
	other := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "net-back", Namespace: "default"}}
	if _, err := policies.Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create.Network.Name = "back"
	if _, err := f.run(t, create); !fault.Is(err, fault.Conflict) {
		t.Errorf("create beside a foreign policy: %v", err)
	}
	if _, err := f.client.CoreV1().Services("default").Get(t.Context(), "net-back", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Service of a network that was not made: %v", err)
	}
}

// TestNetworkDeletedExactly holds that what is deleted is what was looked at.
func TestNetworkDeletedExactly(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	f.makeNetwork(t, "shop_front")
	if _, err := f.run(t, neutral.Operation{Action: neutral.NetworkRemove, Ref: "shop_front"}); err != nil {
		t.Fatal(err)
	}
	deleted := 0
	for _, call := range f.client.Actions() {
		if d, ok := call.(clienttesting.DeleteActionImpl); ok {
			deleted++
			if p := d.DeleteOptions.Preconditions; p == nil || p.UID == nil || *p.UID == "" {
				t.Errorf("%s is deleted whichever it is", d.GetResource().Resource)
			}
		}
	}
	if deleted != 2 {
		t.Errorf("%d objects were deleted", deleted)
	}
}

// TestNetworkHidesMembers holds that nobody hears of a container by way of its network that policy hides from them.
func TestNetworkHidesMembers(t *testing.T) {
	t.Parallel()
	front := neutral.NetworkAttachment{Name: "front"}
	hidden := networkedPod(t, "hidden", "10.0.0.2", front)
	hidden.UID = "u-2"
	f := newIdleCluster(t, networkedPod(t, "web", "10.0.0.1", front), hidden)
	f.makeNetwork(t, "front")
	var last neutral.Object
	guard := func(object neutral.Object) (dialect.Terms, error) {
		terms, err := hides("hidden")(object)
		if err == nil {
			last = object
		}
		return terms, err
	}
	result, err := f.runAs(t, guard, neutral.Operation{Action: neutral.NetworkGet, Ref: "front"})
	if err != nil || len(result.Network.Members) != 1 || result.Network.Members[0].Name != "web" || last.Kind != neutral.KindNetwork {
		t.Errorf("%+v, %v; the record is about the %s %s", result.Network, err, last.Kind, last.Name)
	}
	remove := neutral.Operation{Action: neutral.NetworkRemove, Ref: "front"}
	_, err = f.runAs(t, hides("web", "hidden"), remove)
	if !fault.Is(err, fault.Conflict) || !strings.HasSuffix(err.Error(), "has active endpoints") {
		t.Errorf("remove with hidden users: %v", err)
	}
	if _, err = f.run(t, remove); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), `active endpoints (name:"`) {
		t.Errorf("remove with users: %v", err)
	}
}

// TestVolumeHidesUser holds the same of a volume.
func TestVolumeHidesUser(t *testing.T) {
	t.Parallel()
	pod := newPod("hidden", "")
	pod.Namespace = "default"
	pod.Spec.Volumes = []corev1.Volume{{Name: volumeNamed + "a", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	f := newIdleCluster(t, pod, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "default"}})
	remove := neutral.Operation{Action: neutral.VolumeRemove, Ref: "data"}
	if _, err := f.runAs(t, hides("hidden"), remove); !fault.Is(err, fault.Conflict) || !strings.HasSuffix(err.Error(), "volume is in use") {
		t.Errorf("a hidden user: %v", err)
	}
	if _, err := f.run(t, remove); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "volume is in use - [") {
		t.Errorf("a user: %v", err)
	}
}

// TestAnonymousVolumeOfTwo holds that a volume stays that another container mounts, whoever made it.
func TestAnonymousVolumeOfTwo(t *testing.T) {
	t.Parallel()
	mounting := func(name string, volumes ...string) *corev1.Pod {
		pod := newPod(name, "")
		pod.Namespace, pod.UID, pod.Status.Phase = "default", types.UID("u-"+name), corev1.PodSucceeded
		for _, volume := range volumes {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: volume}}})
		}
		return pod
	}
	shared, own := volumeAnonymous+"shared", volumeAnonymous+"own"
	claim := func(name string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name),
			Labels: map[string]string{labelVolume: claimAnonymous}}}
	}
	one := mounting("one", shared, own)
	f := newIdleCluster(t, one, mounting("two", shared), claim(shared), claim(own))
	if err := f.dropAnonymous(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	list, err := f.client.CoreV1().PersistentVolumeClaims("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != shared {
		t.Errorf("left are %v, %v", list, err)
	}
}

// TestStartWithoutItsNetwork holds that a container does not start open to all once its network is gone, which goes
// while only containers are on it that do not run, as with an engine.
func TestStartWithoutItsNetwork(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	f.node(t, fakeKubelet{})
	f.makeNetwork(t, "front")
	create := neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Name: "web", Image: "busybox",
		Networks: []neutral.NetworkAttachment{{Name: "front"}}}}
	start := neutral.Operation{Action: neutral.ContainerStart, Ref: "web"}
	if plan, err := f.Plan(create, allowAll); err != nil {
		t.Fatal(err)
	} else if _, err := plan.Program(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(t, neutral.Operation{Action: neutral.NetworkRemove, Ref: "front"}); err != nil {
		t.Fatalf("remove of a network on which nothing runs: %v", err)
	}
	if _, err := f.run(t, start); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "network front not found") {
		t.Errorf("start without its network: %v", err)
	}
	if found := f.see(t, "web"); !gated(found.pod) {
		t.Error("it runs")
	}
	f.makeNetwork(t, "front")
	if _, err := f.run(t, start); err != nil {
		t.Errorf("start with its network: %v", err)
	}
}

// TestNetworksChangedAtOnce holds that of two changes at once none undoes the other.
func TestNetworksChangedAtOnce(t *testing.T) {
	t.Parallel()
	pod := networkedPod(t, "web", "10.0.0.1", neutral.NetworkAttachment{Name: "a"})
	pod.ResourceVersion = "7"
	f := newIdleCluster(t, pod)
	f.makeNetwork(t, "a")
	f.makeNetwork(t, "b")
	f.makeNetwork(t, "c")
	once := false
	f.react("patch", "pods", func(call clienttesting.Action) (bool, runtime.Object, error) {
		var patch struct {
			Metadata struct{ ResourceVersion string }
		}
		if err := json.Unmarshal(call.(clienttesting.PatchAction).GetPatch(), &patch); err != nil {
			t.Error(err)
		}
		if once {
			return false, nil, nil
		}
		once = true
		// Somebody else puts it on c and takes it off a. The fake API does not compare versions.
		now := networkedPod(t, "web", "10.0.0.1", neutral.NetworkAttachment{Name: "c"})
		now.ResourceVersion = "8"
		if err := f.client.Tracker().Update(podResource, now, "default"); err != nil {
			t.Error(err)
		}
		if patch.Metadata.ResourceVersion == "7" {
			return true, nil, apierrors.NewConflict(podResource.GroupResource(), "web", context.Canceled)
		}
		return false, nil, nil
	})
	if _, err := f.run(t, neutral.Operation{Action: neutral.NetworkJoin, Ref: "b", Member: &neutral.NetworkMember{Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	now, err := f.client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, n := range networksFromMeta(now.ObjectMeta) {
		on = append(on, n.Name)
	}
	if !slices.Equal(on, []string{"c", "b"}) || now.Labels[networkLabel+"a"] != "" {
		t.Errorf("it is on %v, %v", on, now.Labels)
	}
}

// TestInternalNetwork holds that an internal network lets nothing out of the cluster, not even by the port of DNS.
func TestInternalNetwork(t *testing.T) {
	t.Parallel()
	policy, err := policyFromNetwork(&neutral.Network{Name: "front", Internal: true}, "default")
	if err != nil {
		t.Fatal(err)
	}
	if len(policy.Spec.Egress) != 2 {
		t.Fatalf("%+v", policy.Spec.Egress)
	}
	for _, rule := range policy.Spec.Egress {
		if len(rule.To) == 0 {
			t.Errorf("to anywhere: %+v", rule)
		}
		for _, to := range rule.To {
			if to.IPBlock != nil || to.PodSelector == nil && to.NamespaceSelector == nil {
				t.Errorf("to no Pods: %+v", to)
			}
		}
	}
}
