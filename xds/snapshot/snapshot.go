// Package snapshot turns the model of a gateway into Envoy's configuration: sorted, consistent, and versioned by its
// content, so that the same model gives the same bytes and a restarted control plane changes nothing.
package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/resource"
)

// Types are the resource types, in the order in which Envoy must learn of additions.
var Types = []string{
	resourcev3.SecretType, resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ExtensionConfigType, resourcev3.ListenerType,
	resourcev3.RouteType,
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
func Build(m Model) (*Snapshot, error) { return new(Builder).Build(m) }

// draft gathers resources by type.
type draft struct {
	resources map[string][]Resource
	err       error
}

// add encodes a message.
func (d *draft) add(typeURL string, messages ...proto.Message) {
	for _, m := range messages {
		r, err := encode(typeURL, m)
		if err != nil {
			d.err = err
			return
		}
		d.put(typeURL, r)
	}
}

func (d *draft) put(typeURL string, r ...Resource) {
	d.resources[typeURL] = append(d.resources[typeURL], r...)
}

func encode(typeURL string, m proto.Message) (Resource, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("encode %s: %w", nameOf(m), err)
	}
	hash := sha256.Sum256(body)
	return Resource{
		Name: nameOf(m), Version: hex.EncodeToString(hash[:8]), Body: &anypb.Any{TypeUrl: typeURL, Value: body},
	}, nil
}

// edges are for callers of this cluster.
func (d *draft) edges(m Model) {
	g := m.Gateway
	d.add(resourcev3.ListenerType, resource.LocalListener(g))
	d.add(resourcev3.RouteType, resource.LocalRoutes(g, m.Peers))
	if g.Edge != "" {
		d.add(resourcev3.ListenerType, resource.EdgeListener(g))
		d.add(resourcev3.RouteType, resource.EdgeRoutes(g, m.Peers))
	}
	if len(m.Peers) > 0 || g.Joining {
		d.add(resourcev3.SecretType, resource.Certificate(resource.SecretIdentity, m.Identity.Certificate, m.Identity.Key))
	}
	callers := g.Edge != ""
	authorities := false
	for _, p := range m.Peers {
		d.add(resourcev3.ClusterType, resource.PeerCluster(g, p))
		d.add(resourcev3.SecretType, resource.Trust(p))
		if p.API != "" {
			d.add(resourcev3.ListenerType, resource.PeerAPIListener(g, p))
			d.add(resourcev3.RouteType, resource.PeerAPIRoutes(g, p))
			callers = true
			if i := p.APIIdentity; len(i.Certificate) > 0 {
				d.add(resourcev3.SecretType, resource.Certificate(resource.APISecret(p.Name), i.Certificate, i.Key))
				authorities = g.Callers.Authorities != ""
			}
		}
	}
	if authorities {
		d.add(resourcev3.SecretType, resource.CallerTrust(g.Callers.Authorities))
	}
	if callers || len(m.Peers) > 0 && g.Peer != "" {
		d.add(resourcev3.ClusterType, resource.LocalCluster(g, names.ExtProc, names.ExtProcSocket))
	}
	for _, a := range m.Accesses {
		d.add(resourcev3.ListenerType, resource.ContainerListener(g, a))
	}
	if g.Tracing.Collector != "" {
		d.add(resourcev3.ClusterType, resource.TracingCluster(g))
	}
}

// target is for what peers ask of this cluster, services aside.
func (d *draft) target(m Model, peers []Peer) {
	g := m.Gateway
	d.add(resourcev3.ListenerType, resource.PeerListener(g, peers))
	for _, p := range peers {
		if p.Tunnels.Dialled > 0 {
			d.add(resourcev3.ClusterType, resource.TunnelCluster(g, p))
			d.add(resourcev3.ListenerType, resource.TunnelListener(g, p))
		}
	}
	if g.Joining {
		d.add(resourcev3.ClusterType, resource.LocalCluster(g, names.Join, names.JoinSocket))
	}
	if len(peers) == 0 {
		return
	}
	for _, p := range peers {
		d.add(resourcev3.ExtensionConfigType, resource.PeerLimit(g, p), resource.PeerConcurrency(g, p))
	}
	for _, s := range resource.OrchestratorSecrets(m.Upstream) {
		d.add(resourcev3.SecretType, s)
	}
	d.add(resourcev3.ClusterType,
		resource.LocalCluster(g, names.Bridge, names.BridgeSocket),
		resource.LocalCluster(g, names.Peering, names.PeeringSocket),
		resource.LocalCluster(g, names.ALS, names.ALSSocket),
		resource.AccessCluster(),
	)
	if m.Upstream.Socket != "" || m.Upstream.Address != "" {
		d.add(resourcev3.ClusterType, resource.OrchestratorCluster(m.Upstream))
	}
	if g.Emulation != "" {
		d.add(resourcev3.ClusterType, resource.EmulationCluster(g))
	}
}

func (d *draft) snapshot() (*Snapshot, error) {
	if d.err != nil {
		return nil, d.err
	}
	s := &Snapshot{resources: d.resources}
	whole := sha256.New()
	for _, typeURL := range Types {
		resources := s.resources[typeURL]
		slices.SortFunc(resources, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
		for i, r := range resources {
			if i > 0 && resources[i-1].Name == r.Name {
				return nil, fmt.Errorf("two resources of type %s have the name %q", typeURL, r.Name)
			}
			for _, part := range [...]string{typeURL, " ", r.Name, " ", r.Version, "\n"} {
				_, _ = io.WriteString(whole, part)
			}
		}
	}
	s.Version = hex.EncodeToString(whole.Sum(nil)[:8])
	return s, nil
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
