package audit_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
)

// TestFullDisk fills a real file system: no line that was refused is there in part, every line that was not is there
// whole, and lines are written again as soon as there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []bool
	path := filepath.Join(dir, "audit.log")
	log, err := audit.Open(audit.Config{Path: path, MaxSize: 1 << 20, Keep: 2, Report: func(err error) { told = append(told, err != nil) }})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	written := 0
	for log.Write(entry("before")) == nil {
		if written++; written > 10_000 {
			t.Fatal("the disk does not fill up")
		}
	}
	if err := log.Write(entry("full")); err == nil {
		t.Error("a line is written to a full disk")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := log.Write(entry("after")); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	got := ids(t, path)
	if len(got) != written+1 || got[len(got)-1] != "after" {
		t.Errorf("%d lines of %d, the last is %q", len(got), written+1, got[len(got)-1])
	}
	if len(told) != 2 || !told[0] || told[1] {
		t.Errorf("the admin was told %v", told)
	}
}
