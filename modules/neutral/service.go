package neutral

import (
	"net/netip"
	"slices"
	"strings"
)

// Service is an entry of the catalogue: something that a peer may query by its id.
type Service struct {
	Namespace string
	Name      string
	Labels    map[string]string
	Ports     []ServicePort // sorted by number; the first is the default
}

// ServicePort is one port of a service with the endpoints that serve it now. Endpoints never cross to a peer.
type ServicePort struct {
	Name      string
	Number    uint16
	Protocol  string // tcp, udp, sctp
	App       AppProtocol
	Endpoints []netip.AddrPort // sorted; only those that are ready
}

// AppProtocol is what a port speaks above its transport.
type AppProtocol string

// The application protocols that routes tell apart.
const (
	HTTP1 AppProtocol = "http" // HTTP/1.1; WebSocket included
	HTTP2 AppProtocol = "h2c"  // HTTP/2 with prior knowledge
	GRPC  AppProtocol = "grpc" // HTTP/2 with prior knowledge
	TCP   AppProtocol = "tcp"  // anything else
)

// ID is the service's id in its cluster's catalogue, "<service>.<namespace>".
func (s Service) ID() string { return s.Name + "." + s.Namespace }

// Equal compares what routes are made of.
func (s Service) Equal(o Service) bool {
	if s.Name != o.Name || s.Namespace != o.Namespace || len(s.Ports) != len(o.Ports) || len(s.Labels) != len(o.Labels) {
		return false
	}
	for k, v := range s.Labels {
		if w, ok := o.Labels[k]; !ok || w != v {
			return false
		}
	}
	return slices.EqualFunc(s.Ports, o.Ports, func(a, b ServicePort) bool {
		return a.Name == b.Name && a.Number == b.Number && a.Protocol == b.Protocol && a.App == b.App &&
			slices.Equal(a.Endpoints, b.Endpoints)
	})
}

// AppProtocolOf reads the application protocol from a Kubernetes appProtocol, a label's value or a port's name.
func AppProtocolOf(word string) AppProtocol {
	switch w := strings.ToLower(word); {
	case w == "grpc" || strings.HasPrefix(w, "grpc-"):
		return GRPC
	case w == "kubernetes.io/h2c" || w == "h2c" || w == "http2" || strings.HasPrefix(w, "http2-"):
		return HTTP2
	case w == "tcp" || strings.HasPrefix(w, "tcp-"):
		return TCP
	}
	return HTTP1
}

// Target is a container that an access wants to reach, as its orchestrator has it now.
type Target struct {
	Object    Object      // labels included
	Container string      // the one of Object, where that is a Pod and one of its containers is meant
	Network   NetworkMode // the mode it runs in
	Node      string      // the host that runs it
	Address   netip.Addr  // reachable from this gateway; invalid where no network reaches it
	Running   bool
}

// TargetRef names the container that an access wants.
type TargetRef struct {
	Namespace string
	Pod       string // Kubernetes: the pod; empty on engines
	Container string // the container; on Kubernetes empty for the pod as a whole
	Node      string // the host, when the caller gave it
	Port      uint16
}
