package docker

import (
	"context"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	defaultNamespace = "default"

	labelComposeProject = "com.docker.compose.project"
	labelComposeService = "com.docker.compose.service"
	labelComposeOneOff  = "com.docker.compose.oneoff"
	labelStack          = "com.docker.stack.namespace"
	labelSwarmService   = "com.docker.swarm.service.id"
	labelSwarmTaskName  = "com.docker.swarm.task.name"
)

// namespaceOf is the stack or the compose project that an object belongs to.
func namespaceOf(labels map[string]string) string {
	for _, label := range []string{labelStack, labelComposeProject} {
		if namespace := labels[label]; namespace != "" {
			return namespace
		}
	}
	return defaultNamespace
}

// Locate inspects each time: an address that is a moment old may be another container's.
func (c *Cluster) Locate(ctx context.Context, ref neutral.TargetRef) (neutral.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	name := ref.Container
	if ref.Pod != "" { // "web.1" reads as a container of a pod where a name has dots
		name = joinName(ref.Container, ref.Pod)
	}
	found, err := c.find(ctx, ref.Namespace, name)
	if err != nil {
		return neutral.Target{}, err
	}
	node, err := c.node(ctx)
	if err != nil {
		return neutral.Target{}, faultOf(err)
	}
	if ref.Node != "" && !node.is(ref.Node) {
		// The node that does run it is not named: names of nodes are often addresses.
		return neutral.Target{}, fault.New(fault.Conflict, "container %s does not run on node %s", name, ref.Node)
	}
	object, err := c.judged(ctx, found)
	if err != nil {
		return neutral.Target{}, err
	}
	return c.targetOf(ctx, found, object, node, &gateways{cluster: c})
}

// targetOf is an inspected container as the target of an access.
func (c *Cluster) targetOf(ctx context.Context, found container.InspectResponse, object neutral.Object, node node, g *gateways) (neutral.Target, error) {
	target := neutral.Target{
		Object:  object,
		Node:    node.name,
		Running: found.State != nil && found.State.Running && !found.State.Paused && !found.State.Restarting,
	}
	where, err := c.place(ctx, found.ID, string(found.HostConfig.NetworkMode), found.NetworkSettings.Networks, g)
	if err != nil {
		return neutral.Target{}, faultOf(err)
	}
	target.Network = where.mode
	if target.Running {
		target.Address = where.address
	}
	return target, nil
}

func joinName(name, rest string) string {
	if name == "" {
		return rest
	}
	return name + "." + rest
}

// node is the machine that an engine runs on.
type node struct {
	name    string
	id      string // in its swarm
	manager bool   // it answers for its swarm
	read    time.Time
}

func (n node) is(name string) bool {
	return strings.EqualFold(name, n.name) || n.id != "" && name == n.id
}

// nodeAge bounds how long a node's identity is taken for granted: it changes when a host is renamed or joins a swarm.
const nodeAge = 30 * time.Second

// node asks the engine for its machine, which is the slow part of a location.
func (c *Cluster) node(ctx context.Context) (node, error) {
	if known := c.self.Load(); known != nil && time.Since(known.read) < nodeAge {
		return *known, nil
	}
	return c.readNode(ctx)
}

func (c *Cluster) readNode(ctx context.Context) (node, error) {
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return node{}, err
	}
	self := node{name: info.Info.Name, id: info.Info.Swarm.NodeID, manager: managesSwarm(info.Info), read: time.Now()}
	c.self.Store(&self)
	return self, nil
}

