package docker

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestEveryRouteIsNamed classifies every path and method of the Engine API's documents, v1.24 to v1.56, as
// testdata/routes.txt lists them: each has an action, a verb and a kind, and where it is not translated, a reason.
func TestEveryRouteIsNamed(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var made strings.Builder
	scanner := bufio.NewScanner(strings.NewReader(string(file)))
	documented := map[string]bool{}
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&made, line)
			continue
		}
		words := strings.Fields(line)
		method, path := words[0], words[1]
		filled := strings.NewReplacer("{id}", "obj", "{name}", "obj", "{checkpoint}", "cp").Replace(path)
		query := ""
		if path == "/images/create" {
			query = "?fromImage=obj"
		}
		req := dialect.Request{Method: method, Path: "/v1.49" + filled + query, Header: http.Header{}}
		op, err := Dialect{}.Classify(req)
		if err != nil {
			t.Errorf("%s %s is not named: %v", method, path, err)
			continue
		}
		r, _, _ := findRoute(method, filled)
		documented[r.method+" "+r.path] = true
		if op.Verb == "" || op.Object.Kind == "" || !slices.Contains(neutral.Actions(), op.Action) {
			t.Errorf("%s %s: %+v", method, path, op)
		}
		if op.Action == neutral.ObjectRaw && (op.Object.Resource == "" || r.reason == "") {
			t.Errorf("%s %s: raw without a resource or a reason", method, path)
		}
		if strings.Contains(path, "{") && op.Ref == "" {
			t.Errorf("%s %s: no reference", method, path)
		}
		how := "translated"
		if r.reason != "" {
			how = "refused"
		}
		fmt.Fprintf(&made, "%-6s %-36s %-20s %-8s %-9s %s\n", method, path, op.Action, op.Verb, op.Object.Kind, how)
	}
	if *update {
		if err := os.WriteFile("testdata/routes.txt", []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if made.String() != string(file) {
		t.Errorf("testdata/routes.txt differs; -update rewrites it. The code makes:\n%s", made.String())
	}
	for _, r := range routes {
		if !documented[r.method+" "+r.path] && r.path != "networks/" && r.path != "containers/{ref}/copy" {
			t.Errorf("%s %s is routed and not in testdata/routes.txt", r.method, r.path)
		}
	}
}

func TestClassifyNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		action       neutral.Action
		verb         neutral.Verb
		name, ref    string
	}{
		{"GET", "/containers/web/json", neutral.ContainerInspect, neutral.Get, "web", "web"},
		{"GET", "/v1.49/containers//web/json", neutral.ContainerInspect, neutral.Get, "web", "web"},
		{"GET", "/v1.49/containers/json/json", neutral.ContainerInspect, neutral.Get, "json", "json"},
		{"DELETE", "/v1.49/containers/prune", neutral.ContainerRemove, neutral.Destroy, "prune", "prune"},
		{"POST", "/v1.49/containers/create?name=/web", neutral.ContainerCreate, neutral.Create, "web", ""},
		{"GET", "/v1.49/images/a.b:5/c/d:1/json", neutral.ImageInspect, neutral.Get, "a.b:5/c/d:1", "a.b:5/c/d:1"},
		{"GET", "/v1.49/images/json/json", neutral.ImageInspect, neutral.Get, "json", "json"},
		{"DELETE", "/v1.49/images/a/b", neutral.ImageRemove, neutral.Destroy, "a/b", "a/b"},
		{"POST", "/v1.49/images/create?fromImage=a/b&tag=1", neutral.ImagePull, neutral.Create, "a/b:1", "a/b:1"},
		{"POST", "/v1.49/images/create?fromSrc=-&repo=x", neutral.ImageBuild, neutral.Create, "x", ""},
		{"POST", "/v1.49/commit?container=web", neutral.ContainerCommit, neutral.Copy, "web", "web"},
		{"POST", "/v1.49/exec/abc/start", neutral.ExecStart, neutral.Exec, "", "abc"},
		{"POST", "/v1.49/services/shop/update", neutral.WorkloadUpdate, neutral.Update, "shop", "shop"},
		{"GET", "/v1.49/swarm/unlockkey", neutral.SwarmOther, neutral.Update, "", ""},
		{"POST", "/v1.49/plugins/a/b:1/enable", neutral.ObjectRaw, neutral.Raw, "a/b:1", "a/b:1"},
		{"HEAD", "/_ping", neutral.SystemPing, neutral.Get, "", ""},
		{"GET", "/volumes", neutral.VolumeList, neutral.List, "", ""},
		{"GET", "/version", neutral.SystemVersion, neutral.Get, "", ""},
		{"GET", "/v1.49/version", neutral.SystemVersion, neutral.Get, "", ""},
		{"GET", "/v1.49/containers/a%20b/json", neutral.ContainerInspect, neutral.Get, "a b", "a b"},
	} {
		op, err := Dialect{}.Classify(dialect.Request{Method: c.method, Path: c.path})
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		if op.Action != c.action || op.Verb != c.verb || op.Object.Name != c.name || op.Ref != c.ref {
			t.Errorf("%s %s: %s %s name %q ref %q", c.method, c.path, op.Action, op.Verb, op.Object.Name, op.Ref)
		}
	}
}

