// Package hijack carries docker's hijacked connections (attach, exec) over HTTP/2. Between gateways such a connection
// is one streaming POST: its first bytes are the body of the original request, what follows is what the client types,
// and the answer's body is what the engine says. This package turns the POST back into a hijack of a real engine.
//
// HTTP/1.1 has no half-close inside Envoy and an upgrade loses its method on an HTTP/2 hop; a plain POST keeps both
// ends' half-closes.
package hijack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// answerDeadline bounds how long an engine may take to agree to a hijack. Attach and exec answer at once, but a busy
// engine holds the container's lock.
const answerDeadline = 2 * time.Minute

// mediaType is docker's prefix of stream types; an engine that answers 200 with it hijacked in the old way.
const mediaType = "application/vnd.docker."

// hopHeaders belong to one connection, or to the gateways alone, and do not reach an engine.
var hopHeaders = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "X-Request-Id", "Traceparent", "Tracestate"}

// hopPrefixes are header families of proxies.
var hopPrefixes = []string{names.HeaderPrefix, "x-envoy-", "x-forwarded-"}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Serve hijacks a connection of the engine at upstream for the session that r carries, and answers on w. An error means
// that nothing was answered: the caller renders it. A stream that breaks after the answer began aborts the handler, so
// that the far client sees an error and not an end.
//
// An answer of the engine that is no hijack (no such container, exec is gone) is handed on as it is.
//
// A session is a POST. What policy allowed was this request, method included: a GET that the engine got as a POST would
// be another one (to list Pods is to create one, to get the volume named "prune" is to remove all).
func Serve(w http.ResponseWriter, r *http.Request, upstream neutral.Upstream) error {
	if r.Method != http.MethodPost {
		return fault.New(fault.Invalid, "a session is a POST, this is a %s", r.Method)
	}
	body, stdin, err := ReadSession(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	conn, err := Dial(ctx, upstream)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the orchestrator is not reachable")
	}
	defer func() { _ = conn.Close() }()
	// A client that is gone ends the engine's side at once, whichever call is waiting.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()

	reader := bufio.NewReader(conn)
	answer, err := ask(conn, reader, request(r, upstream, body))
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	var stream io.Reader
	switch {
	case answer.StatusCode == http.StatusSwitchingProtocols:
		stream = reader
	case answer.StatusCode == http.StatusOK && strings.HasPrefix(answer.Header.Get("Content-Type"), mediaType):
		stream = answer.Body
	default:
		pass(w, answer)
		return nil
	}
	if kind := answer.Header.Get("Content-Type"); kind != "" {
		w.Header().Set("Content-Type", kind)
	} else {
		w.Header().Set("Content-Type", mediaType+"raw-stream")
	}
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
	// This goroutine ends with the stream: the server closes the request's body right after the handler returned.
	// Closing it here would answer bytes that are still on their way with a reset, and spoil a good end.
	go send(conn, stdin)
	err = receive(w, flush, stream)
	if errors.Is(err, syscall.ECONNRESET) && upstream.Socket != "" {
		err = nil // an engine that closed before it had read all that was typed; what it said has all arrived
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// ask sends the request and reads the head of the answer.
func ask(conn net.Conn, reader *bufio.Reader, req *http.Request) (*http.Response, error) {
	if err := conn.SetDeadline(time.Now().Add(answerDeadline)); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the orchestrator is not reachable")
	}
	if err := req.Write(conn); err != nil {
		return nil, broken(err)
	}
	answer, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, broken(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, broken(err)
	}
	return answer, nil
}

func broken(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fault.Wrap(fault.Timeout, err, "the orchestrator did not answer in time")
	}
	return fault.Wrap(fault.Unavailable, err, "the orchestrator did not answer")
}

// EndToEnd gives what of a head is for its reader: without what belongs to one connection, to the gateways, or to the
// caller's own cluster, which its credential does.
func EndToEnd(head http.Header) http.Header {
	header := head.Clone()
	if header == nil {
		header = http.Header{}
	}
	for _, key := range hopHeaders {
		header.Del(key)
	}
	for key := range header {
		for _, prefix := range hopPrefixes {
			if strings.HasPrefix(strings.ToLower(key), prefix) {
				delete(header, key)
			}
		}
	}
	header.Del("Authorization")
	return header
}

// request is what the client asked, as an engine reads it.
func request(r *http.Request, upstream neutral.Upstream, body []byte) *http.Request {
	header := EndToEnd(r.Header)
	header.Set("Connection", "Upgrade")
	header.Set("Upgrade", "tcp")
	if upstream.Token != "" {
		header.Set("Authorization", "Bearer "+upstream.Token)
	}
	host := upstream.Host
	if host == "" {
		host = "docker"
	}
	req := &http.Request{
		Method: r.Method,
		URL:    &url.URL{Scheme: "http", Host: host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery},
		Host:   host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if len(body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return req
}

// send gives the engine what the client types. The client's end becomes the engine's; a client that broke off closes
// the whole connection, as an engine would see it.
func send(conn net.Conn, stdin io.Reader) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := stdin.Read(*buffer)
		if n > 0 {
			// An engine that takes no more may still have something to say: only reading tells when it is done.
			if _, werr := conn.Write((*buffer)[:n]); werr != nil {
				return
			}
		}
		if err == io.EOF {
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		}
		if err != nil {
			_ = conn.Close()
			return
		}
	}
}

// receive gives the client what the engine says, at once.
func receive(w io.Writer, flush *http.ResponseController, stream io.Reader) error {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := stream.Read(*buffer)
		if n > 0 {
			if _, werr := w.Write((*buffer)[:n]); werr != nil {
				return werr
			}
			if werr := flush.Flush(); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pass hands on an answer that is no hijack.
func pass(w http.ResponseWriter, answer *http.Response) {
	for _, key := range hopHeaders {
		answer.Header.Del(key)
	}
	for key, values := range answer.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, answer.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}
