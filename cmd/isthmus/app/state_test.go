package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// State is copied from one folder to another: all of it, once, and never over what is there unasked.
func TestStateCopy(t *testing.T) {
	t.Parallel()
	dirs := [2]string{t.TempDir(), t.TempDir()}
	old, now := documents(t, dirs[0], peerEast), documents(t, dirs[1], peerEast)
	isthmus(t, "trust", "init", "--config", old)
	for name, text := range map[string]string{
		"joined.yaml": joinedHead + peerSouth, "accesses.json": "[]", "invitations.json": "[]", "peers/south.json": `{"version": 1, "peer": "south"}`,
	} {
		path := filepath.Join(dirs[0], "state", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(more ...string) (string, error) {
		return outcome(t, append([]string{"state", "copy", "--config", now, "--from-config", old}, more...)...)
	}
	for range 2 { // again is the same
		if out, err := copied(); err != nil || !strings.Contains(out, "5 records are in files") {
			t.Fatalf("%s, %v", out, err)
		}
	}
	list := func(config, dir string) string {
		return strings.ReplaceAll(isthmus(t, "state", "list", "--config", config), dir, "DIR")
	}
	if got, want := list(now, dirs[1]), list(old, dirs[0]); got != want || strings.Count(got, "\n") != 5 || !strings.Contains(got, "DIR/state/trust\t") {
		t.Errorf("the copy is\n%s\nof\n%s", got, want)
	}
	if got, want := isthmus(t, "trust", "export", "--config", now), isthmus(t, "trust", "export", "--config", old); got != want {
		t.Error("the copy is another authority")
	}
	if err := os.WriteFile(filepath.Join(dirs[1], "state", "accesses.json"), []byte("null"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := copied(); err == nil || !strings.Contains(err.Error(), "accesses.json is there already") {
		t.Errorf("written over: %v", err)
	}
	if _, err := copied("--replace"); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(dirs[1], "state", "trust")); err != nil {
		t.Fatal(err)
	}
	isthmus(t, "trust", "init", "--config", now)
	if _, err := copied(); err == nil || !strings.Contains(err.Error(), "holds an authority already") {
		t.Errorf("an authority was written over: %v", err)
	}
	for want, args := range map[string][]string{
		"either --from file or --from-config": {"--config", now},
		"another gateway":                     {"--config", now, "--from-config", other(t)},
	} {
		if _, err := outcome(t, append([]string{"state", "copy"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// outcome runs a command line and gives its output, and what it says when it fails.
func outcome(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Main(t.Context(), args, &stdout, &stderr); code != 0 {
		return stdout.String(), errors.New(stderr.String())
	}
	return stdout.String(), nil
}

// other writes the documents of a gateway of another name.
func other(t *testing.T) string {
	t.Helper()
	path := documents(t, t.TempDir())
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(text), "{name: west}", "{name: north}", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What is printed for Kubernetes is two objects.
func TestStateManifest(t *testing.T) {
	t.Parallel()
	var kinds []string
	for text := range strings.SplitSeq(isthmus(t, "state", "manifest"), "---\n") {
		var object struct{ Kind string }
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, object.Kind)
	}
	if got := strings.Join(kinds, " "); got != "CustomResourceDefinition Role" {
		t.Error(got)
	}
}
