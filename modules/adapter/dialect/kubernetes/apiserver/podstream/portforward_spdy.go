package podstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream"
	corev1 "k8s.io/api/core/v1"
)

// halfLimit is how long a container may go on after its client has said all. kubectl says no more of a connection that was
// dropped, so one to which a container writes without end would stay as long as kubectl does.
const halfLimit = time.Hour

// pairLimit bounds the connections that one caller forwards at a time.
const pairLimit = 1000

// forwarder forwards connections that a client makes over SPDY. Each is a pair of streams: one for data, one for what goes
// wrong.
type forwarder struct {
	ctx   context.Context
	dial  Dial
	group sync.WaitGroup
	line  *line

	mu    sync.Mutex
	pairs map[string]*pair // that are not whole yet, by the client's id of the connection
	count int              // of all pairs
	ended bool
}

// pair is a connection that is forwarded.
type pair struct {
	port     uint16
	data     *spdystream.Stream
	failures *spdystream.Stream
	expiry   *time.Timer
}

func forwardSPDY(ctx context.Context, cancel context.CancelCauseFunc, line *line, conn net.Conn, beat func(), dial Dial) error {
	spdy, err := newSPDY(conn)
	if err != nil {
		cancel(errEnded)
		return err
	}
	f := &forwarder{ctx: ctx, dial: dial, line: line, pairs: map[string]*pair{}}
	probe := &prober{line: line, spdy: spdy, group: &f.group}
	f.group.Go(func() { line.watch(ctx, cancel, func() { probe.beat(); beat() }) })
	f.group.Go(func() {
		spdy.Serve(f.created)
		cancel(errGone)
	})
	<-ctx.Done()
	f.expire()
	line.Close()
	f.group.Wait()
	return forwardEnd(ctx)
}

// expire lets go of all pairs that are not whole.
func (f *forwarder) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for id := range f.pairs {
		f.drop(id)
	}
}

// drop lets go of a pair that is not whole.
func (f *forwarder) drop(id string) {
	p := f.pairs[id]
	if p == nil {
		return
	}
	p.expiry.Stop()
	delete(f.pairs, id)
	f.count--
	for _, stream := range []*spdystream.Stream{p.data, p.failures} {
		if stream != nil {
			_ = stream.Reset() // the connection's end is seen elsewhere
		}
	}
}

// created takes a stream that the client created; what makes no sense is reset.
func (f *forwarder) created(stream *spdystream.Stream) {
	if !f.take(stream) {
		_ = stream.Reset() // the connection's end is seen elsewhere
	}
}

func (f *forwarder) take(stream *spdystream.Stream) bool {
	kind := stream.Headers().Get(corev1.StreamType)
	port, err := strconv.ParseUint(stream.Headers().Get(corev1.PortHeader), 10, 16)
	if err != nil || port == 0 || kind != corev1.StreamTypeData && kind != corev1.StreamTypeError {
		return false
	}
	id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
	if id == "" { // of a client that has none: its two streams, first that of failures, follow each other
		first := stream.Identifier()
		if kind == corev1.StreamTypeData {
			first -= 2
		}
		id = "stream " + strconv.FormatUint(uint64(first), 10)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pairs[id]
	if p == nil {
		if f.ended || f.count == pairLimit {
			return false
		}
		p = &pair{port: uint16(port), expiry: time.AfterFunc(creationLimit, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.drop(id)
		})}
		f.pairs[id] = p
		f.count++
	}
	half := &p.data
	if kind == corev1.StreamTypeError {
		half = &p.failures
	}
	if *half != nil || p.port != uint16(port) || stream.SendReply(http.Header{}, false) != nil {
		return false
	}
	*half = stream
	if p.data == nil || p.failures == nil {
		return true
	}
	p.expiry.Stop()
	delete(f.pairs, id)
	f.group.Go(func() {
		f.forward(p)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count--
	})
	return true
}

// forward carries one connection.
func (f *forwarder) forward(p *pair) {
	done := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(done)
	group.Go(func() { _, _ = io.Copy(io.Discard, p.failures) }) // nothing comes there; the library waits for its reader
	// Reset lets the library forget the streams. It tells the client only of what was not closed before.
	defer func() { _, _ = p.data.Reset(), p.failures.Reset() }()

	conn, err := f.dial(f.ctx, p.port)
	if err == nil {
		group.Go(func() {
			select {
			case <-f.ctx.Done():
				_ = p.data.Reset() // the connection ends
			case <-done:
			}
			conn.Close()
		})
		err = f.carry(p, conn)
	}
	if err != nil && f.ctx.Err() == nil {
		_, _ = p.failures.Write([]byte(forwardFailure(p.port, err))) // the client may be gone
	}
	_ = p.failures.Close() // likewise
}

// carry copies both ways until both have ended.
func (f *forwarder) carry(p *pair, conn io.ReadWriteCloser) error {
	var closed atomic.Bool // this side has closed the stream; else what is finished was reset by the client
	reset := func() bool { return p.data.IsFinished() && !closed.Load() }
	down := make(chan error, 1)
	go func() { // ends below
		err := f.download(p, conn, reset)
		closed.Store(true)
		_ = p.data.Close() // the client may be gone
		down <- err
	}()
	if _, err := io.Copy(conn, p.data); err != nil {
		// The container takes nothing more. What it still says is given, and what comes is dropped.
		_, _ = io.Copy(io.Discard, p.data)
	}
	closeWrite(conn)
	began := time.Now()
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		if reset() || time.Since(began) > halfLimit {
			conn.Close()
		}
		select {
		case err := <-down:
			return err
		case <-tick.C:
		}
	}
}

// download gives the client what the container says.
func (f *forwarder) download(p *pair, conn io.Reader, reset func() bool) error {
	buffer := make([]byte, frameSize)
	for {
		n, err := conn.Read(buffer)
		if reset() {
			return nil
		}
		if n > 0 {
			f.line.touch()
			if _, err := p.data.Write(buffer[:n]); err != nil {
				return errGone
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errBroken
		}
	}
}

// tunnel is a connection in the binary messages of a WebSocket.
type tunnel struct {
	*socket
	message io.Reader // that is read
}

var errText = errors.New("a message of text in a tunnel")

func (t *tunnel) Read(p []byte) (int, error) {
	t.stalled.Store(0)
	defer func() { t.stalled.Store(time.Now().UnixNano()) }()
	for {
		if t.message == nil {
			kind, message, err := t.ws.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errText
			}
			t.message = message
		}
		n, err := t.message.Read(p)
		if errors.Is(err, io.EOF) {
			t.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.send(websocket.BinaryMessage, nil, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
