package docker

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// containerSpec writes a container without its labels and its networks, which others give.
//
// https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Container/operation/ContainerCreate
func (b *specBuilder) containerSpec(c *neutral.Container) (*container.Config, *container.HostConfig) {
	switch {
	case c.Image == "":
		b.invalid("image", "no image specified")
	case c.Siblings > 0:
		b.refuse("containers", "a container of an engine stands alone")
	}
	for _, f := range c.Files {
		if f.Kind != neutral.KindConfig {
			b.refuse("volumes", "a "+string(f.Kind)+" is given to the tasks of services alone; a swarm tells nobody what is in it")
		}
	}
	exposed, bound := b.containerPorts(c.Ports)
	config := &container.Config{
		Hostname: c.Hostname, Domainname: c.Domain, User: c.User, ExposedPorts: exposed, Tty: c.TTY, OpenStdin: c.Stdin, StdinOnce: c.StdinOnce,
		Env: c.Env, Cmd: c.Command, Healthcheck: healthToDocker(c.Health), Image: c.Image, WorkingDir: c.WorkingDir,
		Entrypoint: entrypoint(c.Entrypoint), StopSignal: c.StopSignal, StopTimeout: c.StopTimeout,
	}
	servers, err := addressesOf(c.DNS)
	if err != nil {
		b.invalid("dns", "%s", err.Error())
	}
	host := &container.HostConfig{
		PortBindings:  bound,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(c.Restart.Mode), MaximumRetryCount: c.Restart.Max},
		AutoRemove:    c.AutoRemove,
		CapAdd:        c.Security.CapAdd, CapDrop: c.Security.CapDrop, Privileged: c.Security.Privileged,
		ReadonlyRootfs: c.Security.ReadOnlyRoot, Sysctls: c.Security.Sysctls,
		DNS: servers, DNSOptions: c.DNSOptions, DNSSearch: c.DNSSearch, ExtraHosts: c.ExtraHosts, GroupAdd: c.Groups,
		Resources: resourcesToNative(c.Resources),
		Mounts:    b.mounts(c.Mounts),
	}
	if c.Restart.Mode == "" {
		host.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	b.containerSecurity(host, c.Security)
	return config, host
}

func resourcesToNative(r neutral.Resources) container.Resources {
	return container.Resources{NanoCPUs: r.MilliCPU * 1e6, Memory: r.Memory, MemoryReservation: r.MemoryReserved,
		CPUShares: r.MilliCPUReserved * sharesPerCPU / 1000}
}

// containerSecurity writes what a container may do to its host, where the engine's words differ.
func (b *specBuilder) containerSecurity(host *container.HostConfig, s neutral.Security) {
	switch s.PIDMode {
	case "", "private":
	case "host":
		host.PidMode = "host"
	default:
		b.refuse("pidMode", "the process ids of another container are not shared through the gateway")
	}
	switch s.IPCMode {
	case "", "private", "shareable":
	case "host":
		host.IpcMode = "host"
	default:
		b.refuse("ipcMode", "the IPC namespace of another container is not shared through the gateway")
	}
	option := func(text string) { host.SecurityOpt = append(host.SecurityOpt, text) }
	if s.NoNewPrivileges {
		option("no-new-privileges")
	}
	switch s.Seccomp {
	case "", neutral.ProfileDefault:
	case neutral.ProfileUnconfined:
		option("seccomp=unconfined")
	default:
		b.refuse("seccompProfile", "a profile of a host's is not handed on; the default one and none are")
	}
	local, isLocal := strings.CutPrefix(string(s.AppArmor), string(neutral.Local("")))
	switch {
	case s.AppArmor == "", s.AppArmor == neutral.ProfileDefault:
	case s.AppArmor == neutral.ProfileUnconfined:
		option("apparmor=unconfined")
	case isLocal && local != "":
		option("apparmor=" + local)
	default:
		b.refuse("appArmorProfile", "the profile is not known")
	}
	if s.UnmaskedPaths {
		host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
	}
	for _, device := range s.Devices {
		rule, isRule := strings.CutPrefix(device, "cgroup:")
		switch {
		case isRule:
			host.DeviceCgroupRules = append(host.DeviceCgroupRules, rule)
		case strings.HasPrefix(device, "/"):
			host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: device, PathInContainer: device, CgroupPermissions: "rwm"})
		default:
			b.refuse("devices", "devices that a driver gives are not asked for through the gateway")
		}
	}
}

func (b *specBuilder) containerPorts(ports []neutral.Port) (network.PortSet, network.PortMap) {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, p := range ports {
		port, ok := portToDocker(p)
		if !ok || p.Container == 0 {
			b.invalid("ports", "invalid port: %d/%s", p.Container, shorten(p.Protocol))
			continue
		}
		exposed[port] = struct{}{}
		if !p.Publish && p.Published == 0 {
			continue
		}
		binding := network.PortBinding{}
		if p.Published != 0 {
			binding.HostPort = strconv.Itoa(int(p.Published))
		}
		if !unspecified(p.HostIP) {
			address, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				b.invalid("hostIP", "invalid IP address: %s", shorten(p.HostIP))
				continue
			}
			binding.HostIP = address
		}
		bound[port] = append(bound[port], binding)
	}
	return exposed, bound
}

// containerLabels are those of a container that is made.
func (b *specBuilder) containerLabels(c *neutral.Container, peer string) map[string]string {
	labels, losses := callersLabels("labels", c.Labels)
	b.losses = append(b.losses, losses...)
	labels = labelsIn(b.namespace, labels)
	if len(c.Files) > 0 {
		if raw, err := json.Marshal(c.Files); err == nil {
			labels[labelFiles] = string(raw)
		}
	}
	b.losses = append(b.losses, keepBeside(labels, c.Origin, peer, append(append([]neutral.Loss(nil), c.Losses...), b.losses...))...)
	return labels
}

// endpoint writes a network that a container joins. Others on it know the container by its own name.
func endpoint(n attached, namespace, name string) *network.EndpointSettings {
	return &network.EndpointSettings{NetworkID: n.id, Aliases: append(append([]string(nil), n.aliases...), ownAlias(namespace, name)...)}
}
