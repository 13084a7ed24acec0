package resource

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// perFilter configures filters on one route, by their names.
type perFilter map[string]*anypb.Any

// domain is a name as requests carry it: with any port, or with none.
func domain(host string) []string { return []string{host, host + ":*"} }

// anyPath matches every request but CONNECT, where all headers hold.
func anyPath(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}, Headers: headers}
}

// connect matches CONNECT only, where all headers hold.
func connect(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}},
		Headers:       headers,
	}
}

func headerIs(key, value string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                 key,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(value)},
	}
}

func headerPresent(key string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: key, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// to forwards without a limit on the whole, which streams do not have.
func to(cluster string, idle time.Duration) *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		Timeout:          duration(0), IdleTimeout: duration(idle),
	}
}

// tunnel forwards the payload of a CONNECT as raw TCP.
func tunnel(cluster string) *routev3.RouteAction {
	action := to(cluster, accessIdle)
	action.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{
		UpgradeType: upgradeConnect, ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
	}}
	return action
}

// again tries twice more where the request cannot have reached anybody.
func again() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream", NumRetries: u32(2)}
}

// elsewhere is again at another endpoint. That there may be one costs every request.
func elsewhere() *routev3.RetryPolicy {
	p := again()
	p.HostSelectionRetryMaxAttempts = 3
	p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
		Name: "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
			TypedConfig: pack(&previousv3.PreviousHostsPredicate{}),
		},
	}}
	return p
}

func forward(match *routev3.RouteMatch, action *routev3.RouteAction) *routev3.Route {
	return &routev3.Route{Match: match, Action: &routev3.Route_Route{Route: action}}
}

// refuse answers with a refusal where all headers hold, CONNECT included.
func refuse(r refusal, headers ...*routev3.HeaderMatcher) []*routev3.Route {
	routes := make([]*routev3.Route, 0, 2)
	for _, match := range []*routev3.RouteMatch{anyPath(headers...), connect(headers...)} {
		routes = append(routes, &routev3.Route{Match: match, Action: r.direct(), ResponseHeadersToAdd: jsonContent()})
	}
	return routes
}

// escape keeps Envoy from expanding a value's percent signs.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }
