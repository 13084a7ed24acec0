// Package names holds the words that Envoy's configuration and the external-processing server share: cluster names and
// header keys. It imports nothing.
package names

import "strings"

// HeaderPrefix begins all that gateways and their callers say to gateways. None of it reaches a service, a container or
// an orchestrator. Who may say what is told by a longer prefix, so that Envoy removes at once what somebody may not say:
// OwnPrefix is of one gateway's Envoy and its isthmus and is taken from nobody, LinkPrefix is taken from the gateway of a
// peer, and what has neither is a caller's as well.
const (
	HeaderPrefix = "x-isthmus-"
	OwnPrefix    = HeaderPrefix + "own-"
	LinkPrefix   = HeaderPrefix + "link-"
)

// Headers of HeaderPrefix, and the one by which logs and traces find each other.
const (
	// HeaderPeer is the SPIFFE identity that the request's certificate proved; Envoy sets it, over whatever was there.
	HeaderPeer = OwnPrefix + "peer"
	// HeaderCaller is who the peer says the caller is.
	HeaderCaller = LinkPrefix + "caller"
	// HeaderGroups is which groups the peer says the caller is in, joined by commas; with one before them where
	// it is in others too.
	HeaderGroups = LinkPrefix + "caller-groups"
	// HeaderRoute names the upstream that ext_proc chose. No route behind ext_proc leads anywhere without it, and it
	// is removed from everything that arrives.
	HeaderRoute = OwnPrefix + "route"
	// HeaderOrchestrator is the type of the caller's cluster as its gateway's Envoy knows it, on container operations. It
	// must be the one of the handshake, by which the request would be read.
	HeaderOrchestrator = LinkPrefix + "orchestrator"
	// HeaderDestination is the address that an access goes to; ext_proc sets it, it never crosses.
	HeaderDestination = OwnPrefix + "destination"
	// HeaderNode is the target host that a caller may name.
	HeaderNode = HeaderPrefix + "node"
	// HeaderNetworkMode is the network mode that a caller may ask for.
	HeaderNetworkMode = HeaderPrefix + "network-mode"
	// HeaderLayer says what becomes of a target's changed files where its network mode cannot be switched without making it
	// anew: commit or discard.
	HeaderLayer = HeaderPrefix + "layer"
	// HeaderPlan asks what an access would take, and for nothing to be done.
	HeaderPlan = HeaderPrefix + "plan"
	// HeaderSwitched says in an answer that a network mode was switched for it, and what that cost.
	HeaderSwitched = HeaderPrefix + "switched"
	// HeaderSession marks a streaming POST that stands for a hijacked docker connection; its value is the original
	// upgrade protocol.
	HeaderSession = LinkPrefix + "session"
	// HeaderSessionBody is how many leading bytes of such a POST are the original request's body (decimal).
	HeaderSessionBody = LinkPrefix + "session-body"
	// HeaderRequestID is Envoy's request id, the trace id of logs and audit lines.
	HeaderRequestID = "x-request-id"
)

// Upstreams that a verdict can choose; they are Envoy clusters of these names.
const (
	Orchestrator = "orchestrator" // this cluster's orchestrator API
	Bridge       = "bridge"       // isthmus' bridge, on a Unix socket
	Access       = "access"       // ORIGINAL_DST by HeaderDestination
	Emulation    = "emulation"    // the API before the orchestrator for callers of another type, on a Unix socket
)

// OrchestratorRoute is what HeaderRoute says for the orchestrator. It names the type for which the decision was made: an
// Envoy whose routes are of before or after a change of the type takes the request nowhere, least of all to an
// orchestrator that would read it as something else.
func OrchestratorRoute[T ~string](orchestrator T) string {
	return Orchestrator + "/" + string(orchestrator)
}

// EmulationRoute is what HeaderRoute says for the API that stands before the orchestrator for callers of another type.
func EmulationRoute[T ~string](callers T) string {
	return Emulation + "/" + string(callers)
}

// Clusters that no verdict chooses.
const (
	Peering = "peering" // isthmus' peering server, on a Unix socket
	Join    = "join"    // isthmus' server that redeems invitations, on a Unix socket
	XDS     = "xds"
	ExtProc = "extproc"
	ALS     = "access-log" // isthmus' access log service, on a Unix socket
)

// PeerCluster is the Envoy cluster that leads to a peer's gateway.
func PeerCluster(peer string) string { return "peer/" + peer }

// ServiceCluster is the Envoy cluster of one port of a service of this cluster.
func ServiceCluster(namespace, name, port string) string {
	return "service/" + namespace + "/" + name + "/" + port
}

// The parts of names under a gateway's suffix: <service>.<namespace>.svc.<cluster>.<suffix>,
// <container>.<namespace>.ctr.<cluster>.<suffix>, api.<cluster>.<suffix>.
const (
	DefaultSuffix = "isthmus.internal"
	ServiceLabel  = "svc"
	AccessLabel   = "ctr"
	APILabel      = "api"
	// PeeringLabel is the authority of the peering service, peering.<cluster>.<suffix>.
	PeeringLabel = "peering"
)

// ServiceHost is the name of a service of a cluster.
func ServiceHost(service, namespace, cluster, suffix string) string {
	return strings.Join([]string{service, namespace, ServiceLabel, cluster, suffix}, ".")
}

// AccessHost is the name of a container of a cluster.
func AccessHost(container, namespace, cluster, suffix string) string {
	return strings.Join([]string{container, namespace, AccessLabel, cluster, suffix}, ".")
}

// AccessZone is the name under which a cluster's containers have theirs.
func AccessZone(cluster, suffix string) string { return AccessLabel + "." + cluster + "." + suffix }

// APIHost is the name of a cluster's orchestrator API.
func APIHost(cluster, suffix string) string { return APILabel + "." + cluster + "." + suffix }

// LinkHost is the name by which a gateway asks for a peer in TLS: who dials, and whom. The end of it, which is the same for
// all who dial one gateway, is for what stands between them and chooses by names.
func LinkHost(dialler, trustDomain string) string { return dialler + ".peer." + trustDomain }

// JoinHost is the name by which a gateway that holds an invitation asks for the inviting one, in TLS and in HTTP.
func JoinHost(cluster, suffix string) string { return Join + "." + cluster + "." + suffix }

// JoinPath is where invitations are redeemed, by POST.
const JoinPath = "/v1/join"

// PeeringHost is the name of a cluster's peering service.
func PeeringHost(cluster, suffix string) string { return PeeringLabel + "." + cluster + "." + suffix }
