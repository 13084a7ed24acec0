package stream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/stream"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

const suffix = names.DefaultSuffix

// timing is quick, so that a test that waits for silence is short.
func timing() session.Timing {
	return session.Timing{
		Answer: 200 * time.Millisecond, BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		Heartbeat: 50 * time.Millisecond, Stale: 400 * time.Millisecond, Down: 800 * time.Millisecond, Resends: 2,
	}
}

// gateway is one side: a node and what stands for its Envoy, an edge socket and a TLS listener for peers.
type gateway struct {
	t         *testing.T
	name      string
	authority *trust.Authority
	peers     *trust.Peers
	dir       string
	edge      string
	address   string // of the peer listener
	edgeDoor  *http.Server
	// weather decides what becomes of a call that leaves; nil is fair.
	weather func(r *http.Request) fate

	mu     sync.Mutex
	routes map[string]string // authority -> address of the peer's gateway
	wanted map[string]string // authority -> identity
}

// fate is what becomes of one call on its way.
type fate struct {
	delay      time.Duration
	lostGoing  bool // never arrives
	lostComing bool // arrives, and its answer does not
	twice      bool // arrives twice; the second answer counts
}

func newGateway(t *testing.T, name string) *gateway {
	t.Helper()
	g := &gateway{t: t, name: name, dir: t.TempDir(), routes: map[string]string{}, wanted: map[string]string{}}
	var err error
	if g.authority, err = trust.Init(filepath.Join(g.dir, "trust"), "", name); err != nil {
		t.Fatal(err)
	}
	g.peers = trust.OpenPeers(file.Open(file.Config{Dir: g.dir}), g.authority.Identity())
	g.edge = filepath.Join(g.dir, "edge.sock")
	g.serveEdge()
	g.servePeers()
	return g
}

func (g *gateway) identity() peering.Identity { return g.authority.Identity() }
func (g *gateway) peeringSocket() string      { return filepath.Join(g.dir, "peering.sock") }

func (g *gateway) knows(h *gateway) {
	g.t.Helper()
	text, err := h.authority.Export().MarshalText()
	if err != nil {
		g.t.Fatal(err)
	}
	bundle, err := trust.ParseBundle(text)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.peers.Import(h.name, bundle); err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routes[names.PeeringHost(h.name, suffix)] = h.address
	g.wanted[names.PeeringHost(h.name, suffix)] = h.identity().String()
}

func (g *gateway) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	bundles, err := g.peers.List()
	if err != nil {
		g.t.Error(err)
	}
	for _, b := range bundles {
		pool.AppendCertsFromPEM(b.Bundle.CertificatesPEM)
	}
	return pool
}

func (g *gateway) certificate() *tls.Certificate {
	pair, err := g.authority.Issue(time.Now(), time.Hour)
	if err != nil {
		g.t.Fatal(err)
	}
	c, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	if err != nil {
		g.t.Fatal(err)
	}
	return &c
}

// verify holds a certificate against the imported bundles, as Envoy's SPIFFE validator does.
func (g *gateway) verify(usage x509.ExtKeyUsage, want func(id string) bool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		leaf := s.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: g.pool(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return err
		}
		if len(leaf.URIs) != 1 || !want(leaf.URIs[0].String()) {
			return x509.CertificateInvalidError{Cert: leaf, Reason: x509.NameMismatch}
		}
		return nil
	}
}

func (g *gateway) serveEdge() {
	certificate := g.certificate()
	transports := map[string]*http.Transport{}
	var mu sync.Mutex
	transport := func(authority string) *http.Transport {
		mu.Lock()
		defer mu.Unlock()
		if tr := transports[authority]; tr != nil {
			return tr
		}
		g.mu.Lock()
		wanted := g.wanted[authority]
		g.mu.Unlock()
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*certificate}, InsecureSkipVerify: true,
			VerifyConnection: g.verify(x509.ExtKeyUsageServerAuth, func(id string) bool { return id == wanted }),
		}}
		transports[authority] = tr
		g.t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		address, weather := g.routes[r.Host], g.weather
		g.mu.Unlock()
		if address == "" {
			http.Error(w, "no such peer", http.StatusNotFound)
			return
		}
		var f fate
		if weather != nil {
			f = weather(r)
		}
		time.Sleep(f.delay)
		if f.lostGoing {
			<-r.Context().Done()
			return
		}
		proxy := &httputil.ReverseProxy{FlushInterval: -1, Transport: transport(r.Host),
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(&url.URL{Scheme: "https", Host: address})
				p.Out.Host = r.Host
			},
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		}
		serve(proxy, w, r, f)
	})
	listener, err := net.Listen("unix", g.edge)
	if err != nil {
		g.t.Fatal(err)
	}
	g.edgeDoor = h2cServer(g.t, handler, listener)
}

