// Package snapshot turns the model of a gateway into Envoy's configuration: sorted, consistent, and versioned by its
// content, so that the same model gives the same bytes and a restarted control plane changes nothing.
package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/resource"
)

// Types are the resource types, in the order in which Envoy must learn of additions.
var Types = []string{
	resourcev3.SecretType, resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType,
}

// Resource is one resource as it is sent.
type Resource struct {
	Name    string
	Version string // hash of Body; of endpoints, of their cluster's as well
	Body    *anypb.Any
}

// Snapshot is a whole configuration. It does not change.
type Snapshot struct {
	Version   string  // hash of all versions
	Rejected  []error // services that were left out, and why
	resources map[string][]Resource
}

// Resources are a type's resources, sorted by name. The slice is not to be changed.
func (s *Snapshot) Resources(typeURL string) []Resource { return s.resources[typeURL] }

// Build makes the snapshot of a model that is valid.
func Build(m Model) (*Snapshot, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	services, rejected := m.usable()
	b := builder{}
	b.edges(m)
	b.target(m, services)
	s, err := b.snapshot()
	if err != nil {
		return nil, err
	}
	s.Rejected = rejected
	return s, nil
}

// builder gathers resources by type.
type builder map[string][]proto.Message

func (b builder) clusters(c ...*clusterv3.Cluster) { add(b, resourcev3.ClusterType, c) }
func (b builder) endpoints(e ...*endpointv3.ClusterLoadAssignment) {
	add(b, resourcev3.EndpointType, e)
}
func (b builder) listeners(l ...*listenerv3.Listener)     { add(b, resourcev3.ListenerType, l) }
func (b builder) routes(r ...*routev3.RouteConfiguration) { add(b, resourcev3.RouteType, r) }
func (b builder) secrets(s ...*tlsv3.Secret)              { add(b, resourcev3.SecretType, s) }
func add[M proto.Message](b builder, typeURL string, messages []M) {
	for _, m := range messages {
		b[typeURL] = append(b[typeURL], m)
	}
}

// edges are for callers of this cluster.
func (b builder) edges(m Model) {
	g := m.Gateway
	b.listeners(resource.LocalListener(g))
	b.routes(resource.LocalRoutes(g, m.Peers))
	if g.Edge != "" {
		b.listeners(resource.EdgeListener(g))
		b.routes(resource.EdgeRoutes(g, m.Peers))
	}
	if len(m.Peers) > 0 {
		b.secrets(resource.Certificate(resource.SecretIdentity, m.Identity.Certificate, m.Identity.Key))
	}
	for _, p := range m.Peers {
		b.clusters(resource.PeerCluster(g, p))
		b.secrets(resource.Trust(resource.PeerSecret(p.Name), []Peer{p}))
		if p.API != "" {
			b.listeners(resource.PeerAPIListener(g, p))
			b.routes(resource.PeerAPIRoutes(g, p))
		}
	}
	for _, a := range m.Accesses {
		b.listeners(resource.ContainerListener(g, a))
	}
	if g.Tracing.Collector != "" {
		b.clusters(resource.TracingCluster(g))
	}
}

// target is for what peers ask of this cluster. Without a peer nobody may come in, so there is no listener.
func (b builder) target(m Model, services []Service) {
	g := m.Gateway
	if g.Peer == "" || len(m.Peers) == 0 {
		return
	}
	peers := slices.SortedFunc(slices.Values(m.Peers), func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	b.listeners(resource.PeerListener(g))
	b.routes(resource.PeerRoutes(g, peers, services, m.Upstream))
	b.secrets(resource.Trust(resource.SecretPeers, peers))
	b.secrets(resource.OrchestratorSecrets(m.Upstream)...)
	b.clusters(
		resource.LocalCluster(g, names.ExtProc, names.ExtProcSocket),
		resource.LocalCluster(g, names.Bridge, names.BridgeSocket),
		resource.LocalCluster(g, names.Peering, names.PeeringSocket),
		resource.AccessCluster(),
	)
	if m.Upstream.Socket != "" || m.Upstream.Address != "" {
		b.clusters(resource.OrchestratorCluster(m.Upstream))
	}
	for _, s := range services {
		for _, p := range s.Ports {
			b.clusters(resource.ServiceCluster(s.Service, p))
			b.endpoints(resource.Endpoints(s.Service, p))
		}
	}
}

func (b builder) snapshot() (*Snapshot, error) {
	s := &Snapshot{resources: make(map[string][]Resource, len(Types))}
	whole := sha256.New()
	for _, typeURL := range Types {
		resources := make([]Resource, 0, len(b[typeURL]))
		for _, m := range b[typeURL] {
			body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", nameOf(m), err)
			}
			hash := sha256.Sum256(body)
			resources = append(resources, Resource{
				Name: nameOf(m), Version: hex.EncodeToString(hash[:8]), Body: &anypb.Any{TypeUrl: typeURL, Value: body},
			})
		}
		slices.SortFunc(resources, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
		for i, r := range resources {
			if i > 0 && resources[i-1].Name == r.Name {
				return nil, fmt.Errorf("two resources of type %s have the name %q", typeURL, r.Name)
			}
		}
		s.resources[typeURL] = resources
	}
	s.follow()
	for _, typeURL := range Types {
		for _, r := range s.resources[typeURL] {
			fmt.Fprintf(whole, "%s %s %s\n", typeURL, r.Name, r.Version)
		}
	}
	s.Version = hex.EncodeToString(whole.Sum(nil)[:8])
	return s, nil
}

// follow makes the version of endpoints that of their cluster as well. A cluster that changed waits for its endpoints,
// and Envoy does not ask again for some that it has: they are to be sent again.
func (s *Snapshot) follow() {
	versions := make(map[string]string, len(s.resources[resourcev3.ClusterType]))
	for _, c := range s.resources[resourcev3.ClusterType] {
		versions[c.Name] = c.Version
	}
	endpoints := s.resources[resourcev3.EndpointType]
	for i, e := range endpoints {
		endpoints[i].Version = e.Version + versions[e.Name]
	}
}

func nameOf(m proto.Message) string {
	switch m := m.(type) {
	case *endpointv3.ClusterLoadAssignment:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return ""
}
