package manifest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const watched = `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: west}
spec: {orchestrator: {type: docker}}
`

const watchedPeer = "---\napiVersion: isthmus.io/v1alpha1\nkind: Peer\nmetadata: {name: NAME}\n"

func named(name string) string { return watched + strings.ReplaceAll(watchedPeer, "NAME", name) }

type change struct {
	set *Set
	err error
}

// start follows a path and gives what the watch reports.
func start(t *testing.T, path string) <-chan change {
	t.Helper()
	set, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan change, 100), make(chan struct{})
	go func() {
		defer close(done)
		watch(ctx, set, 2*time.Millisecond, nil, func(s *Set, err error) { changes <- change{s, err} })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return changes
}

func next(t *testing.T, changes <-chan change) change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(20 * time.Second):
		t.Fatal("no change was reported")
		return change{}
	}
}

func wantPeer(t *testing.T, c change, name string) {
	t.Helper()
	if c.err != nil {
		t.Fatalf("want peer %s, got error %v", name, c.err)
	}
	if _, ok := c.set.Peer(name); !ok || len(c.set.Peers) != 1 {
		t.Fatalf("want peer %s, got %v", name, c.set.PeerNames())
	}
}

func wantError(t *testing.T, c change, text string) {
	t.Helper()
	if c.err == nil || !strings.Contains(c.err.Error(), text) {
		t.Fatalf("want error %q, got %v", text, c.err)
	}
}

// put replaces a file at once; in place, a busy machine could leave it empty for two looks.
func put(t *testing.T, file, text string) {
	t.Helper()
	hidden := filepath.Join(filepath.Dir(file), ".put")
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	rename(t, hidden, file)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestWatchEdits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "isthmus.yaml")
	put(t, file, named("east"))
	changes := start(t, dir)

	put(t, file, named("north"))
	wantPeer(t, next(t, changes), "north")

	put(t, file, named("north")+"oops: 1\n")
	wantError(t, next(t, changes), "oops")
	put(t, file, named("north")+"ouch: 1\n")
	wantError(t, next(t, changes), "ouch")
	// The documents are as before, yet the error must go.
	put(t, file, named("north"))
	wantPeer(t, next(t, changes), "north")

	// A comment changes nothing that matters, so the next report is of what follows it.
	put(t, file, "# a comment\n"+named("north"))
	time.Sleep(20 * time.Millisecond)
	put(t, file, named("south"))
	wantPeer(t, next(t, changes), "south")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, next(t, changes), "no *.yaml file")
	put(t, file, named("south"))
	wantPeer(t, next(t, changes), "south")

	put(t, filepath.Join(dir, "second.yaml"), strings.ReplaceAll(watchedPeer, "NAME", "south"))
	wantError(t, next(t, changes), `a second Peer "south"`)
}

// Vim moves the file away and writes a new one under its name; others write a new file and move it over.
func TestWatchRenames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "isthmus.yaml")
	put(t, file, named("east"))
	changes := start(t, file)

	rename(t, file, file+"~")
	put(t, file, named("north"))
	for c := next(t, changes); ; c = next(t, changes) {
		// A poll that falls between the two reports that the file is missing.
		if c.err == nil {
			wantPeer(t, c, "north")
			break
		}
		wantError(t, c, "no such file")
	}
	put(t, filepath.Join(dir, ".isthmus.yaml.swp"), named("south"))
	rename(t, filepath.Join(dir, ".isthmus.yaml.swp"), file)
	wantPeer(t, next(t, changes), "south")
}

// A kubelet updates a mounted ConfigMap by moving the symlink ..data to a new folder.
func TestWatchConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name, peer string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name, "isthmus.yaml"), named(peer))
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "east")
	link("..1", "..data")
	link("..data/isthmus.yaml", "isthmus.yaml")
	changes := start(t, dir)

	version("..2", "north")
	link("..2", "..data_tmp")
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	wantPeer(t, next(t, changes), "north")
}

// A file that is written slowly is judged when it is whole.
func TestFollowerSettles(t *testing.T) {
	t.Parallel()
	source := func(text string) []Source { return []Source{{Name: "f", Data: []byte(text)}} }
	file := filepath.Join(t.TempDir(), "isthmus.yaml")
	put(t, file, named("east"))
	set, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(set)
	text := named("north")
	for i := 1; i <= len(text); i++ {
		if set, err := f.look(source(text[:i]), nil); set != nil || err != nil {
			t.Fatalf("judged after %d of %d bytes: %v %v", i, len(text), set, err)
		}
	}
	set, err = f.look(source(text), nil)
	wantPeer(t, change{set, err}, "north")
	for range 3 {
		if set, err := f.look(source(text), nil); set != nil || err != nil {
			t.Fatalf("reported twice: %v %v", set, err)
		}
	}
}
