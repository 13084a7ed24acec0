package resource

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// accessLog writes a line of JSON for every request of a peer but heartbeats that went well: here is decided, so here is
// the record. At the edges nothing is decided, and only what went wrong is written. What a decision was about is in the
// route's metadata where routes decide and in dynamic metadata where external processing does, never in both.
func accessLog(g Gateway, listener string) []*accesslogv3.AccessLog {
	log := jsonLog(g.AccessLog, map[string]string{
		"time":       "%START_TIME(%Y-%m-%dT%H:%M:%E3SZ)%",
		"edge":       "%LISTENER_NAME%",
		"kind":       decided(names.MetadataKind),
		"peer":       decided(names.MetadataPeer),
		"verb":       decided(names.MetadataVerb),
		"object":     decided(names.MetadataObject),
		"decision":   decided(names.MetadataDecision),
		"rule":       decided(names.MetadataRule),
		"upstream":   "%UPSTREAM_CLUSTER%",
		"method":     "%REQ(:METHOD)%",
		"authority":  "%REQ(:AUTHORITY)%",
		"protocol":   "%PROTOCOL%",
		"code":       "%RESPONSE_CODE%",
		"details":    "%RESPONSE_CODE_DETAILS%",
		"flags":      "%RESPONSE_FLAGS%",
		"received":   "%BYTES_RECEIVED%",
		"sent":       "%BYTES_SENT%",
		"duration":   "%DURATION%",
		"request_id": "%REQ(X-REQUEST-ID)%",
		"trace":      "%TRACE_ID%",
	})
	for _, l := range log {
		l.Filter = failures()
		if listener == ListenerPeer {
			l.Filter = exceptHeartbeats(g)
		}
	}
	return log
}

// exceptHeartbeats leaves out what peers say to each other all the time. A call of gRPC fails with HTTP's status 200
// too; what has no status of gRPC counts as failed.
func exceptHeartbeats(g Gateway) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{
			{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{
				Header: notPeering(g),
			}}},
			{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{
				Statuses: []accesslogv3.GrpcStatusFilter_Status{accesslogv3.GrpcStatusFilter_OK}, Exclude: true,
			}}},
		}},
	}}
}

func notPeering(g Gateway) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: ":authority", InvertMatch: true, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
		StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: names.PeeringHost(g.Cluster, g.suffix())}},
	}}
}

// failures are answers of 400 and above, and whatever Envoy itself has something to say about.
func failures() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{
			{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
				Comparison: &accesslogv3.ComparisonFilter{Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{
					DefaultValue: 400, RuntimeKey: "isthmus.access_log.status",
				}},
			}}},
			{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{}}},
		}},
	}}
}

// connectionLog is the same for raw TCP.
func connectionLog(path string, fixed map[string]string) []*accesslogv3.AccessLog {
	format := map[string]string{
		"time":     "%START_TIME(%Y-%m-%dT%H:%M:%E3SZ)%",
		"edge":     "%LISTENER_NAME%",
		"upstream": "%UPSTREAM_CLUSTER%",
		"flags":    "%RESPONSE_FLAGS%",
		"received": "%BYTES_RECEIVED%",
		"sent":     "%BYTES_SENT%",
		"duration": "%DURATION%",
	}
	for k, v := range fixed {
		format[k] = v
	}
	return jsonLog(path, format)
}

func decided(key string) string {
	return "%METADATA(ROUTE:" + names.Metadata + ":" + key + ")%%DYNAMIC_METADATA(" + names.Metadata + ":" + key + ")%"
}

func jsonLog(path string, format map[string]string) []*accesslogv3.AccessLog {
	if path == "" {
		return nil
	}
	fields := make(map[string]*structpb.Value, len(format))
	for k, v := range format {
		fields[k] = structpb.NewStringValue(v)
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&filev3.FileAccessLog{
			Path: path,
			AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{
					JsonFormat: &structpb.Struct{Fields: fields},
				},
				OmitEmptyValues: true,
			}},
		})},
	}}
}
