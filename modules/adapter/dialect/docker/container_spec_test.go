package docker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func fullContainer() neutral.Container {
	c := fullWorkload().Template
	c.Name, c.Domain, c.StdinOnce, c.AutoRemove = "web", "example", true, true
	c.Restart = neutral.RestartPolicy{Mode: neutral.RestartUnlessStopped}
	c.Files = []neutral.MountedFile{{Kind: neutral.KindConfig, Name: "page", Target: "/www/page", Mode: 0o444}}
	c.Ports = []neutral.Port{{Container: 53, Publish: true, Protocol: "udp", HostMode: true}, {Container: 79, Protocol: "tcp"},
		{Container: 80, Published: 8080, Publish: true, Protocol: "tcp", HostMode: true, HostIP: "127.0.0.1"}}
	c.Mounts = []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}, {Type: "bind", Source: "/srv", Target: "/srv", ReadOnly: true},
		{Type: "tmpfs", Target: "/tmp", Size: 1 << 20}}
	c.Security.PIDMode, c.Security.Devices, c.Security.UnmaskedPaths = "host", []string{"/dev/kvm", "cgroup:c 1:3 mr"}, true
	c.Security.AppArmor = neutral.Local("mine")
	return c
}

// asInspected is what an engine makes of a request.
func asInspected(config *container.Config, host *container.HostConfig) container.InspectResponse {
	native := container.InspectResponse{ID: strings.Repeat("a", 64), Name: "/shop_web", Created: "2026-11-30T01:02:03Z", Config: config, HostConfig: host,
		State: &container.State{Status: "created", StartedAt: "0001-01-01T00:00:00Z"}, NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{}}}
	for _, m := range host.Mounts {
		point := container.MountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly}
		if m.Type == mount.TypeVolume {
			point.Name = m.Source
		}
		native.Mounts = append(native.Mounts, point)
	}
	return native
}

// A container comes back as it was made.
func TestContainerSpecBothWays(t *testing.T) {
	t.Parallel()
	c := fullContainer()
	c.Origin = &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte("{}"), Peer: "east"}
	b := &specBuilder{namespace: "shop", version: newestVersion}
	config, host := b.containerSpec(&c)
	config.Labels = b.containerLabels(&c, "")
	if b.err != nil || len(b.losses) > 0 {
		t.Fatalf("%v, losses %v", b.err, b.losses)
	}
	l := containerFromNative(asInspected(config, host), "node-1", nil)
	want := c
	want.ID, want.Namespace, want.Node, want.CreatedAt = strings.Repeat("a", 64), "shop", "node-1", time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)
	want.Labels = map[string]string{"tier": "front", labelStack: "shop"}
	want.State.Status = neutral.StatusCreated
	if diff := cmp.Diff(want, l.shown(), cmpopts.EquateEmpty(), cmpopts.SortSlices(func(x, y neutral.Mount) bool { return x.Target < y.Target })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if l.Mounts[0].Source != "shop_data" {
		t.Errorf("policy sees the volume %s", l.Mounts[0].Source)
	}
}

func TestContainerSpecRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*neutral.Container){
		"volumes":         func(c *neutral.Container) { c.Files[0].Kind = neutral.KindSecret },
		"containers":      func(c *neutral.Container) { c.Siblings = 1 },
		"pidMode":         func(c *neutral.Container) { c.Security.PIDMode = "container:x" },
		"ipcMode":         func(c *neutral.Container) { c.Security.IPCMode = "container:x" },
		"seccompProfile":  func(c *neutral.Container) { c.Security.Seccomp = neutral.Local("x") },
		"appArmorProfile": func(c *neutral.Container) { c.Security.AppArmor = neutral.ProfileCustom },
		"devices":         func(c *neutral.Container) { c.Security.Devices = []string{"driver:gpu"} },
	} {
		c := fullContainer()
		change(&c)
		b := &specBuilder{version: newestVersion}
		if b.containerSpec(&c); !fault.Is(b.err, fault.Unsupported) || !strings.Contains(b.err.Error(), name) {
			t.Errorf("%s: %v", name, b.err)
		}
	}
	for name, change := range map[string]func(*neutral.Container){
		"image": func(c *neutral.Container) { c.Image = "" },
		"dns":   func(c *neutral.Container) { c.DNS = []string{"x"} },
		"ports": func(c *neutral.Container) { c.Ports[0].Container = 0 },
		"ip":    func(c *neutral.Container) { c.Ports[0].HostIP = "x" },
	} {
		c := fullContainer()
		change(&c)
		b := &specBuilder{version: newestVersion}
		if b.containerSpec(&c); !fault.Is(b.err, fault.Invalid) {
			t.Errorf("%s: %v", name, b.err)
		}
	}
}

func TestContainerFromNative(t *testing.T) {
	t.Parallel()
	native := asInspected(&container.Config{Image: "web:1", Hostname: "aaaaaaaaaaaa", Labels: map[string]string{labelSwarmService: "s1", labelSwarmServiceName: "shop_web",
		labelStack: "shop"}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}},
		&container.HostConfig{Tmpfs: map[string]string{"/run": "ro,size=64m"}, Resources: container.Resources{CPUQuota: 50_000, CPUShares: 102}, IpcMode: "private"})
	native.Name = "/shop_web.1.xyz"
	native.State = &container.State{Status: "exited", ExitCode: 3, OOMKilled: true, StartedAt: "2026-11-30T01:02:03Z", FinishedAt: "2026-11-30T01:02:04Z",
		Health: &container.Health{Status: container.Unhealthy}}
	native.RestartCount = 2
	native.NetworkSettings.Networks = map[string]*network.EndpointSettings{
		"bridge":       {NetworkID: "b"},
		"shop_default": {NetworkID: "n1", Aliases: []string{"www", "aaaaaaaaaaaa"}},
		"other":        {NetworkID: "n2"},
	}
	l := containerFromNative(native, "node-1", []network.Summary{
		{Network: network.Network{ID: "n1", Name: "shop_default", Labels: map[string]string{labelStack: "shop"}}}, {Network: network.Network{ID: "n2", Name: "other"}}})
	c := l.shown()
	want := []neutral.NetworkAttachment{{ID: "n2", Name: "other"}, {ID: "n1", Name: "default", Aliases: []string{"www"}}}
	if diff := cmp.Diff(want, c.Networks); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	if c.Name != "web.1.xyz" || c.Owner == nil || *c.Owner != (neutral.Owner{Kind: "Service", Namespace: "shop", Name: "web"}) ||
		c.Resources != (neutral.Resources{MilliCPU: 500, MilliCPUReserved: 100}) || c.Mounts[0] != (neutral.Mount{Type: "tmpfs", Target: "/run", ReadOnly: true, Size: 64 << 20}) ||
		c.State.Status != neutral.StatusExited || c.State.ExitCode != 3 || !c.State.OOMKilled || c.State.Health != "unhealthy" || c.State.RestartCount != 2 ||
		c.State.FinishedAt.IsZero() || len(c.Ports) != 1 || c.Ports[0].Publish || c.Security.IPCMode != "" {
		t.Errorf("%+v", c)
	}
}
