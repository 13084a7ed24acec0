package resource

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Headers with a caller's credential: for the API of an orchestrator, and for the gateway itself where the other one is
// for the service.
const (
	headerAuthorization      = "authorization"
	headerProxyAuthorization = "proxy-authorization"
)

// disclosing are the headers in which proxies and browsers of a cluster write its addresses.
var disclosing = []string{"x-forwarded-for", "x-real-ip", "forwarded", "via"}

func remove(key string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: key}}
}

func removePrefix(prefix string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
		}},
	}}
}

// overwrite sets a header to a value in which Envoy's command operators are expanded; nothing is set when that is
// empty.
func overwrite(key, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: headerOption(key, value)}}
}

func headerOption(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func earlyMutation(mutations ...*mutationv3.HeaderMutation) *corev3.TypedExtensionConfig {
	return extension("envoy.http.early_header_mutation.header_mutation", &earlyv3.HeaderMutation{Mutations: mutations})
}

// fromPeer is done to the headers of a peer's request before it is routed: the peer's identity is the certificate's
// whatever the peer wrote, and neither a destination nor any instruction to Envoy comes from outside.
func fromPeer() *corev3.TypedExtensionConfig {
	return earlyMutation(append(hideCluster(),
		removePrefix(names.OwnPrefix), overwrite(names.HeaderPeer, "%DOWNSTREAM_PEER_URI_SAN%"))...)
}

// fromCaller is done to the headers of a request of this cluster before it leaves for a peer: what gateways say to
// each other is not the caller's to say, and this cluster's addresses stay here.
func fromCaller() *corev3.TypedExtensionConfig {
	return earlyMutation(append(hideCluster(), removePrefix(names.OwnPrefix), removePrefix(names.LinkPrefix))...)
}

// fromIsthmus is the same for requests that isthmus itself sends through its own socket.
func fromIsthmus() *corev3.TypedExtensionConfig { return earlyMutation(hideCluster()...) }

// hideCluster removes the addresses that proxies wrote, and all that would instruct Envoy.
func hideCluster() []*mutationv3.HeaderMutation {
	mutations := []*mutationv3.HeaderMutation{removePrefix("x-envoy-")}
	for _, key := range disclosing {
		mutations = append(mutations, remove(key))
	}
	return mutations
}

// withoutGatewayHeaders removes what gateways say to each other from what leaves for a service, a container or an
// orchestrator.
func withoutGatewayHeaders(more ...*mutationv3.HeaderMutation) *headermutationv3.HeaderMutation {
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: append([]*mutationv3.HeaderMutation{removePrefix(names.HeaderPrefix)}, more...),
		// Nor does an upstream speak as a gateway.
		ResponseMutations: []*mutationv3.HeaderMutation{removePrefix(names.HeaderPrefix)},
	}}
}
