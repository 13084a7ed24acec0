package resource

import (
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Gateway is this cluster's gateway. Addresses are "host:port" or the absolute path of a Unix socket.
type Gateway struct {
	Cluster string // this cluster's name
	Suffix  string // "" is names.DefaultSuffix
	ID      string // its SPIFFE id
	// Orchestrator is the type of what runs this cluster's containers. Requests that were decided for another one go
	// nowhere.
	Orchestrator neutral.Orchestrator
	// Emulation is for whose callers another API stands before it; "" for none.
	Emulation neutral.Orchestrator
	Peer      string // listener for peers; "" for none
	Edge      string // listener for callers of this cluster, plain HTTP; "" for none
	RunDir    string // of the Unix sockets between Envoy and isthmus
	AccessLog string // file; "" for none
	Tracing   Tracing
	Joining   bool // an invitation is open
	Limits    []Limit
	Callers   Callers
}

// Callers are this cluster's own.
type Callers struct {
	Authorities string // PEM, of their certificates; "" asks for none
	// Services and Accesses are open to callers that show no credential.
	Services, Accesses bool
}

// Limit bounds the requests of one peer, and of each caller that it names.
type Limit struct {
	Peer         string // its name
	Rate, Caller Rate
	Requests     uint32 // of the peer under way at a time; 0 is no limit
}

// Rate is a number of requests; the zero Rate is no limit.
type Rate struct {
	PerSecond uint32
	Burst     uint32 // at once; 0 is as many as in a second
}

// Tracing sends Envoy's spans to an OpenTelemetry collector. The zero Tracing is off.
type Tracing struct {
	Collector string  // OTLP over gRPC, "host:port" or the path of a Unix socket
	Percent   float64 // of requests that no caller sampled already
}

// Identity is what this gateway shows to its peers, in PEM.
type Identity struct{ Certificate, Key []byte }

// Peer is another cluster's gateway.
type Peer struct {
	Name        string
	Addresses   []string // host:port; empty while unknown
	Tunnels     Tunnels
	ID          string   // its SPIFFE id
	TrustDomain string   // of ID
	Bundle      []byte   // CA certificates of TrustDomain, PEM
	Ready       bool     // the handshake is done; until then only the peering service reaches it
	API         string   // listener for plain clients of its orchestrator's API; "" for none
	APINames    []string // further names and addresses by which clients know that listener
	APIIdentity Identity // what it shows in TLS; without a certificate it speaks none
}

// Service is an exported service of this cluster with the peers that may query it.
type Service struct {
	neutral.Service
	Peers []string // SPIFFE ids
	// ByCaller are the SPIFFE ids of peers of which some callers may query it: external processing decides.
	ByCaller []string
}

// Access is a listener of raw TCP that leads to one container, or to one TCP port of a service, of a peer.
type Access struct {
	Name        string
	Listen      string
	Peer        string // its name
	Authority   string // "db-0.shop.ctr.east.isthmus.internal:5432"
	Caller      string // names.HeaderCaller; "" for none
	Node        string // names.HeaderNode; "" for none
	NetworkMode string // names.HeaderNetworkMode; "" for none
	Layer       string // names.HeaderLayer; "" for none
}

// suffix is the gateway's name suffix.
func (g Gateway) suffix() string {
	if g.Suffix == "" {
		return names.DefaultSuffix
	}
	return strings.ToLower(g.Suffix)
}

// socket is the path of one of names' sockets.
func (g Gateway) socket(name string) string { return filepath.Join(g.RunDir, name) }
