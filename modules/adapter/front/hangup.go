package front

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const hangupInterval = time.Second

// watch ends a session whose client has vanished after its half-close. Reading shows no difference between a client
// that sends no more and one that is gone, and a silent container would keep the session for ever.
func watch(ctx context.Context, conn net.Conn, halfClosed <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-ctx.Done():
		return
	case <-halfClosed:
	}
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	ticker := time.NewTicker(hangupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		gone := false
		if err := raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }); err != nil || gone {
			cancel()
			return
		}
	}
}

// hungUp asks the kernel whether both directions are closed.
func hungUp(fd int) bool {
	polled := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n > 0 && polled[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
