package resource

import (
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	customresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/custom_response/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	localresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/custom_response/local_response_policy/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Names of filters, by which routes configure them; a cluster's filters among them, so theirs are others.
const (
	filterExtProc = "envoy.filters.http.ext_proc"
	filterHold    = "isthmus.hold"
	filterProof   = "envoy.filters.http.custom_response"
	filterStrip   = "isthmus.strip"
	filterRouter  = "envoy.filters.http.router"

	filterUpstreamStrip = "isthmus.upstream_strip"
)

// decisionTimeout is how long Envoy waits for one message of external processing; the server's own deadline is
// shorter, so that it refuses in the caller's words.
const decisionTimeout = 15 * time.Second

func filter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(m)}}
}

// extProc asks isthmus about the head of a peer's request; the answer may escalate to more phases.
func extProc() *hcmv3.HttpFilter {
	p := externalProcessor()
	p.AllowModeOverride = true
	return filter(filterExtProc, p)
}

// admission asks isthmus who the caller of this cluster is that came in by an edge, from the head of the request alone:
// what was let in goes on without isthmus.
func admission(edge string) *hcmv3.HttpFilter {
	p := externalProcessor()
	p.GrpcService.InitialMetadata = []*corev3.HeaderValue{{Key: names.MetadataEdge, Value: edge}}
	return filter(filterExtProc, p)
}

// hold tells isthmus of the end of what it let through and does not see again, where a route asks for it: by a stream of
// external processing that is open as long as the request. The request waits for it nowhere, and goes on without it.
func hold() *hcmv3.HttpFilter {
	p := externalProcessor()
	p.ObservabilityMode, p.FailureModeAllow, p.DeferredCloseTimeout = true, true, duration(time.Millisecond)
	p.ProcessingMode, p.RouteCacheAction, p.StatusOnError, p.MetadataOptions, p.MutationRules = nothing(), extprocv3.ExternalProcessor_DEFAULT, nil, nil, nil
	p.GrpcService.InitialMetadata = []*corev3.HeaderValue{{Key: names.MetadataHold, Value: "1"}}
	p.ForwardRules = &extprocv3.HeaderForwardingRules{AllowedHeaders: &envoymatcherv3.ListStringMatcher{
		Patterns: []*envoymatcherv3.StringMatcher{exactly(names.HeaderHold)},
	}}
	return filter(filterHold, p)
}

func nothing() *extprocv3.ProcessingMode {
	return &extprocv3.ProcessingMode{
		RequestHeaderMode: extprocv3.ProcessingMode_SKIP, ResponseHeaderMode: extprocv3.ProcessingMode_SKIP,
		RequestTrailerMode: extprocv3.ProcessingMode_SKIP, ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
	}
}

// held is for routes whose requests are followed to their end.
func held(filters perFilter) perFilter {
	mode := nothing()
	mode.RequestHeaderMode = extprocv3.ProcessingMode_SEND
	filters[filterHold] = pack(&extprocv3.ExtProcPerRoute{
		Override: &extprocv3.ExtProcPerRoute_Overrides{Overrides: &extprocv3.ExtProcOverrides{ProcessingMode: mode}},
	})
	return filters
}

func externalProcessor() *extprocv3.ExternalProcessor {
	return &extprocv3.ExternalProcessor{
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: names.ExtProc,
			}},
		},
		ProcessingMode: &extprocv3.ProcessingMode{
			RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
			ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
			RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
			ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
		},
		MessageTimeout:    duration(decisionTimeout),
		MaxMessageTimeout: duration(names.LongestDecision + time.Minute),
		MutationRules:     &mutationv3.HeaderMutationRules{AllowAllRouting: yes(), AllowEnvoy: nil},
		RouteCacheAction:  extprocv3.ExternalProcessor_CLEAR,
		StatusOnError:     &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		MetadataOptions: &extprocv3.MetadataOptions{
			ReceivingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{names.Metadata}},
		},
	}
}

// unasked is for routes, or all of them, about which isthmus is not asked.
func unasked() perFilter {
	return perFilter{filterExtProc: pack(&routev3.FilterConfig{Disabled: true})}
}

