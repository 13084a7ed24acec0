package app

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// golden compares text with a file under testdata, in which dir reads DIR.
func golden(t *testing.T, name, dir, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := []byte(strings.ReplaceAll(text, dir, "DIR"))
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (rewrite with -update): %v\n%s", path, err, got)
	}
}

// TestCheck prints what a gateway would serve: before it has a certificate authority, with one and no trust in its
// peers, and with trust.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir, eastDir := t.TempDir(), t.TempDir()
	west := documents(t, dir, peerEast, peerSouth, policyEast)
	check := func() string {
		t.Helper()
		return isthmus(t, "gateway", "--check", "--config", west)
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "check_bare.txt", dir, check())
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("a check changed the folder: %v, %v", after, err)
	}
	isthmus(t, "trust", "init", "--config", west)
	golden(t, "check_untrusted.txt", dir, check())

	east := filepath.Join(eastDir, "east.yaml")
	text := "apiVersion: isthmus.io/v1alpha1\nkind: Gateway\nmetadata: {name: east}\nspec: {stateDir: " + eastDir + "/state, orchestrator: {type: kubernetes}}\n"
	if err := os.WriteFile(east, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	isthmus(t, "trust", "init", "--config", east)
	bundle := filepath.Join(dir, "east.bundle")
	if err := os.WriteFile(bundle, []byte(isthmus(t, "trust", "export", "--config", east)), 0o600); err != nil {
		t.Fatal(err)
	}
	isthmus(t, "trust", "import", "--config", west, "--peer", "east", bundle)
	golden(t, "check_trusted.txt", dir, check())
}