// find inspects a container by name, id or unique id prefix; a task of a swarm's service by "service.slot" as well. A
// container of another namespace does not exist for the caller.
func (c *Cluster) find(ctx context.Context, namespace, name string) (container.InspectResponse, error) {
	missing := fault.New(fault.NotFound, "No such container: %s", name)
	if name == "" || strings.ContainsAny(name, "/?#%\\") {
		return container.InspectResponse{}, missing
	}
	found, err := c.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		id, lookErr := c.taskContainer(ctx, name)
		if lookErr != nil {
			return container.InspectResponse{}, faultOf(lookErr)
		}
		if id == "" {
			return container.InspectResponse{}, missing
		}
		found, err = c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	}
	if err != nil {
		return container.InspectResponse{}, faultOf(err)
	}
	if found.Container.Config == nil || found.Container.HostConfig == nil || found.Container.NetworkSettings == nil {
		return container.InspectResponse{}, fault.New(fault.Internal, "the orchestrator gave an answer that cannot be read")
	}
	if namespace != "" && namespaceOf(found.Container.Config.Labels) != namespace {
		return container.InspectResponse{}, missing
	}
	return found.Container, nil
}

// taskContainer is the running container of a task named "service.slot"; its own name ends with the task's id.
func (c *Cluster) taskContainer(ctx context.Context, name string) (string, error) {
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{
		Filters: make(client.Filters).Add("label", labelSwarmTaskName),
	})
	if err != nil {
		return "", err
	}
	for _, candidate := range list.Items {
		if strings.HasPrefix(candidate.Labels[labelSwarmTaskName], name+".") {
			return candidate.ID, nil
		}
	}
	return "", nil
}

// judged is what policy judges of a container.
func (c *Cluster) judged(ctx context.Context, found container.InspectResponse) (neutral.Object, error) {
	object := objectFromContainer(found)
	var err error
	object.Container, err = c.seen(ctx, object.Container)
	return object, err
}

// objectFromContainer is what an inspect says of a container.
func objectFromContainer(c container.InspectResponse) neutral.Object {
	object := neutral.Object{Kind: neutral.KindContainer, Name: strings.TrimPrefix(c.Name, "/")}
	if c.Config != nil {
		object.Labels = c.Config.Labels
	}
	object.Namespace = namespaceOf(object.Labels)
	if object.Labels == nil {
		object.Labels = map[string]string{} // looked up, and there are none
	}
	spec := containerFromInspect(c)
	spec.Namespace = object.Namespace
	object.Container = &spec
	return object
}

// containerFromInspect is the part of a container's spec that conditions are about.
func containerFromInspect(c container.InspectResponse) neutral.Container {
	spec := neutral.Container{ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), ImageID: c.Image}
	if c.Config != nil {
		spec.Image, spec.Labels = c.Config.Image, c.Config.Labels
		spec.Entrypoint, spec.Command, spec.Env = c.Config.Entrypoint, c.Config.Cmd, c.Config.Env
		spec.User, spec.WorkingDir, spec.Hostname = c.Config.User, c.Config.WorkingDir, c.Config.Hostname
		spec.TTY, spec.Stdin, spec.StdinOnce = c.Config.Tty, c.Config.OpenStdin, c.Config.StdinOnce
	}
	if h := c.HostConfig; h != nil {
		spec.Security = securityFromInspect(h)
		spec.Network = networkModeFrom(h.NetworkMode)
		spec.AutoRemove = h.AutoRemove
		spec.Restart = neutral.RestartPolicy{Mode: neutral.RestartMode(h.RestartPolicy.Name), Max: h.RestartPolicy.MaximumRetryCount}
		spec.Resources = neutral.Resources{MilliCPU: h.NanoCPUs / 1e6, Memory: h.Memory, MemoryReserved: h.MemoryReservation}
	}
	for _, m := range c.Mounts {
		source := m.Source
		if m.Name != "" {
			source = m.Name
		}
		spec.Mounts = append(spec.Mounts, neutral.Mount{Type: string(m.Type), Source: source, Target: m.Destination, ReadOnly: !m.RW})
	}
	return spec
}

// networkModeFrom reads a network mode as it was asked for.
func networkModeFrom(mode container.NetworkMode) neutral.NetworkMode {
	switch {
	case mode.IsHost():
		return neutral.NetworkHost
	case mode.IsNone():
		return neutral.NetworkNone
	case mode.IsContainer():
		return neutral.NetworkMode(mode)
	}
	return neutral.NetworkBridge
}
