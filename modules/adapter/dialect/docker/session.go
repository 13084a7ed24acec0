package docker

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// extraDetachKeys is the key of Operation.Extra for an attach's detach keys.
const extraDetachKeys = "detachKeys"

// Session frames a streamed action. A hijacked connection comes and goes as a plain stream: what the client sends after
// its request is r's body, and the answer is a 200 whose content type is that of the 101.
func (d Dialect) Session(op neutral.Operation, w http.ResponseWriter, r *http.Request) dialect.Session {
	s := &session{
		dialect: d, op: op, w: w, r: r, controller: http.NewResponseController(w), version: newestVersion,
		head: dialect.Request{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header},
	}
	if version, _, err := splitVersion(r.URL.Path); err == nil {
		s.version = version
	}
	s.terminal.Store(op.Attach != nil && op.Attach.TTY || op.Exec != nil && op.Exec.TTY)
	s.stdin = s.newStdin()
	return s
}

// session is one streamed answer. Its zero framing is docker's multiplexed stream.
type session struct {
	dialect    Dialect
	op         neutral.Operation
	w          http.ResponseWriter
	r          *http.Request
	controller *http.ResponseController
	head       dialect.Request
	version    apiVersion
	stdin      *stdinReader

	terminal atomic.Bool

	mu       sync.Mutex // guards what follows, and writing to w
	accepted bool
	closed   bool
	pending  *time.Timer // flushes what was written; nil when nothing waits
	broken   error       // of a flush that nobody waited for
	before   *container.StatsResponse
}

// gathering is how long what was written may wait for more. Each flush is a frame of its own on the whole way to the
// caller, and a container writes as many lines as it likes.
const gathering = 2 * time.Millisecond

var _ dialect.Session = (*session)(nil)

// Terminal tells that the container has a terminal; see neutral.Terminal.
func (s *session) Terminal() { s.terminal.Store(true) }

// Stat tells which file is copied; see neutral.Stat.
func (s *session) Stat(stat neutral.FileStat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.accepted {
		s.w.Header().Set(headerStat, statToDocker(&stat))
	}
}

// Accept answers with a status and headers at once: clients wait for them before they go on.
func (s *session) Accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accept()
}

func (s *session) accept() error {
	if s.accepted {
		return nil
	}
	s.accepted = true
	header := s.w.Header()
	for key, values := range engineHeader() {
		header[key] = values
	}
	if media := s.mediaType(); media != "" {
		header.Set("Content-Type", media)
	}
	if s.stdin != nil {
		// HTTP/1 servers stop reading a request once its answer has begun. HTTP/2 knows no such thing, and says so.
		_ = s.controller.EnableFullDuplex()
	}
	s.w.WriteHeader(http.StatusOK)
	return s.flush()
}

// The media types of a stream.
const (
	mediaRaw         = "application/vnd.docker.raw-stream"
	mediaTar         = "application/x-tar"
	mediaBinary      = "application/octet-stream"
	mediaMultiplexed = "application/vnd.docker.multiplexed-stream"
)

func (s *session) mediaType() string {
	switch s.op.Action {
	case neutral.ContainerWait, neutral.EventWatch, neutral.ImagePull, neutral.ContainerStats:
		return jsonMediaType
	case neutral.ContainerCopyOut:
		return mediaTar
	case neutral.ContainerExport:
		return mediaBinary
	case neutral.ContainerCopyIn:
		return ""
	case neutral.ExecStart:
		if s.op.Attach != nil && s.op.Attach.Detach {
			return ""
		}
	default:
	}
	if s.terminal.Load() || s.version.less(apiVersion{1, 42}) {
		return mediaRaw
	}
	return mediaMultiplexed
}

// live tells whether what is written must reach the client at once.
func (s *session) live() bool {
	switch s.op.Action {
	case neutral.ContainerLogs, neutral.WorkloadLogs, neutral.TaskLogs:
		return s.op.Logs == nil || s.op.Logs.Follow
	case neutral.ContainerCopyOut, neutral.ContainerExport:
		return false
	default:
		return true
	}
}

func (s *session) flush() error {
	if err := s.controller.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	return nil
}

func (s *session) write(data []byte) error {
	if s.closed {
		return errClosed
	}
	if err := s.accept(); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	if s.live() && s.pending == nil {
		s.pending = time.AfterFunc(gathering, s.flushPending)
	}
	return s.broken
}

// flushPending is called when the time of gathering is over.
func (s *session) flushPending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || s.closed {
		return
	}
	s.pending = nil
	if err := s.flush(); err != nil {
		s.broken = err
	}
}

var errClosed = fault.New(fault.Unavailable, "the session is closed")

// Output writes a chunk in the stream's framing.
func (s *session) Output(chunk neutral.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin.detachedNow() {
		return errDetached
	}
	if !s.wanted(chunk.Stream) || len(chunk.Data) == 0 {
		return s.accept()
	}
	payload := chunk.Data
	if s.op.Logs != nil {
		payload = append(linePrefix(s.op, chunk), chunk.Data...)
	}
	if !s.terminal.Load() && s.op.Action != neutral.ContainerCopyOut && s.op.Action != neutral.ContainerExport {
		payload = frame(streamByte(chunk.Stream), payload)
	}
	return s.write(payload)
}

