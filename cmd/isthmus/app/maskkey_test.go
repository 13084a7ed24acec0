package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

// The key of the mask is made once, for its gateway alone; one that is not whole is not taken.
func TestMaskKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := file.Open(file.Config{Dir: dir, Holder: "a"})
	var before string
	for range 2 {
		hiding, err := openMask(t.Context(), home)
		if err != nil {
			t.Fatal(err)
		}
		now := hiding.String("10.0.0.1")
		if before != "" && now != before || now == "10.0.0.1" {
			t.Errorf("%s, before %s", now, before)
		}
		before = now
	}
	path := filepath.Join(dir, "mask.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	other, err := openMask(t.Context(), file.Open(file.Config{Dir: t.TempDir(), Holder: "a"}))
	if err != nil || other.String("10.0.0.1") == before {
		t.Errorf("another gateway has the same: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openMask(t.Context(), home); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "short") {
		t.Errorf("a broken key: %v", err)
	}
}
