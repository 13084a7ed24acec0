package resource

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestAPIDomains holds that a listener's own address is among its names, and that Envoy, which takes no name twice,
// takes them.
func TestAPIDomains(t *testing.T) {
	t.Parallel()
	for at, own := range map[string]string{
		"127.0.0.1:16443": "127.0.0.1", "[::1]:16443": "[::1]", "10.0.0.7:16443": "10.0.0.7", "[FD00::1]:16443": "[fd00::1]",
		"localhost:16443": "localhost", "/run/isthmus/west-api.sock": "localhost",
	} {
		peer := west
		peer.API = at
		domains := apiDomains(gateway, peer)
		for _, want := range []string{own, own + ":*", "localhost", "127.0.0.1:*", "[::1]:*", "api.west.isthmus.internal:*"} {
			if !slices.Contains(domains, want) {
				t.Errorf("%s: %s is not in %v", at, want, domains)
			}
		}
		sorted := slices.Sorted(slices.Values(domains))
		if len(slices.Compact(sorted)) != len(domains) || slices.Contains(domains, "*") {
			t.Errorf("%s: %v", at, domains)
		}
	}
}

// TestPeerAPIRefusesPagesFirst holds that nothing is forwarded before the origin was looked at.
func TestPeerAPIRefusesPagesFirst(t *testing.T) {
	t.Parallel()
	for _, host := range PeerAPIRoutes(gateway, west).GetVirtualHosts() {
		connects, others := false, false
		for _, r := range host.GetRoutes() {
			raw := r.GetMatch().GetConnectMatcher() != nil
			headers := r.GetMatch().GetHeaders()
			switch {
			case r.GetRoute() != nil && (raw && !connects || !raw && !others):
				t.Errorf("%s forwards what may have an origin: %v", host.GetName(), r)
			case r.GetDirectResponse().GetStatus() == http.StatusForbidden && len(headers) == 1 && headers[0].GetName() == "origin":
				connects, others = connects || raw, others || !raw
			}
		}
	}
}

// TestEdgeForwardsToNoAPI holds that only a peer's own listener and isthmus' own socket lead to its API.
func TestEdgeForwardsToNoAPI(t *testing.T) {
	t.Parallel()
	forwards := func(c *routev3.RouteConfiguration) (found int) {
		for _, host := range c.GetVirtualHosts() {
			for _, domain := range host.GetDomains() {
				if !strings.HasPrefix(domain, names.APILabel+".") && domain != "*" {
					continue
				}
				for _, r := range host.GetRoutes() {
					if r.GetRoute() != nil {
						found++
					}
				}
			}
		}
		return found
	}
	if n := forwards(EdgeRoutes(gateway, peers)); n != 0 {
		t.Errorf("%d routes of the edge lead to APIs", n)
	}
	if n := forwards(LocalRoutes(gateway, peers)); n != 2 { // requests and CONNECT to the peer that is joined
		t.Errorf("%d routes of isthmus' own socket lead to APIs", n)
	}
}

// TestOnlyTranslatedRequestsEnd holds that streams have no limit on the whole.
func TestOnlyTranslatedRequestsEnd(t *testing.T) {
	t.Parallel()
	found := 0
	for _, host := range PeerRoutes(gateway, hosts(), socket).GetVirtualHosts() {
		for _, r := range host.GetRoutes() {
			if r.GetRoute() == nil {
				continue
			}
			limit := r.GetRoute().GetTimeout()
			switch {
			case limit == nil: // Envoy's default is 15 s
				t.Errorf("%s has a route without a word on time", host.GetName())
			case r.GetName() == routeTranslated && limit.AsDuration() == translatedTimeout:
				found++
			case limit.AsDuration() != 0:
				t.Errorf("%s ends after %v", host.GetName(), limit.AsDuration())
			}
		}
	}
	if found != 1 {
		t.Errorf("%d routes of translated requests", found)
	}
}

// TestElsewhere holds that a request is tried at another endpoint of a peer that may have one.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		peer Peer
		want bool
	}{
		"one address":    {Peer{Addresses: []string{"192.0.2.1:15443"}}, false},
		"one of IPv6":    {Peer{Addresses: []string{"[2001:db8::1]:15443"}}, false},
		"two addresses":  {Peer{Addresses: []string{"192.0.2.1:15443", "192.0.2.2:15443"}}, true},
		"a name":         {Peer{Addresses: []string{"gateway.north.example:15443"}}, true},
		"tunnels of its": {Peer{Tunnels: Tunnels{Accepted: true}}, true},
	} {
		policy := forwards(c.peer)[0].GetRoute().GetRetryPolicy()
		if got := len(policy.GetRetryHostPredicate()) > 0; got != c.want || policy.GetRetryOn() == "" {
			t.Errorf("%s: %v", name, policy)
		}
	}
}
