package front

import (
	"cmp"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// input is the body of a session's POST: the original request's body, then what the client sends on its hijacked
// connection. Nothing is read from the client before the far side has accepted.
type input struct {
	body  []byte
	ready chan struct{} // closed by attach or end
	ended chan struct{} // closed at the client's half-close

	mu     sync.Mutex // held while reading from the client
	reader io.Reader
	eof    bool

	state sync.Mutex // guards conn and over
	conn  net.Conn
	over  error // what Read gives once the session is over; nil until then
}

func newInput(body []byte) *input {
	return &input{body: body, ready: make(chan struct{}), ended: make(chan struct{})}
}

// attach gives the client's connection and what was read ahead of it.
func (in *input) attach(conn net.Conn, reader io.Reader) {
	in.state.Lock()
	defer in.state.Unlock()
	if in.over != nil {
		return
	}
	in.conn, in.reader = conn, reader
	close(in.ready)
}

// end makes Read give err from now on: io.EOF when the far side has ended, anything else resets the stream, so that the
// far side does not take the client for one that sends no more.
func (in *input) end(err error) {
	in.state.Lock()
	defer in.state.Unlock()
	if in.over != nil {
		return
	}
	in.over = err
	if in.conn == nil {
		close(in.ready)
		return
	}
	_ = in.conn.SetReadDeadline(time.Now())
}

func (in *input) isOver() error {
	in.state.Lock()
	defer in.state.Unlock()
	return in.over
}

// Read is called by the transport alone.
func (in *input) Read(p []byte) (int, error) {
	if len(in.body) > 0 {
		n := copy(p, in.body)
		in.body = in.body[n:]
		return n, nil
	}
	<-in.ready
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.isOver(); err != nil {
		return 0, err
	}
	if in.eof {
		return 0, io.EOF
	}
	n, err := in.reader.Read(p)
	if errors.Is(err, io.EOF) {
		in.eof = true
		close(in.ended)
	} else if err != nil {
		err = cmp.Or(in.isOver(), err)
	}
	return n, err
}

// Close is called by the transport when it reads no more.
func (in *input) Close() error {
	in.end(io.EOF)
	return nil
}

// drain reads what the client still sends until it closes its end, so that closing ours does not look like a failure.
func (in *input) drain(patience time.Duration) {
	in.end(io.EOF)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.eof || in.reader == nil {
		return
	}
	if in.conn.SetReadDeadline(time.Now().Add(patience)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, in.reader)
}
