package kubernetes

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func locatePods() []runtime.Object {
	host := newPod("agent", "192.168.0.7")
	host.Spec.HostNetwork = true
	two := newPod("two", "10.0.0.2")
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "sidecar"})
	set := newPod("db-0", "10.0.0.3")
	set.Spec.Subdomain = "db"
	ended := newPod("ended", "10.0.0.4")
	ended.Status.Phase = corev1.PodSucceeded
	ended.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	renamed := newPod("my-app", "10.0.0.5")
	renamed.Annotations = map[string]string{annotationName: "My_App"}
	return []runtime.Object{newPod("web", "10.0.0.1"), host, two, set, ended, renamed, newPod("v1.2", "10.0.0.6")}
}

func TestLocateInFakeCluster(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, locatePods()...)
	waitFor(t, f.pods.informer.HasSynced)
	for _, c := range []struct {
		name    string
		ref     neutral.TargetRef
		want    string // pod, address, network, running
		fault   fault.Kind
		isFault bool
	}{
		{"pod", neutral.TargetRef{Namespace: "a", Pod: "web"}, "web 10.0.0.1 pod true", 0, false},
		{"pod by access name", neutral.TargetRef{Namespace: "a", Container: "web"}, "web 10.0.0.1 pod true", 0, false},
		{"right node", neutral.TargetRef{Namespace: "a", Pod: "web", Node: "n1"}, "web 10.0.0.1 pod true", 0, false},
		{"wrong node", neutral.TargetRef{Namespace: "a", Pod: "web", Node: "n2"}, "", fault.Conflict, true},
		{"host network", neutral.TargetRef{Namespace: "a", Pod: "agent"}, "agent 192.168.0.7 host true", 0, false},
		{"container", neutral.TargetRef{Namespace: "a", Pod: "two", Container: "main"}, "two 10.0.0.2 pod true", 0, false},
		{"container that does not run", neutral.TargetRef{Namespace: "a", Pod: "two", Container: "sidecar"}, "two invalid IP pod false", 0, false},
		{"container.pod", neutral.TargetRef{Namespace: "a", Container: "main.two"}, "two 10.0.0.2 pod true", 0, false},
		{"pod.container", neutral.TargetRef{Namespace: "a", Container: "two.main"}, "two 10.0.0.2 pod true", 0, false},
		{"no such container", neutral.TargetRef{Namespace: "a", Pod: "two", Container: "none"}, "", fault.NotFound, true},
		{"no such container.pod", neutral.TargetRef{Namespace: "a", Container: "none.two"}, "", fault.NotFound, true},
		{"stateful set", neutral.TargetRef{Namespace: "a", Pod: "db-0"}, "db-0 10.0.0.3 pod true", 0, false},
		{"stateful set by its host name", neutral.TargetRef{Namespace: "a", Container: "db-0.db"}, "db-0 10.0.0.3 pod true", 0, false},
		{"another's host name", neutral.TargetRef{Namespace: "a", Container: "web.db"}, "", fault.NotFound, true},
		{"ended", neutral.TargetRef{Namespace: "a", Pod: "ended"}, "ended invalid IP pod false", 0, false},
		{"caller's name", neutral.TargetRef{Namespace: "a", Container: "My_App"}, "my-app 10.0.0.5 pod true", 0, false},
		{"dotted pod", neutral.TargetRef{Namespace: "a", Container: "v1.2"}, "v1.2 10.0.0.6 pod true", 0, false},
		{"unknown", neutral.TargetRef{Namespace: "a", Pod: "none"}, "", fault.NotFound, true},
		{"other namespace", neutral.TargetRef{Namespace: "b", Pod: "web"}, "", fault.NotFound, true},
		{"default namespace", neutral.TargetRef{Pod: "web"}, "", fault.NotFound, true},
		{"nothing", neutral.TargetRef{Namespace: "a"}, "", fault.Invalid, true},
		{"path in namespace", neutral.TargetRef{Namespace: "a/pods/x", Pod: "web"}, "", fault.Invalid, true},
		{"path in name", neutral.TargetRef{Namespace: "a", Pod: "../b"}, "", fault.Invalid, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := f.Locate(t.Context(), c.ref)
			if c.isFault {
				if !fault.Is(err, c.fault) {
					t.Fatalf("error %v, want %s", err, c.fault)
				}
				for _, secret := range []string{"10.0.0", "192.168", `"n1"`} {
					if strings.Contains(fault.Of(err).Message, secret) {
						t.Errorf("the message leaks %s: %s", secret, fault.Of(err).Message)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			is := strings.Join([]string{got.Object.Name, got.Address.String(), string(got.Network), map[bool]string{true: "true", false: "false"}[got.Running]}, " ")
			if diff := cmp.Diff(c.want, is); diff != "" || got.Node != "n1" || got.Object.Kind != neutral.KindContainer {
				t.Errorf("%+v: %s", got, diff)
			}
		})
	}
}

// TestLocateAsksTheFakeAPIOnlyOnAMiss holds that an access to a known pod costs no call, that a new pod is found before
// the cache has it, and that a name nobody has is not asked for again and again.
func TestLocateAsksTheFakeAPIOnlyOnAMiss(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, newPod("web", "10.0.0.1"))
	waitFor(t, f.pods.informer.HasSynced)
	gets := 0
	late := newPod("late", "10.0.0.8")
	f.react("get", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		gets++
		if action.(k8stesting.GetAction).GetName() == "late" { // not in any watch
			return true, late, nil
		}
		return false, nil, nil
	})
	for range 3 {
		if _, err := f.Locate(t.Context(), neutral.TargetRef{Namespace: "a", Pod: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	if gets != 0 {
		t.Errorf("%d calls for a pod that is in the cache", gets)
	}
	got, err := f.Locate(t.Context(), neutral.TargetRef{Namespace: "a", Pod: "late"})
	if err != nil || got.Address != netip.MustParseAddr("10.0.0.8") {
		t.Errorf("%+v, %v", got, err)
	}
	gets = 0
	for range 5 {
		if _, err := f.Locate(t.Context(), neutral.TargetRef{Namespace: "a", Pod: "none"}); !fault.Is(err, fault.NotFound) {
			t.Errorf("error %v", err)
		}
	}
	if gets != 1 {
		t.Errorf("%d calls for a pod that nobody has", gets)
	}
}

// TestLocateDoesNotBelieveACacheThatIsCutOff holds that an access never goes by what was so before contact was lost.
func TestLocateDoesNotBelieveACacheThatIsCutOff(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, newPod("web", "10.0.0.1"))
	waitFor(t, f.pods.informer.HasSynced)
	waitFor(t, func() bool { return f.pods.lost.Load() == 0 })
	down := true
	f.react("get", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return down, nil, apierrors.NewServiceUnavailable("down")
	})
	web := neutral.TargetRef{Namespace: "a", Pod: "web"}
	if _, err := f.Locate(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	f.pods.lost.Store(time.Now().Add(-2 * staleAfter).UnixNano())
	if _, err := f.Locate(t.Context(), web); !fault.Is(err, fault.Unavailable) {
		t.Errorf("error %v", err)
	}
	down = false
	if got, err := f.Locate(t.Context(), web); err != nil || got.Address != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestLocateFollowsFakePods holds that a pod which moved is found where it is.
func TestLocateFollowsFakePods(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, newPod("web", "10.0.0.1"))
	waitFor(t, f.pods.informer.HasSynced)
	ctx := t.Context()
	if err := f.client.CoreV1().Pods("a").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	moved := newPod("web", "10.0.0.77")
	moved.Spec.NodeName = "n2"
	if _, err := f.client.CoreV1().Pods("a").Create(ctx, moved, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		got, err := f.Locate(ctx, neutral.TargetRef{Namespace: "a", Pod: "web", Node: "n2"})
		return err == nil && got.Address == netip.MustParseAddr("10.0.0.77")
	})
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
	}
}

func BenchmarkLocate(b *testing.B) {
	pods := newPodCache(nil, nil)
	for _, obj := range locatePods() {
		if err := pods.informer.GetStore().Add(obj); err != nil {
			b.Fatal(err)
		}
	}
	c := &Cluster{pods: pods, namespace: "a"}
	ctx, ref := b.Context(), neutral.TargetRef{Namespace: "a", Pod: "web"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Locate(ctx, ref); err != nil {
			b.Fatal(err)
		}
	}
}
