package resource

import (
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Names of listeners; an HTTP listener's routes have its name.
const (
	ListenerPeer  = "peer"
	ListenerEdge  = names.Edge
	ListenerLocal = "edge-local" // on names.EdgeSocket
)

// APIListener is the name of the listener for plain clients of a peer's orchestrator API.
func APIListener(peer string) string { return names.APIEdge(peer) }

// AccessListener is the name of an access's listener.
func AccessListener(access string) string { return "access/" + access }

// accessIdle ends a tunnel on which nothing moved; the database pools of applications idle over nights.
const accessIdle = 24 * time.Hour

// PeerListener is where other gateways come in: each peer by a chain of its own, with another for its tunnels where it
// leaves some, and those that redeem an invitation, while one is open. A chain that goes takes its connections with it a second later, and no others, so that what a peer
// has under way ends with the trust in it.
func PeerListener(g Gateway, peers []Peer) *listenerv3.Listener {
	l := listener(ListenerPeer, g.Peer)
	// It is there whether an invitation is open or not: chains come and go without a break, this would not.
	l.ListenerFilters = []*listenerv3.ListenerFilter{serverNames()}
	if g.Joining {
		l.FilterChains = append(l.FilterChains, joinChain(g))
	}
	for _, p := range byName(peers) {
		l.FilterChains = append(l.FilterChains, peerChain(g, p))
		if p.Tunnels.Accepted {
			l.FilterChains = append(l.FilterChains, tunnelChain(g, p))
		}
	}
	return l
}

// peerChain is where one peer comes in. The server name says who it wants to be, and its certificate must prove that.
func peerChain(g Gateway, peer Peer) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             "peer/" + peer.Name,
		FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{names.LinkHost(peer.Name, trustDomain(g.ID))}},
		Filters:          []*listenerv3.Filter{managed(peerManager(g, peer))},
		TransportSocket:  acceptPeer(peer), TransportSocketConnectTimeout: duration(10 * time.Second),
	}
}

// peerManager is what a peer asks with.
func peerManager(g Gateway, peer Peer) *hcmv3.HttpConnectionManager {
	m := connectionManager(g, ListenerPeer)
	m.CodecType = hcmv3.HttpConnectionManager_HTTP2
	m.Http2ProtocolOptions = peerHTTP2()
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{fromPeer()}
	m.AccessLog = peerLog(g, peer.Name)
	m.RequestHeadersTimeout = nil // a connection that stands still within a head answers no ping either (peerHTTP2)
	// Dot segments are resolved before anybody decides by a path. Doubled and escaped slashes stay: they mean something
	// to services and to proxied paths ("/api/v4/projects/group%2Fname"); who decides by a path decodes it as its
	// orchestrator does.
	m.NormalizePath = yes()
	m.HttpFilters = []*hcmv3.HttpFilter{strip(), proof(), limits(peer.Name), concurrency(peer.Name), extProc(), hold(), router()}
	fromKubernetes := discovery(headerFilter(names.HeaderOrchestrator, exactly(string(neutral.Kubernetes))))
	m.LocalReplyConfig = replies("the target", fromKubernetes)
	m.LocalReplyConfig.Mappers = slices.Insert(m.LocalReplyConfig.Mappers, 0, tooManyReplies(fromKubernetes)...)
	return m
}

// EdgeListener is where callers of this cluster come in.
func EdgeListener(g Gateway) *listenerv3.Listener {
	return listener(ListenerEdge, g.Edge, managed(edge(g, ListenerEdge, fromCaller(), admission(ListenerEdge))))
}

// LocalListener is where isthmus' own requests to peers come in.
func LocalListener(g Gateway) *listenerv3.Listener {
	return listener(ListenerLocal, g.socket(names.EdgeSocket), managed(edge(g, ListenerLocal, fromIsthmus())))
}

// PeerAPIListener is where plain clients of one peer's orchestrator API come in. It speaks TLS where it has a
// certificate, and asks for the client's where authorities of callers are known.
func PeerAPIListener(g Gateway, peer Peer) *listenerv3.Listener {
	name := APIListener(peer.Name)
	m := edge(g, name, fromCaller(), admission(name))
	// Written by Envoy over whatever was there, and removed by the routes.
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	if g.Orchestrator == neutral.Kubernetes {
		m.LocalReplyConfig = replies(theGateway, discovery())
	}
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Chain: true}
	l := listener(name, peer.API, managed(m))
	if len(peer.APIIdentity.Certificate) > 0 {
		l.FilterChains[0].TransportSocket = fromClients(g, peer)
		l.FilterChains[0].TransportSocketConnectTimeout = duration(10 * time.Second)
	}
	return l
}

// theGateway is what an edge could not reach.
const theGateway = "the peer's gateway"

func edge(g Gateway, name string, early *corev3.TypedExtensionConfig, filters ...*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	m := connectionManager(g, name)
	m.CodecType = hcmv3.HttpConnectionManager_AUTO
	m.HttpProtocolOptions = &corev3.Http1ProtocolOptions{}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{early}
	m.HttpFilters = append(slices.Clone(filters), router())
	m.LocalReplyConfig = replies(theGateway, nil)
	return m
}

// ContainerListener carries raw TCP to what an access names, both half-closes included. One thing Envoy 1.40 cannot
// (envoy#47378): when the server closes first, and more is under way to a slow reader than a stream's window holds, the
// reader gets a reset in place of the rest. The runtime feature that is meant for it,
// allow_multiplexed_upstream_half_close, loses data of more tunnels yet.
func ContainerListener(g Gateway, a Access) *listenerv3.Listener {
	var headers []*corev3.HeaderValueOption
	for _, h := range [...]struct{ key, value string }{
		{names.HeaderCaller, a.Caller}, {names.HeaderNode, a.Node}, {names.HeaderNetworkMode, a.NetworkMode},
		{names.HeaderLayer, a.Layer},
	} {
		if h.value != "" {
			headers = append(headers, headerOption(h.key, escape(h.value)))
		}
	}
	name := AccessListener(a.Name)
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix:       name,
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: names.PeerCluster(a.Peer)},
		TunnelingConfig:  &tcpproxyv3.TcpProxy_TunnelingConfig{Hostname: escape(a.Authority), HeadersToAdd: headers},
		IdleTimeout:      duration(accessIdle),
		AccessLog:        connectionLog(g.AccessLog, map[string]string{"object": escape(a.Authority), "kind": kindAccess}),
	}
	l := listener(name, a.Listen, &listenerv3.Filter{
		Name: "envoy.filters.network.tcp_proxy", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(proxy)},
	})
	return l
}

func listener(name, at string, filters ...*listenerv3.Filter) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name: name, Address: address(at),
		PerConnectionBufferLimitBytes: u32(localStreamWindow),
	}
	if len(filters) > 0 {
		l.FilterChains = []*listenerv3.FilterChain{{Filters: filters}}
	}
	if l.Address.GetPipe() == nil {
		l.TcpKeepalive = keepalive()
	}
	return l
}

// keepalive notices a connection whose other end is gone without a word.
func keepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{KeepaliveProbes: u32(3), KeepaliveTime: u32(60), KeepaliveInterval: u32(20)}
}
