package resource

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

const (
	contentJSON = "application/json"
	contentText = "text/plain"
)

// refusal is an answer that Envoy gives by itself. Its body is a Kubernetes Status and a docker error at once.
type refusal struct {
	code    uint32
	reason  string // Kubernetes' word
	message string
}

// Kubernetes' words for refusals.
const (
	reasonNotFound     = "NotFound"
	reasonForbidden    = "Forbidden"
	reasonUnauthorized = "Unauthorized"
	reasonUnavailable  = "ServiceUnavailable"
	reasonTimeout      = "Timeout"
	reasonTooMany      = "TooManyRequests"
	reasonBadRequest   = "BadRequest"
	reasonTooLarge     = "RequestEntityTooLarge"
	reasonInternal     = "InternalError"
)

var noDecision = refusal{http.StatusServiceUnavailable, reasonUnavailable,
	"the gateway made no decision about this request"}

// lostAnswer is where the request had gone out and the answer could not be rewritten.
var lostAnswer = refusal{http.StatusBadGateway, reasonUnavailable,
	"the gateway lost the answer while translating it; whether the operation took effect is not known"}

// hiddenFailure is where what the orchestrator answered to a request that crosses unread would tell whom it did not reach.
var hiddenFailure = refusal{http.StatusBadGateway, reasonInternal,
	"the orchestrator failed, or could not be reached; what it says is not shown, since it may name addresses of its cluster"}

// silentOrchestrator is where a translated request was sent and nothing came back.
var silentOrchestrator = refusal{http.StatusGatewayTimeout, reasonTimeout,
	"the orchestrator did not answer in time; whether the operation took effect is not known"}

// detailsUnproven are the response code details of an answer that should have been rewritten and was not.
const detailsUnproven = "isthmus_unproven"

// body renders the refusal in JSON.
func (r refusal) body() string {
	b, err := json.Marshal(struct {
		Kind       string   `json:"kind"`
		APIVersion string   `json:"apiVersion"`
		Metadata   struct{} `json:"metadata"`
		Status     string   `json:"status"`
		Message    string   `json:"message"`
		Reason     string   `json:"reason"`
		Code       uint32   `json:"code"`
	}{Kind: "Status", APIVersion: "v1", Status: "Failure", Message: r.message, Reason: r.reason, Code: r.code})
	if err != nil {
		panic(fmt.Sprintf("render a refusal: %v", err)) // a struct of strings always renders
	}
	return string(b) + "\n"
}

// direct is the refusal as a route's action, with jsonContent among the route's response headers.
func (r refusal) direct() *routev3.Route_DirectResponse {
	return &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: r.code, Body: inline(r.body()),
	}}
}

// discoveryPath is where clients of Kubernetes ask which resources an API has.
const discoveryPath = "/apis?"

// discovery holds for such requests of callers from a Kubernetes cluster. kubectl makes one before all others, reads no
// Status in answers to it, and shows what is plain text, but "unknown" for all else. Of 503 and 504 it shows words of its
// own in any case.
func discovery(more ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	path := headerFilter(":path", &envoymatcherv3.StringMatcher{MatchPattern: &envoymatcherv3.StringMatcher_SafeRegex{
		SafeRegex: &envoymatcherv3.RegexMatcher{Regex: discoveryPath + `(\?.*)?`},
	}})
	if len(more) == 0 {
		return path // of one alone Envoy makes no conjunction
	}
	return allOf(append(more, path)...)
}

// discovery is the refusal of such requests as a route.
func (r refusal) discovery() *routev3.Route {
	return &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{
			SafeRegex: &envoymatcherv3.RegexMatcher{Regex: discoveryPath},
		}},
		Action:               &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: r.shownCode(), Body: inline(r.message)}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{headerOption("content-type", contentText)},
	}
}

func headerFilter(name string, value *envoymatcherv3.StringMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: &routev3.HeaderMatcher{
			Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
		}},
	}}
}

// shownCode is the code of a refusal whose words are to be shown.
func (r refusal) shownCode() uint32 {
	if r.code == http.StatusServiceUnavailable || r.code == http.StatusGatewayTimeout {
		return http.StatusBadGateway
	}
	return r.code
}

// plain makes a mapper answer with the words alone.
func (r refusal) plain(m *hcmv3.ResponseMapper) *hcmv3.ResponseMapper {
	m.StatusCode = u32(r.shownCode())
	m.BodyFormatOverride = &corev3.SubstitutionFormatString{
		Format:      &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(r.message)},
		ContentType: contentText,
	}
	return m
}

