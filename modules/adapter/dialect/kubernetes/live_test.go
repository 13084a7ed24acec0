package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// connectLive opens a real cluster: the one of the demo, whose kubeconfig `make up` names.
func connectLive(t *testing.T) (*Cluster, string) {
	t.Helper()
	kubeconfig := os.Getenv("KUBECONFIG_EAST")
	if kubeconfig == "" {
		t.Skip("KUBECONFIG_EAST names no cluster (make up starts one)")
	}
	opened, err := Dialect{}.Connect(t.Context(), dialect.Config{
		Cluster: "east", Kubeconfig: kubeconfig, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := opened.(*Cluster)
	namespace := fmt.Sprintf("live-%d", time.Now().UnixNano())
	_, err = c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, namespace
}

// TestLiveCatalogue holds against a real API server what the fakes cannot show: readiness, the controllers' slices, and
// the life of one pod in catalogue, Locate and Lookup.
func TestLiveCatalogue(t *testing.T) {
	t.Parallel()
	c, namespace := connectLive(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	system, err := c.System(ctx)
	if err != nil || system.Version == "" {
		t.Fatalf("system %+v, %v", system, err)
	}
	sets := make(chan []neutral.Service, 100)
	ended := make(chan error, 1)
	go func() { ended <- c.Services(ctx, func(s []neutral.Service) { sets <- s }) }()

	image := os.Getenv("DEMO_IMAGE")
	if image == "" {
		image = "isthmus.local/busybox:1"
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{labelExport: "true", "app": "web"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"sh", "-c", "httpd -f -p 8080 -h /etc"},
				Ports:   []corev1.ContainerPort{{ContainerPort: 8080}},
			}},
		},
	}
	if _, err := c.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "front", Labels: map[string]string{labelExport: "true"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if _, err := c.client.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, ok func(map[string]neutral.Service) bool) {
		t.Helper()
		for {
			select {
			case set := <-sets:
				ours := map[string]neutral.Service{}
				for _, s := range set {
					if s.Namespace == namespace {
						ours[s.Name] = s
					}
				}
				if ok(ours) {
					return
				}
			case <-ctx.Done():
				t.Fatal("never: " + what)
			}
		}
	}
	served := func(s neutral.Service) bool { return len(s.Ports) == 1 && len(s.Ports[0].Endpoints) == 1 }
	wait("pod and service are served", func(m map[string]neutral.Service) bool { return served(m["web"]) && served(m["front"]) })

	target, err := c.Locate(ctx, neutral.TargetRef{Namespace: namespace, Container: "main.web"})
	if err != nil || !target.Running || !target.Address.IsValid() || target.Network != neutral.NetworkPod || target.Node == "" {
		t.Errorf("target %+v, %v", target, err)
	}
	if _, err := c.Locate(ctx, neutral.TargetRef{Namespace: namespace, Pod: "web", Node: "elsewhere"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("error %v", err)
	}
	op, err := Dialect{}.Classify(dialect.Request{Method: http.MethodGet, Path: "/api/v1/namespaces/" + namespace + "/pods/web/log"})
	if err != nil {
		t.Fatal(err)
	}
	if object, err := c.Lookup(ctx, op); err != nil || object.Labels["app"] != "web" {
		t.Errorf("object %+v, %v", object, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://any/api/v1/namespaces/"+namespace+"/pods/web", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Transport().RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", resp, err)
	}
	_ = resp.Body.Close()

	if err := c.client.CoreV1().Pods(namespace).Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("the pod is gone, the service has no endpoint", func(m map[string]neutral.Service) bool {
		_, there := m["web"]
		return !there && len(m["front"].Ports) == 1 && len(m["front"].Ports[0].Endpoints) == 0
	})
	if _, err := c.Locate(ctx, neutral.TargetRef{Namespace: namespace, Pod: "web"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("error %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLiveServiceExport holds that a ServiceExport offers its Service and is told so, where the cluster has them.
func TestLiveServiceExport(t *testing.T) {
	t.Parallel()
	c, namespace := connectLive(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resource, found, err := newExports(c, nil).find(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Skip("the cluster has no ServiceExports")
	}
	if _, err := c.client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	port, name := int32(8080), ""
	if _, err := c.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.77.0.1"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	exports := c.dynamic.Resource(resource).Namespace(namespace)
	for _, n := range []string{"web", "nobody"} {
		if _, err := exports.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": resource.GroupVersion().String(), "kind": "ServiceExport", "metadata": map[string]any{"name": n},
		}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sets := make(chan []neutral.Service, 100)
	ended := make(chan error, 1)
	go func() { ended <- c.Services(ctx, func(s []neutral.Service) { sets <- s }) }()
	offered := func(want bool) {
		t.Helper()
		for {
			select {
			case set := <-sets:
				is := false
				for _, s := range set {
					is = is || s.Namespace == namespace && s.Name == "web" && len(s.Ports) == 1 && len(s.Ports[0].Endpoints) == 1
				}
				if is == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never offered: %t", want)
			}
		}
	}
	offered(true)
	waitFor(t, func() bool { return validReason(t, c, resource, namespace, "web") == "True/Valid" })
	waitFor(t, func() bool { return validReason(t, c, resource, namespace, "nobody") == "False/NoService" })
	if err := exports.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	offered(false)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// validReason reads the condition Valid of a ServiceExport.
func validReason(t *testing.T, c *Cluster, resource schema.GroupVersionResource, namespace, name string) string {
	t.Helper()
	export, err := c.dynamic.Resource(resource).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conditions, _, err := unstructured.NestedSlice(export.Object, "status", "conditions")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range conditions {
		if condition := one.(map[string]any); condition["type"] == "Valid" {
			return fmt.Sprintf("%v/%v", condition["status"], condition["reason"])
		}
	}
	return ""
}
