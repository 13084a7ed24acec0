package kubernetes

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	fakemetadata "k8s.io/client-go/metadata/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeCluster is a Cluster on client-go's fake clients.
type fakeCluster struct {
	*Cluster
	client   *fake.Clientset
	metadata *fakemetadata.FakeMetadataClient
	log      *syncLog

	mu      sync.Mutex
	running []neutral.Action // what is carried out, to be held to what it is known to take
}

func newFakeCluster(t *testing.T, objects ...runtime.Object) *fakeCluster {
	t.Helper()
	client := fake.NewClientset(objects...)
	scheme := fakemetadata.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	partial := fakemetadata.NewSimpleMetadataClient(scheme)
	log := &syncLog{}
	f := &fakeCluster{client: client, metadata: partial, log: log}
	f.Cluster = newCluster(client, fakedynamic.NewSimpleDynamicClient(runtime.NewScheme()), partial,
		dialect.Config{Cluster: "east"}, slog.New(slog.NewTextHandler(log, nil)))
	f.start()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// react is the client's PrependReactor while what watches the cluster reads the reactors.
func (f *fakeCluster) react(verb, resource string, reaction k8stesting.ReactionFunc) {
	f.client.Lock()
	defer f.client.Unlock()
	f.client.PrependReactor(verb, resource, reaction)
}

// serveExports makes the fake API have ServiceExports, or no more.
func (f *fakeCluster) serveExports(version string) {
	d := f.client.Discovery().(*fakediscovery.FakeDiscovery)
	d.Lock()
	defer d.Unlock()
	d.Resources = nil
	if version != "" {
		d.Resources = []*metav1.APIResourceList{{
			GroupVersion: "multicluster.x-k8s.io/" + version,
			APIResources: []metav1.APIResource{{Name: "serviceexports", Kind: "ServiceExport", Namespaced: true}},
		}}
	}
}

func (f *fakeCluster) export(t *testing.T, version, namespace, name string) {
	t.Helper()
	resource := schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: version, Resource: "serviceexports"}
	object := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "multicluster.x-k8s.io/" + version, Kind: "ServiceExport"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
	}
	if err := f.metadata.Tracker().Create(resource, object, namespace); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeCluster) unexport(t *testing.T, version, namespace, name string) {
	t.Helper()
	resource := schema.GroupVersionResource{Group: "multicluster.x-k8s.io", Version: version, Resource: "serviceexports"}
	if err := f.metadata.Tracker().Delete(resource, namespace, name); err != nil {
		t.Fatal(err)
	}
}

// syncLog is a log that tests read while it is written.
type syncLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncLog) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// published is what a catalogue published.
type published struct {
	t    *testing.T
	sets chan []neutral.Service
}

func (f *fakeCluster) follow(t *testing.T) *published {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &published{t: t, sets: make(chan []neutral.Service, 100)}
	ended := make(chan error, 1)
	go func() { ended <- f.Services(ctx, func(s []neutral.Service) { p.sets <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// until takes published sets until one is as wanted.
func (p *published) until(want ...neutral.Service) {
	p.t.Helper()
	deadline := time.After(20 * time.Second)
	var last string
	for {
		select {
		case got := <-p.sets:
			if last = cmp.Diff(want, got, equal...); last == "" {
				return
			}
		case <-deadline:
			p.t.Fatalf("never published (-want +last):\n%s", last)
		}
	}
}

var equal = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})}

func newService(name string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func newSlice(service, name string, port int32, addresses ...string) *discoveryv1.EndpointSlice {
	tcp, portName := corev1.ProtocolTCP, ""
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &tcp}},
	}
	for _, a := range addresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return slice
}

