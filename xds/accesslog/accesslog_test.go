package accesslog

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

func TestEndOf(t *testing.T) {
	t.Parallel()
	decided, err := structpb.NewStruct(map[string]any{names.MetadataKind: "container-access", names.MetadataPeer: "west",
		names.MetadataVerb: "access", names.MetadataObject: "container team-a/db.0", names.MetadataRule: "west/1",
		names.MetadataUpstream: "access", names.MetadataCaller: "ci-1"})
	if err != nil {
		t.Fatal(err)
	}
	got := endOf(&accesslogdatav3.HTTPAccessLogEntry{
		CommonProperties: &accesslogdatav3.AccessLogCommon{Duration: durationpb.New(time.Second),
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{names.Metadata: decided}}},
		Request:  &accesslogdatav3.HTTPRequestProperties{RequestId: "r1", RequestBodyBytes: 3},
		Response: &accesslogdatav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseBodyBytes: 5},
	})
	want := End{ID: "r1", Peer: "west", Caller: "ci-1", Class: "container-access", Verb: "access", Kind: "container", Namespace: "team-a",
		Name: "db.0", Rule: "west/1", Upstream: "access", Status: 200, Duration: time.Second, Received: 3, Sent: 5}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for word, flags := range map[string]*accesslogdatav3.ResponseFlags{
		"":                      {},
		"went away":             {DownstreamConnectionTermination: true},
		"could not be reached":  {UpstreamConnectionFailure: true},
		"nothing came in time":  {UpstreamRequestTimeout: true},
		"the gateway's Envoy":   {NoHealthyUpstream: true},
		"gateway, went away":    {DownstreamRemoteReset: true},
		"reached, or broke off": {UpstreamRemoteReset: true},
	} {
		if why := broke(flags); !strings.Contains(why, word) || (word == "") != (why == "") {
			t.Errorf("%v: %q", flags, why)
		}
	}
}

// FuzzEndOf holds that no entry of Envoy's ends the gateway.
func FuzzEndOf(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var entry accesslogdatav3.HTTPAccessLogEntry
		if proto.Unmarshal(raw, &entry) == nil {
			endOf(&entry)
		}
	})
}
