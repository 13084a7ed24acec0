package resource

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// EdgeRoutes are the routes of callers of this cluster to services and containers of its peers. Who may operate a peer
// is a matter of its socket's mode, which a port that all callers share must not go around.
func EdgeRoutes(g Gateway, peers []Peer) *routev3.RouteConfiguration {
	var hosts []*routev3.VirtualHost
	for _, p := range byName(peers) {
		routes := refuse(refusal{http.StatusForbidden, reasonForbidden, fmt.Sprintf("the API of peer %q is not reached "+
			"by the edge for services, but through the peer's own socket or spec.api.listen of its document", p.Name)})
		about(routes, decision{kind: kindOperation, peer: p.Name, decision: "refuse"})
		hosts = append(hosts, &routev3.VirtualHost{
			Name: APIListener(p.Name), Domains: []string{names.APIHost(p.Name, g.suffix())}, Routes: routes,
		})
	}
	return edgeRoutes(g, ListenerEdge, peers, hosts)
}

// LocalRoutes are the routes of isthmus' own requests, the peering service and the peers' APIs included.
func LocalRoutes(g Gateway, peers []Peer) *routev3.RouteConfiguration {
	var hosts []*routev3.VirtualHost
	for _, p := range byName(peers) {
		route := forward(anyPath(), to(names.PeerCluster(p.Name), 0))
		route.Name = routePeering
		hosts = append(hosts, &routev3.VirtualHost{
			Name: "peering/" + p.Name, Domains: []string{names.PeeringHost(p.Name, g.suffix())},
			Routes: []*routev3.Route{route},
		}, peerAPIHost(g, p))
	}
	return edgeRoutes(g, ListenerLocal, peers, hosts)
}

// PeerAPIRoutes are the routes of plain clients of one peer's orchestrator API. They need no credential, so no web page
// may be one of them: a page can have its own name resolve to the listener's address, and it can open a WebSocket to
// any address. The first is known by the name, the second by the origin, which browsers always tell.
func PeerAPIRoutes(g Gateway, peer Peer) *routev3.RouteConfiguration {
	host := peerAPIHost(g, peer)
	host.Domains = apiDomains(g, peer)
	if peer.Ready {
		for _, r := range host.GetRoutes() {
			r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{
				HostRewriteLiteral: names.APIHost(peer.Name, g.suffix()),
			}
		}
	}
	fromPage := refuse(refusal{http.StatusForbidden, reasonForbidden,
		"web pages may not use a peer's API: the request has an Origin header"}, headerPresent("origin"))
	stranger := refuse(refusal{http.StatusForbidden, reasonForbidden, fmt.Sprintf("this is the API of peer %q; it "+
		"answers under localhost, the address that it listens on, and %s", peer.Name, names.APIHost(peer.Name, g.suffix()))})
	refused := decision{kind: kindOperation, peer: peer.Name, decision: "refuse"}
	about(fromPage, refused)
	about(stranger, refused)
	host.Routes = slices.Concat(fromPage, host.GetRoutes())
	return &routev3.RouteConfiguration{
		Name: APIListener(peer.Name), ValidateClusters: no(),
		VirtualHosts: []*routev3.VirtualHost{host, {Name: "unknown", Domains: []string{"*"}, Routes: stranger}},
	}
}

// apiDomains are the names of a peer's API at its listener. A client may have come through a forwarder, so any port is
// right.
func apiDomains(g Gateway, peer Peer) []string {
	hosts := []string{"localhost", "127.0.0.1", "[::1]", names.APIHost(peer.Name, g.suffix())}
	if !strings.HasPrefix(peer.API, "/") {
		own, _ := split(peer.API)
		if strings.Contains(own, ":") {
			own = "[" + own + "]"
		}
		if own = strings.ToLower(own); !slices.Contains(hosts, own) { // Envoy takes no name twice
			hosts = append(hosts, own)
		}
	}
	var domains []string
	for _, h := range hosts {
		domains = append(domains, domain(h)...)
	}
	return domains
}

func edgeRoutes(g Gateway, name string, peers []Peer, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	for _, p := range byName(peers) {
		hosts = append(hosts, peerHosts(g, p)...)
	}
	hosts = append(hosts, &routev3.VirtualHost{Name: "unknown", Domains: []string{"*"}, Routes: refuse(refusal{
		http.StatusNotFound, reasonNotFound, fmt.Sprintf("no peer has this name; names are "+
			"<service>.<namespace>.%s.<cluster>.%s, <container>.<namespace>.%s.<cluster>.%s and %s.<cluster>.%s",
			names.ServiceLabel, g.suffix(), names.AccessLabel, g.suffix(), names.APILabel, g.suffix()),
	})})
	return &routev3.RouteConfiguration{
		Name: name, VirtualHosts: hosts, ValidateClusters: no(),
		IgnorePortInHostMatching: true, // the port is the peer's to judge
	}
}

// peerHosts are the names of a peer's services and of its containers.
func peerHosts(g Gateway, p Peer) []*routev3.VirtualHost {
	var hosts []*routev3.VirtualHost
	for _, n := range [...]struct{ label, kind string }{
		{names.ServiceLabel, kindQuery}, {names.AccessLabel, kindAccess},
	} {
		hosts = append(hosts, &routev3.VirtualHost{
			Name:    n.label + "/" + p.Name,
			Domains: []string{"*." + n.label + "." + p.Name + "." + g.suffix()},
			Routes:  toPeerRoutes(p, n.kind),
		})
	}
	return hosts
}

// peerAPIHost is the name of a peer's orchestrator API. A caller's credential is this cluster's and stays here; the
// target has its own.
func peerAPIHost(g Gateway, p Peer) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name: APIListener(p.Name), Domains: []string{names.APIHost(p.Name, g.suffix())},
		Routes:                 toPeerRoutes(p, kindOperation),
		RequestHeadersToRemove: []string{headerAuthorization},
	}
}

func toPeerRoutes(p Peer, kind string) []*routev3.Route {
	var routes []*routev3.Route
	made := decision{kind: kind, peer: p.Name, decision: "forward"}
	if p.Ready {
		request, raw := to(names.PeerCluster(p.Name), 0), to(names.PeerCluster(p.Name), accessIdle)
		request.RetryPolicy = again()
		routes = []*routev3.Route{forward(anyPath(), request), forward(connect(), raw)}
	} else {
		made.decision = "refuse"
		routes = refuse(refusal{http.StatusServiceUnavailable, reasonUnavailable, fmt.Sprintf(
			"peer %q is not joined at the moment: its gateway has not answered the handshake", p.Name)})
	}
	about(routes, made)
	return routes
}

// about tells the access log what the routes decide.
func about(routes []*routev3.Route, d decision) {
	for _, r := range routes {
		r.Metadata = d.metadata()
	}
}
