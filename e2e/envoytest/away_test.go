package envoytest

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
)

// TestPeerAway asks a peer whose gateway refuses connections, resets them, or says nothing: who asks is soon told.
func TestPeerAway(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	west.start()
	nobody := loopback.Address(t, loopback.NewHost())
	reset := tcpServer(t, func(c *net.TCPConn) { _ = c.SetLinger(0) }).String()
	silent := tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }).String()
	for _, test := range []struct {
		name    string
		address string
		within  time.Duration
	}{
		{"refuses", nobody, 2 * time.Second},
		{"resets", reset, 2 * time.Second},
		{"is silent", silent, 18 * time.Second}, // three times five seconds
	} {
		t.Run(test.name, func(t *testing.T) {
			west.model.Peers[0].Addresses = []string{test.address}
			west.set()
			for _, to := range []struct {
				client *http.Client
				host   string
			}{{west.local(), east.host("api")}, {west.edge(), east.host("web", "shop", "svc")}} {
				begun := time.Now()
				a := call(t, to.client, request(t, http.MethodGet, "http://"+to.host+"/", nil))
				took := time.Since(begun)
				refusal(t, a, http.StatusBadGateway, "could not be reached")
				if took > test.within {
					t.Errorf("%s: told after %v", to.host, took)
				}
			}
		})
	}
}
