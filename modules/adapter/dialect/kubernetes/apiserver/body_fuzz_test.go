package apiserver

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

func secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"word": "open-sesame"}}
}

// canceledSoon is of requests that would stay.
func canceledSoon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// collection is the path of the objects of a resource.
func collection(r resource.Resource) string {
	path := "/apis/" + r.Group + "/" + r.Version
	if r.Group == "" {
		path = "/api/" + r.Version
	}
	if r.Namespaced {
		path += "/namespaces/default"
	}
	return path + "/" + r.Name
}

var contentTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/json-patch+json",
	"application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}

// asked sends a body, and fails when the API does.
func asked(t *testing.T, api *Server, method, path, content, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", content)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	if w.Code >= 500 && w.Code != http.StatusNotImplemented || ctx.Err() != nil {
		t.Errorf("%s %s %s %q: %d %s", method, path, content, body, w.Code, w.Body)
	}
}

// FuzzBody creates, replaces and patches objects of every kind by any body. Nothing panics or hangs, nothing is the fault of
// the server, and what was made can be read.
func FuzzBody(f *testing.F) {
	objects := map[string]any{"configmaps": configMap("x", map[string]string{"a": "b"}), "secrets": secret("x"), "pods": pod("x"), "services": service("x"),
		"persistentvolumeclaims": claim("x"), "deployments": deployment("x", 2), "namespaces": &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}}
	all := append(append([]resource.Resource{}, resource.All...), resource.Reviews...)
	for i, r := range all {
		raw, err := json.Marshal(objects[r.Name])
		if err != nil {
			f.Fatal(err)
		}
		for content := range contentTypes {
			f.Add(uint8(i), uint8(content), string(raw))
			f.Add(uint8(i), uint8(content), `{"metadata":{"name":"x","managedFields":[{"manager":"m","operation":"Apply","fieldsType":"FieldsV1","fieldsV1":{"f:data":{}}}]},"spec":{},"status":{}}`)
		}
	}
	f.Add(uint8(9), uint8(3), `[{"op":"copy","from":"/spec","path":"/spec/template/spec/containers/0/env/-"}]`)
	f.Add(uint8(9), uint8(5), `{"spec":{"template":{"spec":{"containers":[{"name":"web","$patch":"delete"}],"$setElementOrder/containers":[{"name":"web"}]}}}}`)
	f.Add(uint8(11), uint8(0), `{"metadata":{"name":"x"},"spec":{"completions":5,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"b"}]}}}}`)
	f.Add(uint8(8), uint8(0), `{"metadata":{"name":"x"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"b"}]}}}}`)
	f.Fuzz(func(t *testing.T, of, content uint8, body string) {
		same := func(b []byte) ([]byte, error) { return b, nil }
		api := New(Config{Cluster: "west", Orchestrator: newFakeOrchestrator(), Seal: same, Unseal: same})
		defer api.Close()
		r := all[int(of)%len(all)]
		form := contentTypes[int(content)%len(contentTypes)]
		path := collection(r)
		asked(t, api, "POST", path, form, body)
		if raw, err := json.Marshal(objects[r.Name]); err == nil && objects[r.Name] != nil {
			asked(t, api, "POST", path, "application/json", string(raw))
		}
		asked(t, api, "PATCH", path+"/x?fieldManager=fuzz", form, body)
		asked(t, api, "PATCH", path+"/x?fieldManager=fuzz&force=true&fieldValidation=Ignore", form, body)
		asked(t, api, "PATCH", path+"/x/scale?fieldManager=fuzz", form, body)
		asked(t, api, "PUT", path+"/x", form, body)
		for _, r := range resource.All {
			asked(t, api, "GET", collection(r), "", "")
		}
		asked(t, api, "DELETE", path+"/x", form, body)
	})
}
