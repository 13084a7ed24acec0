package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi/openapitest"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
)

// update records anew what the API server of Kubernetes answers, for the tests of isthmus as such a server.
var update = flag.Bool("update", false, "rewrite what is recorded of the API server")

// served is the folder of isthmus as an API server.
const served = "../../modules/adapter/dialect/kubernetes/apiserver"

// testAPI compares isthmus as an API server with the one of Kubernetes.
func testAPI(t *testing.T, bed *Bed) {
	api := newAPI(t, bed.Kubernetes("north"))
	t.Run("tables", api.testTables)
	t.Run("discovery", api.testDiscovery)
	t.Run("openapi", api.testOpenAPI)
}

type api struct {
	ctx    context.Context
	host   string
	client *http.Client
}

func newAPI(t *testing.T, cluster *KubernetesCluster) *api {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", cluster.HostKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &api{ctx: testContext(t, time.Minute), host: config.Host, client: client}
}

// ask asks the server and reads a whole answer, which is an error unless it is OK.
func (a *api) ask(method, path, media string, body any) (http.Header, []byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		content = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(a.ctx, method, a.host+path, content)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", media)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s %s", method, path, answer.Status, b)
	}
	return answer.Header, b, err
}

// recording is a line of what is recorded of tables: where from; the columns of a resource; a row, its object, and when.
type recording struct {
	Source   string                         `json:"source,omitempty"`
	Resource string                         `json:"resource,omitempty"`
	Columns  []metav1.TableColumnDefinition `json:"columns,omitempty"`
	Now      *metav1.Time                   `json:"now,omitempty"`
	Row      *metav1.TableRow               `json:"row,omitempty"`
}

