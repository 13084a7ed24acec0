package app

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// Two replicas hold copies of one authority; of two changes at once the first stays.
func TestVault(t *testing.T) {
	t.Parallel()
	home := file.Open(file.Config{Dir: t.TempDir()})
	set := &manifest.Set{}
	set.Gateway.Spec.State.Home = manifest.StateEtcd // any that is not the folder itself
	vaults := make([]*vault, 3)
	for i := range vaults {
		var err error
		if vaults[i], err = openVault(t.Context(), home, set, t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	first, second, late := vaults[0], vaults[1], vaults[2]
	authority, err := trust.Init(first.dir, "", "west")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	copied, err := trust.Open(second.dir)
	if err != nil || copied.Fingerprint() != authority.Fingerprint() {
		t.Fatalf("the copy is another authority: %v", err)
	}
	if err := filepath.WalkDir(second.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// The third made one before it knew.
	if _, err := trust.Init(late.dir, "", "west"); err != nil {
		t.Fatal(err)
	}
	if err := late.change(t.Context(), func() error { return nil }); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second authority was kept: %v", err)
	}
	if held, err := trust.Open(late.dir); err != nil || held.Fingerprint() != authority.Fingerprint() {
		t.Errorf("the one that stays is not in the folder: %v", err)
	}
	// Files come and go.
	if err := os.WriteFile(filepath.Join(first.dir, "more"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := first.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := second.pull(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, _ := pack(first.dir)
		b, _ := pack(second.dir)
		if !maps.Equal(a, b) || len(a) < 2 {
			t.Errorf("%d files, the copy has %d", len(a), len(b))
		}
		if err := os.Remove(filepath.Join(first.dir, "more")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"../x", "a/b", "..", ".hidden", "/x"} {
		if err := unpack(t.TempDir(), map[string]string{name: "x"}); err == nil {
			t.Errorf("%q was written", name)
		}
	}
}
