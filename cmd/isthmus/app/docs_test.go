package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

const examples = "../../../docs/examples"

// example copies an example with its state in a folder of its own, and gives the copy's path.
func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	own := strings.Replace(string(text), "spec:\n  orchestrator:", "spec:\n  stateDir: "+dir+"\n  orchestrator:", 1)
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// isthmus runs a command line that must succeed and gives what it printed.
func isthmus(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Main(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("isthmus %s: exit status %d: %s", strings.Join(args, " "), code, stderr.String())
	}
	return stdout.String()
}

// TestExamples takes the documents of docs/examples through the guide's first steps: trust, and a check without a
// warning.
func TestExamples(t *testing.T) {
	t.Parallel()
	west, east := example(t, "west.yaml"), example(t, "east.yaml")
	policies := filepath.Join(examples, "policies.yaml")
	for _, side := range []struct{ peer, of, at string }{{"west", west, east}, {"east", east, west}} {
		isthmus(t, "trust", "init", "--config", side.of)
		bundle := filepath.Join(t.TempDir(), side.peer+".bundle")
		if err := os.WriteFile(bundle, []byte(isthmus(t, "trust", "export", "--config", side.of)), 0o600); err != nil {
			t.Fatal(err)
		}
		isthmus(t, "trust", "import", "--config", side.at, "--peer", side.peer, bundle)
	}
	for _, args := range [][]string{{"--config", west}, {"--config", east}, {"--config", west, "--config", policies}} {
		out := isthmus(t, append([]string{"gateway", "--check"}, args...)...)
		if !strings.Contains(out, "Listener peer") {
			t.Errorf("isthmus gateway --check %s builds no listener for peers:\n%s", strings.Join(args, " "), out)
		}
		for line := range strings.Lines(out) {
			// The policies are for peers that west does not have, and east's kubeconfig is not here.
			if strings.HasPrefix(line, "warning") && !strings.Contains(line, "policies.yaml") && !strings.Contains(line, "/etc/isthmus/kubeconfig") {
				t.Errorf("isthmus gateway --check %s: %s", strings.Join(args, " "), line)
			}
		}
	}
}

// TestExamplesAreTested wants every example to be in TestExamples, and to load as it stands.
func TestExamplesAreTested(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != 4 {
		t.Errorf("docs/examples holds %v; TestExamples knows three, and TestPolicyTestExample one", paths)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "policy_test.yaml") {
			continue
		}
		files := []string{path}
		if strings.HasSuffix(path, "policies.yaml") {
			files = append(files, filepath.Join(examples, "west.yaml"))
		}
		if _, err := manifest.Load(files...); err != nil {
			t.Error(err)
		}
	}
}