// testTables shows objects of all kinds by both.
func (a *api) testTables(t *testing.T) {
	const namespace = "recorded"
	if _, _, err := a.ask(http.MethodPost, "/api/v1/namespaces", "application/json", map[string]any{"metadata": map[string]any{"name": namespace}}); err != nil {
		t.Fatal(err)
	}
	err := waitReady(a.ctx, "the service account of pods", 20*time.Second, func(context.Context) error {
		_, _, err := a.ask(http.MethodGet, "/api/v1/namespaces/"+namespace+"/serviceaccounts/default", "application/json", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(served, "table", "testdata", "objects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	recorded := []recording{{Source: "kube-apiserver " + kubernetesVersion}}
	seen := map[string]bool{}
	for _, document := range strings.Split(string(raw), "\n---\n") {
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		of, one, now, err := a.row(namespace, &unstructured.Unstructured{Object: object})
		if err != nil {
			t.Error(err)
			continue
		}
		compareRow(t, of, one, now.Time)
		if !seen[of.Name] {
			seen[of.Name] = true
			for i := range one.ColumnDefinitions { // words that explain are not compared
				one.ColumnDefinitions[i].Description = ""
			}
			recorded = append(recorded, recording{Resource: of.Name, Columns: one.ColumnDefinitions})
		}
		recorded = append(recorded, recording{Resource: of.Name, Now: &now, Row: &one.Rows[0]})
	}
	for _, r := range resource.All {
		if !seen[r.Name] {
			t.Errorf("nothing shows %s", r.Name)
		}
	}
	if *update && !t.Failed() {
		record(t, "table", recorded)
	}
}

// discovered is a line of what is recorded of discovery: where from; a resource.
type discovered struct {
	Source   string                               `json:"source,omitempty"`
	Group    string                               `json:"group"`
	Version  string                               `json:"version,omitempty"`
	Resource *apidiscoveryv2.APIResourceDiscovery `json:"resource,omitempty"`
}

// testDiscovery records all resources of the groups that isthmus serves some of.
func (a *api) testDiscovery(t *testing.T) {
	recorded := []discovered{{Source: "kube-apiserver " + kubernetesVersion}}
	for _, path := range []string{"/api", "/apis"} {
		_, b, err := a.ask(http.MethodGet, path, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", nil)
		if err != nil {
			t.Fatal(err)
		}
		var list apidiscoveryv2.APIGroupDiscoveryList
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		for _, group := range list.Items {
			for _, version := range group.Versions {
				gv := schema.GroupVersion{Group: group.Name, Version: version.Version}
				serves := func(r resource.Resource) bool { return r.GroupVersion() == gv }
				if !slices.ContainsFunc(slices.Concat(resource.All, resource.Reviews), serves) {
					continue
				}
				for _, r := range version.Resources {
					recorded = append(recorded, discovered{Group: gv.Group, Version: gv.Version, Resource: &r})
				}
			}
		}
	}
	record(t, "discovery", recorded)
}

// described is a line of what is recorded of OpenAPI: where from; a schema; an operation.
type described struct {
	Source    string                 `json:"source,omitempty"`
	Schema    string                 `json:"schema,omitempty"`
	Fields    map[string]string      `json:"fields,omitempty"`
	Operation string                 `json:"operation,omitempty"`
	Is        *openapitest.Operation `json:"is,omitempty"`
}

// testOpenAPI records the schemas and operations that isthmus tells of too.
func (a *api) testOpenAPI(t *testing.T) {
	recorded := []described{{Source: "kube-apiserver " + kubernetesVersion}}
	whole := openapitest.Outline{Schemas: map[string]map[string]string{}, Operations: map[string]openapitest.Operation{}}
	for _, path := range openapi.Paths() {
		mine, _ := openapi.Answer(path, nil)
		ours, err := openapitest.Of(mine.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, b, err := a.ask(http.MethodGet, path, "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := openapitest.Of(b)
		if err != nil {
			t.Fatal(err)
		}
		theirs.Limit(ours)
		maps.Copy(whole.Schemas, theirs.Schemas)
		maps.Copy(whole.Operations, theirs.Operations)
	}
	for _, name := range slices.Sorted(maps.Keys(whole.Schemas)) {
		recorded = append(recorded, described{Schema: name, Fields: whole.Schemas[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(whole.Operations)) {
		is := whole.Operations[name]
		recorded = append(recorded, described{Operation: name, Is: &is})
	}
	record(t, "openapi", recorded)
}

// row makes an object as it is described, and asks for its row.
func (a *api) row(namespace string, object *unstructured.Unstructured) (of resource.Resource, one metav1.Table, now metav1.Time, err error) {
	for _, r := range resource.All {
		if r.GroupVersionKind == object.GroupVersionKind() {
			of = r
		}
	}
	path := collection(of, namespace)
	status, deleted := object.Object["status"], object.GetDeletionTimestamp() != nil
	delete(object.Object, "status")
	object.SetDeletionTimestamp(nil)
	if _, _, err = a.ask(http.MethodPost, path, "application/json", object); err != nil {
		return of, one, now, err
	}
	path += "/" + object.GetName()
	if deleted {
		if _, _, err = a.ask(http.MethodDelete, path, "application/json", nil); err != nil {
			return of, one, now, err
		}
	}
	const media = "application/json;as=Table;v=v1;g=meta.k8s.io"
	var header http.Header
	var b []byte
	if status == nil {
		header, b, err = a.ask(http.MethodGet, path+"?includeObject=Object", media, nil)
	} else { // nothing is stored, so no controller comes between
		header, b, err = a.ask(http.MethodPatch, path+"/status?dryRun=All&includeObject=Object", media, map[string]any{"status": status})
	}
	if err != nil {
		return of, one, now, err
	}
	if now.Time, err = http.ParseTime(header.Get("Date")); err != nil {
		return of, one, now, err
	}
	if err = json.Unmarshal(b, &one); err == nil && len(one.Rows) != 1 {
		err = fmt.Errorf("%s: %d rows", path, len(one.Rows))
	}
	if err != nil {
		return of, one, now, err
	}
	shown := of.New()
	if err = json.Unmarshal(one.Rows[0].Object.Raw, shown); err != nil {
		return of, one, now, err
	}
	accessor := shown.(metav1.Object)
	accessor.SetManagedFields(nil)
	accessor.SetUID("")
	accessor.SetResourceVersion("")
	one.Rows[0].Object = runtime.RawExtension{Object: shown}
	return of, one, now, nil
}

func collection(of resource.Resource, namespace string) string {
	path := "/apis/" + of.Group
	if of.Group == "" {
		path = "/api"
	}
	path += "/" + of.Version + "/"
	if of.Namespaced {
		path += "namespaces/" + namespace + "/"
	}
	return path + of.Name
}

// compareRow makes the same row here. The server told the second in which it made its own.
func compareRow(t *testing.T, of resource.Resource, theirs metav1.Table, now time.Time) {
	t.Helper()
	object := theirs.Rows[0].Object.Object
	var diff string
	for _, moment := range []time.Time{now, now.Add(time.Second), now.Add(-time.Second)} {
		ours, err := table.Of(of, []runtime.Object{object}, metav1.ListMeta{}, metav1.TableOptions{}, moment)
		if err != nil {
			t.Error(err)
			return
		}
		if diff = cmp.Diff(shape(theirs), shape(*ours)); diff == "" {
			return
		}
	}
	t.Errorf("%s: our table differs:\n%s", of.Name, diff)
}

// shape is what must be the same of two tables: words that explain are our own.
func shape(t metav1.Table) string {
	type column struct {
		Name, Type, Format string
		Priority           int32
	}
	var columns []column
	for _, c := range t.ColumnDefinitions {
		columns = append(columns, column{c.Name, c.Type, c.Format, c.Priority})
	}
	var rows []any
	for _, r := range t.Rows {
		var conditions []any
		for _, c := range r.Conditions {
			conditions = append(conditions, []string{string(c.Type), string(c.Status), c.Reason})
		}
		rows = append(rows, map[string]any{"cells": r.Cells, "conditions": conditions})
	}
	b, _ := json.MarshalIndent(map[string]any{"columns": columns, "rows": rows}, "", " ")
	return string(b)
}

// record compares what is recorded for a package with what the server tells now, a line for each value, or writes it.
func record[T any](t *testing.T, folder string, values []T) {
	t.Helper()
	path := filepath.Join(served, folder, "testdata", "kubernetes.jsonl")
	var b bytes.Buffer
	for _, value := range values {
		if err := json.NewEncoder(&b).Encode(value); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(before), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("the server tells otherwise than %s:\n%s", path, diff)
	}
}
