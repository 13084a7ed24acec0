package docker

import (
	"context"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// privilegesVersion is the first API whose swarms know more of a container's rights than capabilities; older ones
// would not read them.
var privilegesVersion = apiVersion{1, 44}

// specBuilder writes a workload as a service's spec.
type specBuilder struct {
	namespace string
	version   apiVersion // of the engine
	losses    []neutral.Loss
	err       error // the first one
}

func (b *specBuilder) lose(field, change, reason string) {
	b.losses = append(b.losses, neutral.Loss{Field: field, Change: change, Reason: reason})
}

func (b *specBuilder) refuse(field, reason string) {
	if b.err == nil {
		b.err = &fault.Error{Kind: fault.Unsupported, Field: field, Message: field + " is refused: " + reason}
	}
}

func (b *specBuilder) invalid(field, format string, args ...any) {
	if b.err == nil {
		f := fault.New(fault.Invalid, format, args...)
		f.Field = field
		b.err = f
	}
}

// serviceSpec writes a spec without its labels, its networks and its files, which others give.
//
// https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Service/operation/ServiceCreate
func (b *specBuilder) serviceSpec(w *neutral.Workload) swarm.ServiceSpec {
	c := &w.Template
	b.unsupported(c)
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: dockerName(b.namespace, w.Name)},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: c.Image, Command: entrypoint(c.Entrypoint), Args: c.Command, Hostname: templated(c.Hostname), Env: each(templated, c.Env), Dir: c.WorkingDir,
				User: c.User, Groups: c.Groups, StopSignal: c.StopSignal, TTY: c.TTY, OpenStdin: c.Stdin,
				ReadOnly: c.Security.ReadOnlyRoot, Mounts: b.mounts(c.Mounts), StopGracePeriod: nanos(c.StopTimeout),
				Healthcheck: healthToDocker(c.Health), CapabilityAdd: c.Security.CapAdd, CapabilityDrop: c.Security.CapDrop,
				Sysctls: c.Security.Sysctls, Privileges: b.privileges(c.Security), Hosts: b.hosts(c.ExtraHosts), DNSConfig: b.names(c),
			},
			Resources:     taskResourcesToDocker(c.Resources),
			RestartPolicy: b.restart(c.Restart, w.Mode),
			ForceUpdate:   unsigned(w.Force),
			Runtime:       swarm.RuntimeContainer,
		},
		Mode:         b.mode(w),
		UpdateConfig: updateToDocker(w.Update),
	}
	if len(w.Placement) > 0 {
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: w.Placement}
	}
	if isJob(w.Mode) && spec.UpdateConfig != nil {
		spec.UpdateConfig = nil
		b.lose("strategy", "dropped", "a job of a swarm is not updated step by step")
	}
	if ports := b.ports(c); len(ports) > 0 {
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: ports}
		if c.Network == neutral.NetworkHost { // there is no address of the service's own on the host's network
			spec.EndpointSpec.Mode = swarm.ResolutionModeDNSRR
		}
	}
	if w.Headless {
		if spec.EndpointSpec == nil {
			spec.EndpointSpec = &swarm.EndpointSpec{}
		}
		spec.EndpointSpec.Mode = swarm.ResolutionModeDNSRR
	}
	labels, losses := callersLabels("template.labels", c.Labels)
	b.losses = append(b.losses, losses...)
	spec.TaskTemplate.ContainerSpec.Labels = labelsIn(b.namespace, labels) // as docker stack deploy does
	return spec
}

func isJob(mode neutral.Mode) bool { return mode == neutral.ModeJob || mode == neutral.ModeGlobalJob }

// entrypoint writes one that is there and empty as engines do: one empty word.
func entrypoint(words []string) []string {
	if words != nil && len(words) == 0 {
		return []string{""}
	}
	return words
}

// unsupported refuses what a swarm cannot do for a container, and reports what it does not know.
func (b *specBuilder) unsupported(c *neutral.Container) {
	s := c.Security
	switch {
	case c.Image == "":
		b.invalid("image", "no image specified")
	case c.Siblings > 0:
		b.refuse("containers", "the tasks of a swarm have one container each")
	case s.Privileged:
		b.refuse("privileged", "a swarm runs no privileged containers")
	case len(s.Devices) > 0:
		b.refuse("devices", "a swarm gives containers no devices of their nodes")
	case s.PIDMode != "" && s.PIDMode != "private":
		b.refuse("hostPID", "a swarm gives each container process ids of its own")
	case s.IPCMode != "" && s.IPCMode != "private" && s.IPCMode != "shareable":
		b.refuse("hostIPC", "a swarm gives each container an IPC namespace of its own")
	case s.UnmaskedPaths:
		b.refuse("procMount", "a swarm masks the system's paths always")
	case c.Network == neutral.NetworkNone:
		b.refuse("network", "a swarm has no containers without a network")
	case strings.HasPrefix(string(c.Network), "container:"):
		b.refuse("network", "the containers of a swarm share no network namespace")
	case c.Network == neutral.NetworkHost && len(c.Networks) > 0:
		b.refuse("network", "on the host's network no other network is joined")
	}
	if c.Domain != "" {
		b.lose("domain", "dropped", "a swarm gives containers no domain")
	}
	if c.StdinOnce {
		b.lose("stdinOnce", "dropped", "a swarm keeps stdin open, or closed")
	}
	if c.AutoRemove {
		b.lose("autoRemove", "dropped", "a swarm removes the containers of its tasks itself")
	}
}

