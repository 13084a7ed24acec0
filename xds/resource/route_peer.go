package resource

import (
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// PeerRoutes are the routes of the peer listener: services' are those that ServiceHosts made. A request's HeaderPeer is
// what the certificate proved.
func PeerRoutes(g Gateway, services []*routev3.VirtualHost, orchestrator neutral.Upstream) *routev3.RouteConfiguration {
	hosts := make([]*routev3.VirtualHost, 0, len(services)+2)
	hosts = append(hosts, peeringHost(g))
	hosts = append(hosts, services...)
	hosts = append(hosts, decidedHost(g, orchestrator))
	return &routev3.RouteConfiguration{
		Name: ListenerPeer, VirtualHosts: hosts, TypedPerFilterConfig: counted(g),
		// Clusters and routes come by the same stream in the right order; a name that is not there is a refusal.
		ValidateClusters: no(),
	}
}

// peeringHost leads peers to the peering service, which decides by HeaderPeer itself.
func peeringHost(g Gateway) *routev3.VirtualHost {
	route := forward(anyPath(), to(names.Peering, 0))
	route.Name = routePeering
	route.TypedPerFilterConfig = decidedByRoute()
	for _, l := range g.Limits {
		exempt(route.GetTypedPerFilterConfig(), l.Peer)
		uncounted(route.GetTypedPerFilterConfig(), l.Peer)
	}
	route.Metadata = decision{kind: "peering", decision: "allow"}.metadata()
	return &routev3.VirtualHost{
		Name: names.Peering, Domains: domain(names.PeeringHost(g.Cluster, g.suffix())), Routes: []*routev3.Route{route},
	}
}

// ServiceHosts are the names of a service: the first port's is the bare name as well. Peers that may not query it fall
// to external processing, which refuses in words. The map gives peers' names by their SPIFFE ids.
func ServiceHosts(g Gateway, s Service, peerNames map[string]string) []*routev3.VirtualHost {
	host := names.ServiceHost(s.Name, s.Namespace, g.Cluster, g.suffix())
	var hosts []*routev3.VirtualHost
	for i, port := range s.Ports {
		cluster := serviceCluster(s.Service, port)
		domains := []string{host + ":" + strconv.Itoa(int(port.Number))}
		if i == 0 {
			domains = append(domains, host)
		}
		var routes []*routev3.Route
		for _, id := range slices.Compact(slices.Sorted(slices.Values(s.Peers))) {
			if peer, ok := peerNames[id]; ok {
				routes = append(routes, serviceRoute(g, cluster, s, port, id, peer))
			}
		}
		for _, id := range slices.Compact(slices.Sorted(slices.Values(s.ByCaller))) {
			if _, ok := peerNames[id]; ok {
				routes = append(routes, callerRoute(cluster, port, id))
			}
		}
		hosts = append(hosts, &routev3.VirtualHost{
			Name: cluster, Domains: domains, Routes: append(routes, refuse(noDecision)...),
		})
	}
	return hosts
}

// serviceRoute decides that one peer's query goes to the service; it has the service's name. HeaderPeer is Envoy's own word
// (fromPeer), as it is for all that external processing decides; a filter that holds the certificate against the peer
// once more costs a tenth of the whole request. The service sees the name that was queried: links
// and cookies that it makes of it lead the caller back through the gateways, and it tells nothing of this cluster.
func serviceRoute(g Gateway, cluster string, s Service, port neutral.ServicePort, id, peer string) *routev3.Route {
	var route *routev3.Route
	if port.App == neutral.TCP {
		route = forward(connect(headerIs(names.HeaderPeer, id)), tunnel(cluster))
	} else {
		action := to(cluster, 0)
		action.RetryPolicy = elsewhere()
		route = forward(anyPath(headerIs(names.HeaderPeer, id)), action)
	}
	route.TypedPerFilterConfig = decidedByRoute()
	if l := g.limit(peer); l.Rate == (Rate{}) && l.Caller == (Rate{}) {
		exempt(route.GetTypedPerFilterConfig(), peer)
	}
	route.Name = s.Namespace + "/" + s.Name
	route.Metadata = decision{
		kind: kindQuery, peer: peer, verb: string(neutral.Query), decision: "allow",
		object: string(neutral.KindService) + " " + route.GetName(),
	}.metadata()
	return route
}

// callerRoute is where external processing sends the queries that it allows to some callers of a peer. What it decided
// is in the request's dynamic metadata.
func callerRoute(cluster string, port neutral.ServicePort, id string) *routev3.Route {
	chosen := []*routev3.HeaderMatcher{headerIs(names.HeaderPeer, id), headerIs(names.HeaderRoute, cluster)}
	if port.App == neutral.TCP {
		return forward(connect(chosen...), tunnel(cluster))
	}
	action := to(cluster, 0)
	action.RetryPolicy = elsewhere()
	return forward(anyPath(chosen...), action)
}

// Served tells whether a port can be queried at all; the ports of a Service given here are.
func Served(p neutral.ServicePort) bool { return p.Protocol == "" || p.Protocol == "tcp" }

// Names of routes, by which replies and the access log tell them.
const (
	routeTranslated = "translated" // requests whose answers external processing rewrites
	routePeering    = "peering"    // handshakes and heartbeats
)

// translatedTimeout is how long the orchestrator has for the whole answer to a translated request, which is one call
// and no stream.
const translatedTimeout = 30 * time.Second

// decidedHost is every other name: external processing decides, and no request goes anywhere without its word.
func decidedHost(g Gateway, orchestrator neutral.Upstream) *routev3.VirtualHost {
	var routes []*routev3.Route
	if orchestrator.Socket != "" || orchestrator.Address != "" {
		chosen := headerIs(names.HeaderRoute, names.OrchestratorRoute(g.Orchestrator))
		translated := forward(anyPath(chosen, headerPresent(names.HeaderExchange)), toAPI(names.Orchestrator, orchestrator.Host))
		translated.Name = routeTranslated
		translated.GetRoute().Timeout = duration(translatedTimeout)
		translated.TypedPerFilterConfig = perFilter{filterProof: provenOnly()}
		routes = append(routes, translated)
		routes = append(routes, handedOn(chosen, names.Orchestrator, orchestrator.Host)...)
	}
	if g.Emulation != "" {
		routes = append(routes, handedOn(headerIs(names.HeaderRoute, names.EmulationRoute(g.Emulation)), names.Emulation, "")...)
	}
	raw := forward(connect(headerIs(names.HeaderRoute, names.Access)), tunnel(names.Access))
	switched := forward(anyPath(headerIs(names.HeaderRoute, names.Access), headerPresent(names.HeaderHold)), to(names.Access, 0))
	for _, followed := range []*routev3.Route{raw, switched} {
		followed.TypedPerFilterConfig = held(perFilter{})
		followed.ResponseHeadersToAdd = []*corev3.HeaderValueOption{{
			Header: &corev3.HeaderValue{Key: names.HeaderSwitched, Value: "%DYNAMIC_METADATA(" + names.Metadata + ":" + names.MetadataSwitched + ")%"},
		}}
	}
	routes = append(routes,
		forward(anyPath(headerIs(names.HeaderRoute, names.Bridge)), to(names.Bridge, 0)),
		raw, switched,
		forward(anyPath(headerIs(names.HeaderRoute, names.Access)), to(names.Access, 0)))
	return &routev3.VirtualHost{
		Name: "decided", Domains: []string{"*"}, Routes: append(routes, refuse(noDecision)...),
	}
}

// toAPI leads to an orchestrator's API, under the name that it expects.
func toAPI(cluster, host string) *routev3.RouteAction {
	action := to(cluster, 0)
	if host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	return action
}

// handedOn is where requests of an API's own type go unread: by which of its failures are hidden.
func handedOn(chosen *routev3.HeaderMatcher, cluster, host string) []*routev3.Route {
	failures := forward(anyPath(chosen, headerIs(names.HeaderHide, names.HideFailures)), toAPI(cluster, host))
	failures.TypedPerFilterConfig = held(perFilter{filterProof: withoutFailures("500", "501", "502", "503", "504")})
	unreachable := forward(anyPath(chosen, headerIs(names.HeaderHide, names.HideUnreachable)), toAPI(cluster, host))
	unreachable.TypedPerFilterConfig = held(perFilter{filterProof: withoutFailures("502", "503", "504")})
	shown := forward(anyPath(chosen), toAPI(cluster, host))
	shown.TypedPerFilterConfig = held(perFilter{})
	return []*routev3.Route{failures, unreachable, shown}
}
