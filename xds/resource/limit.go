package resource

import (
	"net/http"
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// limitFilter is the name of the filter of a peer's limits, and of the resource that configures it.
func limitFilter(peer string) string { return "limit/" + peer }

// limitCaller is the key by which callers are counted.
const limitCaller = "caller"

// limitedCallers is how many callers of each peer are counted apart at a time; the one that was silent for longest makes
// room for another.
const limitedCallers = 4096

// retryAfter is what who goes over a limit is told to wait, in seconds.
const retryAfter = "1"

// limit is a peer's limit, the zero one for a peer that has none.
func (g Gateway) limit(peer string) Limit {
	i := slices.IndexFunc(g.Limits, func(l Limit) bool { return l.Peer == peer })
	if i < 0 {
		return Limit{Peer: peer}
	}
	return g.Limits[i]
}

// exempt keeps the filter of a peer's limits from being made for the requests of a route.
func exempt(filters perFilter, peer string) {
	filters[limitFilter(peer)] = pack(&routev3.FilterConfig{Disabled: true})
}

// limits stands in the chain of each peer, before all that costs more. What it does comes as a resource of its own, so that
// a limit that changes does not end the peer's connections, as a chain that changes would.
func limits(peer string) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: limitFilter(peer), ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads(), TypeUrls: []string{pack(&localratelimitv3.LocalRateLimit{}).GetTypeUrl()}},
	}}
}

// PeerLimit counts the requests of a peer over all its connections, whatever they ask, and those of its callers. For a peer
// without a limit it does nothing; routes that know the peer leave it out then.
func PeerLimit(g Gateway, peer Peer) *corev3.TypedExtensionConfig {
	limit := g.limit(peer.Name)
	all := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	filter := &localratelimitv3.LocalRateLimit{
		StatPrefix:    ListenerPeer,
		Status:        &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
		FilterEnabled: all, FilterEnforced: all,
		TokenBucket: limit.Rate.bucket(),
	}
	if bucket := limit.Caller.bucket(); bucket != nil {
		filter.Descriptors = []*ratelimitv3.LocalRateLimitDescriptor{{
			Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: limitCaller}}, TokenBucket: bucket, // of any caller
		}}
		filter.MaxDynamicDescriptors = u32(limitedCallers)
		filter.RateLimits = []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
			ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{
				HeaderName: names.HeaderCaller, DescriptorKey: limitCaller,
			}},
		}}}}
	}
	return extension(limitFilter(peer.Name), filter)
}

// bucket is nil for no limit.
func (r Rate) bucket() *typev3.TokenBucket {
	if r == (Rate{}) {
		return nil
	}
	burst := r.Burst
	if burst == 0 {
		burst = r.PerSecond
	}
	return &typev3.TokenBucket{MaxTokens: burst, TokensPerFill: u32(r.PerSecond), FillInterval: duration(time.Second)}
}

func tooManyReplies(plainly *accesslogv3.AccessLogFilter) []*hcmv3.ResponseMapper {
	limited := details(`response.code_details == "local_rate_limited"`)
	mappers := []*hcmv3.ResponseMapper{tooMany.plain(tooMany.mapper(allOf(limited, plainly))), tooMany.mapper(limited)}
	for _, m := range mappers {
		m.HeadersToAdd = []*corev3.HeaderValueOption{headerOption("retry-after", retryAfter)}
	}
	return mappers
}

// tooMany is the answer to who goes over a limit of requests.
var tooMany = refusal{http.StatusTooManyRequests, reasonTooMany, "too many requests of this peer, or of this caller, in a second; try again shortly"}
