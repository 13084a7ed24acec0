package podstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// line is a request's connection after the upgrade. Deadlines are set by watch alone: libraries' own would break a stream
// whose reader is slow.
type line struct {
	net.Conn
	reader *bufio.Reader // begins with what came with the request
	used   atomic.Int64  // when a byte came last, or output went, in nanoseconds
}

// hijack takes a request's connection over.
func hijack(w http.ResponseWriter) (*line, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the connection cannot be upgraded")
	}
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		_ = conn.Close() // what is there can always be peeked at
		return nil, told(fault.Wrap(fault.Internal, err, "the connection cannot be upgraded"))
	}
	// The server's own reader would end the request's context by itself, and could not say why.
	l := &line{Conn: conn, reader: bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn))}
	l.touch()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close() // the deadline's error says it
		return nil, told(fault.Wrap(fault.Unavailable, err, "the caller is gone"))
	}
	return l, nil
}

func (l *line) touch() { l.used.Store(time.Now().UnixNano()) }

func (l *line) Read(p []byte) (int, error) {
	n, err := l.reader.Read(p)
	if n > 0 {
		l.touch()
	}
	return n, err
}

func (l *line) SetDeadline(time.Time) error      { return nil }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// watchPeriod is how often a line is looked at.
const watchPeriod = time.Second

// watch ends ctx when the line is idle for too long, or when the client is gone while nobody reads what it sent before.
// When ctx ends, writes soon end. beat is called in each period.
func (l *line) watch(ctx context.Context, cancel context.CancelCauseFunc, beat func()) {
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for hungUp := 0; ; {
		select {
		case <-ctx.Done():
			_ = l.Conn.SetWriteDeadline(time.Now().Add(graceLimit)) // of a closed connection: its writes have ended
			return
		case now := <-tick.C:
			switch {
			case !l.hungUp():
				hungUp = 0
			case hungUp > 0: // for a whole period: who reads would have seen it
				cancel(errGone)
				continue
			default:
				hungUp++
			}
			if now.UnixNano()-l.used.Load() > int64(idleLimit) {
				cancel(errIdle)
			}
			beat()
		}
	}
}

// hungUp asks the kernel whether the other side has closed, which reading tells only after all that it had sent.
func (l *line) hungUp() bool {
	conn := l.Conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var events int16
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if _, err := unix.Poll(poll, 0); err == nil {
			events = poll[0].Revents
		}
	})
	return err == nil && events&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// linger waits until the client has closed, which ends reads: closing before it has read all could lose what is on its
// way. Then it closes. One that has been told the end and waits for the connection's is given that after a while, and not
// at once: Envoy takes the end of one direction for that of both, and drops what it has not passed on yet.
func (l *line) linger(ctx context.Context, read <-chan struct{}) {
	timer := time.NewTimer(patience)
	select {
	case <-read:
		timer.Stop()
		l.Close()
		return
	case <-timer.C:
	case <-ctx.Done():
		timer.Stop()
	}
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // where it fails, the client is gone
	}
	timer = time.NewTimer(lingerLimit)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
	case <-ctx.Done():
		timer.Reset(graceLimit)
		select {
		case <-read:
		case <-timer.C:
		}
	}
	l.Close()
}
