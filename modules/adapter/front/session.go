package front

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

const (
	bodyLimit    = 1 << 20          // of a hijacking request: an exec's options are some bytes
	bodyDeadline = 30 * time.Second // of a client to send them
	lingering    = 2 * time.Second  // of a client to close its end once the far side has ended
)

// session serves a request that hijacks its connection.
func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	body, err := readBody(w, r, control)
	if err != nil {
		status := http.StatusBadRequest
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, "the request's body could not be read")
		return
	}
	terminal, interactive := readOptions(r, body)
	if !interactive {
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		s.forward(w, r)
		return
	}
	if !s.sessions.begin() {
		refuse(w, http.StatusServiceUnavailable, "the gateway is shutting down")
		return
	}
	defer s.sessions.end()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in := newInput(body)
	defer in.end(io.EOF)
	response, err := s.transport.RoundTrip(s.sessionRequest(ctx, r, in, len(body)))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	s.unify(response)
	if response.StatusCode != http.StatusOK {
		passAnswer(w, control, response)
		return
	}
	conn, buffered, err := control.Hijack()
	if err != nil {
		s.config.Log.Error("a connection could not be hijacked", "err", err)
		refuse(w, http.StatusInternalServerError, "the connection cannot be upgraded")
		return
	}
	defer func() { _ = conn.Close() }()
	// The drain's end, or a client that vanished, ends whichever call is waiting; a last word still gets its moment.
	defer context.AfterFunc(ctx, func() {
		in.end(context.Canceled)
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	})()
	if err := accept(conn, r, response.Header.Get("Content-Type")); err != nil {
		return
	}
	in.attach(conn, readAhead(conn, buffered.Reader))
	go watch(ctx, conn, in.ended, cancel)
	s.deliver(conn, in, s.framed(r, response, terminal))
}

// readAhead is the hijacked connection with what the server had read of it. The server's own reader is left alone: it
// cancels the request at the client's half-close.
func readAhead(conn net.Conn, buffered *bufio.Reader) io.Reader {
	ahead, err := buffered.Peek(buffered.Buffered())
	if err != nil || len(ahead) == 0 {
		return conn
	}
	return io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn)
}

// readBody reads the original request's body. Everything after it belongs to the stream.
func readBody(w http.ResponseWriter, r *http.Request, control *http.ResponseController) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if err := control.SetReadDeadline(time.Now().Add(bodyDeadline)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		return nil, err
	}
	return body, control.SetReadDeadline(time.Time{})
}

// terminal is what a request tells of its stream's framing.
type terminal int

const (
	terminalUnknown terminal = iota
	terminalRaw
	terminalFramed
)

// readOptions looks into an exec's start options: a detached one is an ordinary call, and so is one that cannot be
// read, because its answer is an error.
func readOptions(r *http.Request, body []byte) (t terminal, interactive bool) {
	if callOf(r.URL.Path) != callExec {
		return terminalUnknown, true
	}
	var options struct{ Detach, Tty bool }
	if len(body) > 0 {
		if err := json.Unmarshal(body, &options); err != nil {
			return terminalUnknown, false
		}
	}
	if options.Tty {
		return terminalRaw, !options.Detach
	}
	return terminalFramed, !options.Detach
}

// sessionRequest is the streaming POST that stands for the hijacked connection.
func (s *Server) sessionRequest(ctx context.Context, r *http.Request, in *input, size int) *http.Request {
	header := r.Header.Clone()
	for _, key := range []string{"Connection", "Upgrade", "Content-Length", "Expect", "Transfer-Encoding"} {
		header.Del(key)
	}
	header.Set(names.HeaderSession, "tcp")
	header.Set(names.HeaderSessionBody, strconv.Itoa(size))
	out := &http.Request{
		Method: http.MethodPost,
		URL: &url.URL{Scheme: "http", Host: s.config.Authority, Path: r.URL.Path, RawPath: r.URL.RawPath,
			RawQuery: r.URL.RawQuery},
		Host: s.config.Authority, Header: header, Body: in, ContentLength: -1,
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}
	return out.WithContext(ctx)
}

// accept tells the client that the connection is its own now.
func accept(conn net.Conn, r *http.Request, mediaType string) error {
	if mediaType == "" {
		mediaType = rawType
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_, err := io.WriteString(conn, head)
	return err
}

// framed is the answer's stream, able to say that it broke off where the framing is docker's.
func (s *Server) framed(r *http.Request, response *http.Response, t terminal) io.Reader {
	multiplexed := response.Header.Get("Content-Type") == multiplexedType
	switch {
	case multiplexed || t == terminalFramed:
		return newFrames(response.Body, true, s.cutMessage())
	case t == terminalUnknown && callOf(r.URL.Path) == callAttach:
		return newFrames(response.Body, false, s.cutMessage())
	}
	return response.Body
}

// deliver copies what the far side says to the client. Its end closes the client's reading side; the connection goes
// once the client has closed too, or does not for a while.
func (s *Server) deliver(conn net.Conn, in *input, stream io.Reader) {
	buffer := pool{}.Get()
	defer pool{}.Put(buffer)
	for {
		n, err := stream.Read(buffer)
		if n > 0 {
			if _, werr := conn.Write(buffer[:n]); werr != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.config.Log.Warn("a session was cut", "err", err)
			return
		}
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	in.drain(lingering)
}

// passAnswer hands on an answer that is no stream.
func passAnswer(w http.ResponseWriter, control *http.ResponseController, response *http.Response) {
	for _, key := range []string{"Connection", "Transfer-Encoding", "Trailer", "Upgrade"} {
		response.Header.Del(key)
	}
	for key, values := range response.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(response.StatusCode)
	if _, err := io.Copy(w, response.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = control.Flush()
}
