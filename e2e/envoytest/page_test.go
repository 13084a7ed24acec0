package envoytest

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// TestPeerAPICallers calls a peer's API by the names that its listener has, and as web pages would.
func TestPeerAPICallers(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	own := loopback.Address(t, "127.0.0.2")
	_, port, err := net.SplitHostPort(own)
	if err != nil {
		t.Fatal(err)
	}
	west.model.Peers[0].API = own
	certificate, key := west.authority.issueDNS("localhost")
	west.model.Peers[0].APIIdentity = snapshot.Identity{Certificate: certificate, Key: key}
	east.on(names.BridgeSocket, http.HandlerFunc(echo))
	west.start()
	east.start()
	east.decides(routed(names.Bridge))
	west.decides(routed(names.PeerCluster("east")))
	ask := func(c *http.Client, host, origin string) answer {
		scheme := "http"
		if c.Transport.(*http.Transport).TLSClientConfig != nil {
			scheme = "https"
		}
		r := request(t, http.MethodGet, scheme+"://"+own+"/exec", nil)
		r.Host = host
		if origin != "" {
			r.Header.Set("origin", origin)
		}
		return call(t, c, r)
	}
	for _, http2 := range []bool{false, true} {
		c := secureClient(t, own, http2, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // whom it asks is not what is tested
		for _, host := range []string{
			"localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:54321", "[::1]", "[::1]:54321", "127.0.0.2", own, "127.0.0.2:54321",
			east.host("api"), east.host("api") + ":80",
		} {
			if a := ask(c, host, ""); a.code != http.StatusOK {
				t.Errorf("%s: %d %s", host, a.code, a.body)
			}
			for _, origin := range []string{"http://evil.example", "null", "http://" + host} {
				refusal(t, ask(c, host, origin), http.StatusForbidden, "Origin")
			}
		}
		for _, host := range []string{
			"evil.example", "evil.example:" + port, "localhost.evil.example", "127.0.0.1.evil.example:80", "127.0.0.3", "xlocalhost:1",
			west.host("api"),
		} {
			refusal(t, ask(c, host, ""), http.StatusForbidden, "this is the API")
		}
	}
	t.Run("WebSocket", func(t *testing.T) {
		r := request(t, http.MethodGet, "https://"+own+"/exec", nil)
		r.Header.Set("connection", "Upgrade")
		r.Header.Set("upgrade", "websocket")
		r.Header.Set("origin", "http://evil.example")
		refusal(t, call(t, secureClient(t, own, false, &tls.Config{InsecureSkipVerify: true}), r), http.StatusForbidden, "Origin")
	})
	t.Run("the edge for services", func(t *testing.T) {
		for _, host := range []string{east.host("api"), "API." + east.host() + ":80"} {
			refusal(t, ask(west.edge(), host, ""), http.StatusForbidden, "spec.api.listen")
		}
		if a := ask(west.local(), east.host("api"), ""); a.code != http.StatusOK {
			t.Errorf("isthmus' own socket: %d %s", a.code, a.body)
		}
	})
}
