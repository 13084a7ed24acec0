package docker

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// located is a container as it was read. Its volumes have the engine's names, and its namespaces the engine's words.
type located struct {
	neutral.Container
	named
	native container.InspectResponse
	order  []string // of the members, their places
}

// containerFromNative reads a container. all are the engine's networks.
func containerFromNative(native container.InspectResponse, node string, all []network.Summary) *located {
	c := containerFromInspect(native)
	labels := map[string]string{}
	if native.Config != nil {
		labels = native.Config.Labels
	}
	l := &located{native: native, named: nameOf(native.ID, native.Name, labels)}
	kept := readBeside(labels)
	c.Name, c.Namespace, c.Node = l.name, l.namespace, node
	c.Labels, c.Origin, c.Losses = kept.labels, kept.origin, kept.losses
	c.Files = filesFromLabel(labels[labelFiles])
	if at, err := time.Parse(time.RFC3339Nano, native.Created); err == nil {
		c.CreatedAt = at
	}
	if config := native.Config; config != nil {
		c.Domain, c.StopSignal, c.StopTimeout, c.Health = config.Domainname, config.StopSignal, config.StopTimeout, healthFromNative(config.Healthcheck)
	}
	if host := native.HostConfig; host != nil {
		c.Groups = host.GroupAdd
		c.ExtraHosts, c.DNSSearch, c.DNSOptions = host.ExtraHosts, host.DNSSearch, host.DNSOptions
		for _, server := range host.DNS {
			c.DNS = append(c.DNS, server.String())
		}
		c.Resources = resourcesFromNative(host.Resources)
		c.Mounts = withTmpfs(c.Mounts, host)
	}
	c.Ports = portsFromNative(native)
	c.State = stateFromNative(native)
	if id := labels[labelSwarmService]; id != "" {
		owner := neutral.Owner{Kind: nativeService, Name: id, Namespace: l.namespace}
		if name := labels[labelSwarmServiceName]; name != "" {
			owner.Namespace, owner.Name = neutralName(name, labels)
		}
		c.Owner = &owner
	}
	if native.NetworkSettings != nil {
		for _, name := range slices.Sorted(maps.Keys(native.NetworkSettings.Networks)) {
			settings := native.NetworkSettings.Networks[name]
			if settings == nil || name == "bridge" || name == "host" || name == "none" {
				continue
			}
			aliases := slices.DeleteFunc(slices.Clone(settings.Aliases), func(alias string) bool { // that engines add
				return alias == shortened(native.ID) || alias == c.Hostname
			})
			ref := settings.NetworkID
			if ref == "" {
				ref = name // it never ran
			}
			c.Networks = append(c.Networks, neutral.NetworkAttachment{Name: ref, Aliases: aliases})
		}
		nameNetworks(&c, l.namespace, all)
		c.Networks = withoutOwnAlias(c.Networks, l.namespace, l.name)
	}
	l.Container = c
	return l
}

// shown is the container in the words and with the names that a caller knows.
func (l *located) shown() neutral.Container {
	c := localized(l.Container, l.namespace)
	if mode := container.IpcMode(c.Security.IPCMode); !mode.IsHost() && !mode.IsContainer() {
		c.Security.IPCMode = ""
	}
	return c
}

func (l *located) object() neutral.Object {
	o := l.named.object(neutral.KindContainer, l.Labels)
	o.Container = &l.Container
	return o
}

// ownAlias is the name that other containers of a network know one by, where the engine calls it otherwise.
func ownAlias(namespace, name string) []string {
	if name == "" || dockerName(namespace, name) == name {
		return nil
	}
	return []string{name}
}

func withoutOwnAlias(networks []neutral.NetworkAttachment, namespace, name string) []neutral.NetworkAttachment {
	for i, n := range networks {
		networks[i].Aliases = slices.DeleteFunc(slices.Clone(n.Aliases), func(alias string) bool {
			return slices.Contains(ownAlias(namespace, name), alias)
		})
		if len(networks[i].Aliases) == 0 {
			networks[i].Aliases = nil
		}
	}
	return networks
}

func healthFromNative(h *container.HealthConfig) *neutral.HealthCheck {
	if h == nil || len(h.Test) == 0 && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.Retries == 0 {
		return nil
	}
	return &neutral.HealthCheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
}

// sharesPerCPU is the weight of one CPU that is reserved, as kubelets and compose reckon it.
const sharesPerCPU = 1024

