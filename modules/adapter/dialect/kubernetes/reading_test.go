package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestReadable(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/yaml": "", "application/vnd.kubernetes.protobuf": "",
		"application/vnd.kubernetes.protobuf, */*":                          "application/json",
		"application/vnd.kubernetes.protobuf,application/json":              "application/json",
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=1": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=1",
		"application/json;stream=watch":                                     "application/json;stream=watch",
	} {
		if got, err := readable([]string{accept}); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", accept, got, err)
		}
	}
}

func TestWithObjects(t *testing.T) {
	t.Parallel()
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for _, c := range []struct {
		path, accept string
		kind         neutral.Kind
		want         string
	}{
		{"/a?limit=5", table, neutral.KindContainer, "/a?includeObject=Object&limit=5"},
		{"/a?includeObject=None", table, neutral.KindNode, "/a?includeObject=Metadata"},
		{"/a?includeObject=Object", table, neutral.KindNode, ""},
		{"/a?includeObject=Metadata", table, neutral.KindNode, ""},
		{"/a", "application/json", neutral.KindContainer, ""},
	} {
		if got := withObjects(c.path, c.accept, c.kind); got != c.want {
			t.Errorf("%s of %s: %q", c.path, c.kind, got)
		}
	}
}

// FuzzFilter gives filters what an API would hardly say: they give back JSON, nothing, or an error.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ADDED","object":{"metadata":{"name":"a","uid":"1"}}}`, `{"type":"MODIFIED","object":{"metadata":{"uid":"1"}}}`,
		`{"type":"MODIFIED","object":{"kind":"Table","columnDefinitions":[{}],"rows":[{"cells":["a",1],"object":{"metadata":{"uid":"2"}}}]}}`,
		`{"type":"DELETED","object":null}`, `{"type":"BOOKMARK"}`, `{"cells":[],"object":{"metadata":{"name":"a"}}}`, `{"metadata":[]}`, `[]`, `null`,
	} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, element string, first bool) {
		if !json.Valid([]byte(element)) {
			return
		}
		for _, kind := range []neutral.Kind{neutral.KindContainer, neutral.KindWorkload, neutral.KindNamespace, neutral.KindNode} {
			op := neutral.Operation{Object: neutral.Object{Kind: kind}}
			visible := first
			see := func(neutral.Object) bool { return visible }
			w := &watched{op: op, began: func(func(neutral.Object) bool) map[string]bool { return map[string]bool{"1": true} }}
			for range 2 {
				got, err := w.see([]byte(element), see)
				if err == nil && got != nil && !json.Valid(got) {
					t.Fatalf("%s became %s", element, got)
				}
				visible = !visible
			}
			if got, err := seen(op, []byte(element), see); err == nil && got != nil && string(got) != element {
				t.Fatalf("%s became %s", element, got)
			}
			if objects, err := objectsOf(op, []byte(element)); err == nil && len(objects) == 0 {
				t.Fatalf("%s is asked of no policy", element)
			}
		}
	})
}

// FuzzPinned holds that a patch that is bound to a version is a patch still, and bound.
func FuzzPinned(f *testing.F) {
	f.Add("application/merge-patch+json", `{"metadata":{"resourceVersion":""},"a":1}`)
	f.Add("application/json-patch+json", `[{"op":"remove","path":"/a"}]`)
	f.Add("application/apply-patch+yaml", "a: 1\nmetadata: null\n")
	f.Fuzz(func(t *testing.T, kind, body string) {
		req := dialect.Request{Method: "PATCH", Header: map[string][]string{"Content-Type": {kind}}, Body: []byte(body)}
		got, bound, err := pinned(req, "7")
		switch {
		case err != nil:
		case !json.Valid(got.Body) && bound:
			t.Fatalf("%s became %s", body, got.Body)
		case bound && !strings.Contains(string(got.Body), `"7"`):
			t.Fatalf("%s is not bound", got.Body)
		case !bound && string(got.Body) != body && !json.Valid(got.Body):
			t.Fatalf("%s became %s", body, got.Body)
		}
	})
}