// TestClassifyBeyond holds that what acts on more than its path names says so.
func TestClassifyBeyond(t *testing.T) {
	t.Parallel()
	for path, beyond := range map[string]bool{
		"/v1.49/networks/lan/connect":                     true,
		"/v1.49/networks/lan/disconnect":                  true,
		"/v1.49/containers/web/rename?name=db":            true,
		"/v1.49/commit?container=web&repo=x":              true,
		"/v1.49/images/a/b/tag?repo=x":                    true,
		"/v1.49/images/load":                              true,
		"/v1.49/build?t=x&outputs=[]":                     true,
		"/v1.49/build?t=x":                                false,
		"/v1.49/containers/create?name=web":               false,
		"/v1.49/containers/web/update":                    false,
		"/v1.49/services/shop/update?version=1":           false,
		"/v1.49/images/create?fromImage=busybox&tag=1.36": false,
		"/v1.49/containers/web/start":                     false,
		"/v1.49/containers/rename/kill":                   false,
	} {
		op, err := Dialect{}.Classify(dialect.Request{Method: http.MethodPost, Path: path})
		if err != nil || op.Beyond != beyond {
			t.Errorf("%s: beyond %v, %v; want %v", path, op.Beyond, err, beyond)
		}
	}
}

// TestClassifyReadsNoForm holds that no name comes from a body that is not judged.
func TestClassifyReadsNoForm(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/v1.49/build?remote=http://a/b.tar", "/v1.49/images/create?fromImage=a"} {
		for _, media := range []string{"application/x-www-form-urlencoded", " Application/X-WWW-Form-Urlencoded ; charset=utf-8"} {
			_, err := Dialect{}.Classify(dialect.Request{Method: http.MethodPost, Path: path, Header: http.Header{"Content-Type": {media}}})
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s as %q: %v", path, media, err)
			}
		}
	}
	_, err := Dialect{}.Classify(dialect.Request{Method: http.MethodPost, Path: "/v1.49/build?t=a&t=b", Header: http.Header{"Content-Type": {"application/x-tar"}}})
	if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != "t" {
		t.Errorf("an image of two names: %v", err)
	}
}

func TestClassifyRefuses(t *testing.T) {
	t.Parallel()
	for path, kind := range map[string]fault.Kind{
		"/v1.49/containers/../secrets":         fault.NotFound,
		"/v1.49/containers/%2e%2e/json":        fault.NotFound,
		"/v1.49/containers/./json":             fault.NotFound,
		"/v1.49/containers/a/b/json":           fault.NotFound,
		"/v1.49/containers/a%2fb/json":         fault.NotFound,
		"/v1.49/containers/a%5cb/json":         fault.NotFound,
		"/v1.49/containers/a%00/json":          fault.NotFound,
		"/v1.49/containers///json":             fault.NotFound,
		"/v1.49//containers/web/json":          fault.NotFound,
		"//containers/web/json":                fault.NotFound,
		"/v1.49/images/a/../../secrets/json":   fault.NotFound,
		"/v1.49/images/a//b/json":              fault.NotFound,
		"/v1.49/containers/web/json/":          fault.NotFound,
		"/v1.49/Containers/web/json":           fault.NotFound,
		"/v1.49":                               fault.NotFound,
		"/":                                    fault.NotFound,
		"/v1.49/containers/create":             fault.NotFound, // GET
		"/v1.50/info":                          fault.Invalid,
		"/v2.0/info":                           fault.Invalid,
		"/v1.23/info":                          fault.Invalid,
		"/v1.4.9/info":                         fault.Invalid,
		"/v99999999999999999999.1/info":        fault.Invalid,
		"/v1.49/containers/web/json?a=%zz":     fault.Invalid,
		"/v1.49/containers/json?filters=a;b=c": fault.Invalid,
		"containers/json":                      fault.Invalid,
	} {
		op, err := Dialect{}.Classify(dialect.Request{Method: "GET", Path: path})
		if !fault.Is(err, kind) {
			t.Errorf("%s: %v %+v, want %v", path, err, op, kind)
		}
	}
}

// FuzzClassify wants a name or a fault of every head, and never a reference that a path could be climbed with.
func FuzzClassify(f *testing.F) {
	f.Add("GET", "/v1.49/containers/web/json")
	f.Add("POST", "/v1.24/images/create?fromImage=a&tag=b")
	f.Add("DELETE", "/images/a/b/c")
	f.Add("GET", "/v1.49/containers/%2e%2e/json")
	f.Fuzz(func(t *testing.T, method, path string) {
		req := dialect.Request{Method: method, Path: path}
		op, err := Dialect{}.Classify(req)
		if err != nil {
			if res := (Dialect{}).Refuse(req, err); res.Status < 400 {
				t.Errorf("%q %q: refused with %d", method, path, res.Status)
			}
			return
		}
		if op.Action == "" || op.Verb == "" || op.Object.Kind == "" {
			t.Errorf("%q %q: %+v", method, path, op)
		}
		switch op.Action {
		case neutral.ImagePull, neutral.ContainerCommit: // from the query
			return
		default:
		}
		for segment := range strings.SplitSeq(op.Ref, "/") {
			if segment == ".." || segment == "." || op.Ref != "" && segment == "" {
				t.Errorf("%q %q: reference %q", method, path, op.Ref)
			}
		}
	})
}
