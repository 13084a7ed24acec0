package openapi_test

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util/proto/validation"

	utilproto "k8s.io/kube-openapi/pkg/util/proto"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi/openapitest"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

const (
	protobufV2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" // as clients ask for it
	protobufV3 = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
)

func get(t *testing.T, path, accept string) []byte {
	t.Helper()
	answer, ok := openapi.Answer(path, http.Header{"Accept": {accept}})
	if !ok || answer.Status != http.StatusOK {
		t.Fatalf("%s as %s: %d", path, accept, answer.Status)
	}
	return answer.Body
}

// different says of what differs from Kubernetes that it may.
func different(d openapitest.Difference) bool {
	switch {
	case d.Ours == "query:sinceTime": // the API server reads it and does not tell
		return true
	case d.Ours == "" || d.Theirs == "":
		return false
	default: // lists of types that nobody applies: how they would be merged, their types do not tell
		return d.Theirs == d.Ours+" list-type=atomic" || d.Theirs == d.Ours+" map-type=granular"
	}
}

// TestLikeKubernetes compares schemas and operations with what the API server of Kubernetes tells.
func TestLikeKubernetes(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/kubernetes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	theirs := openapitest.Outline{Schemas: map[string]map[string]string{}, Operations: map[string]openapitest.Operation{}}
	for line := range strings.Lines(string(raw)) {
		var one struct {
			Schema, Operation string
			Fields            map[string]string
			Is                openapitest.Operation
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		if one.Schema != "" {
			theirs.Schemas[one.Schema] = one.Fields
		}
		if one.Operation != "" {
			theirs.Operations[one.Operation] = one.Is
		}
	}
	seen := map[string]bool{}
	for _, path := range openapi.Paths() {
		ours, err := openapitest.Of(get(t, path, "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		for name := range ours.Schemas {
			seen[name] = true
		}
		for _, d := range openapitest.Compare(ours, theirs) {
			if !different(d) {
				t.Errorf("%s is\n%q, of Kubernetes\n%q", d.Where, d.Ours, d.Theirs)
			}
		}
	}
	for name := range theirs.Schemas {
		if !seen[name] {
			t.Errorf("no schema %s", name)
		}
	}
	if len(theirs.Schemas) < 200 || len(theirs.Operations) < 80 {
		t.Errorf("%d schemas and %d operations are recorded", len(theirs.Schemas), len(theirs.Operations))
	}
}

// TestOperations finds an operation for each verb of each resource, and in those that write what kubectl looks for before
// it has the server check fields, or try a change.
func TestOperations(t *testing.T) {
	t.Parallel()
	for _, r := range slices.Concat(resource.All, resource.Reviews) {
		path := "/openapi/v3/apis/" + r.GroupVersion().String()
		if r.Group == "" {
			path = "/openapi/v3/api/v1"
		}
		var document spec3.OpenAPI
		if err := json.Unmarshal(get(t, path, "application/json"), &document); err != nil {
			t.Fatal(err)
		}
		collection := strings.TrimPrefix(path, "/openapi/v3") + "/"
		if r.Namespaced {
			collection += "namespaces/{namespace}/"
		}
		collection += r.Name
		many, one := document.Paths.Paths[collection], document.Paths.Paths[collection+"/{name}"]
		if many == nil {
			many = &spec3.Path{}
		}
		if one == nil {
			one = &spec3.Path{}
		}
		for verb, operation := range map[string]*spec3.Operation{
			"list": many.Get, "create": many.Post, "deletecollection": many.Delete,
			"get": one.Get, "update": one.Put, "patch": one.Patch, "delete": one.Delete,
		} {
			if (operation != nil) != r.Serves(verb) {
				t.Errorf("%s of %s: served %t, told %t", verb, r.Name, r.Serves(verb), operation != nil)
			}
			if operation == nil || verb != "create" && verb != "update" && verb != "patch" {
				continue
			}
			for _, want := range []string{"fieldValidation", "dryRun", "fieldManager"} {
				if !slices.ContainsFunc(operation.Parameters, func(p *spec3.Parameter) bool { return p.Name == want && p.In == "query" }) {
					t.Errorf("%s of %s has no parameter %s", verb, r.Name, want)
				}
			}
		}
		for _, s := range r.Subresources {
			if document.Paths.Paths[collection+"/{name}/"+s.Name] == nil {
				t.Errorf("no path for %s of %s", s.Name, r.Name)
			}
		}
	}
}

// TestProtobuf reads the documents as clients do that ask for protobuf.
func TestProtobuf(t *testing.T) {
	t.Parallel()
	var v2 openapiv2.Document
	if err := proto.Unmarshal(get(t, "/openapi/v2", protobufV2), &v2); err != nil {
		t.Fatal(err)
	}
	fromJSON, err := openapiv2.ParseDocument(get(t, "/openapi/v2", "application/json"))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&v2, fromJSON) {
		t.Error("version 2 in protobuf is another than in JSON")
	}
	for _, path := range openapi.Paths() {
		var v3 openapiv3.Document
		if err := proto.Unmarshal(get(t, path, protobufV3), &v3); err != nil {
			t.Fatal(err)
		}
		fromJSON, err := openapiv3.ParseDocument(get(t, path, "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(&v3, fromJSON) {
			t.Errorf("%s in protobuf is another than in JSON", path)
		}
	}
}

// TestValidation checks objects against version 2, as kubectl does that cannot leave it to the server.
func TestValidation(t *testing.T) {
	t.Parallel()
	document, err := openapiv2.ParseDocument(get(t, "/openapi/v2", "application/json"))
	if err != nil {
		t.Fatal(err)
	}
	models, err := utilproto.NewOpenAPIData(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		model, object string
		bad           bool
	}{
		{model: "io.k8s.api.core.v1.Service", object: `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80,"targetPort":"http"}]}}`},
		{model: "io.k8s.api.core.v1.Service", object: `{"spec":{"ports":[{"port":80,"targetPort":8080}]}}`},
		{model: "io.k8s.api.core.v1.Service", object: `{"spec":{"ports":[{"port":"80"}]}}`, bad: true},
		{model: "io.k8s.api.apps.v1.Deployment", object: `{"spec":{"replicas":"1"}}`, bad: true},
		{model: "io.k8s.api.apps.v1.Deployment", object: `{"spec":{"replica":1}}`, bad: true},
		{model: "io.k8s.api.core.v1.Pod", object: `{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1"}}}]}}`},
		{model: "io.k8s.api.core.v1.Pod", object: `{"spec":{"volumes":[]}}`, bad: true}, // no containers
	} {
		var object any
		if err := json.Unmarshal([]byte(test.object), &object); err != nil {
			t.Fatal(err)
		}
		errs := validation.ValidateModel(object, models.LookupModel(test.model), test.model)
		if (len(errs) > 0) != test.bad {
			t.Errorf("%s %s: %v", test.model, test.object, errs)
		}
	}
}

// TestKinds finds the schema of each kind by its kind, as clients do.
func TestKinds(t *testing.T) {
	t.Parallel()
	var document struct {
		Definitions map[string]struct {
			Kinds []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
		} `json:"definitions"`
	}
	if err := json.Unmarshal(get(t, "/openapi/v2", "application/json"), &document); err != nil {
		t.Fatal(err)
	}
	kinds := map[schema.GroupVersionKind]string{}
	for name, d := range document.Definitions {
		for _, kind := range d.Kinds {
			if other := kinds[kind]; other != "" {
				t.Errorf("%s is %s and %s", kind, name, other)
			}
			kinds[kind] = name
		}
	}
	want := []schema.GroupVersionKind{{Version: "v1", Kind: "Status"}, {Group: "autoscaling", Version: "v1", Kind: "Scale"}, {Group: "apps", Version: "v1", Kind: "DeleteOptions"}}
	for _, r := range slices.Concat(resource.All, resource.Reviews) {
		want = append(want, r.GroupVersionKind)
		if r.Serves("list") {
			want = append(want, r.GroupVersion().WithKind(r.Kind+"List"))
		}
	}
	for _, kind := range want {
		name := kinds[kind]
		if name == "" {
			t.Errorf("no schema has kind %s", kind)
			continue
		}
		if kind.Kind == "Status" || kind.Kind == "DeleteOptions" {
			continue
		}
		object, err := scheme.Scheme.New(kind)
		if err != nil {
			t.Fatal(err)
		}
		if model := object.(interface{ OpenAPIModelName() string }).OpenAPIModelName(); model != name {
			t.Errorf("%s is %s, want %s", kind, name, model)
		}
	}
}

// TestReferences finds each schema that is referred to.
func TestReferences(t *testing.T) {
	t.Parallel()
	for _, path := range append(openapi.Paths(), "/openapi/v2") {
		var document map[string]any
		if err := json.Unmarshal(get(t, path, "application/json"), &document); err != nil {
			t.Fatal(err)
		}
		refs := map[string]bool{}
		references(document, refs)
		if len(refs) == 0 {
			t.Errorf("%s refers to nothing", path)
		}
		for ref := range refs {
			at := any(document)
			for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				of, _ := at.(map[string]any)
				at = of[step]
			}
			if at == nil {
				t.Errorf("%s: nothing is at %s", path, ref)
			}
		}
	}
}

func references(in any, refs map[string]bool) {
	switch in := in.(type) {
	case map[string]any:
		for key, value := range in {
			if text, ok := value.(string); ok && key == "$ref" {
				refs[text] = true
			}
			references(value, refs)
		}
	case []any:
		for _, value := range in {
			references(value, refs)
		}
	}
}

func TestIndex(t *testing.T) {
	t.Parallel()
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(get(t, "/openapi/v3?timeout=32s", "application/json, */*"), &index); err != nil {
		t.Fatal(err)
	}
	var found []string
	for path, entry := range index.Paths {
		bare := "/openapi/v3/" + path
		found = append(found, bare)
		answer, ok := openapi.Answer(entry.URL, nil)
		if !ok || answer.Status != http.StatusOK || !strings.Contains(answer.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", entry.URL, answer.Status, answer.Header)
		}
		again, _ := openapi.Answer(entry.URL, http.Header{"If-None-Match": {answer.Header.Get("ETag")}})
		if again.Status != http.StatusNotModified || again.Body != nil {
			t.Errorf("%s again: %d", entry.URL, again.Status)
		}
		if plain, _ := openapi.Answer(bare, nil); plain.Status != http.StatusOK || strings.Contains(plain.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", bare, plain.Status, plain.Header)
		}
		old, _ := openapi.Answer(bare+"?hash=0", nil)
		if old.Status != http.StatusMovedPermanently || old.Header.Get("Location") != entry.URL {
			t.Errorf("%s with an old hash: %d %v", bare, old.Status, old.Header)
		}
	}
	slices.Sort(found)
	if !reflect.DeepEqual(found, openapi.Paths()) {
		t.Errorf("the index has %q, there are %q", found, openapi.Paths())
	}
	for _, path := range []string{"", "/", "/openapi", "/openapi/v1", "/openapi/v3/apis/none/v1", "/openapi/v3/api/v1/pods"} {
		if _, ok := openapi.Answer(path, nil); ok {
			t.Errorf("%q is answered", path)
		}
	}
	answer, _ := openapi.Answer("/openapi/v2", http.Header{"Accept": {"text/plain"}})
	var status metav1.Status
	if err := json.Unmarshal(answer.Body, &status); err != nil || answer.Status != http.StatusNotAcceptable {
		t.Errorf("text: %d %s", answer.Status, answer.Body)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("/openapi/v3/api/v1?hash=1", "*/*")
	f.Add("/openapi/v2?&hash", protobufV2)
	f.Fuzz(func(t *testing.T, path, accept string) {
		answer, ok := openapi.Answer(path, http.Header{"Accept": {accept}})
		if ok && answer.Status != http.StatusOK && answer.Status != http.StatusMovedPermanently && answer.Status != http.StatusNotAcceptable {
			t.Errorf("%q: %d", path, answer.Status)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	header := http.Header{"Accept": {"application/json"}}
	for b.Loop() {
		openapi.Answer("/openapi/v3/api/v1", header)
	}
}
