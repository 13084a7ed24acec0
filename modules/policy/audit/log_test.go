package audit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
)

func open(t *testing.T, config audit.Config) *audit.Log {
	t.Helper()
	l, err := audit.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func entry(id string) audit.Entry {
	return audit.Entry{Phase: audit.Decided, ID: id, Peer: "west", Class: modules.ContainerOperation, Decision: audit.Allow}
}

// ids reads a log's lines, each of which must be whole.
func ids(t *testing.T, files ...string) []string {
	t.Helper()
	var all []string
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var e struct{ ID string }
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%s: %v: %q", file, err, lines.Text())
			}
			all = append(all, e.ID)
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := open(t, audit.Config{Output: &out})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("x", 3600))
	req := &modules.Request{ID: "id-1", Class: modules.ContainerOperation, Peer: modules.Peer{Name: "west"}, Caller: "ci\n1",
		Path: "/secret?token=x"}
	e := audit.NewEntry(audit.Done, req, modules.Record{
		Verb: neutral.Create, Action: neutral.ContainerCreate, Rule: "west-ci/0", Upstream: "orchestrator",
		Object: neutral.Object{Kind: neutral.KindContainer, Namespace: "team-a", Name: "web",
			Container: &neutral.Container{Env: []string{"PASSWORD=hunter2"}}},
		Losses: []neutral.Loss{{Field: "HostConfig.X", Change: "dropped", Reason: "no such thing"}},
	})
	e.Time, e.Decision, e.Status, e.Duration = at, audit.Allow, 201, 1234567*time.Nanosecond
	if err := l.Write(e); err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-01-02T02:04:05.000006Z","phase":"done","id":"id-1","peer":"west","caller":"ci\n1",` +
		`"class":"container-operation","verb":"create","action":"container.create","kind":"container","namespace":"team-a",` +
		`"name":"web","decision":"allow","rule":"west-ci/0","upstream":"orchestrator",` +
		`"losses":["HostConfig.X: dropped (no such thing)"],"status":201,"durationMs":1.234}` + "\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	for _, secret := range []string{"hunter2", "token", "PASSWORD"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is in the line", secret)
		}
	}
}

func TestLineIsBounded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := open(t, audit.Config{Output: &out})
	e := entry("x")
	e.Name, e.Caller = strings.Repeat("n", 1<<20), strings.Repeat("ü", 1<<20)
	for i := range 1000 {
		e.Losses = append(e.Losses, fmt.Sprint(i)+strings.Repeat("l", 1000))
	}
	before := time.Now()
	if err := l.Write(e); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Time   time.Time
		Losses []string
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 64<<10 || len(got.Losses) != 65 || got.Losses[64] != "..." {
		t.Errorf("%d bytes, %d losses", out.Len(), len(got.Losses))
	}
	if got.Time.Before(before.Add(-time.Second)) || got.Time.After(time.Now().Add(time.Second)) {
		t.Errorf("time %v", got.Time)
	}
	if len(e.Losses) != 1000 || len(e.Name) != 1<<20 {
		t.Error("the caller's entry was changed")
	}
}

