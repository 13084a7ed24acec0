package resource

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// maxHeadersKB is the largest head of a request or an answer; docker puts registry credentials into one.
	maxHeadersKB = 96
	// peerStreamWindow is what may be under way unread on one stream of the peer link. It bounds throughput over a
	// distance, and the bodies that external processing may hold: Envoy buffers no more than a stream's window.
	peerStreamWindow = 16 << 20
	// peerStreams is the number of requests on one connection of the peer link; with more, gateways open another.
	// Together their windows fit the largest one of a connection, so no stream that stalls stops the others.
	peerStreams          = 127
	peerConnectionWindow = peerStreams * peerStreamWindow
	// peerResets is what the peer link takes of streams that are given up, at once and a second, and peerControlFrames
	// what it queues of them; a gateway gives up a stream for every caller that hangs up.
	peerResets        = 1 << 20
	peerControlFrames = 20_000
	// outboundFrames is what a connection of HTTP/2 queues of data, in frames. Bytes are bounded by the windows; streams of
	// small messages, logs and events among them, must not end all others of the link.
	outboundFrames = 1 << 17
	// The same for what is on this machine or near.
	localStreamWindow     = 1 << 20
	localStreams          = 1024
	localConnectionWindow = localStreams * localStreamWindow
)

// Upgrades that pass. CONNECT carries raw TCP.
const (
	upgradeConnect   = "CONNECT"
	upgradeWebSocket = "websocket"
	upgradeSPDY      = "SPDY/3.1"
	upgradeTCP       = "tcp"
)

// connectionManager is what all HTTP listeners share.
func connectionManager(g Gateway, name string) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: name,
		}},
		Http2ProtocolOptions: localHTTP2(),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  duration(time.Hour),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_ALLOW, // services have such headers
		},
		MaxRequestHeadersKb: u32(maxHeadersKB),
		// Streams that are silent for hours are ordinary: watches, waits, sessions. Routes set their own limits.
		StreamIdleTimeout:     duration(0),
		RequestHeadersTimeout: duration(30 * time.Second),
		DelayedCloseTimeout:   duration(time.Second),
		DrainTimeout:          duration(5 * time.Second),
		// Here nobody decides by a path: it is the target's to read.
		NormalizePath:                no(),
		MergeSlashes:                 false,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		StripPortMode:                nil, // the port is part of what is asked
		StripTrailingHostDot:         true,
		// No address is written into headers, and early mutation removes those that came: who asks is known by certificate.
		UseRemoteAddress:           no(),
		SkipXffAppend:              true,
		InternalAddressConfig:      &hcmv3.HttpConnectionManager_InternalAddressConfig{CidrRanges: nobody()},
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		PreserveExternalRequestId:  true,
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{
			{UpgradeType: upgradeConnect}, {UpgradeType: upgradeWebSocket}, {UpgradeType: upgradeSPDY}, {UpgradeType: upgradeTCP},
		},
		AccessLog: edgeLog(g, name),
		Tracing:   tracing(g),
	}
	return m
}

// localHTTP2 is HTTP/2 with what is on this machine or near.
func localHTTP2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		AllowConnect:                true,
		MaxConcurrentStreams:        u32(localStreams),
		MaxOutboundFrames:           u32(outboundFrames),
		InitialStreamWindowSize:     u32(localStreamWindow),
		InitialConnectionWindowSize: u32(localConnectionWindow),
	}
}

// peerHTTP2 is HTTP/2 between gateways. A gateway that vanished is noticed in 15 seconds, though nothing is under way.
// All callers share the link, so what one of them, or one service, does wrong ends its stream and not the connection.
func peerHTTP2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		AllowConnect:                            true,
		OverrideStreamErrorOnInvalidHttpMessage: yes(),
		StreamResetBurst:                        wrapperspb.UInt64(peerResets), StreamResetRate: wrapperspb.UInt64(peerResets),
		MaxOutboundControlFrames:    u32(peerControlFrames),
		MaxOutboundFrames:           u32(outboundFrames),
		MaxConcurrentStreams:        u32(peerStreams),
		InitialStreamWindowSize:     u32(peerStreamWindow),
		InitialConnectionWindowSize: u32(peerConnectionWindow),
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: duration(10 * time.Second), Timeout: duration(5 * time.Second),
		},
	}
}

// nobody is a range that no caller has, so that Envoy takes nobody for internal; an empty list would mean private
// networks.
func nobody() []*corev3.CidrRange {
	return []*corev3.CidrRange{{AddressPrefix: "192.0.2.0", PrefixLen: u32(32)}} // TEST-NET-1
}

func tracing(g Gateway) *hcmv3.HttpConnectionManager_Tracing {
	if g.Tracing.Collector == "" {
		return nil
	}
	return &hcmv3.HttpConnectionManager_Tracing{
		RandomSampling: &typev3.Percent{Value: g.Tracing.Percent},
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: pack(&tracev3.OpenTelemetryConfig{
				ServiceName: "isthmus-envoy/" + g.Cluster,
				GrpcService: &corev3.GrpcService{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
						ClusterName: clusterTracing,
					}},
				},
			})},
		},
	}
}

func managed(m *hcmv3.HttpConnectionManager) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(m)},
	}
}
