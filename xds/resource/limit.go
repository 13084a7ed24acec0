package resource

import (
	"net/http"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

const filterLimit = "envoy.filters.http.local_ratelimit"

// Keys of what requests are counted by.
const (
	limitPeer   = "peer"
	limitCaller = "caller"
)

// limitedCallers is how many callers of each peer are counted apart at a time; the one that was silent for longest makes
// room for another.
const limitedCallers = 4096

// retryAfter is what who goes over a limit is told to wait, in seconds.
const retryAfter = "1"

// limited tells whether any peer has a limit: there is a filter then, before all that costs more.
func (g Gateway) limited() bool { return len(g.Limits) > 0 }

// exempt is what a route of a peer without a limit adds to its configuration of filters, while there is the filter for
// others: it is not even made for such a request.
func (g Gateway) exempt(filters perFilter, peer string) perFilter {
	if g.limited() && !slices.ContainsFunc(g.Limits, func(l Limit) bool { return l.Peer == peer }) {
		filters[filterLimit] = pack(&routev3.FilterConfig{Disabled: true})
	}
	return filters
}

// limits counts the requests of each limited peer, over all its connections and whatever they ask, and those of its
// callers. Who asks is the certificate's word (fromPeer).
func limits(g Gateway) *hcmv3.HttpFilter {
	var descriptors []*ratelimitv3.LocalRateLimitDescriptor
	for _, l := range g.Limits {
		peer := &ratelimitv3.RateLimitDescriptor_Entry{Key: limitPeer, Value: l.Peer}
		if l.Rate != (Rate{}) {
			descriptors = append(descriptors, l.Rate.of(peer))
		}
		if l.Caller != (Rate{}) {
			descriptors = append(descriptors, l.Caller.of(peer, &ratelimitv3.RateLimitDescriptor_Entry{Key: limitCaller}))
		}
	}
	all := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	by := func(header, key string) *routev3.RateLimit_Action {
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: header, DescriptorKey: key},
		}}
	}
	return filter(filterLimit, &localratelimitv3.LocalRateLimit{
		StatPrefix:    ListenerPeer,
		Status:        &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
		FilterEnabled: all, FilterEnforced: all,
		Descriptors:                     descriptors,
		MaxDynamicDescriptors:           u32(limitedCallers),
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		RateLimits: []*routev3.RateLimit{
			{Actions: []*routev3.RateLimit_Action{by(names.HeaderPeer, limitPeer)}},
			{Actions: []*routev3.RateLimit_Action{by(names.HeaderPeer, limitPeer), by(names.HeaderCaller, limitCaller)}},
		},
	})
}

func (r Rate) of(entries ...*ratelimitv3.RateLimitDescriptor_Entry) *ratelimitv3.LocalRateLimitDescriptor {
	burst := r.Burst
	if burst == 0 {
		burst = r.PerSecond
	}
	return &ratelimitv3.LocalRateLimitDescriptor{Entries: entries, TokenBucket: &typev3.TokenBucket{
		MaxTokens: burst, TokensPerFill: u32(r.PerSecond), FillInterval: duration(time.Second),
	}}
}

func tooManyReply() *hcmv3.ResponseMapper {
	mapper := tooMany.mapper(flags("RL"))
	mapper.HeadersToAdd = []*corev3.HeaderValueOption{headerOption("retry-after", retryAfter)}
	return mapper
}

// tooMany is the answer to who goes over a limit of requests.
var tooMany = refusal{http.StatusTooManyRequests, reasonTooMany, "too many requests of this peer, or of this caller, in a second; try again shortly"}
