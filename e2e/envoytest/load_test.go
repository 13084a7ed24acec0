package envoytest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// load is steady work between two sites in both directions, every piece of which is counted.
type load struct {
	t                                     *testing.T
	requests, handshakes, bytes, failures atomic.Int64
	ctx                                   context.Context
	cancel                                context.CancelFunc
	group                                 sync.WaitGroup
	mu                                    sync.Mutex
	firsts                                []string // what failed first
}

// loadServices are what a site runs for load.
func loadServices(t *testing.T) []service {
	return []service{
		{"web", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })), "http"},
		{"ticks", serve(t, http.HandlerFunc(ticking)), "http"},
		{"echo", tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), "tcp"},
	}
}

// startLoad works until stop: requests, long answers, raw TCP, and handshakes of their own with each gateway.
func startLoad(t *testing.T, services map[string][]service, a, b *site) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, ctx: ctx, cancel: cancel}
	for _, way := range [][2]*site{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		host := func(i int) string {
			return fmt.Sprintf("%s:%d", to.host(services[to.name][i].name), services[to.name][i].at.Port())
		}
		for i := range 3 {
			l.group.Go(func() { l.request(fmt.Sprint(from.name, i), from.edge, host(0)) })
		}
		for range 2 {
			l.group.Go(func() { l.read(from.edge, host(1)) })
			l.group.Go(func() { l.talk(from, host(2)) })
		}
		l.group.Go(func() { l.handshake(from, to, host(0)) })
	}
	return l
}

// stop ends the work and tells how it went.
func (l *load) stop() {
	l.t.Helper()
	l.cancel()
	l.group.Wait()
	l.t.Logf("%d requests, %d handshakes, %d bytes of open streams; %d failures",
		l.requests.Load(), l.handshakes.Load(), l.bytes.Load(), l.failures.Load())
	for _, f := range l.firsts {
		l.t.Error(f)
	}
	if l.requests.Load() < 500 || l.handshakes.Load() < 20 || l.bytes.Load() < 5000 {
		l.t.Error("too little work: this was no test")
	}
}

func (l *load) failed(format string, args ...any) {
	if l.ctx.Err() != nil { // at the end
		return
	}
	l.failures.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.firsts) < 10 {
		l.firsts = append(l.firsts, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
	}
}

// pause is between two pieces of work; false at the end.
func (l *load) pause(d time.Duration) bool {
	select {
	case <-l.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *load) request(who, edge, host string) {
	client := clientTo(l.t, "tcp", edge, false)
	client.Timeout = 5 * time.Second
	for i := 0; l.pause(10 * time.Millisecond); i++ {
		path := fmt.Sprintf("/%s/%d", who, i)
		l.requests.Add(1)
		if err := l.expect(client, "http://"+host+path, path); err != nil {
			l.failed("request %s of %s: %v", path, host, err)
		}
	}
}

func (l *load) expect(client *http.Client, url, body string) error {
	r, err := http.NewRequestWithContext(l.ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(got) != body {
		return fmt.Errorf("%d %.200q %w", resp.StatusCode, got, err)
	}
	return nil
}

// read reads one answer from beginning to end of the test; it may not end, nor stand still.
func (l *load) read(edge, host string) {
	client := clientTo(l.t, "tcp", edge, false)
	client.Timeout = 0
	r, err := http.NewRequestWithContext(l.ctx, http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		l.failed("%v", err)
		return
	}
	resp, err := client.Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		l.failed("a long answer of %s: %v %v", host, resp, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	buffer, last := make([]byte, 4096), time.Now()
	for {
		n, err := resp.Body.Read(buffer)
		if err != nil {
			l.failed("a long answer of %s ended: %v", host, err)
			return
		}
		if gap := time.Since(last); gap > 3*time.Second {
			l.failed("a long answer of %s stood still for %s", host, gap)
		}
		last = time.Now()
		l.bytes.Add(int64(n))
	}
}

// talk keeps one raw TCP connection and expects each word back.
func (l *load) talk(from *site, host string) {
	conn, err := from.tunnel(host)
	if err != nil {
		l.failed("a tunnel to %s: %v", host, err)
		return
	}
	defer func() { _ = conn.Close() }()
	for i := 0; l.pause(20 * time.Millisecond); i++ {
		word := fmt.Sprintf("word %d\n", i)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, word); err != nil {
			l.failed("a tunnel to %s: %v", host, err)
			return
		}
		back := make([]byte, len(word))
		if _, err := io.ReadFull(conn, back); err != nil || string(back) != word {
			l.failed("a tunnel to %s: %q %v", host, back, err)
			return
		}
		l.bytes.Add(int64(len(word)))
	}
}

// handshake makes new connections to a gateway as its peer: with a certificate that the peer would be issued at that
// moment, and by what the peer trusts at that moment. Envoys keep their connections, so these are what shows that both
// sides agree at every step.
func (l *load) handshake(from, to *site, host string) {
	for l.pause(40 * time.Millisecond) {
		l.handshakes.Add(1)
		pair, err := from.issue()
		if err == nil {
			err = l.expectAs(from, to, pair, host)
		}
		if err != nil {
			l.failed("a new connection from %s to %s: %v", from.name, to.name, err)
		}
	}
}

// expectAs asks a gateway's peer listener with a certificate.
func (l *load) expectAs(from, to *site, pair trust.Pair, host string) error {
	config, err := clientConfig(from, pair)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: dialOnly("tcp", to.peer)}
	defer transport.CloseIdleConnections()
	return l.expect(&http.Client{Transport: transport, Timeout: 5 * time.Second}, "https://"+host+"/direct", "/direct")
}

// clientConfig is TLS as the Envoy of a site has it towards its peer.
func clientConfig(from *site, pair trust.Pair) (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	if err != nil {
		return nil, err
	}
	home := file.Open(file.Config{Dir: filepath.Dir(from.trustDir())})
	bundles, err := trust.OpenPeers(home, peering.Identity{TrustDomain: "test", Cluster: from.name}).List()
	if err != nil || len(bundles) != 1 {
		return nil, fmt.Errorf("%s trusts %d bundles: %w", from.name, len(bundles), err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundles[0].Bundle.CertificatesPEM)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: names.LinkHost(from.name, bundles[0].Bundle.Identity.TrustDomain), NextProtos: []string{"h2"},
		// The certificate holds no name of a host. It is what Envoy's SPIFFE validator looks at that counts.
		Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection: func(c tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range c.PeerCertificates[1:] {
				between.AddCert(c)
			}
			leaf := c.PeerCertificates[0]
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != bundles[0].Bundle.Identity.String() {
				return fmt.Errorf("the certificate is of %v", leaf.URIs)
			}
			_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			return err
		},
	}, nil
}
