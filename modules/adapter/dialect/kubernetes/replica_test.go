package kubernetes

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica/replicatest"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

var (
	eastWeb   = dialect.ObjectRef{Cluster: "east", Namespace: "shop", Kind: "deployment", Name: "web"}
	westPlace = dialect.Place{Cluster: "west", Namespace: "shop", Name: "copy"}
	eastPlace = dialect.Place{Cluster: "east", Namespace: "shop", Name: "copy"}
)

// replicaSource is one of the sources, by its kind.
func replicaSource(t testing.TB, kind string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "replica", kind+".json"))
	if err != nil {
		t.Fatal(err)
	}
	object, err := replica.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// answering answers every read with an object, and lists of Pods with one whose image has a digest.
func answering(t testing.TB, object map[string]any) dialect.Read {
	t.Helper()
	return func(_ context.Context, req dialect.Request) (dialect.Response, error) {
		answer := object
		if strings.Contains(req.Path, "labelSelector") {
			answer = map[string]any{"items": []any{map[string]any{"spec": map[string]any{"containers": []any{
				map[string]any{"name": "web", "image": "shop/web:3"}}}, "status": map[string]any{"containerStatuses": []any{
				map[string]any{"name": "web", "imageID": "docker.io/shop/web@sha256:" + strings.Repeat("1", 64)}}}}}}
		}
		raw, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		return dialect.Response{Status: http.StatusOK, Body: raw}, nil
	}
}

var replicaSources = []string{"deployment", "pod", "service", "persistentvolumeclaim"}

// TestReplicaGolden shows the drafts of objects, for another cluster and for their own namespace.
func TestReplicaGolden(t *testing.T) {
	t.Parallel()
	for _, kind := range replicaSources {
		for name, to := range map[string]dialect.Place{"elsewhere": westPlace, "beside": eastPlace} {
			from := eastWeb
			from.Kind = kind
			draft, err := Dialect{}.Replicate(t.Context(), answering(t, replicaSource(t, kind)), from, to)
			if err != nil {
				t.Fatal(err)
			}
			var needs []string
			for _, n := range draft.Needs {
				needs = append(needs, n.String())
			}
			got, err := json.MarshalIndent(map[string]any{"create": draft.Create.Method + " " + draft.Create.Path, "body": draft.Body,
				"left": draft.Left, "needs": needs}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "replica", kind+"_"+name+".golden")
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(got)+"\n" {
				t.Errorf("%s is otherwise:\n%s", path, got)
			}
		}
	}
}

// TestReplicaKeepsOrTells grows sources and holds the drafts to it that no leaf vanishes.
func TestReplicaKeepsOrTells(t *testing.T) {
	t.Parallel()
	free := func(path string) bool {
		last := path[strings.LastIndexByte(path, '.')+1:]
		return slices.Contains([]string{"labels", "annotations", "metadata", "spec", "containers", "template", "securityContext", "resources", "strategy", "ports", "env", ""}, last) &&
			!strings.HasPrefix(path, "status")
	}
	for seed := range uint64(600) {
		for _, kind := range replicaSources {
			source := replicatest.Grow(rand.New(rand.NewPCG(seed, 7)), "", replicaSource(t, kind), free).(map[string]any)
			from, to := eastWeb, westPlace
			from.Kind = kind
			if seed%2 == 0 {
				to = eastPlace
			}
			draft, err := Dialect{}.Replicate(t.Context(), answering(t, source), from, to)
			if err != nil {
				t.Fatal(err)
			}
			for _, leaf := range replicatest.Vanished(source, draft, func(path string) string { return path }, ownLeaf) {
				t.Errorf("seed %d: %s of a %s is neither copied nor told", seed, leaf, kind)
			}
			if t.Failed() {
				t.Fatalf("left: %v", draft.Left)
			}
		}
	}
}

// ownLeaf tells leaves that are a source's own by nature, and those that the copy has in other words.
func ownLeaf(path, value string) bool {
	meta, key, inMeta := strings.Cut(path, "metadata.")
	switch {
	case path == "status", strings.HasPrefix(path, "status."):
		return true
	case inMeta && !strings.HasPrefix(key, "labels.") && !strings.HasPrefix(key, "annotations."):
		first, _, _ := strings.Cut(key, ".")
		return slices.Contains(ownOfMetadata, first) && (first != "name" || meta == "")
	case inMeta && strings.HasPrefix(key, "labels."):
		label := strings.TrimPrefix(key, "labels.")
		return slices.Contains(ownLabels, label) || strings.HasPrefix(label, "isthmus.io/")
	case inMeta:
		annotation := strings.TrimPrefix(key, "annotations.")
		return slices.Contains(ownAnnotations, annotation) || strings.HasPrefix(annotation, "isthmus.io/")
	case strings.HasSuffix(path, ".image"), strings.HasSuffix(path, ".serviceAccountName") && value == "default":
		return true // with its digest
	}
	for _, own := range []string{"nodeName", "serviceAccount", "priority", "preemptionPolicy", "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "volumeName"} {
		if strings.HasSuffix(path, "spec."+own) {
			return true
		}
	}
	for _, added := range []string{"volumes.", "volumeMounts.", "tolerations.", "schedulingGates.", "enableServiceLinks"} { // what admission adds
		if strings.Contains(path, added) && (strings.Contains(value, "kube-api-access") || value == accountMount || strings.Contains(path, ".projected.") ||
			added == "tolerations." || added == "schedulingGates." || added == "enableServiceLinks" || strings.HasSuffix(path, ".readOnly")) {
			return true
		}
	}
	return false
}

