package docker

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// configToDocker gives a container's configuration. Where a docker client made it, the client reads back what it wrote,
// but for what is otherwise by now.
func configToDocker(c *neutral.Container) (*container.Config, *container.HostConfig) {
	config, host := configFromNeutral(c)
	if c.Origin == nil || c.Origin.Dialect != neutral.Docker {
		return config, host
	}
	var asked container.CreateRequest
	if err := json.Unmarshal(c.Origin.Spec, &asked); err != nil || asked.Config == nil {
		return config, host // an old client's spelling; what is so now says it as well
	}
	if asked.HostConfig == nil {
		asked.HostConfig = &container.HostConfig{}
	}
	written, err := parseTree(c.Origin.Spec)
	if err != nil {
		return config, host
	}
	was, _ := containerFromTree(written)
	overlayConfig(&asked, was, c, config, host)
	return asked.Config, asked.HostConfig
}

// overlayConfig puts what is so now over what was asked, where the two differ.
func overlayConfig(asked *container.CreateRequest, was, c *neutral.Container, config *container.Config, host *container.HostConfig) {
	if !sameImage(was.Image, c.Image) {
		asked.Image = config.Image
	}
	if c.Hostname != "" {
		asked.Hostname = config.Hostname
	}
	if !slices.Equal(was.Env, c.Env) && len(c.Env) > 0 {
		asked.Env = config.Env
	}
	if !slices.Equal(was.Command, c.Command) && len(c.Command) > 0 {
		asked.Cmd = config.Cmd
	}
	if !slices.Equal(was.Entrypoint, c.Entrypoint) && len(c.Entrypoint) > 0 {
		asked.Entrypoint = config.Entrypoint
	}
	if c.WorkingDir != "" {
		asked.WorkingDir = config.WorkingDir
	}
	if was.Resources != c.Resources {
		asked.HostConfig.Memory, asked.HostConfig.NanoCPUs = host.Memory, host.NanoCPUs
		asked.HostConfig.MemoryReservation = host.MemoryReservation
		asked.HostConfig.CPUQuota, asked.HostConfig.CPUPeriod = 0, 0
	}
	if was.Restart != c.Restart && c.Restart.Mode != "" {
		asked.HostConfig.RestartPolicy = host.RestartPolicy
	}
	if asked.HostConfig.NetworkMode == "" || asked.HostConfig.NetworkMode == "default" {
		asked.HostConfig.NetworkMode = host.NetworkMode
	}
	if asked.HostConfig.LogConfig.Type == "" {
		asked.HostConfig.LogConfig.Type = logDriver
	}
	asked.Labels = config.Labels
	exposed := maps.Clone(config.ExposedPorts)
	if exposed == nil {
		exposed = network.PortSet{}
	}
	maps.Copy(exposed, asked.ExposedPorts)
	asked.ExposedPorts = exposed
}

// logDriver is an engine's own choice. Libraries read logs of a container only if its driver is one that keeps them.
const logDriver = "json-file"

// configFromNeutral renders the configuration of a container that no docker client made.
func configFromNeutral(c *neutral.Container) (*container.Config, *container.HostConfig) {
	exposed, bound := portBindings(c.Ports)
	config := &container.Config{
		Hostname: c.Hostname, Domainname: c.Domain, User: c.User, ExposedPorts: exposed, Tty: c.TTY, OpenStdin: c.Stdin,
		StdinOnce: c.StdinOnce, Env: listed(c.Env), Cmd: c.Command, Healthcheck: healthToDocker(c.Health), Image: c.Image,
		WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Labels: shownLabels(c, true), StopSignal: c.StopSignal,
		StopTimeout: c.StopTimeout, AttachStdout: true, AttachStderr: true, AttachStdin: c.Stdin,
	}
	host := &container.HostConfig{
		LogConfig:      container.LogConfig{Type: logDriver, Config: map[string]string{}},
		NetworkMode:    modeToDocker(c),
		PortBindings:   bound,
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyMode(c.Restart.Mode), MaximumRetryCount: c.Restart.Max},
		AutoRemove:     c.AutoRemove,
		CapAdd:         c.Security.CapAdd,
		CapDrop:        c.Security.CapDrop,
		DNS:            []netip.Addr{}, // the target's name servers and hosts are addresses of it
		DNSOptions:     listed(c.DNSOptions),
		DNSSearch:      listed(c.DNSSearch),
		GroupAdd:       c.Groups,
		IpcMode:        container.IpcMode(c.Security.IPCMode),
		PidMode:        container.PidMode(c.Security.PIDMode),
		Privileged:     c.Security.Privileged,
		ReadonlyRootfs: c.Security.ReadOnlyRoot,
		Resources: container.Resources{Memory: c.Resources.Memory, NanoCPUs: c.Resources.MilliCPU * 1e6,
			MemoryReservation: c.Resources.MemoryReserved},
		Mounts: mountsToDocker(c.Mounts),
	}
	if host.RestartPolicy.Name == "" {
		host.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if c.Security.NoNewPrivileges {
		host.SecurityOpt = []string{"no-new-privileges"}
	}
	return config, host
}

func healthToDocker(h *neutral.HealthCheck) *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
}

func mountsToDocker(mounts []neutral.Mount) []mount.Mount {
	var list []mount.Mount
	for _, m := range mounts {
		d := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		if m.Type == "tmpfs" {
			d.Source = ""
			if m.Size != 0 {
				d.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.Size}
			}
		}
		list = append(list, d)
	}
	return list
}

// sameImage tells whether two names are one image, "busybox" and "docker.io/library/busybox:latest".
func sameImage(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := reference.ParseNormalizedNamed(a)
	y, errY := reference.ParseNormalizedNamed(b)
	return errX == nil && errY == nil && reference.TagNameOnly(x).String() == reference.TagNameOnly(y).String()
}

// nanos is a number of seconds as a duration.
func nanos(seconds *int) *time.Duration {
	if seconds == nil {
		return nil
	}
	d := time.Duration(*seconds) * time.Second
	return &d
}