// wanted tells whether the caller asked for the stream.
func (s *session) wanted(stream neutral.Stream) bool {
	stdout, stderr := true, true
	switch {
	case s.op.Action == neutral.ExecStart && s.op.Exec != nil:
		stdout, stderr = s.op.Exec.Stdout, s.op.Exec.Stderr
	case s.op.Action == neutral.ContainerAttach && s.op.Attach != nil:
		stdout, stderr = s.op.Attach.Stdout, s.op.Attach.Stderr
	case s.op.Logs != nil:
		stdout, stderr = s.op.Logs.Stdout, s.op.Logs.Stderr
	}
	if stream == neutral.Stderr {
		return stderr
	}
	return stdout
}

// Event writes an event that the caller's filters let through.
func (s *session) Event(event neutral.Event) error {
	message, ok := eventToDocker(s.op, event)
	if !ok {
		return s.Accept()
	}
	return s.writeJSON(message)
}

// Progress writes a line of progress.
func (s *session) Progress(id, status string) error {
	return s.writeJSON(jsonstream.Message{ID: id, Status: status})
}

func (s *session) writeJSON(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the answer could not be written")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(append(line, '\r', '\n'))
}

// Stdin is what the caller sends; nil when it attached no input.
func (s *session) Stdin() io.Reader {
	if s.op.Action == neutral.ContainerCopyIn {
		return s.r.Body
	}
	if s.stdin == nil {
		return nil
	}
	return s.stdin
}

// Resizes is nil: docker sends terminal sizes in requests of their own, which whoever knows the sessions passes on.
func (s *session) Resizes() <-chan neutral.Size { return nil }

// Close ends the session. Where the framing has a place for an error, the error is written there and the stream ends in
// order, so that no proxy throws it away; where it has none, the stream is cut, which a client reports.
func (s *session) Close(result neutral.Result, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	defer func() {
		s.closed = true
		if s.pending != nil {
			s.pending.Stop()
			s.pending = nil
		}
	}()
	if errors.Is(err, errDetached) {
		err = nil
	}
	if err != nil && !s.accepted {
		return s.refuse(err)
	}
	if err == nil {
		if s.op.Action == neutral.ContainerWait {
			return s.writeLast(container.WaitResponse{StatusCode: int64(result.ExitCode)})
		}
		if err := s.accept(); err != nil {
			return err
		}
		return s.flush()
	}
	return s.fail(fault.Of(err))
}

// refuse answers with an ordinary error.
func (s *session) refuse(err error) error {
	s.accepted = true
	response := s.dialect.Refuse(s.head, err)
	for key, values := range response.Header {
		s.w.Header()[key] = values
	}
	s.w.WriteHeader(response.Status)
	if _, err := s.w.Write(response.Body); err != nil && len(response.Body) > 0 {
		return fault.Wrap(fault.Unavailable, err, "the caller is gone")
	}
	return s.flush()
}

// pullFailure ends a stream of progress; clients of all ages look for one of the two.
type pullFailure struct {
	ErrorDetail jsonstream.Error `json:"errorDetail"`
	Error       string           `json:"error"`
}

// fail ends an accepted session with an error.
func (s *session) fail(f *fault.Error) error {
	message := refusalMessage(f)
	switch s.op.Action {
	case neutral.ContainerWait:
		return s.writeLast(container.WaitResponse{StatusCode: -1, Error: &container.WaitExitError{Message: message}})
	case neutral.ImagePull:
		return s.writeLast(pullFailure{ErrorDetail: jsonstream.Error{Code: refusalStatus(f.Kind), Message: message}, Error: message})
	case neutral.EventWatch, neutral.ContainerCopyOut, neutral.ContainerExport, neutral.ContainerStats:
		s.cut()
		return nil
	case neutral.ContainerAttach, neutral.ExecStart:
		if s.terminal.Load() {
			// A terminal shows whatever comes; a connection that is cut shows nothing.
			err := s.write([]byte("\r\n" + message + "\r\n"))
			s.cut()
			return err
		}
	default:
		if s.terminal.Load() {
			s.cut()
			return nil
		}
	}
	if err := s.write(frame(frameError, []byte(message))); err != nil {
		return err
	}
	return s.flush()
}

// writeLast writes a value that ends the answer.
func (s *session) writeLast(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the answer could not be written")
	}
	if err := s.write(append(line, '\n')); err != nil {
		return err
	}
	return s.flush()
}

// cut ends the connection or the HTTP/2 stream as broken, after what was written before.
func (s *session) cut() {
	_ = s.flush() // a caller that is gone needs no cut
	long := time.Unix(1, 0)
	if err := s.controller.SetWriteDeadline(long); err != nil {
		// The writer has no deadlines. net/http takes this panic as the wish to cut the answer off.
		panic(http.ErrAbortHandler)
	}
}
