package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/store/storetest"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() store.Store {
		dir := filepath.Join(t.TempDir(), "state")
		return func() store.Store { return open(dir) }
	})
}

func open(dir string) *store.Records { return store.New(file.Open(file.Config{Dir: dir}), nil) }

func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := open(dir).Save(t.Context(), storetest.Example("east", 1)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"peers": 0o700 | fs.ModeDir, "peers/east.json": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %s, want %s", path, info.Mode(), want)
		}
	}
}

// One broken record is told by name, and costs no other.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty":        "",
		"cut":          `{"version": 1, "peer": "bro`,
		"garbage":      "\x00\xff\x00",
		"newer layout": `{"version": 2, "peer": "broken"}`,
		"of another":   `{"version": 1, "peer": "east"}`,
		"bad identity": `{"version": 1, "peer": "broken", "configuration": {"identity": "spiffe://x/y"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(dir)
			east := storetest.Example("east", 1)
			if err := s.Save(t.Context(), east); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "peers", "broken.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			records, err := s.Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), "broken.json") {
				t.Errorf("error %v", err)
			}
			if len(records) != 1 || records[0].Peer != "east" {
				t.Errorf("records %+v", records)
			}
			broken := storetest.Example("broken", 2)
			if err := s.Save(t.Context(), broken); err != nil {
				t.Fatal(err)
			}
			if records, err := s.Load(t.Context()); err != nil || len(records) != 2 {
				t.Errorf("after mending: %+v, %v", records, err)
			}
		})
	}
}

// The writer is killed at random moments, many times; what it left is whole, and never older than what it had told
// to be saved.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("STORE_TEST_WRITER"); dir != "" {
		write(t, dir)
		return
	}
	dir := t.TempDir()
	told := uint64(0)
	for i := range 25 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// A few saves at least, and then at any instruction.
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscanf(lines.Text(), "saved %d", &told); err != nil {
				continue
			}
			if n >= 2 {
				time.Sleep(time.Duration(i*137%1000) * time.Microsecond)
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "saved %d", &told); err != nil {
				t.Logf("the writer says %q", lines.Text())
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		s := open(dir)
		records, err := s.Load(t.Context())
		if err != nil || len(records) != 1 {
			t.Fatalf("after kill %d: %+v, %v", i, records, err)
		}
		if got := records[0].Configuration.Revision; got < told {
			t.Fatalf("after kill %d: revision %d, and %d was saved", i, got, told)
		}
		// What was half written goes with the next write.
		if told, err = records[0].Configuration.Revision+1, s.Save(t.Context(), storetest.Example("east", records[0].Configuration.Revision+1)); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(dir, "peers"))
		if err != nil || len(left) != 1 {
			t.Fatalf("half-written files stay: %v, %v", left, err)
		}
	}
	if told < 25 {
		t.Errorf("only %d saves: this was no test", told)
	}
}

// write saves one revision after the other until it is killed.
func write(t *testing.T, dir string) {
	s := open(dir)
	revision := uint64(0)
	records, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		revision = r.Configuration.Revision
	}
	for {
		revision++
		if err := s.Save(t.Context(), storetest.Example("east", revision)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("saved", revision)
	}
}

// A replica that was succeeded changes nothing any more.
func TestDeposed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home := file.Open(file.Config{Dir: dir})
	term := func(n uint64) *store.Records { return store.New(home, func() uint64 { return n }) }
	first, second := term(7), term(8)
	for _, s := range []*store.Records{first, second} {
		if err := s.Save(t.Context(), storetest.Example("east", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Save(t.Context(), storetest.Example("east", 2)); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("save: %v", err)
	}
	if err := first.Delete(t.Context(), "east"); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("delete: %v", err)
	}
	if records, err := first.Load(t.Context()); err != nil || len(records) != 1 || records[0].Configuration.Revision != 1 {
		t.Errorf("%+v, %v", records, err)
	}
	if err := second.Delete(t.Context(), "east"); err != nil {
		t.Error(err)
	}
	if err := first.Save(t.Context(), storetest.Example("west", 1)); err != nil { // nobody else's
		t.Error(err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"version": 1, "peer": "east", "configuration": {"identity": "spiffe://a/cluster/east", "revision": 3}}`))
	f.Add([]byte(`{"version": 1, "peer": "east", "lastSeen": "2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		s := open(dir)
		if err := os.Mkdir(filepath.Join(dir, "peers"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "peers", "east.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		records, err := s.Load(t.Context())
		if err != nil {
			return
		}
		// What can be read can be written, and is the same then.
		if err := s.Save(t.Context(), records[0]); err != nil {
			t.Fatalf("%+v was read and cannot be saved: %v", records[0], err)
		}
		again, err := s.Load(t.Context())
		if err != nil || len(again) != 1 || !again[0].Configuration.Same(records[0].Configuration) ||
			!again[0].LastSeen.Equal(records[0].LastSeen) {
			t.Fatalf("%+v became %+v (%v)", records, again, err)
		}
	})
}