func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "audit.log")
	const writers, lines = 8, 300
	l := open(t, audit.Config{Path: file, MaxSize: 16 << 10, Keep: 1000})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				e := entry(fmt.Sprintf("%d-%d", w, i))
				e.Name = strings.Repeat("x", i)
				if err := l.Write(e); err != nil {
					t.Error(err)
					return
				}
				if i%50 == 0 {
					if err := l.Reopen(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(file + "*")
	if err != nil || len(files) < 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	seen := map[string]bool{}
	for _, id := range ids(t, files...) {
		seen[id] = true
	}
	if len(seen) != writers*lines {
		t.Errorf("%d lines of %d", len(seen), writers*lines)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() > 16<<10 {
			t.Errorf("%s: %v, %d bytes", f, info.Mode(), info.Size())
		}
	}
	if written, failed := l.Stats(); written != writers*lines || failed != 0 || l.Trouble() != nil {
		t.Errorf("written %d, failed %d, trouble %v", written, failed, l.Trouble())
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 1, 3} {
		dir := t.TempDir()
		file := filepath.Join(dir, "audit.log")
		l := open(t, audit.Config{Path: file, MaxSize: 1, Keep: keep}) // a file a line
		for i := range 6 {
			if err := l.Write(entry(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]string{"audit.log": "5", "audit.log.1": "4", "audit.log.2": "3", "audit.log.3": "2"}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != keep+1 {
			t.Fatalf("keep %d: %v, %v", keep, entries, err)
		}
		for _, e := range entries {
			if got := ids(t, filepath.Join(dir, e.Name())); len(got) != 1 || got[0] != want[e.Name()] {
				t.Errorf("keep %d: %s has %v", keep, e.Name(), got)
			}
		}
	}
}

// A log that cannot be rotated is written all the same, and says so.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, audit.Config{Path: file, MaxSize: 1, Keep: 1})
	if err := os.MkdirAll(filepath.Join(file+".1", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if err := l.Write(entry(id)); err != nil {
			t.Fatal(err)
		}
	}
	if l.Trouble() == nil {
		t.Error("no trouble")
	}
	if got := ids(t, file); len(got) != 2 {
		t.Errorf("lines %v", got)
	}
	if err := os.RemoveAll(file + ".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(entry("c")); err != nil || l.Trouble() != nil {
		t.Errorf("%v, trouble %v", err, l.Trouble())
	}
	if got := ids(t, file); len(got) != 1 || got[0] != "c" {
		t.Errorf("lines %v", got)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, audit.Config{Path: file})
	write := func(id string) {
		t.Helper()
		if err := l.Write(entry(id)); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	if err := os.Rename(file, file+".moved"); err != nil {
		t.Fatal(err)
	}
	write("b")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("c")
	if got := fmt.Sprint(ids(t, file+".moved"), ids(t, file)); got != "[a b] [c]" {
		t.Errorf("lines %s", got)
	}
	// Where it cannot be opened the lines go where they went.
	if err := os.Rename(file, file+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("a folder was opened")
	}
	write("d")
	if got := fmt.Sprint(ids(t, file+".kept")); got != "[c d]" {
		t.Errorf("lines %s", got)
	}
}

// What is there already is kept, closed to others, and a line that was cut short does not spoil the next.
func TestOpenExisting(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(file, []byte("{\"id\":\"old\"}\n{\"id\":\"cu"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := open(t, audit.Config{Path: file})
	for _, id := range []string{"new", "newer"} {
		if err := l.Write(entry(id)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 4 || lines[0] != `{"id":"old"}` || lines[1] != `{"id":"cu` || !strings.Contains(lines[2], `"id":"new"`) ||
		!strings.Contains(lines[3], `"id":"newer"`) {
		t.Errorf("lines %q", lines)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	l := open(t, audit.Config{Path: "/dev/full", MaxSize: 1, Keep: 1})
	for range 3 {
		if err := l.Write(entry("x")); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v", err)
		}
	}
	if written, failed := l.Stats(); written != 0 || failed != 3 {
		t.Errorf("written %d, failed %d", written, failed)
	}
}

// fickle takes half of every second line.
type fickle struct {
	bytes.Buffer
	calls int
}

func (f *fickle) Write(line []byte) (int, error) {
	if f.calls++; f.calls%2 == 0 {
		n, err := f.Buffer.Write(line[:len(line)/2])
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return f.Buffer.Write(line)
}

func TestShortWrite(t *testing.T) {
	t.Parallel()
	var out fickle
	l := open(t, audit.Config{Output: &out})
	var written []string
	for i := range 6 {
		if l.Write(entry(fmt.Sprint(i))) == nil {
			written = append(written, fmt.Sprint(i))
		}
	}
	var whole []string
	for line := range strings.Lines(out.String()) {
		var e struct{ ID string }
		if json.Unmarshal([]byte(line), &e) == nil {
			whole = append(whole, e.ID)
		}
	}
	if fmt.Sprint(whole) != fmt.Sprint(written) || len(written) != 3 {
		t.Errorf("written %v, whole lines %v", written, whole)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	l := open(t, audit.Config{Path: filepath.Join(t.TempDir(), "audit.log")})
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(entry("x")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := l.Reopen(); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("reopen: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, config := range []audit.Config{{}, {Path: dir}, {Path: filepath.Join(file, "audit.log")}} {
		if _, err := audit.Open(config); err == nil {
			t.Errorf("%+v opens", config)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	l, err := audit.Open(audit.Config{Path: filepath.Join(b.TempDir(), "audit.log"), MaxSize: 100 << 20, Keep: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	e := entry("0123456789")
	e.Name, e.Namespace, e.Rule = "web", "team-a", "west-ci/0"
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Write(e); err != nil {
			b.Fatal(err)
		}
	}
}
