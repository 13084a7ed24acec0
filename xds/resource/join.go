package resource

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// chainJoin is the way into the peer listener of who is no peer yet.
const chainJoin = "join"

// joinTimeout is how long a gateway that joins has for its one request.
const joinTimeout = 20 * time.Second

// joinChain is where gateways come in that no peer's certificate proves yet. It is there while an invitation is open,
// and leads to nothing but the server that redeems invitations.
func joinChain(g Gateway) *listenerv3.FilterChain {
	host := names.JoinHost(g.Cluster, g.suffix())
	action := to(names.Join, 0)
	action.Timeout = duration(joinTimeout)
	m := connectionManager(g, chainJoin)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: chainJoin,
		VirtualHosts: []*routev3.VirtualHost{{Name: chainJoin, Domains: domain(host), Routes: []*routev3.Route{
			forward(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: names.JoinPath}}, action),
		}}},
	}}
	m.UpgradeConfigs = nil
	m.RequestTimeout = duration(joinTimeout)
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{earlyMutation(append(hideCluster(), removePrefix(names.HeaderPrefix))...)}
	m.HttpFilters = []*hcmv3.HttpFilter{router()}
	m.LocalReplyConfig = replies("the inviting gateway", nil)
	return &listenerv3.FilterChain{
		Name:             chainJoin,
		FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{host}},
		Filters:          []*listenerv3.Filter{managed(m)},
		TransportSocket: transportSocket(&tlsv3.DownstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: peerLink(), AlpnProtocols: []string{"http/1.1"},
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sds(SecretIdentity)},
			},
		}),
		TransportSocketConnectTimeout: duration(10 * time.Second),
	}
}

// serverNames reads the name that a TLS client asks for, by which it gets its filter chain.
func serverNames() *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       "envoy.filters.listener.tls_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
	}
}