// asked is for routes about which it is, where the others are unasked.
func asked() perFilter {
	return perFilter{filterExtProc: pack(&extprocv3.ExtProcPerRoute{
		Override: &extprocv3.ExtProcPerRoute_Overrides{Overrides: &extprocv3.ExtProcOverrides{}},
	})}
}

// decidedByRoute is for routes that decide by themselves: the filters that are for external processing's decisions are
// not even made for such a request.
func decidedByRoute() perFilter {
	off := pack(&routev3.FilterConfig{Disabled: true})
	return perFilter{filterExtProc: off, filterHold: off, filterProof: off, filterStrip: off}
}

// proof refuses an answer that should have been rewritten and was not: when external processing is gone between
// request and answer, Envoy would pass the orchestrator's native answer on, addresses and all. It stands before
// ext_proc in the chain, so it sees answers after it. It does nothing where a route does not ask for it.
func proof() *hcmv3.HttpFilter { return filter(filterProof, &customresponsev3.CustomResponse{}) }

// provenOnly asks for proof.
func provenOnly() *anypb.Any {
	return pack(&customresponsev3.CustomResponse{CustomResponseMatcher: &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{
			Matchers: []*matcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: &matcherv3.Matcher_MatcherList_Predicate{
					MatchType: &matcherv3.Matcher_MatcherList_Predicate_NotMatcher{
						NotMatcher: &matcherv3.Matcher_MatcherList_Predicate{
							MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
								SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
									Input: &xdscorev3.TypedExtensionConfig{
										Name: "proof",
										TypedConfig: pack(&envoymatcherv3.HttpResponseHeaderMatchInput{
											HeaderName: names.HeaderExchange,
										}),
									},
									Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
										ValueMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
											SafeRegex: &matcherv3.RegexMatcher{
												EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
												Regex:      ".+",
											},
										}},
									},
								},
							},
						},
					},
				},
				OnMatch: replacedBy(lostAnswer),
			}},
		}},
	}})
}

// withoutFailures replaces an answer that crosses unread by which the orchestrator says that it failed: it tells whom it
// could not reach.
func withoutFailures(statuses ...string) *anypb.Any {
	var any []*matcherv3.Matcher_MatcherList_FieldMatcher
	for _, status := range statuses {
		any = append(any, &matcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: &matcherv3.Matcher_MatcherList_Predicate{
				MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: &xdscorev3.TypedExtensionConfig{Name: "status", TypedConfig: pack(&envoymatcherv3.HttpResponseStatusCodeMatchInput{})},
						Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
							ValueMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: status}},
						},
					},
				},
			},
			OnMatch: replacedBy(hiddenFailure),
		})
	}
	return pack(&customresponsev3.CustomResponse{CustomResponseMatcher: &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{Matchers: any}},
	}})
}

// replacedBy puts a refusal in the place of an answer.
func replacedBy(r refusal) *matcherv3.Matcher_OnMatch {
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: &xdscorev3.TypedExtensionConfig{
			Name: "refuse",
			TypedConfig: pack(&localresponsev3.LocalResponsePolicy{
				Body: inline(r.body()), StatusCode: u32(r.code), ResponseHeadersToAdd: jsonContent(),
				ResponseCodeDetailsAction: &localresponsev3.LocalResponsePolicy_ResponseCodeDetails{
					ResponseCodeDetails: detailsUnproven,
				},
			}),
		},
	}}
}

// strip removes what gateways say to each other from answers; it stands first, so it acts last.
func strip() *hcmv3.HttpFilter {
	return filter(filterStrip, &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		ResponseMutations: []*mutationv3.HeaderMutation{remove(names.HeaderExchange)},
	}})
}

// router forwards requests. It adds none of Envoy's headers, which tell of hosts and timings.
func router() *hcmv3.HttpFilter {
	return filter(filterRouter, &routerv3.Router{SuppressEnvoyHeaders: true, DynamicStats: no()})
}

func exactly(s string) *envoymatcherv3.StringMatcher {
	return &envoymatcherv3.StringMatcher{MatchPattern: &envoymatcherv3.StringMatcher_Exact{Exact: s}}
}
