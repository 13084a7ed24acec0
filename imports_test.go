package isthmus_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/isthmus-mesh/isthmus/"

// rule says what packages under from must not import, and why.
type rule struct {
	from   string
	except []string // prefixes that may stand under to all the same
	to     []string
	why    string
}

var rules = []rule{
	{from: "modules/neutral", to: []string{"."}, why: "the neutral model imports only the standard library: a field exists because two dialects need it"},
	{from: "modules/fault", to: []string{"."}, why: "faults are the bottom of the tree"},
	{from: "xds/names", to: []string{"."}, why: "names are shared by both ends of Envoy and must pull nothing in"},
	{from: "extproc", to: []string{module + "modules/adapter", module + "modules/proxy", module + "modules/orchestration", module + "modules/policy", module + "xds/"},
		except: []string{module + "xds/names"}, why: "the external-processing server knows Envoy and no business"},
	{from: "xds", to: []string{module + "extproc", module + "modules/adapter", module + "modules/proxy"}, why: "the control plane never depends on what runs behind it"},
	{from: "modules", to: []string{module + "extproc", module + "cmd", module + "e2e", module + "xds/"}, except: []string{module + "xds/names"}, why: "imports go one way"},
	{from: "modules/orchestration", to: []string{module + "modules/adapter", module + "modules/proxy"}, why: "the three kinds of request never depend on each other"},
	{from: "modules/adapter", to: []string{module + "modules/orchestration", module + "modules/proxy"}, why: "the three kinds of request never depend on each other"},
	{from: "modules/proxy", to: []string{module + "modules/adapter", module + "modules/orchestration"}, why: "the three kinds of request never depend on each other"},
	{from: "modules/adapter/dialect/docker", to: []string{module + "modules/adapter/dialect/kubernetes", "k8s.io/", "sigs.k8s.io/"}, why: "a dialect knows one orchestrator"},
	{from: "modules/adapter/dialect/kubernetes", to: []string{module + "modules/adapter/dialect/docker", "github.com/moby/", "github.com/docker/"},
		except: []string{"github.com/moby/spdystream"}, why: "a dialect knows one orchestrator; SPDY is Kubernetes', whoever keeps its library"},
	{from: "", except: []string{}, to: []string{module + "cmd", module + "e2e"}, why: "only cmd and e2e stand above everything"},
}

// vendors are API types that stay inside the folders named.
var vendors = []struct {
	prefix  string
	folders []string
	why     string
}{
	{"k8s.io/", []string{"modules/adapter/dialect/kubernetes", "modules/state/kubernetes", "modules/freezer/agent", "e2e"}, "Kubernetes' types stay inside their dialect, the home of state that it is, and the agent of its nodes"},
	{"github.com/containerd/containerd", []string{"modules/freezer/containerd", "e2e"}, "a node's runtime is the agent's business"},
	{"go.etcd.io/", []string{"modules/state/etcd", "e2e"}, "etcd's types stay inside the home of state that it is"},
	{"github.com/moby/moby", []string{"modules/adapter/dialect/docker", "e2e"}, "Docker's types stay inside their dialect"},
	{"github.com/envoyproxy/go-control-plane", []string{"xds", "extproc", "e2e"}, "Envoy's types stay in xds and extproc"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Doc        string
	GoFiles    []string
	Standard   bool
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Doc,GoFiles,Standard", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func under(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

func TestImports(t *testing.T) {
	t.Parallel()
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages only", len(packages))
	}
	for _, p := range packages {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if !under(path, r.from) || (r.from == "" && (under(path, "cmd") || under(path, "e2e"))) {
				continue
			}
			for _, imported := range p.Imports {
				for _, banned := range r.to {
					bad := strings.HasPrefix(imported, banned)
					if banned == "." { // anything with a host name in its path is not the standard library
						bad = strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
					}
					for _, fine := range r.except {
						bad = bad && !strings.HasPrefix(imported, fine)
					}
					if bad {
						t.Errorf("%s imports %s: %s", path, imported, r.why)
					}
				}
			}
		}
		for _, v := range vendors {
			for _, imported := range p.Imports {
				if !strings.HasPrefix(imported, v.prefix) {
					continue
				}
				allowed := false
				for _, folder := range v.folders {
					allowed = allowed || under(path, folder)
				}
				if !allowed {
					t.Errorf("%s imports %s: %s", path, imported, v.why)
				}
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 && !strings.Contains(p.ImportPath, "/gen/") && !strings.HasSuffix(p.ImportPath, "isthmus-mesh/isthmus") {
			t.Errorf("%s has no doc sentence", p.ImportPath)
		}
	}
}
