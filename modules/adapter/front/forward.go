package front

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// newProxy forwards ordinary requests. Both bodies stream, each piece as it comes: a build's context goes up while its
// output comes down, and a wait's head must arrive long before its body.
func (s *Server) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        s.rewrite,
		Transport:      s.transport,
		FlushInterval:  -1,
		ModifyResponse: s.modifyResponse,
		ErrorHandler:   s.fail,
		ErrorLog:       slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
		BufferPool:     pool{},
	}
}

func (s *Server) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", s.config.Authority, s.config.Authority
	p.Out.URL.RawQuery = p.In.URL.RawQuery // as the client wrote it
	p.Out.Header.Del("Expect")             // answered by this server
	if p.Out.Body != nil && p.Out.Body != http.NoBody {
		p.Out.Body = &upload{ReadCloser: p.Out.Body}
	}
}

// upload is a request's body that remembers whether its client broke it off.
type upload struct {
	io.ReadCloser
	broken atomic.Bool
}

func (u *upload) Read(b []byte) (int, error) {
	n, err := u.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		u.broken.Store(true)
	}
	return n, err
}

func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	// An upgrade that nobody has to honour (h2c on an ordinary request) is ignored, as engines do.
	r.Header.Del("Upgrade")
	r.Header.Del("Http2-Settings")
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		s.config.Log.Debug("no full duplex", "err", err)
	}
	s.proxy.ServeHTTP(w, r)
}

// modifyResponse strips what gateways say to each other and lets a log that breaks off say so in its own framing.
func (s *Server) modifyResponse(response *http.Response) error {
	s.unify(response)
	if response.StatusCode != http.StatusOK || response.Request == nil {
		return nil
	}
	multiplexed := response.Header.Get("Content-Type") == multiplexedType
	if multiplexed || callOf(response.Request.URL.Path) == callLogs {
		response.Body = readCloser{Reader: newFrames(response.Body, multiplexed, s.cutMessage()), Closer: response.Body}
	}
	return nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (s *Server) cutMessage() string { return "stream from peer " + s.config.Peer + " was cut" }

// fail answers a request that got no answer.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, message := s.failure(err)
	switch body, uploads := r.Body.(*upload); {
	case uploads && body.broken.Load():
		// It may have ended one direction only, and hear this.
		status, message = http.StatusBadRequest, "the request ended before its body did"
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client is gone, or the drain time is over
	}
	s.config.Log.Warn("a request got no answer", "path", r.URL.Path, "status", status, "err", err)
	refuse(w, status, message)
}

// failure says what a client is told when there is no answer.
func (s *Server) failure(err error) (int, string) {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return http.StatusServiceUnavailable, "the gateway's Envoy is not reachable; peer " + s.config.Peer +
			" cannot be asked until it is back"
	}
	return http.StatusBadGateway, "the request to peer " + s.config.Peer + " broke off before it was answered"
}

// refuse answers as an engine does. The type is exact: with a charset the docker CLI prints the raw JSON.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(errorBody(message))
}

func errorBody(message string) []byte {
	body, err := json.Marshal(struct {
		Message string `json:"message"`
	}{message})
	if err != nil { // a string always marshals
		return []byte("{}")
	}
	return append(body, '\n')
}

// pool lends the buffers that streams are copied through.
type pool struct{}

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// Get is a buffer.
func (pool) Get() []byte { return *buffers.Get().(*[]byte) }

// Put takes it back.
func (pool) Put(b []byte) { buffers.Put(&b) }
