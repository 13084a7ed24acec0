package docker

import (
	"context"
	"net/netip"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

const labelSwarmServiceName = "com.docker.swarm.service.name"

// swarmReading is what a manager tells of its exported services.
type swarmReading struct {
	services   []swarm.Service
	tasks      map[string][]swarm.Task // by service, those that should and do run
	containers map[string]container.Summary
	nodes      map[string]netip.Addr // by node id
	self       string                // this node's id
}

// readSwarm asks for the exported services. An engine that manages no swarm has none; a manager that cannot answer now
// (its swarm has no leader) is an error, for its services run on.
func readSwarm(ctx context.Context, c *Cluster) (swarmReading, error) {
	self, err := c.node(ctx)
	if err != nil || !self.manager {
		return swarmReading{}, err
	}
	list, err := c.api.ServiceList(ctx, client.ServiceListOptions{Filters: exported})
	if err != nil {
		if self, nodeErr := c.readNode(ctx); cerrdefs.IsUnavailable(err) && nodeErr == nil && !self.manager {
			return swarmReading{}, nil // not any more
		}
		return swarmReading{}, err
	}
	r := swarmReading{services: list.Items, tasks: map[string][]swarm.Task{}, containers: map[string]container.Summary{},
		nodes: map[string]netip.Addr{}, self: self.id}
	if len(r.services) == 0 {
		return r, nil
	}
	filter := make(client.Filters).Add("desired-state", string(swarm.TaskStateRunning))
	for _, s := range r.services {
		filter.Add("service", s.ID)
	}
	tasks, err := c.api.TaskList(ctx, client.TaskListOptions{Filters: filter})
	if err != nil {
		return swarmReading{}, err
	}
	for _, t := range tasks.Items {
		if t.Status.State == swarm.TaskStateRunning {
			r.tasks[t.ServiceID] = append(r.tasks[t.ServiceID], t)
		}
	}
	containers, err := c.api.ContainerList(ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("label", labelSwarmService)})
	if err != nil {
		return swarmReading{}, err
	}
	for _, s := range containers.Items {
		r.containers[s.ID] = s
	}
	return r, r.readNodes(ctx, c)
}

func (r swarmReading) readNodes(ctx context.Context, c *Cluster) error {
	nodes, err := c.api.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		if address, err := netip.ParseAddr(n.Status.Addr); err == nil && n.Status.State == swarm.NodeStateReady {
			r.nodes[n.ID] = address
		}
	}
	if address := r.nodes[r.self]; !address.IsValid() || address.IsUnspecified() {
		r.nodes[r.self] = loopback
	}
	return nil
}

// holds tells whether a service is exported as a whole.
func (r swarmReading) holds(id string) bool {
	for _, s := range r.services {
		if s.ID == id {
			return true
		}
	}
	return false
}

// remote tells whether a task on another node counts.
func (r swarmReading) remote() bool {
	for _, tasks := range r.tasks {
		for _, t := range tasks {
			if t.NodeID != r.self {
				return true
			}
		}
	}
	return false
}

// swarm makes exports of a manager's services.
func (r reading) swarm(ctx context.Context, s swarmReading) ([]export, error) {
	var exports []export
	for _, service := range s.services {
		e, ok, err := r.swarmService(ctx, s, service)
		if err != nil {
			return nil, err
		}
		if ok {
			exports = append(exports, e)
		}
	}
	return exports, nil
}

func (r reading) swarmService(ctx context.Context, s swarmReading, service swarm.Service) (export, bool, error) {
	labels := service.Spec.Labels
	e := export{namespace: namespaceOf(labels), name: stackName(service.Spec.Name, labels), labels: labels, standing: true}
	if name := labels[labelService]; name != "" {
		e.name = name
	}
	about := e.namespace + "/" + e.name
	ports, app, ok := r.labelledPorts(labels, about)
	if !ok {
		return export{}, false, nil
	}
	if e.ports = ports; ports == nil {
		e.ports = portsFromService(service.Endpoint.Ports, app)
	}
	var unreached bool
	for _, t := range s.tasks[service.ID] {
		m, ok, err := r.task(ctx, s, t, about)
		if err != nil {
			return export{}, false, err
		}
		if summary, local := s.containers[m.id]; local && ok && e.ports == nil {
			if m.ports, err = r.exposedPorts(ctx, summary, app); err != nil {
				return export{}, false, err
			}
		}
		if ok {
			e.members = append(e.members, m)
		}
		unreached = unreached || !ok || m.ready && !m.address.IsValid() && len(m.published) == 0
	}
	if unreached {
		if m, ok := meshMember(s, service); ok {
			e.members = append(e.members, m)
		} else {
			r.inventory.complain(about, "a task of an exported service is on another node and publishes no port")
		}
	}
	return e, true, nil
}

// task is one running task: its container where it runs here, the ports that its node publishes where it does not.
func (r reading) task(ctx context.Context, s swarmReading, t swarm.Task, about string) (member, bool, error) {
	var id string
	if t.Status.ContainerStatus != nil {
		id = t.Status.ContainerStatus.ContainerID
	}
	if t.NodeID == s.self {
		summary, running := s.containers[id]
		if !running {
			return member{id: id}, true, nil // it died, and its task will tell so in a moment
		}
		m, err := r.member(ctx, summary, about)
		return m, true, err
	}
	node := s.nodes[t.NodeID]
	published := map[socket]netip.AddrPort{}
	for _, p := range t.Status.PortStatus.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 && p.PublishedPort <= 65535 && node.IsValid() {
			published[socketOf(p)] = netip.AddrPortFrom(node, uint16(p.PublishedPort))
		}
	}
	return member{id: id, ready: true, published: published}, len(published) > 0, nil
}

// meshMember is the routing mesh: ports that every node publishes for tasks wherever they are.
func meshMember(s swarmReading, service swarm.Service) (member, bool) {
	published := map[socket]netip.AddrPort{}
	for _, p := range service.Endpoint.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeIngress && p.PublishedPort != 0 && p.PublishedPort <= 65535 {
			published[socketOf(p)] = netip.AddrPortFrom(s.nodes[s.self], uint16(p.PublishedPort))
		}
	}
	return member{ready: true, published: published}, len(published) > 0
}