// jsonContent is the content type of refusals.
func jsonContent() []*corev3.HeaderValueOption {
	return []*corev3.HeaderValueOption{headerOption("content-type", contentJSON)}
}

// replies puts the answers that Envoy makes when something fails into the gateway's words: Envoy's own tell addresses.
// Answers of external processing and of routes are refusals already and stay. Where the filter plainly holds, the words
// stand alone; nil is nowhere.
func replies(upstream string, plainly *accesslogv3.AccessLogFilter) *hcmv3.LocalReplyConfig {
	var mappers []*hcmv3.ResponseMapper
	for _, m := range []struct {
		filter *accesslogv3.AccessLogFilter
		refusal
		first bool // it may meet a client's first request, to which no body belongs
	}{
		{details(`response.code_details in ["` + names.Details + `", "` + detailsUnproven + `", "direct_response"]`), refusal{}, false},
		{details(`response.code_details.startsWith("ext_proc_error") && xds.route_name == "` + routeTranslated + `"`), lostAnswer, false},
		{details(`response.code_details.startsWith("ext_proc_error")`), refusal{http.StatusServiceUnavailable,
			reasonUnavailable, "the gateway cannot decide about this request at the moment"}, true},
		{details(`response.code_details == "request_payload_too_large"`), refusal{http.StatusRequestEntityTooLarge,
			reasonTooLarge, "the body is too large for the gateway to translate"}, false},
		{details(`response.code_details == "response_payload_too_large"`), refusal{http.StatusBadGateway,
			reasonTooLarge, "the answer is too large for the gateway to translate; the operation may have taken effect"}, false},
		{flags("UH", "NC"), refusal{http.StatusServiceUnavailable, reasonUnavailable,
			upstream + " has nothing ready to answer"}, true},
		{details(`response.code_details == "response_timeout" && xds.route_name == "` + routeTranslated + `"`), silentOrchestrator, false},
		{flags("UT", "SI", "DT", "UMSDR"), refusal{http.StatusGatewayTimeout, reasonTimeout,
			upstream + " did not answer in time"}, true},
		{flags("UO", "OM"), refusal{http.StatusServiceUnavailable, reasonTooMany,
			"the gateway has too many requests under way"}, true},
		{flags("UF", "UC", "LR", "UR", "URX", "UPE"), refusal{http.StatusBadGateway, reasonUnavailable,
			upstream + " could not be reached, or broke off"}, true},
		{flags("NR"), refusal{http.StatusNotFound, reasonNotFound, "no such name at this gateway"}, false},
		{flags("DPE"), refusal{http.StatusBadRequest, reasonBadRequest, "the request is not valid HTTP"}, false},
		{details("true"), refusal{0, reasonInternal, "the gateway cannot serve this request"}, false},
	} {
		mapper := m.mapper(m.filter)
		if m.refusal == silentOrchestrator {
			// Nothing native is in it, so it needs no proof of a rewriting; external processing may have ended by now.
			mapper.HeadersToAdd = []*corev3.HeaderValueOption{headerOption(names.HeaderExchange, "1")}
		}
		if plainly != nil && m.first {
			mappers = append(mappers, m.plain(m.mapper(allOf(m.filter, plainly))))
		}
		mappers = append(mappers, mapper)
	}
	return &hcmv3.LocalReplyConfig{Mappers: mappers}
}

// mapper answers with the refusal where the filter holds. The zero refusal leaves what is there; one without a code
// leaves the code.
func (r refusal) mapper(filter *accesslogv3.AccessLogFilter) *hcmv3.ResponseMapper {
	m := &hcmv3.ResponseMapper{Filter: filter}
	if r == (refusal{}) {
		return m
	}
	body := r.body()
	if r.code == 0 {
		body = strings.Replace(body, `"code":0`, `"code":%RESPONSE_CODE%`, 1)
	} else {
		m.StatusCode = u32(r.code)
	}
	m.BodyFormatOverride = &corev3.SubstitutionFormatString{
		Format:      &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(body)},
		ContentType: contentJSON,
	}
	return m
}

func flags(f ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: f},
	}}
}

// details filters by a CEL expression.
func details(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: pack(&celv3.ExpressionFilter{
				Expression: expression,
			})},
		},
	}}
}
