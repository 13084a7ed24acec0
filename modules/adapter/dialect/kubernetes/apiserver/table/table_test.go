package table_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
)

// recording is a line of testdata/kubernetes.jsonl, which e2e/testbed writes: the columns of a resource, or a row.
type recording struct {
	Resource string                         `json:"resource"`
	Columns  []metav1.TableColumnDefinition `json:"columns"`
	Now      metav1.Time                    `json:"now"`
	Row      *metav1.TableRow               `json:"row"`
}

func recorded(t *testing.T) []recording {
	t.Helper()
	raw, err := os.ReadFile("testdata/kubernetes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []recording
	for line := range strings.Lines(string(raw)) {
		var one recording
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func served(t *testing.T, name string) resource.Resource {
	t.Helper()
	for _, r := range resource.All {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("%s is not served", name)
	return resource.Resource{}
}

// row is one object's, with cells as a client reads them.
func row(t *testing.T, of resource.Resource, object runtime.Object, now time.Time) metav1.TableRow {
	t.Helper()
	made, err := table.Of(of, []runtime.Object{object}, metav1.ListMeta{}, metav1.TableOptions{}, now)
	if err != nil {
		t.Fatal(err)
	}
	var read metav1.TableRow
	roundTrip(t, made.Rows[0], &read)
	return read
}

func roundTrip(t *testing.T, from, into any) {
	t.Helper()
	b, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLikeKubernetes makes the columns and rows that the API server of Kubernetes made of the same objects.
func TestLikeKubernetes(t *testing.T) {
	t.Parallel()
	columns, rows := map[string]bool{}, 0
	for _, one := range recorded(t) {
		switch {
		case one.Columns != nil:
			columns[one.Resource] = true
			made, err := table.Of(served(t, one.Resource), nil, metav1.ListMeta{}, metav1.TableOptions{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range made.ColumnDefinitions {
				if c.Description == "" {
					t.Errorf("%s: column %s is not explained", one.Resource, c.Name)
				}
				made.ColumnDefinitions[i].Description = ""
			}
			if diff := cmp.Diff(one.Columns, made.ColumnDefinitions); diff != "" {
				t.Errorf("%s: columns differ:\n%s", one.Resource, diff)
			}
		case one.Row != nil:
			rows++
			of := served(t, one.Resource)
			object := of.New()
			if err := json.Unmarshal(one.Row.Object.Raw, object); err != nil {
				t.Fatal(err)
			}
			var diffs []string
			for _, within := range []time.Duration{0, time.Second, -time.Second} { // the server told the second only
				got := row(t, of, object, one.Now.Add(within))
				for i := range got.Conditions {
					got.Conditions[i].Message, one.Row.Conditions[i].Message = "", ""
				}
				diff := cmp.Diff(one.Row.Cells, got.Cells) + cmp.Diff(one.Row.Conditions, got.Conditions)
				if diffs = append(diffs, diff); diff == "" {
					break
				}
			}
			if diffs[len(diffs)-1] != "" {
				t.Errorf("%s %s:\n%s", one.Resource, one.Row.Cells, diffs[0])
			}
		}
	}
	if len(columns) != len(resource.All) || rows < 60 {
		t.Errorf("%d resources and %d rows are recorded", len(columns), rows)
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"a": "b"}}}
}

func TestIncludedObject(t *testing.T) {
	t.Parallel()
	of := served(t, "pods")
	for policy, want := range map[metav1.IncludeObjectPolicy]string{
		"":                     "meta.k8s.io/v1, Kind=PartialObjectMetadata",
		metav1.IncludeMetadata: "meta.k8s.io/v1, Kind=PartialObjectMetadata",
		metav1.IncludeObject:   "/v1, Kind=Pod",
		metav1.IncludeNone:     "",
	} {
		p := pod("one")
		before := p.DeepCopy()
		made, err := table.Of(of, []runtime.Object{p}, metav1.ListMeta{ResourceVersion: "7", Continue: "more"}, metav1.TableOptions{IncludeObject: policy}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, p); diff != "" {
			t.Errorf("%q changes the object:\n%s", policy, diff)
		}
		var read metav1.Table
		roundTrip(t, made, &read)
		if read.Kind != "Table" || read.APIVersion != "meta.k8s.io/v1" || read.ResourceVersion != "7" || read.Continue != "more" {
			t.Errorf("%q: table is %+v %+v", policy, read.TypeMeta, read.ListMeta)
		}
		if want == "" {
			if len(read.Rows[0].Object.Raw) != 0 {
				t.Errorf("%q: object is %s", policy, read.Rows[0].Object.Raw)
			}
			continue
		}
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(read.Rows[0].Object.Raw, &object); err != nil {
			t.Fatal(err)
		}
		if got := object.GroupVersionKind().String(); got != want || object.Name != "one" || object.Labels["a"] != "b" || object.UID != "one" {
			t.Errorf("%q: object is %s %+v", policy, got, object.ObjectMeta)
		}
	}
	_, err := table.Of(of, []runtime.Object{pod("one")}, metav1.ListMeta{}, metav1.TableOptions{IncludeObject: "All"}, time.Now())
	if !errors.IsBadRequest(err) {
		t.Errorf("All: %v", err)
	}
}

func TestWithoutHeaders(t *testing.T) {
	t.Parallel()
	made, err := table.Of(served(t, "pods"), nil, metav1.ListMeta{}, metav1.TableOptions{NoHeaders: true}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(made)
	if err != nil || !strings.Contains(string(b), `"columnDefinitions":null,"rows":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}

// TestOtherKinds shows what has no columns of its own, and refuses objects of another kind.
func TestOtherKinds(t *testing.T) {
	t.Parallel()
	p := pod("one")
	p.CreationTimestamp = metav1.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	if got := row(t, resource.Reviews[0], p, time.Now()); !cmp.Equal(got.Cells, []any{"one", "2026-01-02T02:04:05Z"}) {
		t.Errorf("cells are %v", got.Cells)
	}
	_, err := table.Of(served(t, "nodes"), []runtime.Object{p}, metav1.ListMeta{}, metav1.TableOptions{}, time.Now())
	if !errors.IsInternalError(err) {
		t.Errorf("a pod among nodes: %v", err)
	}
}

// TestEmptyObjects shows objects that say nothing, with as many cells as there are columns.
func TestEmptyObjects(t *testing.T) {
	t.Parallel()
	for _, of := range resource.All {
		made, err := table.Of(of, []runtime.Object{of.New()}, metav1.ListMeta{}, metav1.TableOptions{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(made.Rows[0].Cells), len(made.ColumnDefinitions); got != want {
			t.Errorf("%s: %d cells, %d columns", of.Name, got, want)
		}
	}
}

func FuzzPod(f *testing.F) {
	f.Add([]byte(`{"status":{"phase":"Running","containerStatuses":[{"restartCount":1}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &corev1.Pod{}
		if json.Unmarshal(b, p) != nil {
			return
		}
		if got := row(t, served(t, "pods"), p, time.Now()); len(got.Cells) != 9 {
			t.Errorf("%d cells", len(got.Cells))
		}
	})
}
