package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// SocketMode lets the socket's owner and group use it: whoever may write to it operates the peer as far as the peer's
// policy lets this cluster.
const SocketMode = 0o660

// Listen opens the Unix socket of an edge. What a gateway that died left in its place is replaced; a socket that
// somebody serves is not. The socket is in place only once its mode is set.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if isServed(ctx, path) {
		return nil, fmt.Errorf("socket %s is served by another process", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%s exists and is no socket", path)
	}
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	_ = os.Remove(temporary)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the edge's socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, SocketMode), os.Rename(temporary, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("open the edge's socket: %w", err), listener.Close(), os.Remove(temporary))
	}
	return &socketListener{UnixListener: listener, path: path}, nil
}

// isServed tells whether a process answers on a socket.
func isServed(ctx context.Context, path string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// socketListener removes its socket when it is closed.
type socketListener struct {
	*net.UnixListener
	path string
	once sync.Once
}

// Close removes the socket and takes no more connections.
func (l *socketListener) Close() error {
	l.once.Do(func() { _ = os.Remove(l.path) })
	return l.UnixListener.Close()
}
