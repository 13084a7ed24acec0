package docker

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Labels by which a user exports what an engine runs.
const (
	labelExport   = "isthmus.io/export"
	labelService  = "isthmus.io/service"
	labelPorts    = "isthmus.io/ports"
	labelProtocol = "isthmus.io/protocol"

	exportTrue = "true"
)

var exported = make(client.Filters).Add("label", labelExport+"="+exportTrue)

// inventory is what an engine holds of the catalogue, as it was read last.
type inventory struct {
	log     *slog.Logger
	exports []export
	remote  bool                       // tasks on other nodes count
	exposed map[string]network.PortSet // by container id, where the list does not show them
	dead    map[string]bool            // died, though an engine still lists them for a moment
	cycle   int                        // counts readings
	said    map[string]int             // what was logged, with the reading that it held in last
}

func newInventory(log *slog.Logger) *inventory {
	return &inventory{log: log, exposed: map[string]network.PortSet{}, dead: map[string]bool{}, said: map[string]int{}}
}

// resync is how long the inventory can be trusted without an event.
func (i *inventory) resync() time.Duration {
	if i.remote {
		return swarmResync
	}
	return resync
}

// services is the catalogue of what was read.
func (i *inventory) services() []neutral.Service { return compile(i.exports, i.complain) }

// complain logs something once, as long as it lasts.
func (i *inventory) complain(about, message string) {
	key := about + "\x00" + message
	if last, known := i.said[key]; !known || last < i.cycle-1 {
		i.log.Warn(message, "object", about)
	}
	i.said[key] = i.cycle
}

// drop takes a container out. An engine reports a death before its list knows of it, so the container stays out until
// it starts again or the list has lost it.
func (i *inventory) drop(id string) (changed bool) {
	i.dead[id] = true
	for e := range i.exports {
		before := len(i.exports[e].members)
		i.exports[e].members = slices.DeleteFunc(i.exports[e].members, func(m member) bool { return m.id == id })
		changed = changed || len(i.exports[e].members) != before
	}
	i.exports = slices.DeleteFunc(i.exports, func(e export) bool { return !e.standing && len(e.members) == 0 })
	return changed
}

// suspend keeps a container that must not be asked for now.
func (i *inventory) suspend(id string) (changed bool) {
	for e := range i.exports {
		for m := range i.exports[e].members {
			if i.exports[e].members[m].id == id && i.exports[e].members[m].ready {
				i.exports[e].members[m].ready, changed = false, true
			}
		}
	}
	return changed
}

// read lists the engine. The inventory changes only as a whole.
func (i *inventory) read(ctx context.Context, c *Cluster) error {
	i.cycle++
	maps.DeleteFunc(i.said, func(_ string, last int) bool { return last < i.cycle-2 })
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{Filters: exported})
	if err != nil {
		return err
	}
	swarm, err := readSwarm(ctx, c)
	if err != nil {
		return err
	}
	if len(list.Items) == 0 && len(swarm.services) == 0 {
		i.exports, i.remote = nil, false
		clear(i.exposed)
		clear(i.dead)
		return nil
	}
	reading := reading{inventory: i, cluster: c, gateways: &gateways{cluster: c}, exposed: map[string]network.PortSet{}}
	var exports []export
	living := i.living(list.Items, swarm)
	for _, summary := range living {
		if swarm.holds(summary.Labels[labelSwarmService]) {
			continue // exported by its service, which counts its tasks
		}
		if holderOf(summary.Labels, summary.HostConfig.NetworkMode) != "" {
			continue // its Pod's holder stands for it
		}
		e, ok, err := reading.container(ctx, summary)
		if err != nil {
			return err
		}
		if ok && holds(summary.Labels) && !podReady(summary, living) {
			e.members[0].ready = false
		}
		if ok {
			exports = append(exports, e)
		}
	}
	services, err := reading.swarm(ctx, swarm)
	if err != nil {
		return err
	}
	i.exports, i.remote, i.exposed = slices.Concat(exports, services), swarm.remote(), reading.exposed
	return nil
}

// living are the listed containers without those that died, which leave the swarm's as well.
func (i *inventory) living(listed []container.Summary, swarm swarmReading) []container.Summary {
	dead := map[string]bool{}
	lives := func(s container.Summary) bool {
		if i.dead[s.ID] {
			dead[s.ID] = true
			return false
		}
		return s.State == container.StateRunning || s.State == container.StatePaused
	}
	maps.DeleteFunc(swarm.containers, func(_ string, s container.Summary) bool { return !lives(s) })
	living := slices.DeleteFunc(slices.Clone(listed), func(s container.Summary) bool { return !lives(s) })
	i.dead = dead
	return living
}

// reading is one listing in progress.
type reading struct {
	inventory *inventory
	cluster   *Cluster
	gateways  *gateways
	exposed   map[string]network.PortSet
}

