package extproc

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Pseudo headers as Envoy gives them.
const (
	headerMethod    = ":method"
	headerAuthority = ":authority"
	headerPath      = ":path"
	headerStatus    = ":status"
	headerLength    = "content-length"
)

// readHeaders splits Envoy's header map into pseudo headers and ordinary ones.
func readHeaders(m *corev3.HeaderMap) (pseudo map[string]string, header http.Header) {
	pseudo, header = make(map[string]string, 6), make(http.Header, len(m.GetHeaders()))
	for _, h := range m.GetHeaders() {
		value := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		if strings.HasPrefix(h.GetKey(), ":") {
			pseudo[h.GetKey()] = value
			continue
		}
		header.Add(h.GetKey(), value)
	}
	return pseudo, header
}

func set(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// setAll sets each header; the first value of a key takes the place of what was there, the others are added.
func setAll(mutation *extprocv3.HeaderMutation, header http.Header) {
	for key, values := range header {
		for i, value := range values {
			option := set(strings.ToLower(key), value)
			if i > 0 {
				// To this filter an action to append is no action, for it is the zero one, and overwrites.
				option.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
				option.Append = wrapperspb.Bool(true) //nolint:staticcheck // see above
			}
			mutation.SetHeaders = append(mutation.SetHeaders, option)
		}
	}
}

// routeMutation turns a route into header changes. The routing header is what makes the request go anywhere at all.
func routeMutation(route modules.Route) *extprocv3.HeaderMutation {
	mutation := &extprocv3.HeaderMutation{RemoveHeaders: route.Remove}
	setAll(mutation, route.Set)
	mutation.SetHeaders = append(mutation.SetHeaders, set(names.HeaderRoute, route.Upstream))
	for _, field := range [...]struct{ key, value string }{
		{headerMethod, route.Method}, {headerPath, route.Path}, {headerAuthority, route.Authority},
		{names.HeaderDestination, route.Destination},
	} {
		if field.value != "" {
			mutation.SetHeaders = append(mutation.SetHeaders, set(field.key, field.value))
		}
	}
	return mutation
}

// kept are the headers that survive when a native request takes the caller's place. Envoy finds no route at all without
// x-forwarded-proto.
var kept = map[string]bool{
	"x-forwarded-proto":   true,
	names.HeaderRequestID: true, "traceparent": true, "tracestate": true, names.HeaderPeer: true, names.HeaderCaller: true,
	names.HeaderGroups: true,
}

// rewriteMutation turns a native request into header changes: nothing of the caller's request stays but what traces it.
func rewriteMutation(rewrite modules.Rewrite, caller http.Header) *extprocv3.HeaderMutation {
	mutation := routeMutation(rewrite.Route)
	for key := range caller {
		lower := strings.ToLower(key)
		replaced := rewrite.Route.Set.Get(key) != "" || (lower == headerLength && len(rewrite.Body) > 0)
		if !kept[lower] && !replaced {
			mutation.RemoveHeaders = append(mutation.RemoveHeaders, lower)
		}
	}
	mutation.SetHeaders = append(mutation.SetHeaders, set(names.HeaderExchange, "1"))
	if len(rewrite.Body) > 0 {
		mutation.SetHeaders = append(mutation.SetHeaders, set(headerLength, strconv.Itoa(len(rewrite.Body))))
	}
	return mutation
}

func replaceBody(body []byte) *extprocv3.BodyMutation {
	return &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: body}}
}

func clearBody() *extprocv3.BodyMutation {
	return &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_ClearBody{ClearBody: true}}
}

// immediate is a whole answer given by the gateway.
func immediate(answer modules.Answer) *extprocv3.ProcessingResponse {
	mutation := &extprocv3.HeaderMutation{}
	setAll(mutation, answer.Header)
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{
		ImmediateResponse: &extprocv3.ImmediateResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(answer.Status)}, Headers: mutation, Body: answer.Body,
			Details: names.Details,
		},
	}}
}

// answerMutation puts the caller's answer in the place of the native one, of whose headers none stays.
func answerMutation(answer modules.Answer, native http.Header) *extprocv3.HeaderMutation {
	mutation := &extprocv3.HeaderMutation{}
	for key := range native {
		if lower := strings.ToLower(key); answer.Header.Get(key) == "" && lower != headerLength && lower != "date" {
			mutation.RemoveHeaders = append(mutation.RemoveHeaders, lower)
		}
	}
	setAll(mutation, answer.Header)
	mutation.SetHeaders = append(mutation.SetHeaders, set(names.HeaderExchange, "1"))
	mutation.SetHeaders = append(mutation.SetHeaders, set(headerStatus, strconv.Itoa(answer.Status)))
	if answer.Status == http.StatusNoContent || answer.Status == http.StatusNotModified {
		mutation.RemoveHeaders = append(mutation.RemoveHeaders, headerLength)
	} else {
		mutation.SetHeaders = append(mutation.SetHeaders, set(headerLength, strconv.Itoa(len(answer.Body))))
	}
	return mutation
}

// escalate asks for the phases that an exchange needs.
func escalate(requestBody bool) *extprocfilterv3.ProcessingMode {
	mode := &extprocfilterv3.ProcessingMode{
		RequestHeaderMode:   extprocfilterv3.ProcessingMode_SEND,
		ResponseHeaderMode:  extprocfilterv3.ProcessingMode_SEND,
		RequestBodyMode:     extprocfilterv3.ProcessingMode_NONE,
		ResponseBodyMode:    extprocfilterv3.ProcessingMode_BUFFERED,
		RequestTrailerMode:  extprocfilterv3.ProcessingMode_SKIP,
		ResponseTrailerMode: extprocfilterv3.ProcessingMode_SKIP,
	}
	if requestBody {
		mode.RequestBodyMode = extprocfilterv3.ProcessingMode_BUFFERED
	}
	return mode
}

// metadata is what Envoy's access log says of a decision; the keys are the ones of the routes' own metadata.
func metadata(req *modules.Request, record modules.Record, decision string) *structpb.Struct {
	object := string(record.Object.Kind)
	if record.Object.Namespace != "" || record.Object.Name != "" {
		object += " " + record.Object.Namespace + "/" + record.Object.Name
	}
	text := structpb.NewStringValue
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		names.Metadata: structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			names.MetadataKind: text(string(req.Class)), names.MetadataPeer: text(cmp.Or(req.To, req.Peer.Name)),
			names.MetadataVerb: text(string(record.Verb)), names.MetadataObject: text(object),
			names.MetadataDecision: text(decision), names.MetadataRule: text(record.Rule),
			names.MetadataUpstream: text(record.Upstream), names.MetadataCaller: text(req.Caller), names.MetadataSwitched: text(record.Switched),
		}}),
	}}
}
