package front

import (
	"net"
	"testing"
	"time"
)

func hungUpConn(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	if err := raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }); err != nil {
		return true
	}
	return gone
}

// The kernel tells a half-close from a client that is gone.
func TestHungUp(t *testing.T) {
	t.Parallel()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	near, err := net.DialUnix("unix", nil, listener.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	if hungUpConn(far) {
		t.Error("an open connection reads as hung up")
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	if hungUpConn(far) {
		t.Error("a half-close reads as hung up")
	}
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); !hungUpConn(far); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a client that is gone is not noticed")
		}
	}
}
