// Package peering is what the gateways of two clusters know of each other: identities, configurations, protocol
// versions. Its subpackages are the parts of the link: session (the handshake as a pure machine), stream (gRPC),
// tracker (each peer's state, watched), store (what survives a restart) and trust (certificates).
package peering

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// ProtocolVersion is a version of the peering protocol. Within a major one, a newer minor only adds.
type ProtocolVersion struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// String is major.minor.
func (v ProtocolVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v ProtocolVersion) before(w ProtocolVersion) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// ProtocolRange is what a gateway can speak, from the oldest version to its current one.
type ProtocolRange struct {
	Current ProtocolVersion `json:"current"`
	Oldest  ProtocolVersion `json:"oldest"`
}

// Protocol is what this gateway speaks.
var Protocol = ProtocolRange{Current: ProtocolVersion{Major: 1}, Oldest: ProtocolVersion{Major: 1}}

// Negotiate is the newest version that both speak; false when there is none.
func (r ProtocolRange) Negotiate(with ProtocolRange) (ProtocolVersion, bool) {
	v := r.Current
	if with.Current.before(v) {
		v = with.Current
	}
	return v, !v.before(r.Oldest) && !v.before(with.Oldest)
}

// Orchestrator is what runs a cluster's containers.
type Orchestrator struct {
	Type        neutral.Orchestrator `json:"type"`
	Version     string               `json:"version,omitempty"`
	APIVersions []string             `json:"apiVersions,omitempty"`
}

// Configuration is what a gateway tells its peers of its cluster. A Configuration is never changed once made; whoever
// wants another makes another.
type Configuration struct {
	// Revision grows with each change within a boot. The session sets it.
	Revision         uint64        `json:"revision"`
	Identity         Identity      `json:"identity"`
	Orchestrator     Orchestrator  `json:"orchestrator"`
	Software         string        `json:"software"`
	Protocol         ProtocolRange `json:"protocol"`
	Features         []string      `json:"features,omitempty"`
	CatalogueVersion string        `json:"catalogueVersion,omitempty"`
	GatewayAddresses []string      `json:"gatewayAddresses,omitempty"`
	// Bundle is the trust bundle that the receiver is to take. Once taken it is kept by package trust, not here.
	Bundle SignedBundle `json:"-"`
	// Trusts are the fingerprints of the receiver's authorities that this gateway's Envoy accepts now.
	Trusts []string `json:"trusts,omitempty"`
}

// FeatureTrustBundle is offered by a gateway that takes its peers' changed trust bundles over the link.
const FeatureTrustBundle = "trust-bundle"

// SignedBundle is a trust bundle as it travels between gateways; the zero one is none. Package trust makes it and
// judges it.
type SignedBundle struct {
	Text      string
	Signature []byte
	// Signers are certificates (DER) from the one whose key signed up to one that the receiver trusts already; none where
	// that one signed itself.
	Signers [][]byte
}

// Same tells whether two are equal.
func (b SignedBundle) Same(c SignedBundle) bool {
	return b.Text == c.Text && bytes.Equal(b.Signature, c.Signature) && slices.EqualFunc(b.Signers, c.Signers, bytes.Equal)
}

// Same tells whether two configurations say the same, whatever their revisions.
func (c Configuration) Same(d Configuration) bool {
	return c.Identity == d.Identity && c.Software == d.Software && c.Protocol == d.Protocol &&
		c.CatalogueVersion == d.CatalogueVersion && c.Orchestrator.Type == d.Orchestrator.Type &&
		c.Orchestrator.Version == d.Orchestrator.Version &&
		slices.Equal(c.Orchestrator.APIVersions, d.Orchestrator.APIVersions) &&
		slices.Equal(c.Features, d.Features) && slices.Equal(c.GatewayAddresses, d.GatewayAddresses) &&
		c.Bundle.Same(d.Bundle) && slices.Equal(c.Trusts, d.Trusts)
}

// SameGateway is Same, but for the catalogue.
func (c Configuration) SameGateway(d Configuration) bool {
	c.CatalogueVersion = d.CatalogueVersion
	return c.Same(d)
}

// Offers tells whether the gateway offers a feature.
func (c Configuration) Offers(feature string) bool { return slices.Contains(c.Features, feature) }

// Condition is how a peer is, in one word.
type Condition string

// The conditions of a peer. Only Ready and Stale hold a session.
const (
	Connecting Condition = "connecting" // no handshake has ended yet
	Ready      Condition = "ready"
	Stale      Condition = "stale"    // in session, but silent for longer than Timing.Stale
	Down       Condition = "down"     // was in session, and was silent for longer than Timing.Down
	Refused    Condition = "refused"  // one side will not peer with what the other says it is
	Departed   Condition = "departed" // the peer said goodbye
	Stopped    Condition = "stopped"  // this side said goodbye
)

// Conditions lists every condition, for metrics and help.
var Conditions = []Condition{Connecting, Ready, Stale, Down, Refused, Departed, Stopped}

// InSession tells whether both sides' isthmus are known to be there and to agree.
func (c Condition) InSession() bool { return c == Ready || c == Stale }
