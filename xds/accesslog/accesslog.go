// Package accesslog takes from Envoy how requests ended that external processing let through and nobody of isthmus saw
// again: calls that are handed on to the orchestrator, and accesses to containers.
package accesslog

import (
	"errors"
	"io"
	"strings"
	"time"

	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// End is how a request ended, with what was decided about it.
type End struct {
	ID, Trace       string
	Peer, Caller    string
	Class, Verb     string
	Kind            string // of the object
	Namespace, Name string
	Rule, Upstream  string
	Status          int    // 0 for none
	Broke           string // why it did not end by itself; "" when it did
	Duration        time.Duration
	Received, Sent  uint64 // bytes of the bodies
}

// Server is Envoy's access log service.
type Server struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	// Ended is told of each request's end, from several goroutines.
	Ended func(End)
}

// Register adds the server to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) { accesslogv3.RegisterAccessLogServiceServer(g, s) }

// StreamAccessLogs takes what one Envoy tells.
func (s *Server) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		for _, entry := range message.GetHttpLogs().GetLogEntry() {
			s.Ended(endOf(entry))
		}
	}
}

func endOf(entry *accesslogdatav3.HTTPAccessLogEntry) End {
	common, request := entry.GetCommonProperties(), entry.GetRequest()
	decided := common.GetMetadata().GetFilterMetadata()[names.Metadata].GetFields()
	text := func(key string) string { return decided[key].GetStringValue() }
	header := request.GetRequestHeaders()
	end := End{
		ID: request.GetRequestId(), Trace: header["traceparent"], Peer: text(names.MetadataPeer), Caller: text(names.MetadataCaller),
		Class: text(names.MetadataKind), Verb: text(names.MetadataVerb), Rule: text(names.MetadataRule), Upstream: text(names.MetadataUpstream),
		Status: int(entry.GetResponse().GetResponseCode().GetValue()), Broke: broke(common.GetResponseFlags()),
		Duration: common.GetDuration().AsDuration(), Received: request.GetRequestBodyBytes(), Sent: entry.GetResponse().GetResponseBodyBytes(),
	}
	kind, object, _ := strings.Cut(text(names.MetadataObject), " ")
	end.Kind = kind
	end.Namespace, end.Name, _ = strings.Cut(object, "/")
	return end
}

// broke says why a request did not end by itself.
func broke(f *accesslogdatav3.ResponseFlags) string {
	switch {
	case f.GetDownstreamConnectionTermination(), f.GetDownstreamRemoteReset():
		return "the caller, or its gateway, went away"
	case f.GetUpstreamConnectionFailure(), f.GetUpstreamConnectionTermination(), f.GetUpstreamRemoteReset(), f.GetUpstreamProtocolError():
		return "what it was sent to could not be reached, or broke off"
	case f.GetUpstreamRequestTimeout(), f.GetStreamIdleTimeout(), f.GetDurationTimeout():
		return "nothing came in time"
	case f.GetLocalReset(), f.GetUpstreamOverflow(), f.GetOverloadManager(), f.GetNoRouteFound(), f.GetNoHealthyUpstream():
		return "the gateway's Envoy ended it"
	}
	return ""
}
