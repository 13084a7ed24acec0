package envoytest

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// endless answers under /endless with a line every 20 ms until its caller goes.
func endless(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/endless" {
		return
	}
	flush := http.NewResponseController(w)
	for {
		if _, err := io.WriteString(w, "still here\n"); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// download is an answer that does not end by itself.
type download struct{ end chan struct{} }

// downloads begins one through a gateway.
func downloads(t *testing.T, c *http.Client, url string) download {
	t.Helper()
	c.Timeout = 0
	resp, err := c.Do(request(t, http.MethodGet, url, nil))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d", url, resp.StatusCode)
	}
	d := download{make(chan struct{})}
	go func() {
		defer close(d.end)
		_, _ = io.Copy(io.Discard, resp.Body)
	}()
	t.Cleanup(func() { _ = resp.Body.Close(); <-d.end })
	return d
}

// running checks that it goes on for a while.
func (d download) running(t *testing.T, what string) {
	t.Helper()
	select {
	case <-d.end:
		t.Errorf("%s ended", what)
	case <-time.After(3 * time.Second):
	}
}

// TestRemovedPeer has a peer removed, or suspended, in the middle of what it does: that ends, and nothing of others does.
func TestRemovedPeer(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(endless)), id("west"), id("north"))
	})
	north := newGateway(t, "north")
	north.knows(east)
	north.start()
	url := "http://" + east.host("web", "shop", "svc") + "/"
	passes := func(from *gateway) {
		t.Helper()
		eventually(t, waits, func() error {
			if a := call(t, from.edge(), request(t, http.MethodGet, url, nil)); a.code != http.StatusOK {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
	}
	passes(west)
	ofWest := downloads(t, west.edge(), url+"endless")

	// A peer more, this gateway's certificate renewed, and a session that is not ready for a moment cut nobody.
	east.knows(north)
	east.set()
	passes(north)
	ofNorth := downloads(t, north.edge(), url+"endless")
	east.model.Identity.Certificate, east.model.Identity.Key = east.authority.issue(id("east"))
	east.model.Peers[0].Ready = false
	east.set()
	ofWest.running(t, "a download of a peer that stays")
	east.model.Peers[0].Ready = true

	removed := east.model.Peers[0]
	east.model.Peers = slices.DeleteFunc(east.model.Peers, func(p snapshot.Peer) bool { return p.Name == "west" })
	east.set()
	began := time.Now()
	select {
	case <-ofWest.end:
	case <-time.After(waits):
		t.Fatal("the removed peer's download goes on")
	}
	t.Logf("the removed peer's download ended after %v", time.Since(began).Round(time.Millisecond))
	unanswered(t, east, west.authority.client(id("west")))
	ofNorth.running(t, "a download of another peer")

	east.model.Peers = append(east.model.Peers, removed)
	east.set()
	passes(west)

	// The other way round: what callers here have under way at a peer is in nobody's hands but Envoy's.
	ofNorth.running(t, "a download of another peer")
	at := netip.MustParseAddrPort(east.model.Gateway.Peer)
	if n, err := north.supervisor.Sever([]netip.AddrPort{netip.AddrPortFrom(at.Addr(), at.Port()+1)}); n != 0 || err != nil {
		t.Fatalf("severed %d, %v", n, err)
	}
	if n, err := north.supervisor.Sever([]netip.AddrPort{at}); n == 0 || err != nil {
		t.Fatalf("severed %d, %v", n, err)
	}
	began = time.Now()
	select {
	case <-ofNorth.end:
	case <-time.After(waits):
		t.Error("a download goes on over a connection that was severed")
	}
	t.Logf("the severed download ended after %v", time.Since(began).Round(time.Millisecond))
	passes(north)
}
