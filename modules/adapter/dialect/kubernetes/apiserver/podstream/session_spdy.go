package podstream

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/moby/spdystream"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// spdyCarrier carries a session's streams in those of SPDY, which the client creates.
type spdyCarrier struct {
	*line
	session  *session
	spdy     *spdystream.Connection
	protocol string
	wanted   []string // types of streams
	group    sync.WaitGroup
	served   chan struct{} // closed when the connection ended

	mu      sync.Mutex
	streams map[string]*spdystream.Stream
	whole   chan struct{} // closed when all are there
}

func openSPDY(s *session, w http.ResponseWriter, protocol string, want streams) (carrier, error) {
	line, err := upgradeSPDY(w, protocol)
	if err != nil {
		return nil, err
	}
	spdy, err := newSPDY(line)
	if err != nil {
		return nil, err
	}
	c := &spdyCarrier{line: line, session: s, spdy: spdy, protocol: protocol, wanted: []string{corev1.StreamTypeError},
		served: make(chan struct{}), streams: map[string]*spdystream.Stream{}, whole: make(chan struct{})}
	sized := want.tty && (protocol == protocolV3 || structured(protocol))
	for _, w := range []struct {
		is   bool
		kind string
	}{
		{want.stdin, corev1.StreamTypeStdin}, {want.stdout, corev1.StreamTypeStdout},
		{want.stderr, corev1.StreamTypeStderr}, {sized, corev1.StreamTypeResize},
	} {
		if w.is {
			c.wanted = append(c.wanted, w.kind)
		}
	}
	probe := &prober{line: line, spdy: spdy, group: &c.group}
	c.group.Go(func() { c.watch(s.ctx, s.cancel, probe.beat) })
	c.group.Go(func() {
		spdy.Serve(c.created)
		close(c.served)
		s.lost()
	})
	if err := c.await(s.ctx); err != nil {
		s.cancel(err)
		c.close()
		return nil, told(err)
	}
	return c, nil
}

// created takes a stream that the client created; what nobody wants is reset. Each is read until its end, since the library
// holds all of them up for one that is not.
func (c *spdyCarrier) created(stream *spdystream.Stream) {
	kind := stream.Headers().Get(corev1.StreamType)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[kind] != nil || !slices.Contains(c.wanted, kind) {
		_ = stream.Reset() // the connection's end is seen elsewhere
		return
	}
	if stream.SendReply(http.Header{}, false) != nil {
		return
	}
	c.streams[kind] = stream
	c.group.Go(func() { c.read(kind, stream) })
	if len(c.streams) == len(c.wanted) {
		close(c.whole)
	}
}

func (c *spdyCarrier) await(ctx context.Context) error {
	timer := time.NewTimer(creationLimit)
	defer timer.Stop()
	select {
	case <-c.whole:
		return nil
	case <-timer.C:
		return fault.New(fault.Timeout, "timed out waiting for client to create streams")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *spdyCarrier) stream(kind string) *spdystream.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[kind]
}

func (c *spdyCarrier) read(kind string, stream *spdystream.Stream) {
	switch kind {
	case corev1.StreamTypeStdin:
		c.session.typed(stream)
		select {
		case <-c.spdy.CloseChan(): // and not by the client's half-close
		default:
			_ = c.session.feed.Close() // never fails
		}
	case corev1.StreamTypeResize:
		buffer := make([]byte, sizeLimit)
		for {
			n, err := stream.Read(buffer)
			c.session.resize(buffer[:n])
			if err != nil {
				return
			}
		}
	default:
		_, _ = io.Copy(io.Discard, stream) // nothing comes there
	}
}

func (c *spdyCarrier) output(stream neutral.Stream, data []byte) error {
	kind := corev1.StreamTypeStdout
	if stream == neutral.Stderr {
		kind = corev1.StreamTypeStderr
	}
	c.touch()
	return writeFrames(c.stream(kind), data)
}

func (c *spdyCarrier) finish(status metav1.Status) {
	// A client of v1 that reads an error reads no output after it; the kubelet tells it nothing either.
	if text := ending(c.protocol, status); len(text) > 0 && c.protocol != protocolV1 {
		_, _ = c.stream(corev1.StreamTypeError).Write(text) // the client may be gone
	}
	for _, kind := range c.wanted {
		_ = c.stream(kind).Close() // likewise
	}
	c.linger(c.session.ctx, c.served)
}

func (c *spdyCarrier) close() {
	c.line.Close()
	c.group.Wait()
}
