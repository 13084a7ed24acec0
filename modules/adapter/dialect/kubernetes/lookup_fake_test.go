package kubernetes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// podSpec is a pod's spec with one container of each image, named c0, c1 ...
func podSpec(images ...string) map[string]any {
	containers := []any{}
	for i, image := range images {
		containers = append(containers, map[string]any{"name": "c" + string(rune('0'+i)), "image": image})
	}
	return map[string]any{"containers": containers}
}

func TestLookupInFakeCluster(t *testing.T) {
	t.Parallel()
	one, two := newPod("x", "10.0.0.1"), newPod("two", "10.0.0.2")
	one.Labels = map[string]string{"kind": "Pod"}
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "sidecar", Image: "proxy"})
	f := newFakeCluster(t, one, two)
	for _, object := range []struct {
		resource schema.GroupVersionResource
		kind     string
		spaced   bool
		labels   map[string]string
	}{
		{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "Namespace", false, map[string]string{"kind": "Namespace"}},
		{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "Service", true, map[string]string{"kind": "Service"}},
		{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, "ClusterRole", false, map[string]string{"kind": "ClusterRole"}},
		{schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, "Widget", true, nil},
	} {
		namespace := ""
		if object.spaced {
			namespace = "a"
		}
		if err := f.metadata.Tracker().Create(object.resource, &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: object.resource.GroupVersion().String(), Kind: object.kind},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x", Labels: object.labels},
		}, namespace); err != nil {
			t.Fatal(err)
		}
	}
	for resource, object := range map[string]map[string]any{
		"deployments": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "x", "labels": map[string]any{"kind": "Deployment"}},
			"spec": map[string]any{"template": map[string]any{"spec": podSpec("web")}}},
		"daemonsets": {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"template": map[string]any{"spec": podSpec("web", "proxy")}}},
		"cronjobs": {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": map[string]any{"spec": podSpec("nightly")}}}}},
	} {
		u := &unstructured.Unstructured{Object: object}
		gv := u.GroupVersionKind().GroupVersion()
		if _, err := f.dynamic.Resource(gv.WithResource(resource)).Namespace("a").Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		method, path string
		labels       map[string]string
		image        string // "" for no container
	}{
		{"GET", "/apis/apps/v1/namespaces/a/deployments/x", map[string]string{"kind": "Deployment"}, "web"},
		{"PATCH", "/apis/apps/v1/namespaces/a/deployments/x/scale", map[string]string{"kind": "Deployment"}, "web"},
		{"DELETE", "/apis/apps/v1/namespaces/a/daemonsets/x", map[string]string{}, ""},
		{"GET", "/apis/batch/v1/namespaces/a/cronjobs/x", map[string]string{}, "nightly"},
		{"POST", "/api/v1/namespaces/a/pods/x/exec?command=sh", map[string]string{"kind": "Pod"}, "busybox"},
		{"GET", "/api/v1/namespaces/a/pods/http:x:80/proxy/", map[string]string{"kind": "Pod"}, "busybox"},
		{"GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx", map[string]string{"kind": "Pod"}, "busybox"},
		{"GET", "/api/v1/namespaces/a/pods/two/log?container=sidecar", map[string]string{}, "proxy"},
		{"GET", "/api/v1/namespaces/a/pods/two/exec?container=main&command=sh", map[string]string{}, "busybox"},
		{"GET", "/api/v1/namespaces/a/pods/two/exec?container=debugger&command=sh", map[string]string{}, ""},
		{"GET", "/api/v1/namespaces/a/pods/two?container=main", map[string]string{}, ""},
		{"GET", "/api/v1/namespaces/a/services/x", map[string]string{"kind": "Service"}, ""},
		{"GET", "/api/v1/namespaces/x", map[string]string{"kind": "Namespace"}, ""},
		{"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/x", map[string]string{"kind": "ClusterRole"}, ""},
		{"GET", "/apis/example.com/v1/namespaces/a/widgets/x", map[string]string{}, ""},
		{"GET", "/api/v1/namespaces/a/pods", nil, ""},
		{"GET", "/version", nil, ""},
	} {
		op, err := Dialect{}.Classify(dialect.Request{Method: c.method, Path: c.path})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Lookup(t.Context(), op)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
		if diff := cmp.Diff(c.labels, got.Labels); diff != "" {
			t.Errorf("%s: %s", c.path, diff)
		}
		image := ""
		if got.Container != nil {
			image = got.Container.Image
		}
		if image != c.image {
			t.Errorf("%s: container of image %q, want %q", c.path, image, c.image)
		}
	}
	for _, path := range []string{"/api/v1/namespaces/a/pods/none", "/apis/apps/v1/namespaces/a/deployments/none", "/api/v1/namespaces/a/secrets/none"} {
		op, err := Dialect{}.Classify(dialect.Request{Method: "GET", Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Lookup(t.Context(), op); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if _, err := f.Lookup(t.Context(), neutral.Operation{Object: neutral.Object{Kind: neutral.KindImage, Name: "x"}}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("error %v", err)
	}
}
