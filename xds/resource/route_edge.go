package resource

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
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
	c := edgeRoutes(g, ListenerEdge, peers, hosts, func(p Peer, kind string) []*routev3.Route { return fromCallerRoutes(g, p, kind) })
	c.TypedPerFilterConfig = unasked()
	return c
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
	return edgeRoutes(g, ListenerLocal, peers, hosts, toPeerRoutes)
}

// PeerAPIRoutes are the routes of plain clients of one peer's orchestrator API. Nothing is forwarded that external
// processing did not let in. Callers may come without a credential, or with one that a browser adds by itself, so no web
// page may be one of them: a page can have its own name resolve to the listener's address, and it can open a WebSocket to
// any address. The first is known by the name, the second by the origin, which browsers always tell.
func PeerAPIRoutes(g Gateway, peer Peer) *routev3.RouteConfiguration {
	host := peerAPIHost(g, peer)
	host.Domains = apiDomains(g, peer)
	plainly := func(r refusal) []*routev3.Route {
		if g.Orchestrator != neutral.Kubernetes {
			return nil
		}
		return []*routev3.Route{r.discovery()}
	}
	if peer.Ready {
		host.Routes = admitted(peer)
		for _, r := range host.GetRoutes() {
			r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{
				HostRewriteLiteral: names.APIHost(peer.Name, g.suffix()),
			}
		}
		host.Routes = slices.Concat(host.Routes, plainly(noDecision), refuse(noDecision))
	} else {
		host.Routes = slices.Concat(plainly(notJoined(peer)), host.GetRoutes())
		for _, r := range host.GetRoutes() {
			r.Metadata = nil // external processing says it
		}
	}
	fromPage := refuse(refusal{http.StatusForbidden, reasonForbidden,
		"web pages may not use a peer's API: the request has an Origin header"}, headerPresent("origin"))
	stranger := refuse(refusal{http.StatusForbidden, reasonForbidden, fmt.Sprintf("this is the API of peer %q; it "+
		"answers under localhost, the address that it listens on, and %s", peer.Name, names.APIHost(peer.Name, g.suffix()))})
	refused := decision{kind: kindOperation, peer: peer.Name, decision: "refuse"}
	for _, routes := range [][]*routev3.Route{fromPage, stranger} {
		about(routes, refused)
		for _, r := range routes {
			r.TypedPerFilterConfig = unasked()
		}
	}
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
		hosts = append(hosts, own)
	}
	for _, name := range peer.APINames {
		if strings.Contains(name, ":") {
			name = "[" + name + "]"
		}
		hosts = append(hosts, name)
	}
	var domains []string
	for i, h := range hosts {
		hosts[i] = strings.ToLower(h)
		if slices.Contains(hosts[:i], hosts[i]) { // Envoy takes no name twice
			continue
		}
		h = hosts[i]
		domains = append(domains, domain(h)...)
	}
	return domains
}

func edgeRoutes(g Gateway, name string, peers []Peer, hosts []*routev3.VirtualHost,
	routes func(Peer, string) []*routev3.Route) *routev3.RouteConfiguration {
	for _, p := range byName(peers) {
		hosts = append(hosts, peerHosts(g, p, routes)...)
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

// peerHosts are the names of a peer's services and of its containers. What a caller shows to this gateway stays here;
// what it shows to the service, in the header Authorization, crosses.
func peerHosts(g Gateway, p Peer, routes func(Peer, string) []*routev3.Route) []*routev3.VirtualHost {
	var hosts []*routev3.VirtualHost
	for _, n := range [...]struct{ label, kind string }{
		{names.ServiceLabel, kindQuery}, {names.AccessLabel, kindAccess},
	} {
		domains := []string{"*." + n.label + "." + p.Name + "." + g.suffix()}
		if n.label == names.AccessLabel { // the list of hosts
			domains = append(domains, names.AccessZone(p.Name, g.suffix()))
		}
		hosts = append(hosts, &routev3.VirtualHost{
			Name:    n.label + "/" + p.Name,
			Domains: domains,
			Routes:  routes(p, n.kind),

			RequestHeadersToRemove: []string{headerProxyAuthorization, names.HeaderRoute},
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
		RequestHeadersToAdd:    []*corev3.HeaderValueOption{headerOption(names.HeaderOrchestrator, string(g.Orchestrator))},
		RequestHeadersToRemove: []string{headerAuthorization, headerProxyAuthorization, names.HeaderCertificate, names.HeaderRoute},
	}
}

// admitted are the routes of callers that external processing let in to a peer. They tell the access log nothing: it did.
func admitted(p Peer) []*routev3.Route {
	return forwards(p, headerIs(names.HeaderRoute, names.PeerCluster(p.Name)))
}

func forwards(p Peer, headers ...*routev3.HeaderMatcher) []*routev3.Route {
	request, raw := to(names.PeerCluster(p.Name), 0), to(names.PeerCluster(p.Name), accessIdle)
	request.RetryPolicy = again()
	if len(p.Addresses) > 1 || named(p.Addresses) || p.Tunnels.Accepted {
		request.RetryPolicy = elsewhere()
	}
	return []*routev3.Route{forward(anyPath(headers...), request), forward(connect(headers...), raw)}
}

// fromCallerRoutes lead callers of this cluster to services or containers of a peer: who shows a credential by way of
// external processing, which names the caller, and who shows none where that is open.
func fromCallerRoutes(g Gateway, p Peer, kind string) []*routev3.Route {
	open := toPeerRoutes(p, kind)
	if !p.Ready {
		return open
	}
	if kind == kindQuery && !g.Callers.Services || kind == kindAccess && !g.Callers.Accesses {
		open = refuse(refusal{http.StatusProxyAuthRequired, reasonUnauthorized, "this gateway wants to know who asks: a bearer " +
			"token, or a name with its token as the password, is missing in the header Proxy-Authorization"})
		about(open, decision{kind: kind, peer: p.Name, decision: "refuse"})
		for _, r := range open {
			r.ResponseHeadersToAdd = append(r.GetResponseHeadersToAdd(), headerOption("proxy-authenticate", `Basic realm="isthmus"`))
		}
	}
	undecided := refuse(noDecision, headerPresent(headerProxyAuthorization))
	for _, r := range undecided {
		r.TypedPerFilterConfig = asked()
	}
	return slices.Concat(admitted(p), undecided, open)
}

func toPeerRoutes(p Peer, kind string) []*routev3.Route {
	var routes []*routev3.Route
	made := decision{kind: kind, peer: p.Name, decision: "forward"}
	if p.Ready {
		routes = forwards(p)
	} else {
		made.decision = "refuse"
		routes = refuse(notJoined(p))
	}
	about(routes, made)
	return routes
}

func notJoined(p Peer) refusal {
	return refusal{http.StatusServiceUnavailable, reasonUnavailable, fmt.Sprintf(
		"peer %q is not joined at the moment: its gateway has not answered the handshake", p.Name)}
}

// about tells the access log what the routes decide.
func about(routes []*routev3.Route, d decision) {
	for _, r := range routes {
		r.Metadata = d.metadata()
	}
}
