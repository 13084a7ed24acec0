package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

func TestAccesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	changes := 0
	a, err := openAccesses(t.Context(), file.Open(file.Config{Dir: dir}), func() { changes++ })
	if err != nil || len(a.list()) != 0 {
		t.Fatalf("%v, %v", a, err)
	}
	db := AccessState{Listen: "127.0.0.1:15432", Peer: "east", Target: "db-0.shop", Port: 5432}
	opened, err := a.open(t.Context(), db)
	if err != nil || opened.Name != "15432" || changes != 1 {
		t.Fatalf("%+v, %v, %d changes", opened, err, changes)
	}
	if again, err := a.open(t.Context(), db); err != nil || again != opened || changes != 1 {
		t.Errorf("the same again: %+v, %v, %d changes", again, err, changes)
	}
	for _, other := range []AccessState{
		{Listen: "127.0.0.1:15432", Peer: "east", Target: "db-1.shop", Port: 5432},
		{Listen: "127.0.0.1:15432", Peer: "north", Target: "db-0.shop", Port: 5432},
		{Listen: "0.0.0.0:15432", Peer: "east", Target: "db-0.shop", Port: 5432},
		{Listen: "127.0.0.1:15432", Peer: "east", Target: "db-0.shop", Port: 5432, NetworkMode: "host"},
	} {
		if _, err := a.open(t.Context(), other); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "isthmus access close 15432") {
			t.Errorf("%+v on a port that is taken: %v", other, err)
		}
	}
	web := AccessState{Listen: "[::1]:10080", Peer: "east", Target: "web.shop", Port: 80}
	if _, err := a.open(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	list := a.list()
	if len(list) != 2 || list[0].Name != "10080" {
		t.Errorf("the list is not sorted: %+v", list)
	}
	list[0].Peer = "changed" // what is given out is the caller's own
	info, err := os.Stat(filepath.Join(dir, "accesses.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}

	b, err := openAccesses(t.Context(), file.Open(file.Config{Dir: dir}), func() {})
	if err != nil || !slices.Equal(b.list(), a.list()) || b.list()[0].Peer != "east" {
		t.Errorf("opened again: %+v, %v", b.list(), err)
	}
	if err := b.close(t.Context(), "15432"); err != nil {
		t.Fatal(err)
	}
	if err := b.close(t.Context(), "15432"); !fault.Is(err, fault.NotFound) {
		t.Errorf("closed twice: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "[^.]*")); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

// TestAccessesKept holds that what cannot be kept is not opened, and that a damaged file is not taken for an empty one.
func TestAccessesKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "full")
	a, err := openAccesses(t.Context(), file.Open(file.Config{Dir: dir}), func() { t.Error("a change that was not kept is told") })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the folder's way
		t.Fatal(err)
	}
	if _, err := a.open(t.Context(), AccessState{Listen: "127.0.0.1:1", Peer: "east", Target: "db.shop", Port: 1}); err == nil || len(a.list()) != 0 {
		t.Errorf("opened without a folder: %v, %+v", err, a.list())
	}
	damaged := t.TempDir()
	for _, text := range []string{"", "[{", `{"name":"x"}`, "null garbage"} {
		if err := os.WriteFile(filepath.Join(damaged, "accesses.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openAccesses(t.Context(), file.Open(file.Config{Dir: damaged}), func() {}); err == nil || !strings.Contains(err.Error(), "is damaged (remove it") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
