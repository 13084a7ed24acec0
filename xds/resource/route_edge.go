package resource

import (
	"fmt"
	"net/http"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// EdgeRoutes are the routes of callers of this cluster to its peers.
func EdgeRoutes(g Gateway, peers []Peer) *routev3.RouteConfiguration {
	return edgeRoutes(g, ListenerEdge, peers, nil)
}

// LocalRoutes are the routes of isthmus' own requests, the peering service included.
func LocalRoutes(g Gateway, peers []Peer) *routev3.RouteConfiguration {
	var hosts []*routev3.VirtualHost
	for _, p := range byName(peers) {
		hosts = append(hosts, &routev3.VirtualHost{
			Name: "peering/" + p.Name, Domains: []string{names.PeeringHost(p.Name, g.suffix())},
			Routes: []*routev3.Route{forward(anyPath(), to(names.PeerCluster(p.Name), 0))},
		})
	}
	return edgeRoutes(g, ListenerLocal, peers, hosts)
}

// PeerAPIRoutes are the routes of plain clients of one peer's orchestrator API, whatever name they call it by.
func PeerAPIRoutes(g Gateway, peer Peer) *routev3.RouteConfiguration {
	host := peerAPIHost(g, peer)
	host.Domains = []string{"*"}
	if peer.Ready {
		for _, r := range host.GetRoutes() {
			r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{
				HostRewriteLiteral: names.APIHost(peer.Name, g.suffix()),
			}
		}
	}
	return &routev3.RouteConfiguration{
		Name: APIListener(peer.Name), VirtualHosts: []*routev3.VirtualHost{host}, ValidateClusters: no(),
	}
}

func edgeRoutes(g Gateway, name string, peers []Peer, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	for _, p := range byName(peers) {
		hosts = append(append(hosts, peerHosts(g, p)...), peerAPIHost(g, p))
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
	about := decision{kind: kind, peer: p.Name, decision: "forward"}
	if p.Ready {
		request, raw := to(names.PeerCluster(p.Name), 0), to(names.PeerCluster(p.Name), accessIdle)
		request.RetryPolicy = again()
		routes = []*routev3.Route{forward(anyPath(), request), forward(connect(), raw)}
	} else {
		about.decision = "refuse"
		routes = refuse(refusal{http.StatusServiceUnavailable, reasonUnavailable, fmt.Sprintf(
			"peer %q is not joined at the moment: its gateway has not answered the handshake", p.Name)})
	}
	for _, r := range routes {
		r.Metadata = about.metadata()
	}
	return routes
}
