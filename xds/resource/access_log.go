package resource

import (
	"fmt"
	"maps"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// edgeLog writes a line of JSON where something went wrong, and where a caller is known: at the edges nothing is decided
// but who asks.
func edgeLog(g Gateway, listener string) []*accesslogv3.AccessLog {
	return jsonLog(g.AccessLog, fullFormat(listener), anyOf(failures(), isDecided(true)))
}

// peerLog writes a line for every request of a peer but heartbeats that went well: here is decided, so here is the record.
func peerLog(g Gateway, peer string) []*accesslogv3.AccessLog {
	// What was answered well, and not by external processing's decision, a route decided. What was given up before its
	// answer can be anything, and is told in full.
	query := allOf(isDecided(false), isPeering(g, false), answered(), status(accesslogv3.ComparisonFilter_LE, 399))
	other := anyOf(isDecided(true), unanswered(), status(accesslogv3.ComparisonFilter_GE, 400), allOf(isPeering(g, true), failedCalls()))
	log := jsonLog(g.AccessLog, queryFormat(g, peer), query)
	return append(append(log, jsonLog(g.AccessLog, fullFormat(ListenerPeer), other)...), ends())
}

// fullFormat is for all requests. What a decision was about is in the route's metadata where routes decide and in dynamic
// metadata where external processing does, never in both.
func fullFormat(listener string) logFormat {
	return logFormat{fields: map[string]string{
		"time":       logTime,
		"edge":       listener,
		"kind":       decided(names.MetadataKind),
		"peer":       decided(names.MetadataPeer),
		"caller":     decided(names.MetadataCaller),
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
	}, omitEmpty: true}
}

// ends tells isthmus how the requests ended that it let through and does not see again: what is handed on untouched, and
// accesses. It has the beginning in its audit log.
func ends() *accesslogv3.AccessLog {
	sentTo := func(upstream string) *accesslogv3.AccessLogFilter {
		return metadataIs(names.MetadataUpstream, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exactly(upstream)}}, false)
	}
	allowed := metadataIs(names.MetadataDecision, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exactly("allow")}}, false)
	untranslated := details(`xds.route_name != "` + routeTranslated + `"`)
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.http_grpc", Filter: allOf(allowed, anyOf(sentTo(names.Orchestrator), sentTo(names.Access)), untranslated),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&grpclogv3.HttpGrpcAccessLogConfig{
			CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
				LogName: "ends", TransportApiVersion: corev3.ApiVersion_V3, BufferFlushInterval: duration(250 * time.Millisecond),
				GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.ALS},
				}},
			},
			AdditionalRequestHeadersToLog: []string{"traceparent"},
		})},
	}
}

// answered holds where a status was sent, unanswered where the request ended before.
func answered() *accesslogv3.AccessLogFilter   { return status(accesslogv3.ComparisonFilter_GE, 1) }
func unanswered() *accesslogv3.AccessLogFilter { return status(accesslogv3.ComparisonFilter_LE, 0) }

// queryFormat is for queries of a peer that a route allowed, which has the service's name: what all of them have in common
// is written as it is, and what is left is what Envoy formats as text. Metadata goes by way of a protobuf value instead,
// and fields that may be empty are looked at twice; so written, every field of the decision would cost as much as all
// others together.
func queryFormat(g Gateway, peer string) logFormat {
	fields := map[string]string{
		"time":       logTime,
		"edge":       ListenerPeer,
		"kind":       kindQuery,
		"peer":       escape(peer),
		"verb":       string(neutral.Query),
		"object":     string(neutral.KindService) + " %ROUTE_NAME%",
		"decision":   "allow",
		"code":       "%RESPONSE_CODE%",
		"flags":      "%RESPONSE_FLAGS%",
		"sent":       "%BYTES_SENT%",
		"duration":   "%DURATION%",
		"request_id": "%REQ(X-REQUEST-ID)%",
	}
	if g.Tracing.Collector != "" {
		fields["trace"] = "%TRACE_ID%"
	}
	return logFormat{fields: fields}
}

// isDecided holds where external processing said what it decided, or where it did not: this filter of Envoy does not
// know how to invert a matcher, and no string is null.
func isDecided(want bool) *accesslogv3.AccessLogFilter {
	value := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
	if !want {
		value.MatchPattern = &matcherv3.ValueMatcher_NullMatch_{NullMatch: &matcherv3.ValueMatcher_NullMatch{}}
	}
	return metadataIs(names.MetadataDecision, value, !want)
}

// metadataIs holds where external processing's word of a key matches.
func metadataIs(key string, value *matcherv3.ValueMatcher, otherwise bool) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: names.Metadata, Value: value,
				Path: []*matcherv3.MetadataMatcher_PathSegment{{
					Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
				}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(otherwise),
		},
	}}
}

// isPeering holds for what peers say to each other all the time, or for all else.
func isPeering(g Gateway, want bool) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: &routev3.HeaderMatcher{
			Name: ":authority", InvertMatch: !want,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(names.PeeringHost(g.Cluster, g.suffix()))},
		}},
	}}
}

// failedCalls are of gRPC, which fails with HTTP's status 200 too; what has no status of gRPC counts as failed.
func failedCalls() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{
		GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{
			Statuses: []accesslogv3.GrpcStatusFilter_Status{accesslogv3.GrpcStatusFilter_OK}, Exclude: true,
		},
	}}
}

// failures are answers of 400 and above, and whatever Envoy itself has something to say about.
func failures() *accesslogv3.AccessLogFilter {
	return anyOf(status(accesslogv3.ComparisonFilter_GE, 400), &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{}},
	})
}

func status(op accesslogv3.ComparisonFilter_Op, code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: code, RuntimeKey: fmt.Sprintf("isthmus.access_log.status_%s_%d", strings.ToLower(op.String()), code)},
		}},
	}}
}

func anyOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: filters},
	}}
}

func allOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: filters},
	}}
}

// connectionLog is the same for raw TCP.
func connectionLog(path string, fixed map[string]string) []*accesslogv3.AccessLog {
	format := logFormat{fields: map[string]string{
		"time":     logTime,
		"edge":     "%LISTENER_NAME%",
		"upstream": "%UPSTREAM_CLUSTER%",
		"flags":    "%RESPONSE_FLAGS%",
		"received": "%BYTES_RECEIVED%",
		"sent":     "%BYTES_SENT%",
		"duration": "%DURATION%",
	}, omitEmpty: true}
	maps.Copy(format.fields, fixed)
	return jsonLog(path, format, nil)
}

const logTime = "%START_TIME%" // RFC 3339 in UTC, milliseconds

func decided(key string) string {
	return "%METADATA(ROUTE:" + names.Metadata + ":" + key + ")%%DYNAMIC_METADATA(" + names.Metadata + ":" + key + ")%"
}

// logFormat is the fields of a line of JSON.
type logFormat struct {
	fields    map[string]string
	omitEmpty bool // leave out what has no value
}

// jsonLog writes lines to a file where the filter holds; there is no log without a path.
func jsonLog(path string, format logFormat, filter *accesslogv3.AccessLogFilter) []*accesslogv3.AccessLog {
	if path == "" {
		return nil
	}
	fields := make(map[string]*structpb.Value, len(format.fields))
	for k, v := range format.fields {
		fields[k] = structpb.NewStringValue(v)
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file", Filter: filter,
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&filev3.FileAccessLog{
			Path: path,
			AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{
					JsonFormat: &structpb.Struct{Fields: fields},
				},
				OmitEmptyValues: format.omitEmpty,
			}},
		})},
	}}
}
