package resource

import (
	"net"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	genericv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

const clusterTracing = "tracing"

// connectTimeout is how long a connection to anything may take to be there.
const connectTimeout = 5 * time.Second

// PeerCluster leads to another gateway.
func PeerCluster(g Gateway, peer Peer) *clusterv3.Cluster {
	protocol := http2Protocol(nil, peerHTTP2())
	protocol.CommonHttpProtocolOptions.IdleTimeout = duration(time.Hour) // a handshake over a distance costs
	if peer.Tunnels.Accepted {
		protocol.CommonHttpProtocolOptions.IdleTimeout = duration(0) // TunnelListener says why
	}
	c := cluster(names.PeerCluster(peer.Name), protocol)
	c.TransportSocket = toPeer(g, peer)
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()}
	if peer.Tunnels.Accepted {
		reached(c, peer)
		return c
	}
	located(c, peer.Addresses)
	if len(peer.Addresses) > 1 {
		c.OutlierDetection = &clusterv3.OutlierDetection{
			SplitExternalLocalOriginErrors: true, ConsecutiveLocalOriginFailure: u32(2),
			EnforcingConsecutive_5Xx: u32(0), EnforcingConsecutiveGatewayFailure: u32(0), EnforcingSuccessRate: u32(0),
			BaseEjectionTime: duration(10 * time.Second), MaxEjectionPercent: u32(50),
		}
	}
	return c
}

// OrchestratorCluster leads to this cluster's orchestrator. Its credential is put on here, over whatever a peer sent.
func OrchestratorCluster(u neutral.Upstream) *clusterv3.Cluster {
	filters := []*hcmv3.HttpFilter{upstreamStrip(remove(headerAuthorization))}
	if u.Token != "" {
		filters = append(filters, filter("envoy.filters.http.credential_injector", &credentialv3.CredentialInjector{
			Overwrite: true,
			Credential: extension("envoy.http.injected_credentials.generic", &genericv3.Generic{
				Credential: sds(SecretOrchestratorToken), Header: headerAuthorization, HeaderValuePrefix: "Bearer ",
			}),
		}))
	}
	c := cluster(names.Orchestrator, http1Protocol(filters))
	at := u.Address
	if u.Socket != "" {
		at = u.Socket
	}
	located(c, []string{at})
	c.TransportSocket = toOrchestrator(u)
	return c
}

// EmulationCluster leads to the API that isthmus puts before the orchestrator for callers of another type. Their streams
// are upgrades of HTTP/1.1, as those of the API that it looks like.
func EmulationCluster(g Gateway) *clusterv3.Cluster {
	c := cluster(names.Emulation, http1Protocol([]*hcmv3.HttpFilter{upstreamStrip(remove(headerAuthorization))}))
	located(c, []string{g.socket(names.EmulationSocket)})
	return c
}

// AccessCluster leads to the address that external processing chose.
func AccessCluster() *clusterv3.Cluster {
	c := cluster(names.Access, http1Protocol([]*hcmv3.HttpFilter{upstreamStrip()}))
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	c.LbConfig = &clusterv3.Cluster_OriginalDstLbConfig_{OriginalDstLbConfig: &clusterv3.Cluster_OriginalDstLbConfig{
		UseHttpHeader: true, HttpHeaderName: names.HeaderDestination,
	}}
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()}
	c.CleanupInterval = duration(time.Minute)
	return c
}

// LocalCluster leads to one of isthmus' own servers.
func LocalCluster(g Gateway, name, socket string) *clusterv3.Cluster {
	c := cluster(name, http2Protocol(nil, localHTTP2()))
	located(c, []string{g.socket(socket)})
	return c
}

// TracingCluster leads to the collector of spans.
func TracingCluster(g Gateway) *clusterv3.Cluster {
	c := cluster(clusterTracing, http2Protocol(nil, localHTTP2()))
	located(c, []string{g.Tracing.Collector})
	return c
}

// ServiceCluster leads to the endpoints of one port of a service.
func ServiceCluster(s neutral.Service, port neutral.ServicePort) *clusterv3.Cluster {
	protocol := http1Protocol
	if port.App == neutral.HTTP2 || port.App == neutral.GRPC {
		protocol = func(filters []*hcmv3.HttpFilter) *upstreamhttpv3.HttpProtocolOptions {
			return http2Protocol(filters, localHTTP2())
		}
	}
	c := cluster(serviceCluster(s, port), protocol([]*hcmv3.HttpFilter{upstreamStrip()}))
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	// Both ends may be silent for as long as they like; one that is gone without a word is noticed.
	c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()}
	return c
}

func cluster(name string, protocol *upstreamhttpv3.HttpProtocolOptions) *clusterv3.Cluster {
	const plenty = 1 << 20 // limits are the orchestrator's and the peers' own; Envoy's default of 1024 cuts sessions off
	return &clusterv3.Cluster{
		Name:           name,
		ConnectTimeout: duration(connectTimeout),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(plenty), MaxPendingRequests: u32(plenty), MaxRequests: u32(plenty), MaxRetries: u32(64),
		}}},
		PerConnectionBufferLimitBytes: u32(localStreamWindow),
		// Where all endpoints are unhealthy, none is tried: an answer says so.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(protocol),
		},
	}
}

// located gives a cluster fixed addresses; names among them are resolved.
func located(c *clusterv3.Cluster, addresses []string) {
	if named(addresses) {
		c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.cluster.dns", TypedConfig: pack(&dnsv3.DnsCluster{RespectDnsTtl: true}),
		}}
	} else {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	}
	c.LoadAssignment = assignment(c.GetName(), addresses)
}

// named tells whether some of the addresses are names, each of which may be several endpoints.
func named(addresses []string) bool {
	return slices.ContainsFunc(addresses, func(a string) bool {
		host, _, err := net.SplitHostPort(a)
		return err == nil && net.ParseIP(host) == nil
	})
}

func http1Protocol(filters []*hcmv3.HttpFilter) *upstreamhttpv3.HttpProtocolOptions {
	return explicit(filters, &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	})
}

func http2Protocol(filters []*hcmv3.HttpFilter, options *corev3.Http2ProtocolOptions) *upstreamhttpv3.HttpProtocolOptions {
	return explicit(filters, &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: options,
		},
	})
}

func explicit(filters []*hcmv3.HttpFilter, config *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig) *upstreamhttpv3.HttpProtocolOptions {
	o := &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: config},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout: duration(time.Minute), MaxResponseHeadersKb: u32(maxHeadersKB),
		},
	}
	if len(filters) > 0 {
		codec := filter("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{})
		o.HttpFilters = slices.Concat(filters, []*hcmv3.HttpFilter{codec})
	}
	return o
}

// upstreamStrip removes what gateways say to each other, at the last moment before a request leaves.
func upstreamStrip(more ...*mutationv3.HeaderMutation) *hcmv3.HttpFilter {
	return filter(filterUpstreamStrip, withoutGatewayHeaders(more...))
}