// privileges writes what only newer swarms read.
func (b *specBuilder) privileges(s neutral.Security) *swarm.Privileges {
	p := swarm.Privileges{NoNewPrivileges: s.NoNewPrivileges}
	asked := s.NoNewPrivileges
	switch s.Seccomp {
	case "", neutral.ProfileDefault:
	case neutral.ProfileUnconfined:
		p.Seccomp, asked = &swarm.SeccompOpts{Mode: swarm.SeccompModeUnconfined}, true
	default:
		b.refuse("seccompProfile", "a swarm's nodes know the default profile and none")
	}
	switch s.AppArmor {
	case "", neutral.ProfileDefault:
	case neutral.ProfileUnconfined:
		p.AppArmor, asked = &swarm.AppArmorOpts{Mode: swarm.AppArmorModeDisabled}, true
	default:
		b.refuse("appArmorProfile", "a swarm's nodes know the default profile and none")
	}
	if !asked {
		return nil
	}
	if b.version.less(privilegesVersion) {
		field := "allowPrivilegeEscalation"
		switch {
		case p.Seccomp != nil:
			field = "seccompProfile"
		case p.AppArmor != nil:
			field = "appArmorProfile"
		}
		b.refuse(field, "this swarm's engine is of API "+b.version.String()+", and only those from "+privilegesVersion.String()+" know it")
	}
	return &p
}

// mounts writes mounts with the engine's names of volumes.
func (b *specBuilder) mounts(mounts []neutral.Mount) []mount.Mount {
	for _, m := range mounts {
		if strings.Contains(m.Source+m.Target, templateMark) {
			b.refuse("mounts", "a swarm reads "+templateMark+" in them as the beginning of a template")
		}
		if m.Subpath != "" {
			b.refuse("mounts", "engines before version 26 would mount all of the volume in place of a folder of it")
		}
	}
	return mountsIn(b.namespace, mounts)
}

// mountsIn writes mounts of a namespace. A volume that is made for one gets the namespace's label.
func mountsIn(namespace string, mounts []neutral.Mount) []mount.Mount {
	list := mountsToDocker(mounts)
	for i := range list {
		if list[i].Type != mount.TypeVolume || list[i].Source == "" {
			continue
		}
		list[i].Source = volumeName(namespace, list[i].Source)
		if labels := labelsIn(namespace, nil); len(labels) > 0 {
			list[i].VolumeOptions = &mount.VolumeOptions{Labels: labels}
		}
	}
	return list
}

// Swarm reads variables, hostnames and mounts as templates of Go, and another orchestrator's callers write none: what
// would begin a template is written as one that gives it.
const (
	templateMark = "{{"
	templateText = `{{"{{"}}`
)

// templated writes a text so that a swarm gives containers just that.
func templated(text string) string { return strings.ReplaceAll(text, templateMark, templateText) }

// untemplated reads it again.
func untemplated(text string) string { return strings.ReplaceAll(text, templateText, templateMark) }

func each(of func(string) string, list []string) []string {
	if list == nil {
		return nil
	}
	changed := make([]string, len(list))
	for i, text := range list {
		changed[i] = of(text)
	}
	return changed
}

// volumeName is what an engine calls a volume. One that nobody named keeps the name that the engine gave it.
func volumeName(namespace, name string) string {
	if isAnonymous(name) {
		return name
	}
	return dockerName(namespace, name)
}

// isAnonymous tells names that engines give.
func isAnonymous(name string) bool {
	const length = 64
	return len(name) == length && strings.Trim(name, "0123456789abcdef") == ""
}

// hosts writes "name:address" as lines of a hosts file.
func (b *specBuilder) hosts(hosts []string) []string {
	var lines []string
	for _, host := range hosts {
		name, address, ok := strings.Cut(host, ":")
		if !ok || name == "" || address == "" {
			b.invalid("hostAliases", "bad format for a host: %s", shorten(host))
			continue
		}
		lines = append(lines, address+" "+name)
	}
	return lines
}

