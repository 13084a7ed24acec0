package app

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	filehome "github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
)

// TestTrust takes two gateways through init, export, import, list and remove, and refuses what must not be trusted.
func TestTrust(t *testing.T) {
	t.Parallel()
	westDir, eastDir := t.TempDir(), t.TempDir()
	west := documents(t, westDir, peerEast)
	east := filepath.Join(eastDir, "east.yaml")
	text := "apiVersion: isthmus.io/v1alpha1\nkind: Gateway\nmetadata: {name: east}\nspec: {stateDir: " + eastDir + "/state, orchestrator: {type: kubernetes}}\n"
	if err := os.WriteFile(east, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fails := func(says string, args ...string) {
		t.Helper()
		if code, out, stderr := run(t, args...); code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("isthmus %s: %d %q %q, want 1 with %q", strings.Join(args, " "), code, out, stderr, says)
		}
	}
	fails("trust", "trust", "export", "--config", east) // nothing to export yet

	made := isthmus(t, "trust", "init", "--config", east)
	if !strings.HasPrefix(made, "spiffe://east.isthmus.internal/cluster/east\nfingerprint ") {
		t.Errorf("init prints %q", made)
	}
	if again := isthmus(t, "trust", "init", "--config", east); again != made {
		t.Errorf("a second init prints %q, the first %q", again, made)
	}
	fingerprint := strings.TrimSpace(strings.SplitN(made, "fingerprint ", 2)[1])
	bundle := isthmus(t, "trust", "export", "--config", east)
	if strings.Contains(bundle, "PRIVATE KEY") {
		t.Fatal("the bundle holds a private key")
	}
	if err := filepath.WalkDir(filepath.Join(eastDir, "state"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if data, readErr := os.ReadFile(path); readErr == nil && strings.Contains(string(data), "PRIVATE KEY") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s, a key, is of mode %o", path, info.Mode().Perm())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(westDir, "east.bundle")
	if err := os.WriteFile(file, []byte(bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := isthmus(t, "trust", "list", "--config", west); strings.Count(out, "\n") != 1 {
		t.Errorf("before the import: %s", out)
	}
	if out := isthmus(t, "trust", "import", "--config", west, "--peer", "east", file); !strings.Contains(out, "east is trusted as spiffe://east.isthmus.internal/cluster/east\nfingerprint "+fingerprint) {
		t.Errorf("import prints %q", out)
	}
	isthmus(t, "trust", "import", "--config", west, "--peer", "east", file) // the same again is as good
	out := isthmus(t, "trust", "list", "--config", west)
	if !strings.Contains(out, "spiffe://east.isthmus.internal/cluster/east") || !strings.Contains(out, fingerprint) {
		t.Errorf("list prints %q", out)
	}

	fails("nosuch.bundle", "trust", "import", "--config", west, "--peer", "east", filepath.Join(westDir, "nosuch.bundle"))
	fails("north", "trust", "import", "--config", west, "--peer", "north", file) // the bundle names its cluster
	for name, data := range map[string]string{"empty": "", "garbage": "not a bundle\n", "cut": bundle[:len(bundle)/2]} {
		path := filepath.Join(westDir, name+".bundle")
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		fails("bundle", "trust", "import", "--config", west, "--peer", "east", path)
	}
	isthmus(t, "trust", "init", "--config", west)
	own := filepath.Join(westDir, "west.bundle")
	if err := os.WriteFile(own, []byte(isthmus(t, "trust", "export", "--config", west)), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("", "trust", "import", "--config", west, "--peer", "west", own) // nobody is its own peer

	// Another authority of the same name takes the place of the first only when told so.
	if err := os.RemoveAll(filepath.Join(eastDir, "state")); err != nil {
		t.Fatal(err)
	}
	isthmus(t, "trust", "init", "--config", east)
	other := filepath.Join(westDir, "other.bundle")
	if err := os.WriteFile(other, []byte(isthmus(t, "trust", "export", "--config", east)), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("replace", "trust", "import", "--config", west, "--peer", "east", other)
	isthmus(t, "trust", "import", "--config", west, "--peer", "east", "--replace", other)
	if out := isthmus(t, "trust", "list", "--config", west); strings.Contains(out, fingerprint) {
		t.Errorf("the first is still trusted: %s", out)
	}
	invitations, err := join.OpenInvitations(t.Context(), filehome.Open(filehome.Config{Dir: filepath.Join(westDir, "state")}), func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := invitations.Create(t.Context(), "east", time.Hour); err != nil {
		t.Fatal(err)
	}
	isthmus(t, "trust", "remove", "--config", west, "east")
	if invitations, err = join.OpenInvitations(t.Context(), filehome.Open(filehome.Config{Dir: filepath.Join(westDir, "state")}), func() {}); err != nil || invitations.AnyOpen() {
		t.Errorf("an invitation of a peer that was removed is open: %v", err)
	}
	if out := isthmus(t, "trust", "list", "--config", west); strings.Contains(out, "east") {
		t.Errorf("after the removal: %s", out)
	}
	fails("north", "trust", "remove", "--config", west, "north")
}
