package resource

import (
	"math"
	"net/http"
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	concurrencyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/adaptive_concurrency/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// limitFilter is the name of the filter that counts a peer's requests in time, and of the resource that configures it;
// concurrencyFilter is the name of the one that counts those under way.
func limitFilter(peer string) string       { return "limit/" + peer }
func concurrencyFilter(peer string) string { return "concurrency/" + peer }

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

// counted has the requests of all routes counted that are under way, of the peers that have a limit of them: of others no
// filter for it is made.
func counted(g Gateway) perFilter {
	filters := perFilter{}
	for _, l := range g.Limits {
		if l.Requests > 0 {
			filters[concurrencyFilter(l.Peer)] = pack(&routev3.FilterConfig{Config: &anypb.Any{}})
		}
	}
	return filters
}

// uncounted takes the requests of a route out of that.
func uncounted(filters perFilter, peer string) {
	filters[concurrencyFilter(peer)] = pack(&routev3.FilterConfig{Disabled: true})
}

// limits stands in the chain of each peer, before all that costs more, and concurrency behind it. What they do comes as
// resources of their own, so that a limit that changes does not end the peer's connections, as a chain that changes would.
func limits(peer string) *hcmv3.HttpFilter {
	return discovered(limitFilter(peer), &localratelimitv3.LocalRateLimit{})
}

// concurrency is for the routes that counted has made.
func concurrency(peer string) *hcmv3.HttpFilter {
	f := discovered(concurrencyFilter(peer), &concurrencyv3.AdaptiveConcurrency{})
	f.Disabled = true
	return f
}

func discovered(name string, kind proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{
		ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads(), TypeUrls: []string{pack(kind).GetTypeUrl()}},
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

// PeerConcurrency counts the requests of a peer that are under way, over all its connections, whatever they ask. Envoy's
// filter would find the right number by itself, between two bounds; here they are one and the same, so that it finds
// nothing but that. What it samples for that end, once in each sampleInterval, changes nothing.
func PeerConcurrency(g Gateway, peer Peer) *corev3.TypedExtensionConfig {
	most := g.limit(peer.Name).Requests
	if most == 0 {
		most = math.MaxUint32 // nothing uses it, since no route is counted
	}
	return extension(concurrencyFilter(peer.Name), &concurrencyv3.AdaptiveConcurrency{
		ConcurrencyLimitExceededStatus: &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
		ConcurrencyControllerConfig: &concurrencyv3.AdaptiveConcurrency_GradientControllerConfig{
			GradientControllerConfig: &concurrencyv3.GradientControllerConfig{
				ConcurrencyLimitParams: &concurrencyv3.GradientControllerConfig_ConcurrencyLimitCalculationParams{
					MaxConcurrencyLimit: u32(most), MinConcurrencyLimit: u32(most), ConcurrencyUpdateInterval: duration(sampleInterval),
				},
				MinRttCalcParams: &concurrencyv3.GradientControllerConfig_MinimumRTTCalculationParams{
					FixedValue: duration(time.Second), MinConcurrency: u32(most),
				},
			},
		},
	})
}

// sampleInterval is how long samples of latency gather in an Envoy that nobody reads them in.
const sampleInterval = time.Minute

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
	var mappers []*hcmv3.ResponseMapper
	for _, m := range [...]struct {
		refusal
		details string
	}{{tooMany, "local_rate_limited"}, {tooManyAtOnce, "reached_concurrency_limit"}} {
		limited := details(`response.code_details == "` + m.details + `"`)
		mappers = append(mappers, m.plain(m.mapper(allOf(limited, plainly))), m.mapper(limited))
	}
	for _, m := range mappers {
		m.HeadersToAdd = []*corev3.HeaderValueOption{headerOption("retry-after", retryAfter)}
	}
	return mappers
}

// tooMany is the answer to who goes over a limit of requests in time, and tooManyAtOnce to who goes over one of those
// under way.
var (
	tooMany       = refusal{http.StatusTooManyRequests, reasonTooMany, "too many requests of this peer, or of this caller, in a second; try again shortly"}
	tooManyAtOnce = refusal{http.StatusTooManyRequests, reasonTooMany, "too many requests of this peer are under way; try again when some have ended"}
)
