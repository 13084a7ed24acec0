package docker

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A caller sends the whole spec to change a part, and its spec knows less than a swarm's does. So what is applied is the
// difference between what the caller read and what it sends; the rest of the service stays as it is, and tasks whose spec
// did not change are not started anew.

// updateAttempts is how often an update is tried of a caller who gave no version.
const updateAttempts = 5

func (a *action) updateService(ctx context.Context) (neutral.Result, error) {
	if a.op.Rollback { // callers of the same type are handed on, and no other asks for it
		return neutral.Result{}, fault.New(fault.Unsupported, "rollback: the former spec of a service is the swarm's own")
	}
	if a.op.Workload == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "the service has no spec")
	}
	for attempt := 1; ; attempt++ {
		result, err := a.updateServiceOnce(ctx)
		if a.op.Version == "" && fault.Is(err, fault.Conflict) && attempt < updateAttempts {
			continue
		}
		return result, err
	}
}

func (a *action) updateServiceOnce(ctx context.Context) (neutral.Result, error) {
	found, err := a.findService(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if a.op.Version != "" && a.op.Version != found.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	}
	was, is := found.shown(), *a.op.Workload
	switch {
	case is.Name != "" && is.Name != was.Name:
		return neutral.Result{}, fault.New(fault.Unsupported, "renaming services is not supported")
	case is.Mode != "" && is.Mode != was.Mode:
		return neutral.Result{}, fault.New(fault.Unsupported, "service mode change is not allowed")
	case found.native.Spec.TaskTemplate.ContainerSpec == nil:
		return neutral.Result{}, fault.New(fault.Unsupported, "service %s runs no containers", was.Name)
	}
	is.Name, is.Mode = was.Name, was.Mode
	if err := dialect.Restore(&is.Template, &was.Template, a.op.Told); err != nil {
		return neutral.Result{}, err
	}
	c := &specChange{specBuilder: specBuilder{namespace: found.namespace, version: a.engineVersion()}, was: &was, is: &is}
	built, on, err := a.builtChange(ctx, c)
	if err != nil {
		return neutral.Result{}, err
	}
	spec := found.native.Spec
	if err := c.apply(&spec, built); err != nil {
		return neutral.Result{}, err
	}
	labels, losses := callersLabels("labels", is.Labels)
	c.losses = append(c.losses, losses...)
	c.losses = append(c.losses, relabel(&spec.Annotations, found.namespace, labels, is.Origin, a.op.Peer,
		slices.Concat(is.Losses, c.losses))...)
	if err := a.permitService(ctx, spec); err != nil {
		return neutral.Result{}, err
	}
	made, err := a.makeAttached(ctx, found.namespace, on)
	if err == nil && c.networks {
		spec.TaskTemplate.Networks, err = a.taskNetworks(ctx, found.namespace, &is, on)
	}
	var updated client.ServiceUpdateResult
	if err == nil {
		updated, err = a.api.ServiceUpdate(ctx, found.id, client.ServiceUpdateOptions{Version: found.native.Version, Spec: spec,
			RegistryAuthFrom: swarm.RegistryAuthFromSpec})
	}
	if err != nil {
		a.undoNetworks(ctx, made)
		return neutral.Result{}, outOfSequence(err)
	}
	for _, warning := range updated.Warnings {
		c.lose("service", warning, "")
	}
	result := neutral.Result{ID: found.id, Losses: c.losses}
	now, err := a.serviceByID(ctx, found.id)
	if err != nil {
		return result, err
	}
	shown := now.shown()
	result.Workload = &shown
	return result, nil
}

// relabel gives an object the caller's labels and what is kept beside it. Without a new document the old one stays.
func relabel(to *swarm.Annotations, namespace string, labels map[string]string, origin *neutral.Origin, peer string,
	losses []neutral.Loss) []neutral.Loss {
	was := to.Labels
	to.Labels = labelsIn(namespace, labels)
	if origin == nil {
		for _, key := range []string{labelOrigin, labelOriginPeer} {
			if value, ok := was[key]; ok {
				to.Labels[key] = value
			}
		}
	}
	return keepBeside(to.Labels, origin, peer, losses)
}

