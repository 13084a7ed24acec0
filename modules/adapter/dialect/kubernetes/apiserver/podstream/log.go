package podstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// timeFormat keeps all nine digits, as the kubelet does, so that lines stay aligned.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// gathering is how long a followed log's output may wait for more, so that many short lines go out together.
const gathering = 5 * time.Millisecond

// errLimit ends a log that has as many bytes as were asked for.
var errLimit = errors.New("the log's limit is reached")

// Serve gives the log as it comes. One that breaks off is cut, so that the caller does not take it for whole.
func (l Log) Serve(w http.ResponseWriter, r *http.Request, run Run) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(errEnded)
	s := &logSession{w: w, controller: http.NewResponseController(w), log: l, cancel: cancel, left: l.Limit}
	// A caller that does not read must not keep an answer that has to end.
	defer context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), errEnded) && !errors.Is(context.Cause(ctx), errLimit) {
			_ = s.controller.SetWriteDeadline(time.Now().Add(graceLimit)) // where there is none, the server's own holds
		}
	})()
	_, err := run(ctx, s)
	return s.end(cause(ctx, err))
}

// logSession is the caller's side of a log.
type logSession struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	log        Log
	cancel     context.CancelCauseFunc

	mu       sync.Mutex
	begun    bool
	ended    bool
	left     int64       // bytes, of a limit
	inLine   [3]bool     // by stream: what it gave last was no whole line
	pending  *time.Timer // until what was written is flushed
	prefixed []byte
}

var _ neutral.Session = (*logSession)(nil)

// Accept answers 200.
func (s *logSession) Accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accept()
}

func (s *logSession) accept() error {
	if s.ended {
		return errEnded
	}
	if s.begun {
		return nil
	}
	s.begun = true
	s.w.Header().Set("Content-Type", "text/plain")
	s.w.WriteHeader(http.StatusOK)
	return s.flush()
}

func (s *logSession) flush() error {
	if err := s.controller.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	return nil
}

// Output gives the caller a piece of the log.
func (s *logSession) Output(chunk neutral.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.accept(); err != nil {
		return err
	}
	if chunk.Stream == neutral.Stdout && !s.log.Options.Stdout || chunk.Stream == neutral.Stderr && !s.log.Options.Stderr || len(chunk.Data) == 0 {
		return nil
	}
	data := chunk.Data
	if s.log.Options.Timestamps {
		data = s.stamp(chunk)
	}
	if s.log.Limit > 0 && int64(len(data)) >= s.left {
		data = data[:s.left]
		s.ended = true
		defer s.cancel(errLimit)
	}
	s.left -= int64(len(data))
	if _, err := s.w.Write(data); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	if s.log.Options.Follow && s.pending == nil {
		s.pending = time.AfterFunc(gathering, s.flushPending)
	}
	if s.ended {
		return errLimit
	}
	return nil
}

// stamp puts the time before each line that begins in a chunk.
func (s *logSession) stamp(chunk neutral.Chunk) []byte {
	if chunk.Time.IsZero() {
		return chunk.Data
	}
	moment := chunk.Time.UTC().AppendFormat(nil, timeFormat+" ")
	s.prefixed = s.prefixed[:0]
	inLine := &s.inLine[chunk.Stream]
	for line := range bytes.Lines(chunk.Data) {
		if !*inLine {
			s.prefixed = append(s.prefixed, moment...)
		}
		s.prefixed = append(s.prefixed, line...)
		*inLine = line[len(line)-1] != '\n'
	}
	return s.prefixed
}

// flushPending is called when the time of gathering is over. What is wrong with the connection, the next write tells.
func (s *logSession) flushPending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return
	}
	s.pending = nil
	_ = s.flush() // the next write fails too
}

// Event is not for a Pod's stream.
func (s *logSession) Event(neutral.Event) error { return errKind }

// Progress is not for a Pod's stream.
func (s *logSession) Progress(string, string) error { return errKind }

// Stdin is nil: nobody types.
func (s *logSession) Stdin() io.Reader { return nil }

// Resizes is nil: there is no terminal.
func (s *logSession) Resizes() <-chan neutral.Size { return nil }

// end answers, or cuts an answer that is not whole.
func (s *logSession) end(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		s.pending.Stop()
		s.pending = nil // one that runs by now finds nothing to do
	}
	limited := s.ended
	if err == nil || limited {
		s.ended = false
		err = s.accept()
	}
	s.ended = true
	if err == nil {
		err = s.flush()
	}
	if err == nil || !s.begun {
		return err
	}
	conn, _, hijackErr := s.controller.Hijack()
	if hijackErr != nil {
		panic(http.ErrAbortHandler) // the only other way to cut an answer
	}
	conn.Close()
	return told(err)
}
