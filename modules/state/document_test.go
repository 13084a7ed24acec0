package state_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

var list = state.Kind{Name: "list", File: "list.json"}

func open(t *testing.T, dir string, changed func()) *state.Document[[]string] {
	t.Helper()
	d, err := state.OpenDocument(t.Context(), state.DocumentConfig[[]string]{
		Store: file.Open(file.Config{Dir: dir, Poll: 20 * time.Millisecond}), Key: list.Only(), Changed: changed})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func add(word string) func([]string) ([]string, error) {
	return func(words []string) ([]string, error) { return append(slices.Clone(words), word), nil }
}

func TestDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	changes := 0
	d := open(t, dir, func() { changes++ })
	if len(d.Value()) != 0 {
		t.Fatalf("%v", d.Value())
	}
	for _, word := range []string{"a", "b"} {
		if err := d.Update(t.Context(), add(word)); err != nil {
			t.Fatal(err)
		}
	}
	refusal := errors.New("no")
	if err := d.Update(t.Context(), func([]string) ([]string, error) { return nil, refusal }); !errors.Is(err, refusal) {
		t.Errorf("%v", err)
	}
	if err := d.Update(t.Context(), func(words []string) ([]string, error) { return words, nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Value(), []string{"a", "b"}) || changes != 2 {
		t.Errorf("%v after %d changes", d.Value(), changes)
	}
	if again := open(t, dir, nil); !slices.Equal(again.Value(), d.Value()) {
		t.Errorf("opened again: %v", again.Value())
	}
	// What others have changed meanwhile is changed, not written over.
	other := open(t, dir, nil)
	if err := other.Update(t.Context(), add("c")); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(t.Context(), add("d")); err != nil || !slices.Equal(d.Value(), []string{"a", "b", "c", "d"}) {
		t.Errorf("%v, %v", d.Value(), err)
	}
}

func TestDocumentFollows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := make(chan struct{}, 100)
	d, other := open(t, dir, func() { told <- struct{}{} }), open(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var log strings.Builder
	group.Go(func() { d.Follow(ctx, slog.New(slog.NewTextHandler(&log, nil))) })
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := other.Update(t.Context(), add("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
		case <-time.After(200 * time.Millisecond): // before the watch stood
			if time.Now().After(deadline) {
				t.Fatal("not told")
			}
			continue
		}
		break
	}
	if len(d.Value()) == 0 {
		t.Error("told, and nothing is there")
	}
	// What is damaged changes nothing, and is told in the log.
	before := d.Value()
	if err := os.WriteFile(filepath.Join(dir, "list.json"), []byte("[broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	cancel()
	group.Wait()
	if after := d.Value(); len(after) < len(before) || !strings.Contains(log.String(), "is damaged (remove it") {
		t.Errorf("%v became %v: %s", before, after, log.String())
	}
}

func TestDocumentDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "list.json")
	for _, text := range []string{"", "[", "{}", `"x"`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := state.OpenDocument(t.Context(), state.DocumentConfig[[]string]{Store: file.Open(file.Config{Dir: dir}), Key: list.Only()})
		if err == nil || !strings.Contains(err.Error(), path+" is damaged (remove it") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// contended is a store in which somebody else is always first.
type contended struct{ *file.Home }

func (contended) Put(context.Context, state.Record) (string, error) {
	return "", state.ErrConflict
}

func TestUpdateGivesUp(t *testing.T) {
	t.Parallel()
	calls := 0
	store := contended{file.Open(file.Config{Dir: t.TempDir()})}
	err := state.Update(t.Context(), store, list.Only(), func([]byte) ([]byte, error) {
		calls++
		return []byte("x"), nil
	})
	if !fault.Is(err, fault.Conflict) || calls < 5 {
		t.Errorf("%v after %d tries", err, calls)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := state.Update(ctx, store, list.Only(), func([]byte) ([]byte, error) { return []byte("x"), nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