// builtChange writes what is asked of the parts that differ, and finds the networks.
func (a *action) builtChange(ctx context.Context, c *specChange) (swarm.ServiceSpec, []attached, error) {
	asked := *c.is
	c.narrow(&asked)
	built := c.serviceSpec(&asked)
	if c.err != nil {
		return built, nil, c.err
	}
	if !sameList(c.was.Template.Files, c.is.Template.Files) {
		if err := a.putFiles(ctx, &c.specBuilder, built.TaskTemplate.ContainerSpec, c.is.Template.Files); err != nil {
			return built, nil, err
		}
	}
	if !sameList(c.was.Template.Mounts, c.is.Template.Mounts) {
		if err := a.permitVolumes(ctx, c.namespace, c.is.Template.Mounts); err != nil {
			return built, nil, err
		}
	}
	c.networks = !sameNetworks(&c.was.Template, &c.is.Template)
	if !c.networks {
		return built, nil, nil
	}
	on, err := a.attachments(ctx, c.namespace, c.is.Template.Networks)
	return built, on, err
}

// specChange applies the difference between what a caller read and what it sends.
type specChange struct {
	specBuilder
	was, is  *neutral.Workload
	networks bool // they change
}

// narrow takes out what does not change and what a swarm could not be asked for again.
func (c *specChange) narrow(asked *neutral.Workload) {
	was, is := &c.was.Template, &asked.Template
	if reflect.DeepEqual(was.Security, known(is.Security)) {
		is.Security = neutral.Security{}
	}
	if sameList(was.ExtraHosts, is.ExtraHosts) {
		is.ExtraHosts = nil
	}
	if sameList(was.DNS, is.DNS) {
		is.DNS = nil
	}
}

// known fills in what a caller may leave unsaid.
func known(s neutral.Security) neutral.Security {
	if s.Seccomp == "" {
		s.Seccomp = neutral.ProfileDefault
	}
	if s.AppArmor == "" {
		s.AppArmor = neutral.ProfileDefault
	}
	return s
}

func sameList[T any](x, y []T) bool { return len(x) == 0 && len(y) == 0 || reflect.DeepEqual(x, y) }

func sameMap(x, y map[string]string) bool { return maps.Equal(x, y) }

// sameNetworks compares by name, and by id where the caller gives one.
func sameNetworks(was, is *neutral.Container) bool {
	if (was.Network == neutral.NetworkHost) != (is.Network == neutral.NetworkHost) {
		return false
	}
	return slices.EqualFunc(was.Networks, is.Networks, func(x, y neutral.NetworkAttachment) bool {
		return (y.ID == x.ID || y.ID == "") && (x.Name == y.Name || y.ID == x.ID) && sameList(x.Aliases, y.Aliases)
	})
}

