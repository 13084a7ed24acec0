package front

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
)

func TestListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(hijacktest.SocketDir(t), "east.sock")
	listener, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != SocketMode || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("socket %v, error %v", info, err)
	}
	if second, err := Listen(t.Context(), path); err == nil {
		_ = second.Close()
		t.Error("a socket that is served was taken over")
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// What a gateway left that was killed is replaced; a file that is no socket is not.
func TestListenOverWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := hijacktest.SocketDir(t)
	stale := filepath.Join(dir, "stale.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	listener, err := Listen(t.Context(), stale)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	_ = listener.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file); err == nil {
		t.Error("a file was replaced")
	}
	if _, err := Listen(t.Context(), filepath.Join(dir, "no", "such", "dir.sock")); err == nil {
		t.Error("a directory that is not there was served")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}
