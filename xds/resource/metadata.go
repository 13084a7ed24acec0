package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// The three kinds of request.
const (
	kindQuery     = "service-query"
	kindOperation = "container-operation"
	kindAccess    = "container-access"
)

// decision is what the access log says of a request that a route decides.
type decision struct{ kind, peer, verb, object, decision string }

func (d decision) metadata() *corev3.Metadata {
	fields := make(map[string]*structpb.Value, 5)
	for _, f := range [...]struct{ key, value string }{
		{names.MetadataKind, d.kind}, {names.MetadataPeer, d.peer}, {names.MetadataVerb, d.verb},
		{names.MetadataObject, d.object}, {names.MetadataDecision, d.decision},
	} {
		if f.value != "" {
			fields[f.key] = structpb.NewStringValue(f.value)
		}
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{names.Metadata: {Fields: fields}}}
}
