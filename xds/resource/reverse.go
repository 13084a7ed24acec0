package resource

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	reversev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/reverse_connection/v3"
	tunnelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/reverse_tunnel/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Where one of two gateways cannot be dialled it dials, and leaves reverse tunnels: connections on which the other is
// the client. A tunnel begins with TLS in which both prove themselves, and a request by HTTP/1.1 that names who leaves it.
// Envoy takes that TLS off then, and on the bare connection the other side begins what it would begin on one that it
// dialled: TLS in which both prove themselves again, and HTTP/2. So whoever took a tunnel over could say nothing in it.

// Tunnels says how a peer and this gateway reach each other where one of the two cannot be dialled.
type Tunnels struct {
	Accepted bool // the peer leaves tunnels here, and requests to it go by them
	Dialled  int  // tunnels that each worker of Envoy leaves with the peer, by its addresses; 0 for none
}

// tunnelPing is how often a tunnel that waits for its use is tried.
const tunnelPing = 5 * time.Second

// TunnelListener is where what a peer asks comes in by the tunnels that this gateway leaves with it.
func TunnelListener(g Gateway, peer Peer) *listenerv3.Listener {
	// A tunnel waits for its use for as long as it takes, without a word: it says no name, TLS may begin after days, and
	// none ends for idleness. Envoy spreads tunnels over the other side's workers as they come, and not as they go: where
	// the tunnels of one worker ended more often than those of others, it would be left without any.
	m := peerManager(g, peer)
	m.CommonHttpProtocolOptions.IdleTimeout = duration(0)
	chain := &listenerv3.FilterChain{
		Name: names.TunnelCluster(peer.Name), Filters: []*listenerv3.Filter{managed(m)}, TransportSocket: acceptPeer(peer),
	}
	name := names.TunnelCluster(peer.Name)
	return &listenerv3.Listener{
		Name: name,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			// Who leaves it, as what it is known, a tenant, with whom, and how many.
			Address: fmt.Sprintf("rc://%s:%s:%s@%s:%d", names.TunnelNode(g.Cluster), names.TunnelGroup(g.Cluster), g.Cluster,
				name, peer.Tunnels.Dialled),
			PortSpecifier: &corev3.SocketAddress_PortValue{}, ResolverName: "envoy.resolvers.reverse_connection",
		}}},
		ListenerFiltersTimeout:        duration(0),
		FilterChains:                  []*listenerv3.FilterChain{chain},
		PerConnectionBufferLimitBytes: u32(localStreamWindow),
	}
}

// TunnelCluster is how this gateway dials a peer to leave tunnels with it.
func TunnelCluster(g Gateway, peer Peer) *clusterv3.Cluster {
	c := cluster(names.TunnelCluster(peer.Name), http1Protocol(nil))
	located(c, peer.Addresses)
	c.TransportSocket = toPeerTunnel(g, peer)
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()}
	return c
}

// tunnelChain is where one peer leaves its tunnels. Its certificate must prove the name that they are kept under.
func tunnelChain(g Gateway, peer Peer) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             names.TunnelCluster(peer.Name),
		FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{names.TunnelHost(peer.Name, trustDomain(g.ID))}},
		Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.reverse_tunnel",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tunnelv3.ReverseTunnel{
				PingInterval: duration(tunnelPing), HandshakeTimeout: duration(connectTimeout), EnableConnectionLimit: true,
				Validation: &tunnelv3.Validation{
					NodeIdFormat: names.TunnelNode(peer.Name), ClusterIdFormat: names.TunnelGroup(peer.Name), TenantIdFormat: peer.Name,
				},
			})},
		}},
		TransportSocket: acceptTunnel(peer), TransportSocketConnectTimeout: duration(10 * time.Second),
	}
}

// reached makes a cluster lead to a peer by the tunnels that it left.
func reached(c *clusterv3.Cluster, peer Peer) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name:        "envoy.clusters.reverse_connection",
		TypedConfig: pack(&reversev3.ReverseConnectionClusterConfig{HostIdFormat: names.TunnelNode(peer.Name)}),
	}}
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	const tcp = 6
	c.UpstreamBindConfig = &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
		Description: "whose tunnel it is", Level: tcp, Name: names.SocketMark,
		Value: &corev3.SocketOption_IntValue{IntValue: int64(names.TunnelMark(peer.Name))},
	}}}
}
