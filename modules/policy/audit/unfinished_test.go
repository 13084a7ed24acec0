package audit_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
)

// TestUnfinished holds that an operation which was sent and whose end no line tells is found once the gateway has
// started again, whatever the order of the files, and that no other is.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "audit.log")
	log := open(t, audit.Config{Path: path})
	write := func(after int, phase audit.Phase, id string, follows bool) {
		t.Helper()
		e := audit.NewEntry(phase, &modules.Request{ID: id}, modules.Record{})
		e.Time, e.Follows = begin.Add(time.Duration(after)*time.Second), follows
		if err := log.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	read := func(order ...int) string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		half := strings.Index(string(data[len(data)/2:]), "\n") + len(data)/2 + 1
		parts := []string{string(data[:half]), string(data[half:])}
		var files []io.Reader
		for _, i := range order {
			files = append(files, strings.NewReader(parts[i]))
		}
		lost, err := audit.Unfinished(files...)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, line := range lost {
			_, rest, _ := strings.Cut(line, `"id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			ids = append(ids, id)
		}
		slices.Sort(ids) // of two with one id either may be the lost one
		return strings.Join(ids, " ")
	}
	write(0, audit.Started, "", false)
	write(1, audit.Decided, "finished", true)
	write(2, audit.Decided, "denied", false)
	write(3, audit.Decided, "twice", true)
	write(4, audit.Decided, "lost", true)
	write(5, audit.Done, "twice", false)
	write(6, audit.Decided, "twice", true)
	write(7, audit.Done, "finished", false)
	if got := read(0, 1); got != "" {
		t.Errorf("before another start: %q", got)
	}
	write(8, audit.Started, "", false)
	write(9, audit.Decided, "under-way", true)
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		if got := read(order...); got != "lost twice" {
			t.Errorf("files in order %v: %q", order, got)
		}
	}
}

func FuzzUnfinished(f *testing.F) {
	f.Add(`{"time":"2026-01-02T03:04:05Z","phase":"decided","id":"a","follows":true}`)
	f.Add("{\"phase\":\"done\"}\n{")
	f.Fuzz(func(t *testing.T, text string) {
		if lost, err := audit.Unfinished(strings.NewReader(text)); err == nil && len(lost) > strings.Count(text, "\n")+1 {
			t.Errorf("more lines are lost than there are: %q", lost)
		}
	})
}
