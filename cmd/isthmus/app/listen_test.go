package app

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListen takes over the socket of a process that died, and leaves alone that of one that lives.
func TestListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "x.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the dead process left no socket: %v", err)
	}
	live, err := listen(t.Context(), path)
	if err != nil {
		t.Fatalf("a dead socket is not taken over: %v", err)
	}
	defer live.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	if second, err := listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "is served by another process") {
		t.Errorf("a live socket: %v, %v", second, err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket was taken away: %v", err)
	}
	conn.Close()
	if _, err := listen(t.Context(), filepath.Join(filepath.Dir(path), "nosuch", "x.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
