package kubernetes

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8stesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestLookupInFakeCluster(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t)
	for resource, kind := range map[schema.GroupVersionResource]string{
		{Group: "apps", Version: "v1", Resource: "deployments"}:                       "Deployment",
		{Version: "v1", Resource: "pods"}:                                             "Pod",
		{Version: "v1", Resource: "namespaces"}:                                       "Namespace",
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}: "ClusterRole",
		{Group: "example.com", Version: "v1", Resource: "widgets"}:                    "Widget",
	} {
		namespace := "a"
		if kind == "Namespace" || kind == "ClusterRole" {
			namespace = ""
		}
		object := &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: resource.GroupVersion().String(), Kind: kind},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x", Labels: map[string]string{"kind": kind}},
		}
		if kind == "Widget" {
			object.Labels = nil
		}
		if err := f.metadata.Tracker().Create(resource, object, namespace); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		method, path string
		want         map[string]string
	}{
		{"GET", "/apis/apps/v1/namespaces/a/deployments/x", map[string]string{"kind": "Deployment"}},
		{"PATCH", "/apis/apps/v1/namespaces/a/deployments/x/scale", map[string]string{"kind": "Deployment"}},
		{"POST", "/api/v1/namespaces/a/pods/x/exec?command=sh", map[string]string{"kind": "Pod"}},
		{"GET", "/api/v1/namespaces/a/pods/http:x:80/proxy/", map[string]string{"kind": "Pod"}},
		{"GET", "/api/v1/namespaces/x", map[string]string{"kind": "Namespace"}},
		{"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/x", map[string]string{"kind": "ClusterRole"}},
		{"GET", "/apis/example.com/v1/namespaces/a/widgets/x", map[string]string{}},
		{"GET", "/api/v1/namespaces/a/pods", nil},
		{"GET", "/version", nil},
	} {
		op, err := Dialect{}.Classify(dialect.Request{Method: c.method, Path: c.path})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Lookup(t.Context(), op)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
		if diff := cmp.Diff(c.want, got.Labels); diff != "" {
			t.Errorf("%s: %s", c.path, diff)
		}
	}
	op, err := Dialect{}.Classify(dialect.Request{Method: "GET", Path: "/api/v1/namespaces/a/pods/none"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup(t.Context(), op); !fault.Is(err, fault.NotFound) {
		t.Errorf("error %v", err)
	}
}