// apply changes the live spec.
func (c *specChange) apply(live *swarm.ServiceSpec, built swarm.ServiceSpec) error {
	task := &live.TaskTemplate
	spec := *task.ContainerSpec
	task.ContainerSpec = &spec
	c.container(&spec, built.TaskTemplate.ContainerSpec)
	c.resources(task, built.TaskTemplate.Resources)
	was, is := c.was, c.is
	if is.Template.Restart.Mode != "" && is.Template.Restart != was.Template.Restart {
		policy := built.TaskTemplate.RestartPolicy
		if task.RestartPolicy != nil && policy != nil { // how long it waits is not the caller's
			policy.Delay, policy.Window = task.RestartPolicy.Delay, task.RestartPolicy.Window
		}
		task.RestartPolicy = policy
	}
	if !sameList(was.Placement, is.Placement) {
		placement := swarm.Placement{}
		if task.Placement != nil {
			placement = *task.Placement
		}
		placement.Constraints = is.Placement
		task.Placement = &placement
	}
	if was.Force != is.Force {
		task.ForceUpdate = unsigned(is.Force)
	}
	if was.Replicas != is.Replicas {
		if live.Mode.Replicated == nil && live.Mode.ReplicatedJob == nil {
			return fault.New(fault.Invalid, "a global service runs once on every node; it cannot be scaled")
		}
		live.Mode = built.Mode
	}
	if is.Update != nil && !reflect.DeepEqual(was.Update, is.Update) && built.UpdateConfig != nil {
		policy := *built.UpdateConfig
		if old := live.UpdateConfig; old != nil {
			policy.Monitor, policy.MaxFailureRatio = old.Monitor, old.MaxFailureRatio
		}
		live.UpdateConfig = &policy
	}
	if was.Headless != is.Headless {
		endpoint := swarm.EndpointSpec{}
		if live.EndpointSpec != nil {
			endpoint.Ports = live.EndpointSpec.Ports
		}
		if endpoint.Mode = swarm.ResolutionModeVIP; is.Headless {
			endpoint.Mode = swarm.ResolutionModeDNSRR
		}
		live.EndpointSpec = &endpoint
	}
	if !c.samePorts() {
		endpoint := swarm.EndpointSpec{}
		if built.EndpointSpec != nil {
			endpoint = *built.EndpointSpec
		}
		if live.EndpointSpec != nil && live.EndpointSpec.Mode != "" {
			endpoint.Mode = live.EndpointSpec.Mode
		}
		live.EndpointSpec = &endpoint
	}
	return c.err
}

// samePorts takes a port that the swarm chose as the one that the caller leaves open.
func (c *specChange) samePorts() bool {
	published := func(ports []neutral.Port) []neutral.Port {
		ports = slices.DeleteFunc(slices.Clone(ports), func(p neutral.Port) bool { return !p.Publish && p.Published == 0 })
		for i := range ports {
			ports[i].Publish, ports[i].HostIP = true, ""
			if ports[i].Protocol == "" {
				ports[i].Protocol = "tcp"
			}
		}
		slices.SortFunc(ports, func(x, y neutral.Port) int {
			x.Published, y.Published = 0, 0
			return comparePorts(x, y)
		})
		return ports
	}
	return slices.EqualFunc(published(c.was.Template.Ports), published(c.is.Template.Ports), func(x, y neutral.Port) bool {
		if y.Published == 0 {
			x.Published = 0
		}
		return x == y
	})
}

// container changes what the tasks run.
func (c *specChange) container(live, built *swarm.ContainerSpec) {
	was, is := &c.was.Template, &c.is.Template
	if !sameImage(was.Image, is.Image) {
		live.Image = built.Image
	}
	if !sameList(was.Entrypoint, is.Entrypoint) || !sameList(was.Command, is.Command) {
		live.Command, live.Args = built.Command, built.Args
	}
	if !sameList(was.Env, is.Env) {
		live.Env = built.Env
	}
	if was.WorkingDir != is.WorkingDir {
		live.Dir = built.Dir
	}
	if was.User != is.User || !sameList(was.Groups, is.Groups) {
		live.User, live.Groups = built.User, built.Groups
	}
	if was.Hostname != is.Hostname {
		live.Hostname = built.Hostname
	}
	if was.TTY != is.TTY || was.Stdin != is.Stdin {
		live.TTY, live.OpenStdin = built.TTY, built.OpenStdin
	}
	if !sameMap(was.Labels, built.Labels) {
		live.Labels = built.Labels
	}
	if was.StopSignal != is.StopSignal {
		live.StopSignal = built.StopSignal
	}
	if is.StopTimeout != nil && (was.StopTimeout == nil || *was.StopTimeout != *is.StopTimeout) {
		live.StopGracePeriod = built.StopGracePeriod
	}
	if !sameList(was.Mounts, is.Mounts) {
		live.Mounts = c.changedMounts(live.Mounts, built.Mounts)
	}
	if !sameList(was.Files, is.Files) {
		c.changedFiles(live, built)
	}
	if !sameList(was.ExtraHosts, is.ExtraHosts) {
		live.Hosts = built.Hosts
	}
	if !sameList(was.DNS, is.DNS) || !sameList(was.DNSSearch, is.DNSSearch) || !sameList(was.DNSOptions, is.DNSOptions) {
		live.DNSConfig = built.DNSConfig
	}
	if !reflect.DeepEqual(was.Health, is.Health) {
		live.Healthcheck = built.Healthcheck
	}
	c.security(live, built)
}