func TestCatalogueFollowsFakeCluster(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t,
		newService("web", corev1.ServicePort{Port: 80}), newSlice("web", "web-1", 8080, "10.0.0.2", "10.0.0.1"),
		newService("private", corev1.ServicePort{Port: 80}), newSlice("private", "private-1", 8080, "10.0.0.3"),
	)
	f.serveExports("v1alpha1")
	p := f.follow(t)
	p.until()

	web := neutral.Service{Namespace: "a", Name: "web", Ports: []neutral.ServicePort{
		{Number: 80, Protocol: "tcp", App: neutral.HTTP1, Endpoints: endpoints("10.0.0.1:8080", "10.0.0.2:8080")},
	}}
	f.export(t, "v1alpha1", "a", "web")
	p.until(web)

	// An endpoint that stops being ready goes.
	slice := newSlice("web", "web-1", 8080, "10.0.0.2", "10.0.0.1")
	no := false
	slice.Endpoints[0].Conditions.Ready = &no
	ctx := t.Context()
	if _, err := f.client.DiscoveryV1().EndpointSlices("a").Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	web.Ports[0].Endpoints = endpoints("10.0.0.1:8080")
	p.until(web)

	// A bare pod that its caller offers comes when it is created, its endpoint when it is ready.
	pod := newPod("job", "10.0.0.9")
	pod.Labels = map[string]string{labelExport: "true"}
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 9000, Name: "grpc"}}
	pod.Status.Conditions = nil
	if _, err := f.client.CoreV1().Pods("a").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	job := neutral.Service{Namespace: "a", Name: "job", Labels: pod.Labels, Ports: []neutral.ServicePort{
		{Name: "grpc", Number: 9000, Protocol: "tcp", App: neutral.GRPC},
	}}
	p.until(job, web)
	pod = pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := f.client.CoreV1().Pods("a").Update(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	job.Ports[0].Endpoints = endpoints("10.0.0.9:9000")
	p.until(job, web)
	if err := f.client.CoreV1().Pods("a").Delete(ctx, "job", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.until(web)

	f.unexport(t, "v1alpha1", "a", "web")
	p.until()
}

func TestCatalogueOffersByLabelWithoutServiceExports(t *testing.T) {
	t.Parallel()
	svc := newService("web", corev1.ServicePort{Port: 80})
	svc.Labels = map[string]string{labelExport: "true"}
	f := newFakeCluster(t, svc)
	p := f.follow(t)
	p.until(neutral.Service{Namespace: "a", Name: "web", Labels: svc.Labels, Ports: []neutral.ServicePort{
		{Number: 80, Protocol: "tcp", App: neutral.HTTP1},
	}})
}

func TestCatalogueFindsServiceExportsThatAreInstalledLater(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, newService("web", corev1.ServicePort{Port: 80}))
	p := f.follow(t)
	p.until()
	f.serveExports("v1beta1")
	f.export(t, "v1beta1", "a", "web")
	p.until(neutral.Service{Namespace: "a", Name: "web", Ports: []neutral.ServicePort{
		{Number: 80, Protocol: "tcp", App: neutral.HTTP1},
	}})
	if n := f.log.count("cannot follow"); n != 0 {
		t.Errorf("%d complaints about a resource that is not installed", n)
	}
}

func TestCatalogueRefusesExternalNamesOnce(t *testing.T) {
	t.Parallel()
	external := newService("out", corev1.ServicePort{Port: 80})
	external.Spec.Type = corev1.ServiceTypeExternalName
	external.Spec.ExternalName = "example.com"
	f := newFakeCluster(t, external, newService("web", corev1.ServicePort{Port: 80}))
	f.serveExports("v1alpha1")
	f.export(t, "v1alpha1", "a", "out")
	p := f.follow(t)
	p.until()
	external = external.DeepCopy()
	external.Labels = map[string]string{"changed": "yes"}
	if _, err := f.client.CoreV1().Services("a").Update(t.Context(), external, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.export(t, "v1alpha1", "a", "web")
	p.until(neutral.Service{Namespace: "a", Name: "web", Ports: []neutral.ServicePort{{Number: 80, Protocol: "tcp", App: neutral.HTTP1}}})
	if n := f.log.count("ExternalName"); n != 1 {
		t.Errorf("the refusal is logged %d times", n)
	}
}

// TestCatalogueGathersBursts holds that a rollout does not become as many sets as it has steps.
func TestCatalogueGathersBursts(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t)
	p := f.follow(t)
	p.until()
	const n = 200
	began := time.Now()
	for i := range n {
		svc := newService("web-"+string(rune('a'+i/26))+string(rune('a'+i%26)), corev1.ServicePort{Port: 80})
		svc.Labels = map[string]string{labelExport: "true"}
		if _, err := f.client.CoreV1().Services("a").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(20 * time.Second)
	for sets := 1; ; sets++ {
		select {
		case got := <-p.sets:
			if len(got) < n {
				continue
			}
			if most := int(time.Since(began)/burst) + 1; sets > most {
				t.Errorf("%d changes became %d sets, more than %d", n, sets, most)
			}
			return
		case <-deadline:
			t.Fatal("never complete")
		}
	}
}
