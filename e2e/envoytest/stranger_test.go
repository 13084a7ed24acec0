package envoytest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// direct is an HTTP/2 client that talks to a gateway's peer listener with its own certificate.
func direct(t *testing.T, to *gateway, config *tls.Config) *http.Client {
	t.Helper()
	if config.ServerName == "" {
		config = asking(config, "west", to.model.Gateway.Cluster)
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: dialOnly("tcp", to.model.Gateway.Peer)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// asking is a client that asks for a gateway as one of its peers does.
func asking(config *tls.Config, as, gateway string) *tls.Config {
	c := config.Clone()
	c.ServerName = names.LinkHost(as, gateway+".test")
	return c
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
		east.knows(newGateway(t, "north"))
	})
	stranger := newAuthority(t, "west.test")
	plain := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} //nolint:gosec // the server refuses
	old := west.authority.client(id("west"))
	old.MaxVersion = tls.VersionTLS12
	for name, config := range map[string]*tls.Config{
		"no certificate":                  plain,
		"a stranger's CA":                 stranger.client(id("west")),
		"another name in a peer's domain": west.authority.client("spiffe://west.test/cluster/other"),
		"another peer's name":             west.authority.client(id("north")),
		"no name":                         west.authority.client(),
		"TLS 1.2":                         old,
	} {
		t.Run(name, func(t *testing.T) {
			unknown := config.Clone()
			unknown.ServerName = "east.test"
			for _, c := range []*tls.Config{asking(config, "west", "east"), asking(config, "north", "east"), unknown} {
				unanswered(t, east, c)
			}
		})
	}
	t.Run("a peer under a name that is not its own", func(t *testing.T) {
		for _, name := range []string{names.LinkHost("north", "east.test"), names.LinkHost("west", "west.test"), "east.test", names.JoinHost("east", names.DefaultSuffix)} {
			config := west.authority.client(id("west"))
			config.ServerName = name
			unanswered(t, east, config)
		}
	})
	t.Run("two names", func(t *testing.T) {
		// Envoy takes such a certificate; it is nobody's.
		for _, ids := range [][]string{{id("west"), id("north")}, {id("west"), "spiffe://west.test/cluster/other"}} {
			resp, err := direct(t, east, west.authority.client(ids...)).Do(
				request(t, http.MethodGet, "https://"+east.host("web", "shop", "svc")+"/", nil))
			if err != nil {
				continue
			}
			if resp.StatusCode == http.StatusOK {
				t.Error("answered")
			}
		}
	})
	t.Run("the peer itself", func(t *testing.T) {
		a := call(t, direct(t, east, west.authority.client(id("west"))),
			request(t, http.MethodGet, "https://"+east.host("web", "shop", "svc")+"/", nil))
		if a.code != http.StatusOK {
			t.Errorf("%d %s", a.code, a.body)
		}
	})
	t.Run("a false target", func(t *testing.T) {
		// West dials an address where a gateway of another CA, or another id of the right CA, listens.
		for name, ca := range map[string]*tls.Config{
			"another CA": newAuthority(t, "east.test").client(id("east")), "another id": east.authority.client(id("other")),
		} {
			l := listen(t, "tcp", "127.0.0.1:0")
			s := &http.Server{Handler: http.HandlerFunc(echo), TLSConfig: ca, ReadHeaderTimeout: time.Second}
			go func() { _ = s.ServeTLS(l, "", "") }()
			t.Cleanup(func() { _ = s.Close() })
			west.model.Peers[0].Addresses = []string{l.Addr().String()}
			west.set()
			eventually(t, waits, func() error {
				a := call(t, west.edge(), request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/", nil))
				if a.code == http.StatusBadGateway {
					refusal(t, a, http.StatusBadGateway, "could not be reached")
					return nil
				}
				return fmt.Errorf("%s: %d %s", name, a.code, a.body)
			})
		}
	})
}

// unanswered checks that a client gets no answer at all.
func unanswered(t *testing.T, from *gateway, config *tls.Config) {
	t.Helper()
	resp, err := direct(t, from, config).Do(request(t, http.MethodGet, "https://"+from.host("web", "shop", "svc")+"/", nil))
	if err == nil {
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		t.Errorf("answered with %d %s to one that asks for %s", resp.StatusCode, body, config.ServerName)
	}
}

// TestSpoofedHeaders sends a peer's own words for what only this gateway says.
func TestSpoofedHeaders(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(echo))
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		east.export("secret", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("north"))
		east.knows(newGateway(t, "north"))
	})
	d, kill := east.decides(routed("")) // it decides nothing
	defer kill()
	c := direct(t, east, west.authority.client(id("west")))
	for _, authority := range []string{east.host("api"), east.host("secret", "shop", "svc"), "anything"} {
		for _, upstream := range []string{names.Orchestrator, toOrchestrator, names.Bridge, names.Access, "service/shop/secret/80"} {
			r := request(t, http.MethodPost, "https://"+authority+"/", strings.NewReader("x"))
			r.Header[strings.ToLower(names.HeaderRoute)] = []string{upstream, upstream}
			r.Header.Set(names.HeaderDestination, "127.0.0.1:1")
			r.Header.Set(names.HeaderPeer, id("north"))
			r.Header.Set(names.HeaderExchange, "1")
			r.Header.Set("x-envoy-original-dst-host", "127.0.0.1:1")
			r.Header.Set("x-forwarded-client-cert", "URI="+id("north"))
			refusal(t, call(t, c, r), http.StatusServiceUnavailable, "no decision")
		}
	}
	for _, seen := range d.requests() {
		for _, h := range []string{names.HeaderRoute, names.HeaderDestination, names.HeaderExchange, "x-envoy-original-dst-host", "x-forwarded-client-cert"} {
			if v, ok := seen[h]; ok {
				t.Errorf("external processing saw %s: %s", h, v)
			}
		}
		if seen[names.HeaderPeer] != id("west") {
			t.Errorf("external processing took the peer for %q", seen[names.HeaderPeer])
		}
	}
}
