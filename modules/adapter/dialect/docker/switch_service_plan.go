package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const labelSwarmTask = "com.docker.swarm.task.id"

// The parts of the time that a service's container is away.
const (
	stopGrace   = 10 * time.Second // an engine's own, for a process that does not end when it is told to
	startTime   = 2 * time.Second
	healthDelay = 30 * time.Second // an engine's own
)

// serviceView is a service with what else its switch depends on.
type serviceView struct {
	service  swarm.Service
	whole    bool // the spec was read whole
	task     swarm.Task
	found    container.InspectResponse // the target's
	where    location
	self     node
	nodes    []swarm.Node
	running  []swarm.Task
	services []swarm.Service
	networks map[string]string // names by id
	changed  []string          // files beside its volumes that containers on this node changed
	image    string            // the id of what its image is on this node now; "" where it is not there
	taken    map[uint16]string // who has a port of this node
	want     map[uint16]bool   // TCP ports that the container has
	target   string            // the id of the network to join
}

// planServiceSwitch plans for the whole service: a swarm makes the containers of its tasks itself, so none of them is
// touched but by their service.
func (c *Cluster) planServiceSwitch(ctx context.Context, _ string, ref neutral.TargetRef, need neutral.NetworkNeed,
	found container.InspectResponse) (neutral.SwitchPlan, error) {
	v := serviceView{found: found}
	var err error
	if v.self, err = c.node(ctx); err != nil {
		return neutral.SwitchPlan{}, faultOf(err)
	}
	if ref.Node != "" && !v.self.is(ref.Node) {
		return neutral.SwitchPlan{}, fault.New(fault.Conflict, "container %s runs on node %s, not on %s", strings.TrimPrefix(found.Name, "/"), v.self.name, ref.Node)
	}
	labels := found.Config.Labels
	if v.where, err = c.place(ctx, found.ID, string(found.HostConfig.NetworkMode), found.NetworkSettings.Networks, &gateways{cluster: c}); err != nil {
		return neutral.SwitchPlan{}, faultOf(err)
	}
	if !v.self.manager {
		return neutral.SwitchPlan{Object: objectFrom(neutral.KindWorkload, labels[labelSwarmServiceName], labels), From: v.where.mode, To: need.Mode,
			Refusals: []string{"the container is of a service of a swarm that this node does not manage: the gateway of a manager can switch it"}}, nil
	}
	if err := c.viewService(ctx, &v, need); err != nil {
		return neutral.SwitchPlan{}, faultOf(err)
	}
	return v.plan(need)
}

// viewService reads all that a plan depends on.
func (c *Cluster) viewService(ctx context.Context, v *serviceView, need neutral.NetworkNeed) error {
	labels := v.found.Config.Labels
	inspected, err := c.api.ServiceInspect(ctx, labels[labelSwarmService], client.ServiceInspectOptions{})
	if err != nil {
		return err
	}
	v.service, v.whole = inspected.Service, wholeSpec(inspected.Service, inspected.Raw)
	task, err := c.api.TaskInspect(ctx, labels[labelSwarmTask], client.TaskInspectOptions{})
	if err != nil && !cerrdefs.IsNotFound(err) { // a swarm forgets tasks that ended
		return err
	}
	v.task = task.Task
	if v.running, err = c.runningTasks(ctx, v.service.ID, false); err != nil {
		return err
	}
	nodes, err := c.api.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return err
	}
	v.nodes = nodes.Items
	services, err := c.api.ServiceList(ctx, client.ServiceListOptions{})
	if err != nil {
		return err
	}
	v.services = services.Items
	networks, err := c.api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return err
	}
	v.networks = map[string]string{}
	for _, n := range networks.Items {
		v.networks[n.ID] = n.Name
	}
	if v.changed, err = c.serviceFiles(ctx, v); err != nil {
		return err
	}
	if spec := v.service.Spec.TaskTemplate.ContainerSpec; spec != nil {
		image, err := c.api.ImageInspect(ctx, spec.Image)
		if err != nil && !cerrdefs.IsNotFound(err) {
			return err
		}
		v.image = image.ID
	}
	name := "bridge"
	if need.Mode == neutral.NetworkHost {
		name = "host"
	}
	target, err := c.api.NetworkInspect(ctx, name, client.NetworkInspectOptions{Scope: "swarm"})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return err
	}
	v.target = target.Network.ID
	v.want = servicePorts(v, need)
	if need.Mode == neutral.NetworkHost {
		v.taken, err = c.takenPorts(ctx, v)
	}
	return err
}

