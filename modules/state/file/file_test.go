package file_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/modules/state/statetest"
)

func open(dir, replica string) *file.Home {
	return file.Open(file.Config{Dir: dir, Holder: replica, Poll: 50 * time.Millisecond})
}

func TestHome(t *testing.T) {
	t.Parallel()
	statetest.Run(t, time.Second, func(t *testing.T) statetest.Open {
		dir := filepath.Join(t.TempDir(), "state")
		return func(replica string) state.Home { return open(dir, replica) }
	})
}

func put(t *testing.T, h *file.Home, key state.Key, value, revision string) string {
	t.Helper()
	after, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte(value), Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	return after
}

// Nobody else can read what is kept, and reading makes nothing.
func TestModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	h := open(dir, "a")
	if _, err := h.List(t.Context(), statetest.Plain); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
	put(t, h, statetest.Plain.Key("x"), "1", "")
	put(t, h, statetest.Secret.Key("x"), "1", "")
	if _, err := h.Lease("x").Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found++
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	}); err != nil || found < 8 {
		t.Errorf("%d files, %v", found, err)
	}
}

// Files that an admin changes are changes like any other.
func TestChangesByHand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(dir, "a")
	key := statetest.Plain.Key("x")
	revision := put(t, h, key, "1", "")
	path := filepath.Join(dir, "plain", "x.txt")
	if err := os.WriteFile(path, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("3"), Revision: revision}); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a change by hand was written over: %v", err)
	}
	for _, name := range []string{"README", ".x.txt.swp", "X.txt", "a b.txt", ".hidden.txt"} {
		if err := os.WriteFile(filepath.Join(dir, "plain", name), []byte("?"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records, err := h.List(t.Context(), statetest.Plain)
	if err != nil || len(records) != 1 || string(records[0].Value) != "2" {
		t.Errorf("%+v, %v", records, err)
	}
	if err := os.Truncate(path, state.MaxValue+1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Get(t.Context(), key); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a file that is too large: %v", err)
	}
}

// What a crash left half written is no record, and goes with the next write.
func TestHalfWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(dir, "a")
	revision := put(t, h, statetest.Plain.Key("x"), "1", "")
	left := filepath.Join(dir, "plain", ".x.txt.123456")
	if err := os.WriteFile(left, []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if records, err := h.List(t.Context(), statetest.Plain); err != nil || len(records) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
	put(t, h, statetest.Plain.Key("x"), "2", revision)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it stays: %v", err)
	}
}

// A folder that is in the way is told as a home that cannot be reached, with why.
func TestNoFolder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(path, "a")
	_, err := h.Put(t.Context(), state.Record{Key: statetest.Plain.Key("x")})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v", err)
	}
	if _, err := h.List(t.Context(), statetest.Plain); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	if _, err := h.Lease("x").Acquire(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

// A lease whose file was taken away is lost: others would lock another file.
func TestLeaseFileRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	term, err := open(dir, "a").Lease("x").Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "leases", "x.lock")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-term.Lost():
	case <-time.After(state.Lifetime):
		t.Error("the term goes on")
	}
}
