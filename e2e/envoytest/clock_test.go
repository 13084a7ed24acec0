package envoytest

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// TestClocksApart connects gateways whose clocks differ. Envoy's clock cannot be set alone, so the other one's is: what
// a gateway of that clock issues, as long ago as it may be before it is renewed, is held against the clock of here.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	const age = 16 * time.Hour // when a certificate is renewed
	for _, c := range []struct {
		what   string
		ahead  time.Duration // west's clock
		age    time.Duration // of its certificate
		passes bool
	}{
		{"the same", 0, 0, true},
		{"the peer's is 4 minutes ahead", 4 * time.Minute, 0, true},
		{"the peer's is 6 minutes ahead", 6 * time.Minute, 0, false},
		{"the peer's is 7 hours behind, before it renews", -7 * time.Hour, age, true},
		{"the peer's is 9 hours behind, before it renews", -9 * time.Hour, age, false},
		{"the peer's is 9 hours behind, after it has renewed", -9 * time.Hour, 0, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			a, err := trust.Init(t.TempDir(), "west.test", "west")
			if err != nil {
				t.Fatal(err)
			}
			issued, err := a.Issue(time.Now().Add(c.ahead-c.age), trust.DefaultLife)
			if err != nil {
				t.Fatal(err)
			}
			west, east := newGateway(t, "west"), newGateway(t, "east")
			west.knows(east)
			east.knows(west)
			west.model.Identity = snapshot.Identity{Certificate: issued.CertificatePEM, Key: issued.KeyPEM}
			east.model.Peers[0].Bundle = a.CertificatePEM()
			ways := [][2]*gateway{{west, east}, {east, west}} // it is the client's certificate, and the server's
			for _, way := range ways {
				way[1].export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id(way[0].model.Gateway.Cluster))
			}
			west.start()
			east.start()
			for _, way := range ways {
				eventually(t, waits, func() error {
					a := call(t, way[0].edge(), request(t, http.MethodGet, "http://"+way[1].host("web", "shop", "svc")+"/", nil))
					switch {
					case c.passes && a.code == http.StatusOK, !c.passes && a.code == http.StatusBadGateway:
						return nil
					}
					return errors.New(fmt.Sprint(way[0].model.Gateway.Cluster, " asks: ", a.code, " ", a.body))
				})
			}
		})
	}
}