// runningTasks are the tasks that a swarm wants to run of a service; current ones are of its newest spec.
func (c *Cluster) runningTasks(ctx context.Context, service string, current bool) ([]swarm.Task, error) {
	filters := make(client.Filters).Add("service", service).Add("desired-state", string(swarm.TaskStateRunning))
	if current {
		filters.Add(filterUpToDate, "true")
	}
	list, err := c.api.TaskList(ctx, client.TaskListOptions{Filters: filters})
	return list.Items, err
}

// plan says what a switch of the service takes.
func (v *serviceView) plan(need neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	spec := v.service.Spec
	plan := neutral.SwitchPlan{Object: objectFromAnnotations(neutral.KindWorkload, spec.Annotations), From: v.where.mode, To: need.Mode}
	refuse := func(format string, args ...any) { plan.Refusals = append(plan.Refusals, fmt.Sprintf(format, args...)) }
	running := v.found.State != nil && v.found.State.Running
	beside := need.Mode == "" && running && !v.where.address.IsValid()
	switch need.Mode {
	case "":
		plan.To = plan.From
	case neutral.NetworkHost, neutral.NetworkBridge:
	case neutral.NetworkNone:
		refuse("a swarm has no containers without a network")
	default:
		refuse("a swarm's service runs in the mode host or bridge, not in %s", shorten(string(need.Mode)))
	}
	if !running || v.task.ID == "" || v.task.DesiredState != swarm.TaskStateRunning {
		refuse("the container does not run; what its service runs in its place is another one")
	}
	if plan.From == plan.To && !beside && len(plan.Refusals) == 0 {
		plan.Live = true
		return plan, nil
	}
	plan.Refusals = append(plan.Refusals, v.forbidden(need)...)
	change := serviceSwitch{Service: v.service.ID, Was: spec, Host: need.Mode == neutral.NetworkHost, Slot: v.task.Slot,
		Networks: []swarm.NetworkAttachmentConfig{{Target: v.target}}}
	if beside {
		change.Networks = append(slices.Clone(spec.TaskTemplate.Networks), change.Networks...)
	}
	replicated := spec.Mode.Replicated != nil
	if !replicated {
		change.Node = v.task.NodeID
	}
	change.Apart = change.Host && replicated && len(v.running) > 1
	if replicated && len(v.running) == 1 && len(v.nodes) > 1 {
		change.Pin = v.self.id
	}
	for _, task := range v.running {
		plan.Recreated = append(plan.Recreated, taskName(spec.Name, task))
	}
	slices.Sort(plan.Recreated)
	plan.Lost = v.lost(need, beside)
	plan.Away = v.away()
	native, err := json.Marshal(&change)
	if err != nil {
		return plan, fault.Wrap(fault.Internal, err, "the plan could not be written")
	}
	plan.Native = native
	return plan, nil
}

// forbidden is what stands against the switch of a service.
func (v *serviceView) forbidden(need neutral.NetworkNeed) []string {
	var all []string
	refuse := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	spec := v.service.Spec
	if spec.TaskTemplate.ContainerSpec == nil || spec.Mode.Replicated == nil && spec.Mode.Global == nil {
		refuse("the service is a job, whose containers are not made anew")
	}
	if !v.whole {
		refuse("the service has settings that this gateway does not know and could not give back")
	}
	if other := spec.Labels[labelSwitch]; other != "" {
		refuse("the service is in a switched mode already, of lease %s", shorten(other))
	}
	if status := v.service.UpdateStatus; status != nil {
		switch status.State {
		case swarm.UpdateStateUpdating, swarm.UpdateStateRollbackStarted:
			refuse("the service is in the middle of an update")
		case swarm.UpdateStatePaused, swarm.UpdateStateRollbackPaused:
			refuse("an update of the service stopped half way, and waits for whoever began it")
		}
	}
	if v.target == "" {
		refuse("the swarm has no network of this mode")
	}
	if image := spec.TaskTemplate.ContainerSpec; image != nil {
		switch v.image {
		case v.found.Image:
		case "":
			refuse("the image %s is not on the node any more: a container that is made anew might not start", image.Image)
		default:
			refuse("the image %s is another one now than the one that runs", image.Image)
		}
	}
	all = append(all, v.endangered(need)...)
	if need.Mode == neutral.NetworkHost {
		all = append(all, v.clashes()...)
	}
	return all
}