// container reads an exported container; ok false leaves it out.
func (r reading) container(ctx context.Context, summary container.Summary) (export, bool, error) {
	if strings.EqualFold(summary.Labels[labelComposeOneOff], "true") {
		return export{}, false, nil // "compose run": a visitor of the service, not one of it
	}
	name := containerName(summary)
	namespace := namespaceOf(summary.Labels)
	about := namespace + "/" + name
	ports, app, ok := r.labelledPorts(summary.Labels, about)
	if !ok {
		return export{}, false, nil
	}
	if ports == nil {
		var err error
		if ports, err = r.exposedPorts(ctx, summary, app); err != nil {
			return export{}, false, err
		}
	}
	m, err := r.member(ctx, summary, about)
	if err != nil {
		return export{}, false, err
	}
	return export{namespace: namespace, name: name, labels: summary.Labels, ports: ports, members: []member{m}}, true, nil
}

// labelledPorts reads the labels about ports; ok false leaves the export out, and says so.
func (r reading) labelledPorts(labels map[string]string, about string) (ports []exportPort, app neutral.AppProtocol, ok bool) {
	ports, app, err := portsFromLabels(labels)
	if err != nil {
		r.inventory.complain(about, "an export's labels about ports cannot be read: "+err.Error())
	}
	return ports, app, err == nil
}

// member is a container as it can be reached now.
func (r reading) member(ctx context.Context, summary container.Summary, about string) (member, error) {
	m := member{id: summary.ID, ready: isReady(summary)}
	var networks map[string]*network.EndpointSettings
	if summary.NetworkSettings != nil {
		networks = summary.NetworkSettings.Networks
	}
	where, err := r.cluster.place(ctx, summary.ID, summary.HostConfig.NetworkMode, networks, r.gateways)
	if err != nil {
		return member{}, err
	}
	m.address = where.address
	switch {
	case m.address.IsValid():
	case where.mode == neutral.NetworkNone:
		r.inventory.complain(about, "an exported container has the network mode none; it has no endpoint")
	default:
		if m.published = publishedBy(summary.Ports); len(m.published) == 0 {
			r.inventory.complain(about, "an exported container is on no network that this host reaches, and publishes no port")
		}
	}
	return m, nil
}

// exposedPorts are those of the list, or of the container's own configuration: a container without a network of its own
// lists none. A configuration never changes, so it is read once.
func (r reading) exposedPorts(ctx context.Context, summary container.Summary, app neutral.AppProtocol) ([]exportPort, error) {
	if ports := portsFromSummary(summary.Ports, app); len(ports) > 0 {
		return ports, nil
	}
	exposed, known := r.inventory.exposed[summary.ID]
	if !known {
		inspected, err := r.cluster.api.ContainerInspect(ctx, summary.ID, client.ContainerInspectOptions{})
		switch {
		case cerrdefs.IsNotFound(err): // gone since the list was made; its event follows
			return nil, nil
		case err != nil:
			return nil, err
		}
		if inspected.Container.Config != nil {
			exposed = inspected.Container.Config.ExposedPorts
		}
	}
	r.exposed[summary.ID] = exposed
	return portsFromImage(exposed, app), nil
}

// containerName is the service that a container belongs to.
func containerName(summary container.Summary) string {
	for _, label := range []string{labelService, labelComposeService, labelSwarmServiceName} {
		if name := summary.Labels[label]; name != "" {
			if label == labelSwarmServiceName {
				return stackName(name, summary.Labels)
			}
			return name
		}
	}
	if len(summary.Names) == 0 {
		return summary.ID
	}
	return strings.TrimPrefix(summary.Names[0], "/")
}

// stackName is a swarm service's name inside its stack, as the stack's own containers call it.
func stackName(name string, labels map[string]string) string {
	if stack := labels[labelStack]; stack != "" {
		return strings.TrimPrefix(name, stack+"_")
	}
	return name
}

// isReady tells whether a container runs and, where it has a health check, is well. API versions before 1.52 say so in
// words only.
func isReady(summary container.Summary) bool {
	if summary.State != container.StateRunning {
		return false
	}
	if summary.Health != nil && summary.Health.Status != "" {
		return summary.Health.Status == container.Healthy || summary.Health.Status == container.NoHealthcheck
	}
	return !strings.Contains(summary.Status, "(unhealthy)") && !strings.Contains(summary.Status, "(health: starting)")
}

// publishedBy are the host's ports that lead to a container.
func publishedBy(ports []container.PortSummary) map[socket]netip.AddrPort {
	published := map[socket]netip.AddrPort{}
	for _, p := range ports {
		if p.PublicPort == 0 {
			continue
		}
		address := p.IP
		if !address.IsValid() || address.IsUnspecified() {
			address = loopback
		}
		key := socket{p.PrivatePort, p.Type}
		if _, known := published[key]; !known || address == loopback {
			published[key] = netip.AddrPortFrom(address, p.PublicPort)
		}
	}
	return published
}
