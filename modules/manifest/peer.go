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
	Addresses     []string      `yaml:"addresses" format:"dial" doc:"host:port of the peer's gateway. Left out, the peer dials us."`
	ReverseTunnel ReverseTunnel `yaml:"reverseTunnel" doc:"For a link on which one side alone can be dialled: it leaves connections with the other, by which requests come back."`
	TrustDomain   string        `yaml:"trustDomain" format:"domain" derived:"<name>.<suffix of the Gateway>" doc:"The SPIFFE trust domain of the peer's certificate."`
	API           PeerAPI       `yaml:"api" doc:"A local listener that stands for the peer's orchestrator API."`
	Limits        Limits        `yaml:"limits" doc:"What the peer may ask of this cluster at a time. 0 is no limit."`
	Suspended     bool          `yaml:"suspended" default:"false" doc:"Nothing of a suspended peer passes, in either direction."`
}

// TunnelRole is what this gateway does for a link's reverse tunnels.
type TunnelRole string

// The roles.
const (
	TunnelNone   TunnelRole = "none"
	TunnelDial   TunnelRole = "dial"
	TunnelAccept TunnelRole = "accept"
)

// DefaultTunnels is how many tunnels are kept where a document says no number.
const DefaultTunnels = 16

// ReverseTunnel is how requests reach a gateway that nobody can dial.
type ReverseTunnel struct {
	Role        TunnelRole `yaml:"role" values:"none|dial|accept" default:"none" doc:"dial: the peer cannot dial this gateway, which dials spec.addresses and leaves tunnels there. accept: the peer leaves tunnels here, and has no addresses. The two documents of a link say one each."`
	Connections int        `yaml:"connections" default:"16" min:"1" max:"1024" doc:"How many tunnels the side that dials keeps with each address: at least as many as the other's Envoy has workers, and one for each 127 requests at once."`
}

// Limits bound a peer, so that neither it nor one of its callers takes what is there for all.
type Limits struct {
	RequestsPerSecond    int          `yaml:"requestsPerSecond" default:"0" min:"0" max:"1000000" doc:"Requests of every kind, service queries included, a second. Envoy counts them."`
	Burst                int          `yaml:"burst" default:"0" min:"0" max:"1000000" doc:"How many of them may come at once. 0 is as many as in a second."`
	ConcurrentRequests   int          `yaml:"concurrentRequests" default:"0" min:"0" max:"1000000" doc:"Requests of every kind under way, service queries and accesses included. Envoy counts them."`
	ConcurrentOperations int          `yaml:"concurrentOperations" default:"256" min:"0" max:"1000000" doc:"Operations on containers under way, whether they are translated or handed on."`
	ConcurrentStreams    int          `yaml:"concurrentStreams" default:"1024" min:"0" max:"1000000" doc:"Streams that are open: logs, events, watches, waits, terminals, execs, forwarded ports, files, and raw connections into containers."`
	BodySize             int          `yaml:"bodySize" default:"16" min:"1" max:"16" doc:"The size in MiB of a request that the gateway reads to translate it."`
	Caller               CallerLimits `yaml:"caller" doc:"The same for each caller that the peer names."`
}

// CallerLimits bound one caller of a peer.
type CallerLimits struct {
	RequestsPerSecond    int `yaml:"requestsPerSecond" default:"0" min:"0" max:"1000000" doc:"Requests of every kind a second."`
	Burst                int `yaml:"burst" default:"0" min:"0" max:"1000000" doc:"How many of them may come at once. 0 is as many as in a second."`
	ConcurrentOperations int `yaml:"concurrentOperations" default:"64" min:"0" max:"1000000" doc:"Operations under way."`
	ConcurrentStreams    int `yaml:"concurrentStreams" default:"256" min:"0" max:"1000000" doc:"Streams that are open."`
}

// PeerAPI is where this cluster's own callers reach a peer's orchestrator API.
type PeerAPI struct {
	Listen netip.AddrPort `yaml:"listen" format:"listen" doc:"ip:port of a TCP listener with TLS; a Docker cluster has it beside the Unix socket <runDir>/<peer>.sock. Who may come is said by spec.callers of the Gateway."`
	Names  []string       `yaml:"names" format:"host" doc:"Further DNS names and addresses by which callers reach the listener. localhost, loopback, the listener's own address and api.<peer>.<suffix> are known."`
	TLS    PeerAPITLS     `yaml:"tls" doc:"The certificate of the listener. Left out, one of the gateway's own authority for the names above; isthmus kubeconfig tells clients of it."`
}

// PeerAPITLS is a certificate from elsewhere.
type PeerAPITLS struct {
	CertFile string `yaml:"certFile" format:"path" doc:"A PEM file with the certificate and its chain. Read again when it changes."`
	KeyFile  string `yaml:"keyFile" format:"path" doc:"A PEM file with its key."`
}