func (b *specBuilder) names(c *neutral.Container) *swarm.DNSConfig {
	if len(c.DNS)+len(c.DNSSearch)+len(c.DNSOptions) == 0 {
		return nil
	}
	servers, err := addressesOf(c.DNS)
	if err != nil {
		b.invalid("dns", "%s", err.Error())
	}
	return &swarm.DNSConfig{Nameservers: servers, Search: c.DNSSearch, Options: c.DNSOptions}
}

// addressesOf reads addresses of name servers.
func addressesOf(texts []string) ([]netip.Addr, error) {
	var list []netip.Addr
	for _, text := range texts {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid address of a name server: %s", shorten(text))
		}
		list = append(list, address)
	}
	return list, nil
}

// restart writes a policy. A job's tasks end for good when they succeed.
func (b *specBuilder) restart(policy neutral.RestartPolicy, mode neutral.Mode) *swarm.RestartPolicy {
	if isJob(mode) {
		switch policy.Mode {
		case neutral.RestartAlways, neutral.RestartUnlessStopped:
			b.lose("restartPolicy", string(neutral.RestartOnFailure), "a job's tasks that succeeded are not started again")
			policy.Mode = neutral.RestartOnFailure
		case "":
			policy.Mode = neutral.RestartOnFailure
		}
	}
	if policy.Mode == neutral.RestartUnlessStopped {
		policy.Mode = neutral.RestartAlways // a service's tasks are not stopped one by one
	}
	return taskRestartToDocker(policy)
}

func (b *specBuilder) mode(w *neutral.Workload) swarm.ServiceMode {
	switch w.Mode {
	case "", neutral.ModeReplicated, neutral.ModeGlobal, neutral.ModeJob, neutral.ModeGlobalJob:
	default:
		b.refuse("mode", "a swarm has no mode "+string(w.Mode))
	}
	if w.Replicas < 0 {
		b.invalid("replicas", "invalid number of replicas: %d", w.Replicas)
	}
	return modeOfService(w)
}

// ports are those that are published. The others need nothing: on a network containers reach each other's ports.
func (b *specBuilder) ports(c *neutral.Container) []swarm.PortConfig {
	ports := make([]neutral.Port, 0, len(c.Ports))
	for _, p := range c.Ports {
		if !p.Publish && p.Published == 0 {
			continue
		}
		if p.HostIP != "" {
			if address, err := netip.ParseAddr(p.HostIP); err != nil || !address.IsUnspecified() {
				b.refuse("hostIP", "a swarm publishes ports on all addresses of a node")
			}
		}
		if p.Protocol == "" {
			p.Protocol = string(network.TCP)
		}
		p.Protocol = strings.ToLower(p.Protocol)
		ports = append(ports, p)
	}
	return portConfigs(ports)
}

// files writes the secrets and configs of a task; ids are theirs by kind and name in the namespace.
func (b *specBuilder) files(spec *swarm.ContainerSpec, files []neutral.MountedFile, ids map[neutral.MountedFile]string) {
	for _, f := range files {
		id := ids[neutral.MountedFile{Kind: f.Kind, Name: f.Name}]
		name, mode := dockerName(b.namespace, f.Name), fs.FileMode(f.Mode)
		switch f.Kind {
		case neutral.KindSecret:
			spec.Secrets = append(spec.Secrets, &swarm.SecretReference{SecretID: id, SecretName: name,
				File: &swarm.SecretReferenceFileTarget{Name: f.Target, UID: "0", GID: "0", Mode: mode}})
		case neutral.KindConfig:
			spec.Configs = append(spec.Configs, &swarm.ConfigReference{ConfigID: id, ConfigName: name,
				File: &swarm.ConfigReferenceFileTarget{Name: f.Target, UID: "0", GID: "0", Mode: mode}})
		default:
			b.refuse("volumes", "a "+string(f.Kind)+" is no file")
		}
	}
}

// taskNetworks writes what the tasks of a workload run on. Others there know it by its own name.
func (a *action) taskNetworks(ctx context.Context, namespace string, w *neutral.Workload, list []attached) ([]swarm.NetworkAttachmentConfig, error) {
	if w.Template.Network == neutral.NetworkHost {
		id, err := a.hostNetwork(ctx)
		return []swarm.NetworkAttachmentConfig{{Target: id}}, err
	}
	var networks []swarm.NetworkAttachmentConfig
	for _, n := range list {
		networks = append(networks, swarm.NetworkAttachmentConfig{Target: n.id, Aliases: slices.Concat(n.aliases, ownAlias(namespace, w.Name))})
	}
	return networks, nil
}

// String is the version as a path has it.
func (v apiVersion) String() string { return strconv.Itoa(v.major) + "." + strconv.Itoa(v.minor) }

// engineVersion is the API version that the engine is asked in. An engine was asked before.
func (c *Cluster) engineVersion() apiVersion {
	version, ok := parseVersion(c.api.ClientVersion())
	if !ok {
		return oldestVersion
	}
	return version
}
