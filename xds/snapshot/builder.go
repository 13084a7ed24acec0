package snapshot

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/resource"
)

// Builder builds the snapshots of one gateway one after the other. It keeps what it made of services that do not
// change, of which there may be thousands. The zero Builder is ready; its method is safe for concurrent use.
type Builder struct {
	mu           sync.Mutex
	names        naming
	services     map[string]*part // by id
	routes       Resource         // of the services as they are, with this upstream
	upstream     neutral.Upstream
	orchestrator neutral.Orchestrator
	limits       []Limit
}

// naming is what of the rest of a model is in a service's resources.
type naming struct {
	cluster, suffix string
	peers           map[string]string // names by SPIFFE id
}

// part is what one service becomes.
type part struct {
	service   Service
	clusters  []Resource
	endpoints []Resource
	hosts     []*routev3.VirtualHost
	fresh     bool // hosts were not in the routes yet
}

// Build makes the snapshot of a model that is valid.
func (b *Builder) Build(m Model) (*Snapshot, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	services, rejected := m.usable()
	d := &draft{resources: make(map[string][]Resource, len(Types))}
	d.edges(m)
	// Without a peer, or one that is invited, nobody may come in, so there is no listener.
	if m.Gateway.Peer != "" && (len(m.Peers) > 0 || m.Gateway.Joining) {
		peers := slices.SortedFunc(slices.Values(m.Peers), func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
		d.target(m, peers)
		if len(peers) > 0 {
			if err := b.add(d, m, services); err != nil {
				return nil, err
			}
		}
	}
	s, err := d.snapshot()
	if err != nil {
		return nil, err
	}
	s.Rejected = rejected
	return s, nil
}

// add puts the services and their routes into a draft.
func (b *Builder) add(d *draft, m Model, services []Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := naming{cluster: m.Gateway.Cluster, suffix: m.Gateway.Suffix, peers: make(map[string]string, len(m.Peers))}
	for _, p := range m.Peers {
		now.peers[p.ID] = p.Name
	}
	if now.cluster != b.names.cluster || now.suffix != b.names.suffix || !maps.Equal(now.peers, b.names.peers) {
		b.names, b.services = now, nil
	}
	if !slices.Equal(m.Gateway.Limits, b.limits) { // routes say which peers have none
		b.limits, b.services, b.routes = slices.Clone(m.Gateway.Limits), nil, Resource{}
	}
	had := b.services
	b.services = make(map[string]*part, len(services))
	fresh := len(had) != len(services)
	var hosts []*routev3.VirtualHost
	for _, s := range services {
		p, err := b.part(m.Gateway, s, had[s.ID()])
		if err != nil {
			return err
		}
		b.services[s.ID()] = p
		fresh = fresh || p.fresh
		p.fresh = false
		d.put(resourcev3.ClusterType, p.clusters...)
		d.put(resourcev3.EndpointType, p.endpoints...)
		hosts = append(hosts, p.hosts...)
	}
	if fresh || b.routes.Body == nil || b.upstream.Host != m.Upstream.Host || b.upstream.Socket != m.Upstream.Socket ||
		b.upstream.Address != m.Upstream.Address || b.orchestrator != m.Gateway.Orchestrator {
		r, err := encode(resourcev3.RouteType, resource.PeerRoutes(m.Gateway, hosts, m.Upstream))
		if err != nil {
			return err
		}
		b.routes, b.upstream, b.orchestrator = r, m.Upstream, m.Gateway.Orchestrator
	}
	d.put(resourcev3.RouteType, b.routes)
	return nil
}

// part makes what a service becomes, as far as what it was before is not that already.
func (b *Builder) part(g Gateway, s Service, was *part) (*part, error) {
	same := was != nil && shape(was.service, s)
	if same && slices.EqualFunc(was.service.Ports, s.Ports, func(p, q neutral.ServicePort) bool {
		return slices.Equal(p.Endpoints, q.Endpoints)
	}) {
		return was, nil
	}
	p := &part{service: clone(s)}
	if same {
		p.clusters, p.hosts = was.clusters, was.hosts
	} else {
		p.hosts, p.fresh = resource.ServiceHosts(g, s, b.names.peers), true
	}
	for i, port := range s.Ports {
		if !same {
			c, err := encode(resourcev3.ClusterType, resource.ServiceCluster(s.Service, port))
			if err != nil {
				return nil, err
			}
			p.clusters = append(p.clusters, c)
		}
		if same && slices.Equal(was.service.Ports[i].Endpoints, port.Endpoints) {
			p.endpoints = append(p.endpoints, was.endpoints[i])
			continue
		}
		e, err := encode(resourcev3.EndpointType, resource.Endpoints(s.Service, port))
		if err != nil {
			return nil, err
		}
		// A cluster that changed waits for its endpoints, and Envoy does not ask again for some that it has: they are
		// to be sent again.
		e.Version += p.clusters[i].Version
		p.endpoints = append(p.endpoints, e)
	}
	return p, nil
}

// clone keeps a service's state whatever becomes of the slices that it came in.
func clone(s Service) Service {
	s.Peers, s.ByCaller, s.Ports = slices.Clone(s.Peers), slices.Clone(s.ByCaller), slices.Clone(s.Ports)
	for i := range s.Ports {
		s.Ports[i].Endpoints = slices.Clone(s.Ports[i].Endpoints)
	}
	return s
}

// shape tells whether two states of a service differ in nothing but endpoints.
func shape(a, b Service) bool {
	return a.Name == b.Name && a.Namespace == b.Namespace && slices.Equal(a.Peers, b.Peers) &&
		slices.Equal(a.ByCaller, b.ByCaller) &&
		slices.EqualFunc(a.Ports, b.Ports, func(p, q neutral.ServicePort) bool {
			return p.Name == q.Name && p.Number == q.Number && p.Protocol == q.Protocol && p.App == q.App
		})
}
