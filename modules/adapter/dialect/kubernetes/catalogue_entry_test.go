package kubernetes

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func endpoints(written ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, w := range written {
		all = append(all, netip.MustParseAddrPort(w))
	}
	return all
}

func newPod(name, address string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: "u-" + "1"},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: address,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
}

func TestServiceEntry(t *testing.T) {
	t.Parallel()
	h2c := "kubernetes.io/h2c"
	svc := newService("db",
		corev1.ServicePort{Name: "tcp-sql", Port: 5432, Protocol: corev1.ProtocolTCP},
		corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
		corev1.ServicePort{Name: "api", Port: 80, AppProtocol: &h2c},
	)
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	sql, dns, api := "tcp-sql", "dns", "api"
	p5, p53, p80 := int32(5432), int32(5353), int32(8080)
	no, yes := false, true
	slice := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: &sql, Port: &p5, Protocol: &tcp}, {Name: &dns, Port: &p53, Protocol: &udp}, {Name: &api, Port: &p80, Protocol: &tcp},
		},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
			{Addresses: []string{"10.0.0.1"}},
			{Addresses: []string{"10.0.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
			{Addresses: []string{"127.0.0.1"}}, {Addresses: []string{"169.254.169.254"}}, {Addresses: []string{"not an address"}},
		},
	}
	again := slice.DeepCopy() // slices may overlap while the controller moves endpoints
	v6 := slice.DeepCopy()
	v6.AddressType = discoveryv1.AddressTypeIPv6
	v6.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}}}

	got, trouble := serviceEntry(svc, []*discoveryv1.EndpointSlice{v6, slice, again}, unknownPod)
	if trouble != "" {
		t.Fatal(trouble)
	}
	want := neutral.Service{Namespace: "a", Name: "db", Ports: []neutral.ServicePort{
		{Name: "dns", Number: 53, Protocol: "udp", App: neutral.TCP, Endpoints: endpoints("10.0.0.1:5353", "10.0.0.2:5353")},
		{Name: "api", Number: 80, Protocol: "tcp", App: neutral.HTTP2, Endpoints: endpoints("10.0.0.1:8080", "10.0.0.2:8080")},
		{Name: "tcp-sql", Number: 5432, Protocol: "tcp", App: neutral.TCP, Endpoints: endpoints("10.0.0.1:5432", "10.0.0.2:5432")},
	}}
	if diff := cmp.Diff(want, got, equal...); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	got, _ = serviceEntry(svc, []*discoveryv1.EndpointSlice{v6}, unknownPod) // no slice of the preferred family
	if e := got.Ports[1].Endpoints; len(e) != 1 || e[0] != netip.MustParseAddrPort("[fd00::1]:8080") {
		t.Errorf("endpoints are %v", e)
	}
}

func TestPodEntry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(*corev1.Pod)
		want    []neutral.ServicePort
		trouble problem
	}{
		{"no port", func(*corev1.Pod) {}, nil, problemNoPorts},
		{"declared", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
		}, []neutral.ServicePort{{Number: 8080, Protocol: "tcp", App: neutral.HTTP1, Endpoints: endpoints("10.0.0.1:8080")}}, ""},
		{"several", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 9}, {ContainerPort: 8, Protocol: "UDP"}, {ContainerPort: 9}}
		}, []neutral.ServicePort{
			{Name: "port-8-udp", Number: 8, Protocol: "udp", App: neutral.TCP, Endpoints: endpoints("10.0.0.1:8")},
			{Name: "port-9-tcp", Number: 9, Protocol: "tcp", App: neutral.HTTP1, Endpoints: endpoints("10.0.0.1:9")},
		}, ""},
		{"annotated", func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
			p.Annotations = map[string]string{annotationPorts: "grpc=9000, 53/udp,"}
		}, []neutral.ServicePort{
			{Name: "port-53-udp", Number: 53, Protocol: "udp", App: neutral.TCP, Endpoints: endpoints("10.0.0.1:53")},
			{Name: "grpc", Number: 9000, Protocol: "tcp", App: neutral.GRPC, Endpoints: endpoints("10.0.0.1:9000")},
		}, ""},
		{"annotated wrongly", func(p *corev1.Pod) {
			p.Annotations = map[string]string{annotationPorts: "http"}
		}, nil, problemPorts},
		{"not ready", func(p *corev1.Pod) {
			p.Annotations = map[string]string{annotationPorts: "80"}
			p.Status.Conditions[0].Status = corev1.ConditionFalse
		}, []neutral.ServicePort{{Number: 80, Protocol: "tcp", App: neutral.HTTP1}}, ""},
		{"ending", func(p *corev1.Pod) {
			p.Annotations = map[string]string{annotationPorts: "80"}
			p.DeletionTimestamp = &metav1.Time{}
		}, []neutral.ServicePort{{Number: 80, Protocol: "tcp", App: neutral.HTTP1}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := newPod("web", "10.0.0.1")
			c.change(pod)
			slim, err := slimPod(pod) // as the cache holds it
			if err != nil {
				t.Fatal(err)
			}
			got, trouble := podEntry(slim.(*corev1.Pod))
			if trouble != c.trouble {
				t.Fatalf("problem %q, want %q", trouble, c.trouble)
			}
			if diff := cmp.Diff(c.want, got.Ports, equal...); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"", "80", "http=80/tcp", "a=1,b=2/udp", "0", "65536", "x=y=z", "80/icmp", "-=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, written string) {
		ports, err := parsePorts(written)
		if err != nil {
			return
		}
		for _, p := range ports {
			if p.Number == 0 || p.App == "" || (p.Protocol != "tcp" && p.Protocol != "udp" && p.Protocol != "sctp") {
				t.Errorf("%q gives %+v", written, p)
			}
		}
	})
}

// unknownPod stands for a cache that knows no Pod.
func unknownPod(*corev1.ObjectReference) *corev1.Pod { return nil }
