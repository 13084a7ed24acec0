package names

import (
	"strings"
	"time"
)

// Unix sockets in a gateway's run directory.
const (
	EdgeSocket      = "edge.sock"        // Envoy: requests that isthmus itself sends to peers
	XDSSocket       = "xds.sock"         // isthmus: the control plane
	ExtProcSocket   = "extproc.sock"     // isthmus: external processing
	EmulationSocket = "emulation.sock"   // isthmus: the API before the orchestrator for callers of another type
	BridgeSocket    = "bridge.sock"      // isthmus: operations of several calls, and converted streams
	PeeringSocket   = "peering.sock"     // isthmus: the peering service
	JoinSocket      = "join.sock"        // isthmus: invitations are redeemed
	ALSSocket       = "access-log.sock"  // isthmus: how requests ended that it let through
	AdminSocket     = "envoy-admin.sock" // Envoy: its admin interface
)

// Metadata is the namespace of what a decision was about, in route metadata where routes decide and in dynamic
// metadata where external processing does.
const Metadata = "isthmus"

// Keys within Metadata. The access log writes them.
const (
	MetadataKind     = "kind"
	MetadataPeer     = "peer"
	MetadataCaller   = "caller"
	MetadataVerb     = "verb"
	MetadataObject   = "object"
	MetadataDecision = "decision"
	MetadataRule     = "rule"
	MetadataUpstream = "upstream"
	MetadataSwitched = "switched" // by HeaderSwitched the answer's reader is told
)

// HeaderExchange is set on a request by external processing when it will rewrite the answer, and on that answer when
// it has. A request that carries it gets no answer that does not: the native one must not pass if external processing
// is gone in between. Its value does not matter.
const HeaderExchange = OwnPrefix + "exchange"

// HeaderHide is set by external processing on a request whose answer crosses unread and must show no address: an answer by
// which the orchestrator says that it failed is replaced. Its value is one of the two below.
const HeaderHide = OwnPrefix + "hide"

// What of an orchestrator's failures is its own: all of them, or where it stands before somebody else's server those of
// not reaching that.
const (
	HideFailures    = "failures"
	HideUnreachable = "unreachable"
)

// HeaderHold is set by external processing on a request that Envoy carries alone and that counts against a limit until it
// ends. Envoy follows it with a stream of external processing that names it.
const HeaderHold = OwnPrefix + "hold"

// LongestDecision is how long external processing may take where it knows that a decision takes longer than others. Envoy waits
// a while more, so that a late one is refused in the caller's words.
const LongestDecision = 5 * time.Minute

// MetadataHold is the key within the metadata of a stream of external processing that follows such a request.
const MetadataHold = "isthmus-hold"

// Details are the response code details of an answer that external processing gave. Envoy's own answers are put into
// the gateway's words; one with these details is left as it is.
const Details = "isthmus"

// MetadataEdge is the key within the metadata of a stream of external processing under which Envoy names the edge that
// a caller of this cluster came in by. Streams of the peer link have none.
const MetadataEdge = "isthmus-edge"

// Edge is the edge for services and containers of all peers.
const Edge = "edge"

// edgeAPI begins the names of the edges of peers' orchestrator APIs.
const edgeAPI = "api/"

// APIEdge is the edge of a peer's orchestrator API.
func APIEdge(peer string) string { return edgeAPI + peer }

// APIEdgePeer is the peer of such an edge.
func APIEdgePeer(edge string) (peer string, ok bool) { return strings.CutPrefix(edge, edgeAPI) }

// HeaderCertificate is the header in which Envoy writes the client's certificates at the edges, and nobody else does.
const HeaderCertificate = "x-forwarded-client-cert"