func resourcesFromNative(r container.Resources) neutral.Resources {
	resources := neutral.Resources{MilliCPU: r.NanoCPUs / 1e6, Memory: r.Memory, MemoryReserved: r.MemoryReservation}
	if resources.MilliCPU == 0 && r.CPUQuota > 0 {
		period := cmp.Or(r.CPUPeriod, 100_000)
		resources.MilliCPU = max(r.CPUQuota*1000/period, 1)
	}
	if r.CPUShares > 0 {
		resources.MilliCPUReserved = (r.CPUShares*1000 + sharesPerCPU - 1) / sharesPerCPU
	}
	return resources
}

// withTmpfs replaces the mounts in memory by what was asked for, which tells their sizes.
func withTmpfs(mounts []neutral.Mount, host *container.HostConfig) []neutral.Mount {
	mounts = slices.DeleteFunc(slices.Clone(mounts), func(m neutral.Mount) bool { return m.Type == string(mount.TypeTmpfs) })
	for _, m := range host.Mounts {
		if m.Type != mount.TypeTmpfs {
			continue
		}
		t := neutral.Mount{Type: string(m.Type), Target: m.Target, ReadOnly: m.ReadOnly}
		if m.TmpfsOptions != nil {
			t.Size = m.TmpfsOptions.SizeBytes
		}
		mounts = append(mounts, t)
	}
	for _, target := range slices.Sorted(maps.Keys(host.Tmpfs)) {
		t := neutral.Mount{Type: string(mount.TypeTmpfs), Target: target}
		for option := range strings.SplitSeq(host.Tmpfs[target], ",") {
			switch key, value, _ := strings.Cut(option, "="); key {
			case "ro":
				t.ReadOnly = true
			case "size":
				if size, err := units.RAMInBytes(value); err == nil {
					t.Size = size
				}
			}
		}
		mounts = append(mounts, t)
	}
	slices.SortStableFunc(mounts, func(x, y neutral.Mount) int { return strings.Compare(x.Target, y.Target) })
	return mounts
}

// portsFromNative are the ports that a container exposes and, of them, those that its host offers.
func portsFromNative(native container.InspectResponse) []neutral.Port {
	bound := network.PortMap{}
	if native.HostConfig != nil {
		maps.Copy(bound, native.HostConfig.PortBindings)
	}
	if native.NetworkSettings != nil {
		for port, bindings := range native.NetworkSettings.Ports {
			if len(bindings) > 0 {
				bound[port] = bindings
			}
		}
	}
	var ports []neutral.Port
	add := func(p neutral.Port) {
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	for port, bindings := range bound {
		for _, b := range bindings {
			p := neutral.Port{Container: port.Num(), Protocol: string(port.Proto()), Publish: true, HostMode: true}
			if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
				p.Published = uint16(n)
			}
			if b.HostIP.IsLoopback() { // any other is an address of the cluster
				p.HostIP = b.HostIP.String()
			}
			add(p)
		}
	}
	if native.Config != nil {
		for port := range native.Config.ExposedPorts {
			if len(bound[port]) == 0 {
				add(neutral.Port{Container: port.Num(), Protocol: string(port.Proto())})
			}
		}
	}
	slices.SortFunc(ports, func(x, y neutral.Port) int {
		return cmp.Or(cmp.Compare(x.Container, y.Container), strings.Compare(x.Protocol, y.Protocol), cmp.Compare(x.Published, y.Published),
			strings.Compare(x.HostIP, y.HostIP))
	})
	return ports
}

func stateFromNative(native container.InspectResponse) neutral.State {
	s := native.State
	if s == nil {
		return neutral.State{RestartCount: native.RestartCount}
	}
	state := neutral.State{Status: neutral.Status(s.Status), ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, Error: s.Error,
		RestartCount: native.RestartCount, StartedAt: timeFrom(s.StartedAt), FinishedAt: timeFrom(s.FinishedAt)}
	if s.Health != nil && s.Health.Status != container.NoHealthcheck {
		state.Health = string(s.Health.Status)
	}
	return state
}

// timeFrom reads a time; the year 1 is none.
func timeFrom(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() <= 1 {
		return time.Time{}
	}
	return at
}

// labelFiles tells which configs were copied into a container.
const labelFiles = "isthmus.io/files"

func filesFromLabel(text string) []neutral.MountedFile {
	var files []neutral.MountedFile
	if text == "" || len(text) > originLimit || json.Unmarshal([]byte(text), &files) != nil {
		return nil
	}
	return files
}

func unspecified(text string) bool {
	address, err := netip.ParseAddr(text)
	return text == "" || err == nil && address.IsUnspecified()
}
