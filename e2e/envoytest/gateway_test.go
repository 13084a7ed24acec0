package envoytest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/envoy"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/server"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// gateway is an Envoy with its control plane.
type gateway struct {
	t          *testing.T
	address    string // of its listeners
	model      snapshot.Model
	authority  *authority
	workers    int // of Envoy
	server     *server.Server
	supervisor *envoy.Supervisor
	stop       context.CancelFunc // of the control plane
}

// toOrchestrator is the decision that leads to the orchestrator of a gateway of these tests.
var toOrchestrator = names.OrchestratorRoute(neutral.Docker)

// id is a cluster's SPIFFE id in these tests.
func id(cluster string) string { return "spiffe://" + cluster + ".test/cluster/" + cluster }

// newGateway prepares a gateway; nothing runs yet.
func newGateway(t *testing.T, cluster string) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-"+cluster) // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"envoy.log", "access.log"} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(b) > 0 {
					t.Logf("%s of %s:\n%s", name, cluster, b[max(0, len(b)-8000):])
				}
			}
		}
		_ = os.RemoveAll(dir)
	})
	ca, host := newAuthority(t, cluster+".test"), loopback.NewHost()
	certificate, key := ca.issue(id(cluster))
	return &gateway{t: t, address: host, authority: ca, workers: 1, model: snapshot.Model{
		Gateway: snapshot.Gateway{
			Cluster: cluster, Orchestrator: neutral.Docker, ID: id(cluster), Peer: loopback.Address(t, host), Edge: loopback.Address(t, host), RunDir: dir,
			AccessLog: filepath.Join(dir, "access.log"), Callers: snapshot.Callers{Services: true, Accesses: true},
		},
		Identity: snapshot.Identity{Certificate: certificate, Key: key},
	}}
}

// knows makes other a peer.
func (g *gateway) knows(other *gateway) {
	name := other.model.Gateway.Cluster
	g.model.Peers = append(g.model.Peers, snapshot.Peer{
		Name: name, Addresses: []string{other.model.Gateway.Peer}, ID: id(name), TrustDomain: name + ".test",
		Bundle: other.authority.bundle, Ready: true,
	})
}

// logger writes into the test's log what is worth reading when it fails.
func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// start runs control plane and Envoy until the test ends.
func (g *gateway) start() {
	g.t.Helper()
	g.control()
	g.set()
	s, err := envoy.New(envoy.Config{
		Options: envoy.Options{
			Node: g.model.Gateway.Cluster, Cluster: g.model.Gateway.Cluster, RunDir: g.model.Gateway.RunDir, Concurrency: g.workers,
			LogLevel: os.Getenv("ISTHMUS_ENVOY_LOG"),
		},
		Binary: loopback.Envoy(g.t), Drain: 100 * time.Millisecond, Log: logger(g.t),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.supervisor = s
	run(g.t, s.Run)
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		g.t.Fatal(err)
	}
}

// control runs the control plane; a second call restarts it.
func (g *gateway) control() {
	g.t.Helper()
	if g.stop != nil {
		g.stop()
	}
	socket := g.socket(names.XDSSocket)
	_ = os.Remove(socket)
	l := listen(g.t, "unix", socket)
	s := server.New(server.Config{Log: logger(g.t)})
	g.server = s
	g.stop = run(g.t, func(ctx context.Context) error { return s.Serve(ctx, l) })
}

// set serves the model as it is now.
func (g *gateway) set() {
	g.t.Helper()
	snap, err := snapshot.Build(g.model)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := snap.Consistent(); err != nil {
		g.t.Fatal(err)
	}
	g.server.Set(snap)
	g.t.Cleanup(func() {
		for _, s := range g.server.Status().Types {
			if s.LastNACK != nil {
				g.t.Errorf("envoy of %s refused %s: %s", g.model.Gateway.Cluster, s.Type, s.LastNACK.Message)
			}
		}
	})
}

func (g *gateway) socket(name string) string { return filepath.Join(g.model.Gateway.RunDir, name) }

// host is one of this cluster's names.
func (g *gateway) host(labels ...string) string {
	return strings.Join(append(labels, g.model.Gateway.Cluster, names.DefaultSuffix), ".")
}

// edge is an HTTP client that calls names through this gateway's edge.
func (g *gateway) edge() *http.Client { return clientTo(g.t, "tcp", g.model.Gateway.Edge, false) }

// local is an HTTP client that calls names, those of APIs among them, as isthmus does.
func (g *gateway) local() *http.Client {
	return clientTo(g.t, "unix", g.socket(names.EdgeSocket), true)
}

// clientTo is an HTTP client that connects to one address whatever the name.
func clientTo(t *testing.T, network, address string, http2 bool) *http.Client {
	transport := &http.Transport{DialContext: dialOnly(network, address)}
	if http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// dialOnly dials one address whatever is asked.
func dialOnly(network, address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

// waits is how long a change may take to be there on a busy machine.
const waits = 10 * time.Second

// run runs a server until the test ends or the returned function is called.
func run(t *testing.T, serve func(context.Context) error) context.CancelFunc {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve runs an HTTP server and gives its address.
func serve(t *testing.T, h http.Handler) netip.AddrPort {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	serveOn(t, l, h)
	return netip.MustParseAddrPort(l.Addr().String())
}

func serveOn(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// export offers a service of one port to peers.
func (g *gateway) export(name string, app neutral.AppProtocol, at netip.AddrPort, peers ...string) {
	g.model.Services = append(g.model.Services, snapshot.Service{
		Service: neutral.Service{Namespace: "shop", Name: name, Ports: []neutral.ServicePort{
			{Name: "main", Number: 80, Protocol: "tcp", App: app, Endpoints: []netip.AddrPort{at}},
		}},
		Peers: peers,
	})
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   string
}

// call makes a request and reads the whole answer.
func call(t *testing.T, c *http.Client, r *http.Request) answer {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("answer %d: %v", resp.StatusCode, err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually waits for a condition that says what is missing.
func eventually(t *testing.T, within time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("not within %v: %w", within, err))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
