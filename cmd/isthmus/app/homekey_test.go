package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

// A key is made once, for its gateway alone; one that is not whole is not taken.
func TestOpenKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := file.Open(file.Config{Dir: dir, Holder: "a"})
	first, err := openKey(t.Context(), home, maskKind)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := openKey(t.Context(), home, maskKind); err != nil || !bytes.Equal(again, first) {
		t.Errorf("another key at the next start: %v", err)
	}
	if seal, err := openKey(t.Context(), home, sealKind); err != nil || bytes.Equal(seal, first) {
		t.Errorf("one key for two things: %v", err)
	}
	path := filepath.Join(dir, "mask.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	other, err := openKey(t.Context(), file.Open(file.Config{Dir: t.TempDir(), Holder: "a"}), maskKind)
	if err != nil || bytes.Equal(other, first) {
		t.Errorf("another gateway has the same: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKey(t.Context(), home, maskKind); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "short") {
		t.Errorf("a broken key: %v", err)
	}
}