// endangered is what a container made anew would not have.
func (v *serviceView) endangered(need neutral.NetworkNeed) []string {
	var all []string
	discard := need.Layer == neutral.LayerDiscard
	if len(v.changed) > 0 && !discard {
		reason := fmt.Sprintf("its containers changed files beside their volumes (%s): they would be gone", fewOf(v.changed))
		if need.Layer == neutral.LayerCommit {
			reason += "; a swarm's service runs the image that it names, so they cannot be committed for it"
		}
		all = append(all, reason)
	}
	if anonymous := v.anonymous(); len(anonymous) > 0 && !discard {
		all = append(all, fmt.Sprintf("volumes without a name (%s) are not found again by a container that is made anew", fewOf(anonymous)))
	}
	if n := v.elsewhere(); n > 0 && !discard {
		all = append(all, fmt.Sprintf("%d of its containers run on other nodes: whether they changed files cannot be seen from here", n))
	}
	if local := v.localVolumes(); len(local) > 0 && v.usableNodes() > 1 && spread(v.service.Spec) {
		all = append(all, fmt.Sprintf("its volumes (%s) are the node's own and nothing holds it to the node: the swarm may start it elsewhere, without them", fewOf(local)))
	}
	return all
}

// clashes is what stands against the host's network.
func (v *serviceView) clashes() []string {
	var all []string
	for _, port := range inOrder(v.want) {
		if who := v.taken[port]; who != "" {
			all = append(all, fmt.Sprintf("port %d of the node is taken by %s", port, who))
		}
	}
	if v.service.Spec.Mode.Replicated == nil {
		return all
	}
	on := map[string]bool{}
	for _, task := range v.running {
		if on[task.NodeID] {
			return append(all, "two of its containers run on one node, where both would want the same port")
		}
		on[task.NodeID] = true
	}
	if replicas := v.service.Spec.Mode.Replicated.Replicas; replicas != nil && *replicas > uint64(max(v.usableNodes(), 1)) {
		all = append(all, fmt.Sprintf("%d containers on %d nodes would want the same port", *replicas, v.usableNodes()))
	}
	return all
}

// lost is what the switch costs.
func (v *serviceView) lost(need neutral.NetworkNeed, beside bool) []string {
	var all []string
	lose := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	spec := v.service.Spec
	if need.Layer == neutral.LayerDiscard {
		if len(v.changed) > 0 {
			lose("the files that its containers changed beside their volumes: %s", fewOf(v.changed))
		}
		if anonymous := v.anonymous(); len(anonymous) > 0 {
			lose("what is in volumes without a name: %s", fewOf(anonymous))
		}
		if n := v.elsewhere(); n > 0 {
			lose("files that %d containers on other nodes changed, if they did: it cannot be seen from here", n)
		}
	}
	for _, m := range v.mounts() {
		if m.Type == mount.TypeTmpfs {
			lose("what is in memory at %s", m.Target)
		}
	}
	var names []string
	for _, n := range spec.TaskTemplate.Networks {
		if name := v.networks[n.Target]; name != "" {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0 && !beside:
		lose("its place on the network %s: who reaches it there does not while it is switched, and finds it at another address afterwards", strings.Join(names, ", "))
	case v.where.mode == neutral.NetworkHost:
		lose("its place on the node's own network: who reaches it through the node does not while it is switched, but for published ports")
	}
	if need.Mode == neutral.NetworkHost {
		_, leave := publishedOnHost(spec.EndpointSpec)
		for _, p := range leave {
			how := "which every node of the swarm publishes"
			if p.PublishMode == swarm.PortConfigPublishModeHost {
				how = fmt.Sprintf("which its node maps to port %d", p.TargetPort)
			}
			if p.PublishedPort == 0 {
				lose("the port that the swarm chose for %d/%s, until it is back; it may be another one then", p.TargetPort, p.Protocol)
				continue
			}
			lose("port %d/%s, %s, until it is back", p.PublishedPort, p.Protocol, how)
		}
	}
	if v.service.PreviousSpec != nil {
		lose("what docker service rollback would have gone back to: afterwards it knows of the switch alone")
	}
	return all
}

// away is about how long a container of the service is not there when it is made anew.
func (v *serviceView) away() time.Duration {
	spec := v.service.Spec.TaskTemplate.ContainerSpec
	grace := stopGrace
	if spec != nil && spec.StopGracePeriod != nil {
		grace = *spec.StopGracePeriod
	}
	away := grace + startTime
	if health := v.found.Config.Healthcheck; health != nil && len(health.Test) > 0 && health.Test[0] != "NONE" {
		if health.Interval > 0 {
			return away + health.Interval
		}
		return away + healthDelay
	}
	return away
}

// anonymous are the places of volumes that have no name of the user's.
func (v *serviceView) anonymous() []string {
	var all []string
	for _, m := range v.found.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if !slices.ContainsFunc(v.mounts(), func(own mount.Mount) bool {
			return path.Clean(own.Target) == path.Clean(m.Destination) && own.Source != ""
		}) {
			all = append(all, m.Destination)
		}
	}
	slices.Sort(all)
	return all
}

