// Package front is the docker edge of a gateway: it serves unmodified docker clients of one peer on a Unix socket, or on
// a port with TLS, tells who they are, and forwards their requests over HTTP/2 to this gateway's own Envoy.
//
// It stands between the two because Envoy's HTTP/1.1 has no half-close and turns an upgrade's POST into a GET: what
// docker hijacks (attach, exec) would hang or lose output. The front keeps both ends of such a connection and gives
// Envoy a plain streaming POST instead; package hijack turns it back into a hijack on the far side.
//
//	docker client --HTTP/1.1, hijacks--> front --HTTP/2 streams--> Envoy ==peer link==> far gateway
package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Config is what a Server needs.
type Config struct {
	Peer      string // the peer that this edge leads to
	Authority string // the name of the peer's API, names.APIHost
	Edge      string // the Unix socket of our own Envoy's edge listener, plain HTTP/2
	Log       *slog.Logger
	// Drain bounds how long requests that run may go on once Serve's context ended; 0 is 10 s.
	Drain time.Duration
	// Admit tells who the client is, for policy and audit on the far side, or refuses it.
	Admit func(context.Context, caller.Credentials) (caller.Identity, error)
}

const (
	headerDeadline = 10 * time.Second // of a client to send its request's head
	idleDeadline   = 5 * time.Minute  // of a kept-alive connection without a request
	defaultDrain   = 10 * time.Second
	afterword      = 500 * time.Millisecond // of a client to ask what came of its session
)

// Server is the edge of one peer. Serve owns everything that it starts.
type Server struct {
	config    Config
	server    *http.Server
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	sessions  *sessions
	cancel    context.CancelFunc // breaks what is left when the drain time is over
}

// New makes the edge of a peer.
func New(config Config) *Server {
	if config.Drain == 0 {
		config.Drain = defaultDrain
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	config.Log = config.Log.With("peer", config.Peer)
	base, cancel := context.WithCancel(context.Background())
	s := &Server{config: config, cancel: cancel, transport: Transport(config.Edge), sessions: newSessions()}
	s.proxy = s.newProxy()
	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerDeadline,
		IdleTimeout:       idleDeadline,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withOwner,
		ErrorLog:          slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Transport speaks HTTP/2 without TLS to a Unix socket. Streams have no deadline of their own: a wait or a log that
// is followed may take days.
func Transport(socket string) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		Protocols:          protocols,
		DisableCompression: true,
		IdleConnTimeout:    time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// Serve serves listener until ctx ends, then drains, and breaks what has not ended by itself. It closes listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(listener) }()
	select {
	case err := <-ended:
		s.release()
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.Drain)
	defer cancel()
	err := s.Shutdown(drain)
	if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
		return errors.Join(serveErr, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // a broken stream told its client so
	}
	return err
}

// Shutdown lets sessions end, then takes no more connections and waits for what runs; when ctx ends first it breaks the
// rest. A session's client is still served meanwhile: what it ran has an exit code, and that is a request of its own.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.release()
	running, idle := s.sessions.drain()
	select {
	case <-idle:
		if running > 0 {
			sleep(ctx, afterword)
		}
	case <-ctx.Done():
	}
	if err := s.server.Shutdown(ctx); err != nil {
		s.config.Log.Warn("streams were broken at the end of the drain time")
		return err
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// release breaks what is left, and gives back connections.
func (s *Server) release() {
	s.cancel()
	_ = s.server.Close()
	_, idle := s.sessions.drain()
	<-idle
	s.transport.CloseIdleConnections()
}

// serve is one request of a docker client.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") != "" { // which browsers always tell, and docker's clients never do
		refuse(w, http.StatusForbidden, "web pages may not use a peer's API: the request has an Origin header")
		return
	}
	if err := s.claim(r); err != nil {
		f := fault.Of(err)
		s.config.Log.Warn("a client was refused", "remote", r.RemoteAddr, "err", err)
		if f.Kind == fault.Unauthenticated {
			w.Header().Set("WWW-Authenticate", `Bearer realm="isthmus"`)
		}
		refuse(w, f.Kind.Status(), f.Message)
		return
	}
	switch classify(r) {
	case kindUnserved:
		refuse(w, http.StatusNotImplemented, "the upgrade to "+r.Header.Get("Upgrade")+" on "+r.URL.Path+
			" is not carried between clusters; use the classic builder (DOCKER_BUILDKIT=0), or build beside the client and push")
	case kindSession:
		s.session(w, r)
	default:
		s.forward(w, r)
	}
}

// claim removes what only gateways may say, and what the client showed to this one, and says who the client is.
func (s *Server) claim(r *http.Request) error {
	for key := range r.Header {
		if strings.HasPrefix(strings.ToLower(key), names.HeaderPrefix) {
			delete(r.Header, key)
		}
	}
	shown := caller.Credentials{Token: caller.Bearer(r.Header.Get("Authorization")), Owner: ownerOf(r.Context())}
	if r.TLS != nil {
		shown.Certificates = r.TLS.PeerCertificates
	}
	r.Header.Del("Authorization")
	who, err := s.config.Admit(r.Context(), shown)
	if err == nil {
		who.Tell(r.Header)
	}
	return err
}