// TestReplicaHidden never writes what stands for a hidden value.
func TestReplicaHidden(t *testing.T) {
	t.Parallel()
	source := replicaSource(t, "deployment")
	container := replica.List(source, "spec", "template", "spec", "containers")[0].(map[string]any)
	container["env"] = []any{map[string]any{"name": "KEY", "value": "hidden-by-isthmus"}, map[string]any{"name": "A", "value": "1"}}
	draft, err := Dialect{}.Replicate(t.Context(), answering(t, source), eastWeb, westPlace)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(draft.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "hidden-by-isthmus") || strings.Contains(string(raw), `"KEY"`) {
		t.Errorf("a stand-in is copied: %s", raw)
	}
	if !slices.ContainsFunc(draft.Left, func(l dialect.Left) bool { return strings.HasSuffix(l.Field, ".env[KEY]") && l.Needed }) {
		t.Errorf("the variable is not told: %v", draft.Left)
	}
	req := dialect.Request{Header: http.Header{"Content-Type": {"application/yaml"}}, Body: []byte("kind: Deployment\nmetadata: {name: copy}\n" +
		"spec: {template: {spec: {containers: [{name: mine, image: scratch, env: [{name: KEY, value: given}]}]}}}\n")}
	got, left, err := Dialect{}.Complete(req, draft)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(left, func(l dialect.Left) bool { return strings.HasSuffix(l.Field, ".env[KEY]") }) {
		t.Errorf("what the request gives is still told as left: %v", left)
	}
	body, err := replica.Parse(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	containers := replica.List(body, "spec", "template", "spec", "containers")
	if len(containers) != 1 || containers[0].(map[string]any)["name"] != "mine" ||
		containers[0].(map[string]any)["image"] != "shop/web:3@sha256:"+strings.Repeat("1", 64) {
		t.Errorf("the one container is not completed: %v", containers)
	}
	if got.Header.Get("Content-Type") != mediaJSON {
		t.Errorf("the completed body is JSON, and said to be %s", got.Header.Get("Content-Type"))
	}
}

// FuzzReplica reads sources of any form.
func FuzzReplica(f *testing.F) {
	for _, kind := range replicaSources {
		raw, err := os.ReadFile(filepath.Join("testdata", "replica", kind+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, true)
		f.Add(raw, false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, beside bool) {
		read := func(context.Context, dialect.Request) (dialect.Response, error) {
			return dialect.Response{Status: http.StatusOK, Body: raw}, nil
		}
		to := westPlace
		if beside {
			to = eastPlace
		}
		for _, kind := range []string{"deployment", "statefulset", "cronjob", "job", "pod", "service", "secret", "pvc"} {
			from := eastWeb
			from.Kind = kind
			draft, err := Dialect{}.Replicate(t.Context(), read, from, to)
			if err != nil {
				continue
			}
			body, err := json.Marshal(draft.Body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(body), "hidden-by-isthmus") {
				t.Fatalf("a stand-in is copied: %s", body)
			}
			request := dialect.Request{Body: raw, Header: http.Header{"Content-Type": {mediaJSON}}}
			if _, _, err := (Dialect{}).Complete(request, draft); err != nil && !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
		}
	})
}

// TestReplicaDigests takes a digest only of Pods that run the image which is copied.
func TestReplicaDigests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, image, selector string
		known                 bool
	}{
		{"the same image", "shop/web:2", `{"matchLabels":{"app":"web"}}`, true},
		{"an earlier image", "shop/web:1", `{"matchLabels":{"app":"web"}}`, false},
		{"no labels", "shop/web:2", `{"matchExpressions":[{"key":"app","operator":"In","values":["web"]}]}`, false},
	} {
		read := func(_ context.Context, req dialect.Request) (dialect.Response, error) {
			text := `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"web"},"spec":{"selector":` + c.selector +
				`,"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"shop/web:2"}]}}}}`
			if strings.Contains(req.Path, "/pods") {
				text = `{"items":[{"spec":{"containers":[{"name":"web","image":"` + c.image + `"}]},"status":{"containerStatuses":[
					{"name":"web","imageID":"docker.io/shop/web@sha256:1111"}]}}]}`
			}
			return dialect.Response{Status: http.StatusOK, Body: []byte(text)}, nil
		}
		from := eastWeb
		from.Kind = "statefulset"
		draft, err := Dialect{}.Replicate(t.Context(), read, from, westPlace)
		if err != nil {
			t.Fatal(err)
		}
		container := replica.List(draft.Body, "spec", "template", "spec", "containers")[0].(map[string]any)
		if known := container["image"] == "shop/web:2@sha256:1111"; known != c.known {
			t.Errorf("%s: the copy's image is %s", c.name, container["image"])
		}
	}
}

// TestAlike holds creates against words for kinds.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, kind string
		alike      bool
	}{
		{"/api/v1/namespaces/shop/pods?fieldManager=x", "container", true},
		{"/apis/apps/v1/namespaces/shop/deployments", "workload", true},
		{"/apis/apps/v1/namespaces/shop/deployments", "statefulset", false},
		{"/api/v1/namespaces/shop/pods", "secret", false},
		{"/api/v1/namespaces/shop/pods", "node", true},
	} {
		if got := (Dialect{}).Alike(dialect.Request{Path: c.path}, c.kind); got != c.alike {
			t.Errorf("%s for a %s: %t", c.path, c.kind, got)
		}
	}
}