func (v *serviceView) mounts() []mount.Mount {
	if spec := v.service.Spec.TaskTemplate.ContainerSpec; spec != nil {
		return spec.Mounts
	}
	return nil
}

// localVolumes are the named volumes that other nodes would not have.
func (v *serviceView) localVolumes() []string {
	var all []string
	for _, m := range v.mounts() {
		driver := (*mount.Driver)(nil)
		if m.VolumeOptions != nil {
			driver = m.VolumeOptions.DriverConfig
		}
		if m.Type == mount.TypeVolume && m.Source != "" && (driver == nil || (driver.Name == "" || driver.Name == "local") && len(driver.Options) == 0) {
			all = append(all, m.Source)
		}
	}
	return all
}

// elsewhere counts the containers that another engine has.
func (v *serviceView) elsewhere() int {
	n := 0
	for _, task := range v.running {
		if task.NodeID != v.self.id {
			n++
		}
	}
	return n
}

func (v *serviceView) usableNodes() int {
	n := 0
	for _, one := range v.nodes {
		if one.Status.State == swarm.NodeStateReady && one.Spec.Availability == swarm.NodeAvailabilityActive {
			n++
		}
	}
	return n
}

// spread tells that a service's containers may come to run on another node.
func spread(spec swarm.ServiceSpec) bool {
	if spec.Mode.Replicated == nil {
		return false
	}
	placement := spec.TaskTemplate.Placement
	return placement == nil || !slices.ContainsFunc(placement.Constraints, func(constraint string) bool {
		key, _, equal := strings.Cut(strings.ReplaceAll(constraint, " ", ""), "==")
		return equal && (key == "node.id" || key == "node.hostname")
	})
}

// servicePorts are the TCP ports on which the service's containers are taken to listen.
func servicePorts(v *serviceView, need neutral.NetworkNeed) map[uint16]bool {
	wanted := map[uint16]bool{}
	if need.Port != 0 {
		wanted[need.Port] = true
	}
	for port := range v.found.Config.ExposedPorts {
		if port.Proto() == network.TCP {
			wanted[port.Num()] = true
		}
	}
	if endpoint := v.service.Spec.EndpointSpec; endpoint != nil {
		for _, p := range endpoint.Ports {
			if p.Protocol == network.TCP && p.TargetPort <= 1<<16-1 {
				wanted[uint16(p.TargetPort)] = true
			}
		}
	}
	return wanted
}

func inOrder(ports map[uint16]bool) []uint16 {
	all := make([]uint16, 0, len(ports))
	for port := range ports {
		all = append(all, port)
	}
	slices.Sort(all)
	return all
}

// fewNames is how many names a sentence holds.
const fewNames = 5

func fewOf(names []string) string {
	if len(names) <= fewNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:fewNames], ", "), len(names)-fewNames)
}
