package envoy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	diallingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/reverse_tunnel/downstream_socket_interface/v3"
	acceptingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/reverse_tunnel/upstream_socket_interface/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Options are what Envoy is started with. They take effect when Envoy starts; all else comes by xDS.
type Options struct {
	Node           string // its id, unique among a cluster's gateways
	Cluster        string // the cluster's name
	RunDir         string // of the Unix sockets
	Concurrency    int    // worker threads; 0 is one a CPU
	LogLevel       string // trace, debug, info, warning, error, critical; "" is warning
	MaxConnections int64  // of all callers together; 0 is 50000
	MaxMemory      int64  // bytes of heap; near it Envoy sheds load rather than grow; 0 is no limit
}

func (o Options) validate() error {
	switch {
	case o.Node == "" || o.Cluster == "":
		return errors.New("envoy: node and cluster must be given")
	case !filepath.IsAbs(o.RunDir):
		return fmt.Errorf("envoy: run directory %q is not an absolute path", o.RunDir)
	case o.Concurrency < 0 || o.MaxConnections < 0 || o.MaxMemory < 0:
		return errors.New("envoy: a negative limit")
	}
	return nil
}

// Bootstrap is the document that Envoy starts from: who it is, where its control plane is, and its limits.
func Bootstrap(o Options) ([]byte, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	b, err := bootstrap(o)
	if err != nil {
		return nil, err
	}
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	document, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	return document, nil
}

func bootstrap(o Options) (*bootstrapv3.Bootstrap, error) {
	connections := o.MaxConnections
	if connections == 0 {
		connections = 50_000
	}
	overload, err := overloadManager(connections, o.MaxMemory)
	if err != nil {
		return nil, err
	}
	xds, err := xdsCluster(filepath.Join(o.RunDir, names.XDSSocket))
	if err != nil {
		return nil, err
	}
	extensions, err := tunnelExtensions()
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		BootstrapExtensions: extensions,

		Node:  &corev3.Node{Id: o.Node, Cluster: o.Cluster},
		Admin: &bootstrapv3.Admin{Address: pipe(filepath.Join(o.RunDir, names.AdminSocket), 0o600)},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
						ClusterName: names.XDS,
						RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
							// A restarted isthmus is found again at once.
							BaseInterval: durationpb.New(100 * time.Millisecond), MaxInterval: durationpb.New(time.Second),
						}},
					}},
				}},
			},
			CdsConfig: ads(), LdsConfig: ads(),
		},
		StaticResources:     &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{xds}},
		ClusterManager:      &bootstrapv3.ClusterManager{EnableDeferredClusterCreation: true},
		StatsConfig:         stats(),
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
		OverloadManager:     overload,
		LayeredRuntime:      runtime(),
	}, nil
}

// tunnelExtensions are what reverse tunnels stand on, on the side that dials them and on the one that takes them. Without
// a tunnel they do nothing, and they cannot come later.
func tunnelExtensions() ([]*corev3.TypedExtensionConfig, error) {
	var extensions []*corev3.TypedExtensionConfig
	for name, config := range map[string]proto.Message{
		"envoy.bootstrap.reverse_tunnel.downstream_socket_interface": &diallingv3.DownstreamReverseConnectionSocketInterface{
			StatPrefix: "tunnels_dialled",
			// A tunnel that is gone is missed at once, and one that cannot be had is tried again within seconds.
			MaintainInterval: durationpb.New(time.Second), MaxReconnectBackoff: durationpb.New(4 * time.Second),
			HttpHandshake: &diallingv3.DownstreamReverseConnectionSocketInterface_HttpHandshakeConfig{
				HandshakeTimeout: durationpb.New(5 * time.Second),
			},
		},
		"envoy.bootstrap.reverse_tunnel.upstream_socket_interface": &acceptingv3.UpstreamReverseConnectionSocketInterface{
			StatPrefix: "tunnels_accepted", MaxConnectionsPerNode: maxTunnels,
		},
	} {
		packed, err := anypb.New(config)
		if err != nil {
			return nil, fmt.Errorf("envoy bootstrap: %w", err)
		}
		extensions = append(extensions, &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed})
	}
	slices.SortFunc(extensions, func(a, b *corev3.TypedExtensionConfig) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return extensions, nil
}

