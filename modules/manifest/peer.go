package manifest

import "net/netip"

// Peer is another cluster's gateway.
type Peer struct {
	Metadata Metadata `yaml:"metadata" required:"true" doc:"The name is the peer's cluster name."`
	Spec     PeerSpec `yaml:"spec" doc:"How the peer is reached and what is offered of it here."`

	origin
}

// PeerSpec is a Peer's body.
type PeerSpec struct {
	Addresses   []string `yaml:"addresses" format:"dial" doc:"host:port of the peer's gateway. Left out, the peer dials us."`
	TrustDomain string   `yaml:"trustDomain" format:"domain" derived:"<name>.<suffix of the Gateway>" doc:"The SPIFFE trust domain of the peer's certificate."`
	API         PeerAPI  `yaml:"api" doc:"A local listener that stands for the peer's orchestrator API."`
	Suspended   bool     `yaml:"suspended" default:"false" doc:"Nothing of a suspended peer passes, in either direction."`
}

// PeerAPI is where this cluster's own callers reach a peer's orchestrator API.
type PeerAPI struct {
	Listen netip.AddrPort `yaml:"listen" format:"listen" doc:"ip:port of a TCP listener, beside the Unix socket <runDir>/<peer>.sock. Whoever reaches it is an unauthenticated caller; keep it on loopback."`
}