func (c *specChange) security(live, built *swarm.ContainerSpec) {
	was, is := c.was.Template.Security, known(c.is.Template.Security)
	if !sameList(was.CapAdd, is.CapAdd) || !sameList(was.CapDrop, is.CapDrop) {
		live.CapabilityAdd, live.CapabilityDrop = built.CapabilityAdd, built.CapabilityDrop
	}
	if was.ReadOnlyRoot != is.ReadOnlyRoot {
		live.ReadOnly = built.ReadOnly
	}
	if !sameMap(was.Sysctls, is.Sysctls) {
		live.Sysctls = built.Sysctls
	}
	if was.NoNewPrivileges != is.NoNewPrivileges || was.Seccomp != is.Seccomp || was.AppArmor != is.AppArmor {
		privileges := built.Privileges
		if old := live.Privileges; old != nil {
			kept := *old
			kept.NoNewPrivileges, kept.Seccomp, kept.AppArmor = false, nil, nil
			if privileges != nil {
				kept.NoNewPrivileges, kept.Seccomp, kept.AppArmor = privileges.NoNewPrivileges, privileges.Seccomp, privileges.AppArmor
			}
			privileges = &kept
		}
		live.Privileges = privileges
	}
}

// changedMounts keeps a mount that stays with what the caller does not know of it.
func (c *specChange) changedMounts(live, built []mount.Mount) []mount.Mount {
	list := slices.Clone(built)
	for i, is := range c.is.Template.Mounts {
		if i >= len(list) {
			break
		}
		at := slices.Index(c.was.Template.Mounts, is)
		if at < 0 || at >= len(live) {
			continue
		}
		list[i] = live[at]
	}
	return list
}

// changedFiles keeps a file that stays with its owner, and what is no file.
func (c *specChange) changedFiles(live, built *swarm.ContainerSpec) {
	secrets := slices.Clone(built.Secrets)
	for i, s := range secrets {
		for _, old := range live.Secrets {
			if old.SecretID == s.SecretID && old.File != nil && s.File != nil && fileTarget("/run/secrets", old.File.Name) == s.File.Name &&
				old.File.Mode.Perm() == s.File.Mode.Perm() {
				secrets[i] = old
			}
		}
	}
	configs := slices.Clone(built.Configs)
	for i, s := range configs {
		for _, old := range live.Configs {
			if old.ConfigID == s.ConfigID && old.File != nil && s.File != nil && fileTarget("/", old.File.Name) == s.File.Name &&
				old.File.Mode.Perm() == s.File.Mode.Perm() {
				configs[i] = old
			}
		}
	}
	live.Secrets, live.Configs = secrets, configs
}

// resources leaves what the caller does not know (processes, devices) as it is.
func (c *specChange) resources(task *swarm.TaskSpec, built *swarm.ResourceRequirements) {
	if c.was.Template.Resources == c.is.Template.Resources {
		return
	}
	now := swarm.ResourceRequirements{}
	if task.Resources != nil {
		now = *task.Resources
	}
	limits, reservations := swarm.Limit{}, swarm.Resources{}
	if now.Limits != nil {
		limits = *now.Limits
	}
	if now.Reservations != nil {
		reservations = *now.Reservations
	}
	limits.NanoCPUs, limits.MemoryBytes = built.Limits.NanoCPUs, built.Limits.MemoryBytes
	reservations.NanoCPUs, reservations.MemoryBytes = built.Reservations.NanoCPUs, built.Reservations.MemoryBytes
	now.Limits, now.Reservations = &limits, &reservations
	task.Resources = &now
}
