package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// names are what a fake API's slices resolve, "name.service=address".
func (f *fakeCluster) names(t *testing.T) string {
	t.Helper()
	list, err := f.client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			names = append(names, fmt.Sprintf("%s.%s=%s", *e.Hostname, slice.Labels["kubernetes.io/service-name"], e.Addresses[0]))
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func networkedPod(t *testing.T, name, address string, list ...neutral.NetworkAttachment) *corev1.Pod {
	t.Helper()
	pod := newPod(name, address)
	pod.Namespace = "default"
	if err := noteNetworks(&pod.ObjectMeta, list); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestNamesInFakeCluster holds that a container's names follow its networks and its address, and that the gateway looks
// after those of services' tasks by itself.
func TestNamesInFakeCluster(t *testing.T) {
	t.Parallel()
	web := networkedPod(t, "web", "10.0.0.1", neutral.NetworkAttachment{Name: "front", Aliases: []string{"WWW", "not_a_name"}},
		neutral.NetworkAttachment{Name: "shop_back"})
	yes := true
	task := networkedPod(t, "shop-1", "10.0.0.2", neutral.NetworkAttachment{Name: "front", Aliases: []string{"db"}})
	task.Labels[labelWorkload] = "shop"
	task.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "shop", Controller: &yes}}
	waiting := networkedPod(t, "waiting", "", neutral.NetworkAttachment{Name: "front"})
	plain := newPod("plain", "10.0.0.3")
	plain.Namespace = "default"
	f := newFakeCluster(t, web, task, waiting, plain)
	wants := func(want string) {
		t.Helper()
		if got := f.names(t); got != want {
			t.Errorf("the names are\n%s, want\n%s", got, want)
		}
	}
	if err := f.writeNames(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	legal, _ := legalNetwork("shop_back")
	ofWeb := fmt.Sprintf("web.net-front=10.0.0.1 web.net-%s=10.0.0.1", legal)
	wants(ofWeb + " www.net-front=10.0.0.1")
	if err := f.reapNames(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wants("db.net-front=10.0.0.2 shop.net-front=10.0.0.2 " + ofWeb + " www.net-front=10.0.0.1")

	// Another address, and one network less.
	moved := networkedPod(t, "web", "10.0.0.9", neutral.NetworkAttachment{Name: "front"})
	moved.UID = "u-2"
	if _, err := f.client.CoreV1().Pods("default").Update(t.Context(), moved, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.reapNames(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wants("db.net-front=10.0.0.2 shop.net-front=10.0.0.2 web.net-front=10.0.0.9")
	ended := moved.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	if err := f.writeNames(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	wants("db.net-front=10.0.0.2 shop.net-front=10.0.0.2")
}

// TestSearchDomains holds that a Pod looks for names in the networks that it is on, whatever it was on before.
func TestSearchDomains(t *testing.T) {
	t.Parallel()
	ndots := "2"
	spec := corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{Searches: []string{"corp", "net-old.default.svc.cluster.local", "net-x.other.svc.cluster.local"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}}}}
	pod := networkedPod(t, "web", "", neutral.NetworkAttachment{Name: "front"})
	searchNetworks(pod.ObjectMeta, "default", &spec)
	want := []string{"corp", "net-x.other.svc.cluster.local", "net-front.default.svc.cluster.local"}
	if !slices.Equal(spec.DNSConfig.Searches, want) || len(spec.DNSConfig.Options) != 1 {
		t.Errorf("%v", spec.DNSConfig)
	}
	bare := corev1.PodSpec{}
	searchNetworks(metav1.ObjectMeta{}, "default", &bare)
	if bare.DNSConfig != nil {
		t.Errorf("%v", bare.DNSConfig)
	}
}