// maxTunnels is how many one peer may leave with one worker.
const maxTunnels = 256

// runtime is about streams that are given up soon after they began. A link between gateways carries those of all
// callers that hang up, so it is not ended for them (Envoy's default is 250); the listeners' own limits hold. And no
// connection gets more than a few requests served before the others have their turn, and before what they caused is
// written.
func runtime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "isthmus",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"overload.premature_reset_total_stream_count": structpb.NewNumberValue(math.MaxUint32),
			"http.max_requests_per_io_cycle":              structpb.NewNumberValue(64),
		}}},
	}}}
}

// overloadManager sets the limits at which Envoy refuses more rather than fail all.
func overloadManager(connections, memory int64) (*overloadv3.OverloadManager, error) {
	m := &overloadv3.OverloadManager{}
	monitor := func(name string, config proto.Message) error {
		packed, err := anypb.New(config)
		if err != nil {
			return fmt.Errorf("envoy bootstrap: %w", err)
		}
		m.ResourceMonitors = append(m.ResourceMonitors, &overloadv3.ResourceMonitor{
			Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: packed},
		})
		return nil
	}
	if err := monitor("envoy.resource_monitors.global_downstream_max_connections",
		&downstreamv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: connections}); err != nil {
		return nil, err
	}
	if memory == 0 {
		return m, nil
	}
	const heap = "envoy.resource_monitors.fixed_heap"
	if err := monitor(heap, &fixedheapv3.FixedHeapConfig{MaxHeapSizeBytes: uint64(memory)}); err != nil {
		return nil, err
	}
	for _, action := range []struct {
		name string
		at   float64
	}{
		{"envoy.overload_actions.shrink_heap", 0.90},
		{"envoy.overload_actions.reset_high_memory_stream", 0.93}, // readers that stopped go first
		{"envoy.overload_actions.stop_accepting_requests", 0.96},
		{"envoy.overload_actions.stop_accepting_connections", 0.98},
	} {
		trigger := &overloadv3.Trigger{Name: heap, TriggerOneof: &overloadv3.Trigger_Threshold{
			Threshold: &overloadv3.ThresholdTrigger{Value: action.at},
		}}
		if action.name == "envoy.overload_actions.reset_high_memory_stream" {
			trigger.TriggerOneof = &overloadv3.Trigger_Scaled{
				Scaled: &overloadv3.ScaledTrigger{ScalingThreshold: action.at, SaturationThreshold: 0.98},
			}
		}
		m.Actions = append(m.Actions, &overloadv3.OverloadAction{Name: action.name, Triggers: []*overloadv3.Trigger{trigger}})
	}
	m.BufferFactoryConfig = &overloadv3.BufferFactoryConfig{MinimumAccountToTrackPowerOfTwo: 20} // 1 MiB
	return m, nil
}

// stats keeps what is looked at: a cluster has a hundred of them otherwise, and there are as many clusters as services.
func stats() *metricsv3.StatsConfig {
	var kept []*matcherv3.StringMatcher
	for _, prefix := range []string{
		"server.", "listener_manager.", "cluster_manager.", "control_plane.", "http.peer.", "peer.http_local_rate_limit.", "http.edge", "cluster.peer/",
		"cluster.orchestrator.", "cluster.bridge.", "cluster.extproc.", "cluster.access.", "cluster.peering.", "cluster.xds.",
		"tunnels_dialled.", "tunnels_accepted.", "reverse_tunnel.", "tcp.", "listener.", "runtime.", "sds.", "overload.",
	} {
		kept = append(kept, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
	}
	for _, suffix := range []string{
		".upstream_rq_total", ".upstream_rq_xx", ".upstream_cx_active", ".upstream_cx_connect_fail", ".membership_total",
	} {
		kept = append(kept, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: suffix}})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{
		StatsMatcher: &metricsv3.StatsMatcher_InclusionList{
			InclusionList: &matcherv3.ListStringMatcher{Patterns: kept},
		},
	}}
}

func xdsCluster(socket string) (*clusterv3.Cluster, error) {
	options, err := anypb.New(&upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(10 * time.Second),
					}},
				},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	return &clusterv3.Cluster{
		Name:                 names.XDS,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: names.XDS,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket, 0)}},
			}}}},
		},
	}, nil
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
