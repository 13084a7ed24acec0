package podstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The protocols of exec and attach, over both WebSocket and SPDY. The first has no version and no name in a WebSocket
// whose client asks for none.
const (
	protocolV1 = "channel.k8s.io"
	protocolV2 = "v2.channel.k8s.io"
	protocolV3 = "v3.channel.k8s.io" // has terminal sizes
	protocolV4 = "v4.channel.k8s.io" // ends with a Status
	protocolV5 = "v5.channel.k8s.io" // closes stdin in a WebSocket
)

var (
	socketProtocols = []string{protocolV5, protocolV4, "v4.base64.channel.k8s.io", protocolV1, "base64.channel.k8s.io", ""}
	spdyProtocols   = []string{protocolV5, protocolV4, protocolV3, protocolV2, protocolV1}
)

// structured tells whether a protocol ends with a Status. Those before end with a message, or with nothing.
func structured(protocol string) bool {
	switch protocol {
	case protocolV4, protocolV5, "v4.base64.channel.k8s.io":
		return true
	}
	return false
}

// Serve runs the command. Its exit code is the result's.
func (e Exec) Serve(w http.ResponseWriter, r *http.Request, run Run) error {
	return serve(w, r, streams{e.Spec.Stdin, e.Spec.Stdout, e.Spec.Stderr, e.Spec.TTY}, func(result neutral.Result) int {
		return result.ExitCode
	}, run)
}

// Serve joins the caller with the container. How the container's process ended is not told: Kubernetes does not either.
func (a Attach) Serve(w http.ResponseWriter, r *http.Request, run Run) error {
	return serve(w, r, streams{a.Options.Stdin, a.Options.Stdout, a.Options.Stderr, a.Options.TTY}, func(neutral.Result) int {
		return 0
	}, run)
}

func serve(w http.ResponseWriter, r *http.Request, want streams, code func(neutral.Result) int, run Run) error {
	open, err := opener(w, r, want)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	s := &session{ctx: ctx, cancel: cancel, want: want, open: open, resizes: make(chan neutral.Size, 1)}
	s.stdin, s.feed = io.Pipe()
	// What is typed is dropped from then on, so that nothing waits for it to be read.
	defer context.AfterFunc(ctx, func() { _ = s.stdin.CloseWithError(errGone) })()
	defer s.close()
	result, err := run(ctx, s)
	if err == nil {
		err = s.Accept()
	}
	return s.end(code(result), cause(ctx, err))
}

// opener finds out how a request wants its streams carried.
func opener(w http.ResponseWriter, r *http.Request, want streams) (func(*session) (carrier, error), error) {
	switch {
	case r.ProtoMajor != 1:
		return nil, fault.New(fault.Invalid, "Upgrade request required")
	case isWebSocket(r):
		if err := checkWebSocket(r); err != nil {
			return nil, err
		}
		protocol, err := negotiate(websocket.Subprotocols(r), socketProtocols)
		if err != nil {
			return nil, err
		}
		return func(s *session) (carrier, error) { return openSocket(s, w, r, protocol) }, nil
	case isSPDY(r):
		protocol, err := negotiateSPDY(w, r, spdyProtocols)
		if err != nil {
			return nil, err
		}
		return func(s *session) (carrier, error) { return openSPDY(s, w, protocol, want) }, nil
	default:
		return nil, fault.New(fault.Invalid, "Upgrade request required")
	}
}

// carrier is a connection that carries a session's streams. It feeds the session with what comes.
type carrier interface {
	// output writes to stdout or stderr.
	output(stream neutral.Stream, data []byte) error
	// finish tells how it ended, and closes the connection when the client has read it.
	finish(status metav1.Status)
	// close closes the connection at once, and waits for what reads it.
	close()
}

// session is the caller's side of an exec or attach. The connection is upgraded when it is accepted.
type session struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	want   streams
	open   func(*session) (carrier, error)

	stdin   *io.PipeReader
	feed    *io.PipeWriter
	resizes chan neutral.Size
	sizes   sizeReader // of the carrier's reader

	mu      sync.Mutex
	opened  bool
	carrier carrier // nil until it was accepted
	broken  error   // why it could not be
	ended   bool
}

var _ neutral.Session = (*session)(nil)

// Accept upgrades the connection.
func (s *session) Accept() error {
	_, err := s.accept()
	return err
}

func (s *session) accept() (carrier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errEnded
	}
	if !s.opened {
		s.opened = true
		if s.broken = s.ctx.Err(); s.broken == nil {
			s.carrier, s.broken = s.open(s)
		}
	}
	return s.carrier, s.broken
}

// Output gives the caller what it wants of an output.
func (s *session) Output(chunk neutral.Chunk) error {
	c, err := s.accept()
	if err != nil {
		return err
	}
	stream := chunk.Stream
	if s.want.tty {
		stream = neutral.Stdout
	}
	if len(chunk.Data) == 0 || stream == neutral.Stdout && !s.want.stdout || stream == neutral.Stderr && !s.want.stderr {
		return nil
	}
	if err := c.output(stream, chunk.Data); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	return nil
}

// Event is not for a Pod's stream.
func (s *session) Event(neutral.Event) error { return errKind }

// Progress is not for a Pod's stream.
func (s *session) Progress(string, string) error { return errKind }

// Stdin is what the caller types.
func (s *session) Stdin() io.Reader {
	if !s.want.stdin {
		return nil
	}
	return stdinReader{s}
}

// stdinReader reads what is typed. Reading accepts by itself, for before that nothing is typed.
type stdinReader struct{ *session }

func (r stdinReader) Read(p []byte) (int, error) {
	if err := r.Accept(); err != nil {
		return 0, err
	}
	n, err := r.stdin.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = errEnded
	}
	return n, err
}

// Resizes gives the newest size of the caller's terminal.
func (s *session) Resizes() <-chan neutral.Size {
	if !s.want.tty {
		return nil
	}
	return s.resizes
}

// resize is called by the carrier's one reader of sizes.
func (s *session) resize(data []byte) {
	_ = s.sizes.read(data, func(size neutral.Size) { // a client that sends no sizes keeps the one it has
		select {
		case <-s.resizes: // it is out of date
		default:
		}
		s.resizes <- size
	})
}

// typed passes on what the caller types until its end. What nobody reads any more is dropped.
func (s *session) typed(data io.Reader) {
	if _, err := io.Copy(s.feed, data); err != nil {
		_, _ = io.Copy(io.Discard, data) // its end is the connection's
	}
}

// lost is called when the connection ended, for whatever reason.
func (s *session) lost() {
	s.cancel(errGone)
	_ = s.feed.CloseWithError(errGone) // never fails
}

// end tells the caller how it ended.
func (s *session) end(code int, err error) error {
	s.mu.Lock()
	s.ended = true
	c, broken := s.carrier, s.broken
	s.mu.Unlock()
	if c == nil {
		var t *Told
		if errors.As(broken, &t) {
			err = told(err)
		}
		return err
	}
	_ = s.stdin.CloseWithError(errEnded) // never fails
	c.finish(outcome(code, err))
	return told(err)
}

// close lets go of everything, in whatever way serve ends.
func (s *session) close() {
	s.cancel(errEnded)
	s.mu.Lock()
	s.ended = true
	c := s.carrier
	s.mu.Unlock()
	_ = s.stdin.CloseWithError(errEnded) // never fails
	if c != nil {
		c.close()
	}
}
