package handshake

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/modules/state/statetest"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// cut is how soon nothing of a peer passes any more that was suspended or removed, at every replica. Less than a tenth of it
// is what it takes on a machine that has nothing else to do.
const cut = time.Second

// newReplicas starts two replicas of east, whose home is an etcd, and west, which joins by one of them. The first that is
// given acts, the second stands by.
func newReplicas(t *testing.T) (west *gateway, east [2]*gateway) {
	t.Helper()
	etcd := statetest.Etcd(t, "http")
	for i := range east {
		east[i] = newGateway(t, t, "east")
		east[i].declare(t)
		path := filepath.Join(east[i].config(), "gateway.yaml")
		east[i].write(t, path, east[i].read(t, path)+fmt.Sprintf("  state: {home: etcd, etcd: {endpoints: [%q]}}\n", etcd.URL))
		east[i].write(t, filepath.Join(east[i].config(), "policy.yaml"), `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: west}
spec:
  from: [{peer: west}]
  allow: [{verbs: ["*"], objects: [{}]}]
`)
	}
	west = newGateway(t, t, "west")
	west.declare(t)
	west.command(t, "trust", "init", "--config", west.config())
	east[0].command(t, "trust", "init", "--config", east[0].config())
	for _, g := range []*gateway{west, east[0], east[1]} {
		g.start(t)
		t.Cleanup(func() {
			g.end()
			if t.Failed() {
				t.Logf("log of %s, which ends:\n%s", g.name, g.tail())
			}
		})
	}
	for _, g := range []*gateway{west, east[0], east[1]} {
		if _, err := within(60*time.Second, g.answers); err != nil {
			t.Fatalf("%v\n%s", err, g.tail())
		}
	}
	token := east[0].command(t, "peer", "invite", "--for", "west", "--expires", "10m", "--address", east[0].peer, "--admin", east[0].admin)
	if _, err := within(30*time.Second, func() error { // Envoy listens for peers from the first invitation on
		var complaints bytes.Buffer
		if app.Main(t.Context(), []string{"peer", "join", strings.TrimSpace(token), "--address", west.peer, "--admin", west.admin}, io.Discard, &complaints) != 0 {
			return errors.New(complaints.String())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := within(30*time.Second, func() error {
		for i, g := range east {
			if seen, err := g.sees(); err == nil && seen.State == "ready" {
				east[0], east[1] = east[i], east[1-i]
				return nil
			}
		}
		return errors.New("no replica has shaken hands with west")
	}); err != nil {
		t.Fatal(err)
	}
	return west, east
}

// answers tells whether the admin interface does.
func (g *gateway) answers() error {
	response, err := asks.Get("http://" + g.admin + "/healthz")
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// probe asks a replica as west does, again and again, and remembers when it was answered last.
type probe struct{ last atomic.Pointer[time.Time] }

func (p *probe) passed() {
	now := time.Now()
	p.last.Store(&now)
}

// after is how long after a moment it was answered last.
func (p *probe) after(since time.Time) time.Duration {
	if last := p.last.Load(); last != nil {
		return last.Sub(since)
	}
	return -1
}

// asWest is a client that shows the certificate of west to a replica of east.
func asWest(t *testing.T, west *gateway) *http.Transport {
	t.Helper()
	authority, err := trust.Open(filepath.Join(west.dir, "state", "trust"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate}, ServerName: names.LinkHost("west", "east.isthmus.internal"), MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // west is what is tested
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// ask is one request for a path of east's engine.
func ask(ctx context.Context, by http.RoundTripper, east *gateway, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+east.peer+path, nil)
	if err != nil {
		return nil, err
	}
	request.Host = "api.east.isthmus.internal"
	return by.RoundTrip(request)
}

// load is what west has under way at a replica: new connections, requests on one that is there, and, at the one that acts, a
// stream.
type load struct{ connections, requests, stream probe }

// begin begins it, and gives what ends it. The one that stands by refuses requests, which nobody is to send it, in words: that
// they get so far is what is looked at.
func (l *load) begin(t *testing.T, west, east *gateway, acts bool) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	kept := asWest(t, west)
	if _, err := within(30*time.Second, func() error { // Envoy and isthmus have taken west in
		response, err := ask(ctx, kept, east, "/v1.48/_ping")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if acts && response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(response.Body)
			return fmt.Errorf("%s: %s", response.Status, body)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if acts {
		l.open(ctx, t, &group, kept, east)
	}
	again := func(p *probe, by func() http.RoundTripper) {
		group.Go(func() {
			for ctx.Err() == nil {
				asked, stop := context.WithTimeout(ctx, 500*time.Millisecond)
				response, err := ask(asked, by(), east, "/v1.48/_ping")
				if err == nil { // whatever it says
					p.passed()
					_ = response.Body.Close()
				}
				stop()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	again(&l.requests, func() http.RoundTripper { return kept })
	template := asWest(t, west)
	again(&l.connections, func() http.RoundTripper {
		once := template.Clone()
		once.DisableKeepAlives = true
		return once
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// open has a stream under way.
func (l *load) open(ctx context.Context, t *testing.T, group *sync.WaitGroup, by http.RoundTripper, east *gateway) {
	t.Helper()
	stream, err := ask(ctx, by, east, "/v1.48/events")
	if err != nil {
		t.Fatal(err)
	}
	if stream.StatusCode != http.StatusOK {
		_ = stream.Body.Close()
		t.Fatalf("a stream: %s", stream.Status)
	}
	group.Go(func() {
		defer func() { _ = stream.Body.Close() }()
		for {
			if _, err := stream.Body.Read(make([]byte, 1<<10)); err != nil {
				l.stream.passed() // it was open until now
				return
			}
		}
	})
}

// TestRemovalByAnotherReplica suspends and removes a peer by the replica that stands by, while the peer works with both.
func TestRemovalByAnotherReplica(t *testing.T) {
	t.Parallel()
	west, east := newReplicas(t)
	for _, by := range []string{"suspend", "remove"} {
		var loads [2]load
		var ends [2]func()
		for i := range loads {
			ends[i] = loads[i].begin(t, west, east[i], i == 0)
		}
		time.Sleep(time.Second) // under load
		began := time.Now()
		east[1].command(t, "peer", by, "west", "--admin", east[1].admin)
		done := time.Now()
		time.Sleep(2 * cut)
		for _, end := range ends {
			end()
		}
		for i, at := range []string{"the one that acts", "the one that stands by"} {
			l := &loads[i]
			what := map[string]*probe{"a new connection": &l.connections, "a request on a connection that was there": &l.requests}
			if i == 0 {
				what["a stream"] = &l.stream
			}
			for name, p := range what {
				t.Logf("%s: %s passed last %v after the command began, at %s", by, name, p.after(began).Round(time.Millisecond), at)
				if took := p.after(done); p.last.Load() == nil || took > cut {
					t.Errorf("%s: %s passes %v after it was done, at %s", by, name, took, at)
				}
			}
		}
		if by == "suspend" {
			east[1].command(t, "peer", "resume", "west", "--admin", east[1].admin)
		}
	}
}