func (g *gateway) servePeers() {
	certificate := g.certificate()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*certificate}, NextProtos: []string{"h2"},
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: g.verify(x509.ExtKeyUsageClientAuth, func(string) bool { return true }),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.address = listener.Addr().String()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", g.peeringSocket())
	}}
	g.t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "peering"})
			p.Out.Header.Set(names.HeaderPeer, p.In.TLS.PeerCertificates[0].URIs[0].String())
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	var both http.Protocols
	both.SetHTTP2(true)
	server := &http.Server{Handler: proxy, Protocols: &both, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go server.Serve(listener)
	g.t.Cleanup(func() { server.Close() })
}

func h2cServer(t *testing.T, h http.Handler, l net.Listener) *http.Server {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: &protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

// run is one start of a gateway's node.
type run struct {
	*gateway
	node    *stream.Node
	tracker *tracker.Tracker
	store   store.Store
	cancel  context.CancelFunc
	done    chan error
}

func (g *gateway) configuration(orchestrator neutral.Orchestrator) peering.Configuration {
	return peering.Configuration{
		Identity: g.identity(), Software: "1.0.0", CatalogueVersion: "1", Features: []string{"service-query"},
		Orchestrator:     peering.Orchestrator{Type: orchestrator, Version: "1.2.3", APIVersions: []string{"1.44", "1.54"}},
		GatewayAddresses: []string{"gateway." + g.name + ".example:8443"},
	}
}

func (g *gateway) start(orchestrator neutral.Orchestrator, peers ...stream.Peer) *run {
	g.t.Helper()
	return g.startWith(stream.Config{Local: g.configuration(orchestrator)}, peers...)
}

func (g *gateway) startWith(c stream.Config, peers ...stream.Peer) *run {
	g.t.Helper()
	s := store.New(file.Open(file.Config{Dir: g.dir}), nil)
	r := &run{gateway: g, tracker: tracker.New(), store: s, done: make(chan error, 1)}
	c.Tracker, c.Store, c.EdgeSocket, c.Suffix, c.Timing = r.tracker, s, g.edge, suffix, timing()
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(g.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("gateway", g.name)
	}
	var err error
	if r.node, err = stream.NewNode(c); err != nil {
		g.t.Fatal(err)
	}
	if err := r.node.SetPeers(peers); err != nil {
		g.t.Fatal(err)
	}
	listener, err := net.Listen("unix", g.peeringSocket())
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(g.t.Context())
	r.cancel = cancel
	go func() { r.done <- r.node.Run(ctx, listener) }()
	g.t.Cleanup(r.stop)
	return r
}

func (r *run) stop() {
	r.cancel()
	err, first := <-r.done
	if first {
		close(r.done)
		if err != nil {
			r.t.Errorf("%s: %v", r.name, err)
		}
	}
}

func (g *gateway) as() stream.Peer { return stream.Peer{Name: g.name, Identity: g.identity()} }

func (g *gateway) setWeather(w func(*http.Request) fate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.weather = w
}

// await waits until the status of a peer is as ok wants, by subscription.
func (r *run) await(peer string, what string, ok func(tracker.Status) bool) tracker.Status {
	r.t.Helper()
	deadline := time.After(15 * time.Second)
	poll := time.NewTicker(10 * time.Millisecond) // last seen is no change that subscribers hear of
	defer poll.Stop()
	for {
		s, known := r.tracker.Peer(peer)
		if known && ok(s) {
			return s
		}
		select {
		case <-poll.C:
		case <-deadline:
			r.t.Fatalf("%s: peer %s is not %s: %+v", r.name, peer, what, s)
		}
	}
}

func is(c peering.Condition) func(tracker.Status) bool {
	return func(s tracker.Status) bool { return s.Condition == c }
}

func readyAs(o neutral.Orchestrator) func(tracker.Status) bool {
	return func(s tracker.Status) bool {
		return s.Condition == peering.Ready && !s.Remembered && s.Configuration.Orchestrator.Type == o
	}
}

// pairOf is two gateways that trust each other.
func pairOf(t *testing.T) (west, east *gateway) {
	t.Helper()
	west, east = newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	return west, east
}

func serve(proxy *httputil.ReverseProxy, w http.ResponseWriter, r *http.Request, f fate) {
	if f.twice {
		body, err := io.ReadAll(r.Body) // a call of one message, whose end comes with it
		if err != nil {
			return
		}
		first := r.Clone(r.Context())
		first.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(nowhere{http.Header{}}, first)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if f.lostComing {
		proxy.ServeHTTP(nowhere{http.Header{}}, r)
		<-r.Context().Done()
		return
	}
	proxy.ServeHTTP(w, r)
}

// nowhere is an answer that is lost.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}
