package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// asked is what policy hears of a request.
type asked struct {
	Seccomp, AppArmor neutral.Profile
	Unmasked          bool
	Sysctls           map[string]string
	Devices           []string
	HostMounts        []string
	Unseen            []string
	PID, IPC          string
	Network           neutral.NetworkMode
	Asks              []string
}

func askedOf(o neutral.Object) asked {
	a := asked{Asks: o.Asks}
	if v := o.Volume; v != nil {
		a.HostMounts = v.HostPaths
		if v.Unseen {
			a.Unseen = []string{""}
		}
	}
	c := o.Container
	if c == nil {
		return a
	}
	s := c.Security
	a.Seccomp, a.AppArmor, a.Unmasked, a.Sysctls, a.Devices, a.Unseen = s.Seccomp, s.AppArmor, s.UnmaskedPaths, s.Sysctls, s.Devices, c.UnseenMounts
	a.PID, a.IPC, a.Network = s.PIDMode, s.IPCMode, c.Network
	for _, m := range c.Mounts {
		if m.Type == "bind" {
			a.HostMounts = append(a.HostMounts, m.Source)
		}
	}
	return a
}

func forecast(t *testing.T, c *Cluster, action neutral.Action, path, body string) (neutral.Object, error) {
	t.Helper()
	op := neutral.Operation{Action: action, Verb: action.Verb(), Object: neutral.Object{Kind: action.Kind(), Name: "web"}, Ref: "web"}
	if action == neutral.ContainerUpdate {
		op.Object.Container = &neutral.Container{}
	}
	f, err := c.Forecast(t.Context(), op, dialect.Request{Method: http.MethodPost, Path: path, Header: http.Header{}, Body: []byte(body)})
	if err != nil {
		return neutral.Object{}, err
	}
	return f.Objects[0], nil
}

// What an engine's own requests ask of their host is what policy hears of them.
func TestForecastOfHost(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	hostly := running("h1", "hostly", "host", nil, nil)
	hostly["inspect"] = object{"HostConfig": object{"NetworkMode": "host", "PidMode": "host", "IpcMode": "host"}}
	e.containers = []object{hostly}
	e.others = map[string]object{
		"/volumes/plain":   {"Name": "plain", "Driver": "local"},
		"/volumes/hosts":   {"Name": "hosts", "Driver": "local", "Options": object{"type": "none", "o": "ro,bind", "device": "etc/../etc"}},
		"/volumes/layered": {"Name": "layered", "Driver": "local", "Options": object{"type": "overlay", "device": "overlay", "o": "lowerdir=/etc:/usr,upperdir=/srv/u,workdir=/srv/w"}},
		"/volumes/disk":    {"Name": "disk", "Driver": "local", "Options": object{"type": "ext4", "device": "/dev/sda1"}},
		"/volumes/far":     {"Name": "far", "Driver": "local", "Options": object{"type": "nfs", "device": ":/data", "o": "addr=10.0.0.9"}},
		"/volumes/odd":     {"Name": "odd", "Driver": "local", "Options": object{"type": "proc", "device": "proc"}},
		"/volumes/plugged": {"Name": "plugged", "Driver": "persist", "Options": object{"mountpoint": "/etc"}},
	}
	e.start()
	c := e.connect()
	plain := asked{Seccomp: neutral.ProfileDefault, AppArmor: neutral.ProfileDefault, Network: neutral.NetworkBridge}
	with := func(change func(*asked), asks ...string) asked {
		a := plain
		change(&a)
		a.Asks = asks
		return a
	}
	const create, service = "/v1.41/containers/create?name=web", "/v1.41/services/create"
	for _, tt := range []struct {
		path, body string
		want       asked
	}{
		{create, `{"Image":"b"}`, plain},
		{create, `{"Image":"b","HostConfig":{"SecurityOpt":["seccomp=unconfined","apparmor:unconfined"]}}`, with(func(a *asked) {
			a.Seccomp, a.AppArmor = neutral.ProfileUnconfined, neutral.ProfileUnconfined
		}, "object.seccomp", "object.appArmor")},
		{create, `{"Image":"b","hostconfig":{"securityopt":["seccomp=builtin","apparmor=docker-default"]}}`, plain},
		{create, `{"Image":"b","HostConfig":{"SecurityOpt":["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}","apparmor=mine"]}}`, with(func(a *asked) {
			a.Seccomp, a.AppArmor = neutral.ProfileCustom, neutral.Local("mine")
		}, "object.seccomp", "object.appArmor")},
		{create, `{"Image":"b","HostConfig":{"MaskedPaths":[],"ReadonlyPaths":[]}}`, with(func(a *asked) { a.Unmasked = true }, "object.unmaskedPaths")},
		{create, `{"Image":"b","HostConfig":{"MaskedPaths":["/proc/kcore"]}}`, with(func(a *asked) { a.Unmasked = true }, "object.unmaskedPaths")},
		{create, `{"Image":"b","HostConfig":{"MaskedPaths":null,"ReadonlyPaths":null}}`, plain},
		{create, `{"Image":"b","HostConfig":{"Sysctls":{"kernel.shmmax":"1"}}}`, with(func(a *asked) {
			a.Sysctls = map[string]string{"kernel.shmmax": "1"}
		}, "object.sysctls")},
		{create, `{"Image":"b","HostConfig":{"Devices":[{"PathOnHost":"/dev/../dev/sda","PathInContainer":"/dev/x","CgroupPermissions":"rwm"}],` +
			`"DeviceCgroupRules":["c 1:3 rwm"],"DeviceRequests":[{"Driver":"nvidia","Count":-1},{"Capabilities":[["gpu"]]},{"Driver":"cdi","DeviceIDs":["v.com/d=0"]}]}}`,
			with(func(a *asked) {
				a.Devices = []string{"/dev/sda", "cgroup:c 1:3 rwm", "driver:nvidia", "driver:gpu", "v.com/d=0"}
			}, "object.devices")},
		{create, `{"Image":"b","HostConfig":{"Binds":["/etc:/x:ro,rshared","plain:/y"],"Mounts":[{"Type":"bind","Source":"/srv","Target":"/z","BindOptions":{"Propagation":"rshared"}}]}}`,
			with(func(a *asked) { a.HostMounts = []string{"/etc", "/srv"} }, "object.hostMounts")},
		{create, `{"Image":"b","HostConfig":{"Binds":["hosts:/a","layered:/b","disk:/c","far:/d","fresh:/e"]}}`,
			with(func(a *asked) {
				a.HostMounts = []string{"/etc", "/etc", "/usr", "/srv/u", "/srv/w", "/dev/sda1"}
			}, "object.hostMounts")},
		{create, `{"Image":"b","HostConfig":{"Binds":["odd:/a","plugged:/b"]}}`, with(func(a *asked) { a.Unseen = []string{"odd", "plugged"} }, "object.hostMounts")},
		{create, `{"Image":"b","HostConfig":{"Mounts":[{"Type":"volume","Source":"fresh","Target":"/a","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/"}}}}]}}`,
			with(func(a *asked) { a.HostMounts = []string{"/"} }, "object.hostMounts")},
		{create, `{"Image":"b","HostConfig":{"NetworkMode":"container:hostly"}}`, with(func(a *asked) { a.Network = neutral.NetworkHost })},
		{service, `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"b","Sysctls":{"net.a":"1"},"Privileges":{"Seccomp":{"Mode":"custom","Profile":"e30="},"AppArmor":{"Mode":"disabled"}},` +
			`"Mounts":[{"Type":"bind","Source":"/etc","Target":"/a"},{"Type":"volume","Source":"vol","Target":"/b","VolumeOptions":{"DriverConfig":{"Options":{"o":"bind","device":"/srv"}}}}]}}}`,
			with(func(a *asked) {
				a.Seccomp, a.AppArmor, a.Sysctls = neutral.ProfileCustom, neutral.ProfileUnconfined, map[string]string{"net.a": "1"}
				a.HostMounts = []string{"/etc", "/srv"}
			}, "object.hostMounts", "object.seccomp", "object.appArmor", "object.sysctls")},
		{"/v1.41/containers/web/update", `{"Memory":0,"Devices":[{"PathOnHost":"/dev/sda"}]}`, asked{Devices: []string{"/dev/sda"}, Asks: []string{"object.devices"}}},
		{"/v1.41/containers/web/update", `{"Memory":67108864}`, asked{}},
		{"/v1.41/volumes/create", `{"Name":"a"}`, asked{}},
		{"/v1.41/volumes/create", `{"Name":"a","driveropts":{"type":"none","o":"bind","device":"/"}}`, asked{HostMounts: []string{"/"}, Asks: []string{"object.hostMounts"}}},
		{"/v1.41/volumes/create", `{"Name":"a","Driver":"persist","DriverOpts":{"mountpoint":"/"}}`, asked{Unseen: []string{""}, Asks: []string{"object.hostMounts"}}},
		{"/v1.41/volumes/create", `{"Name":"a","ClusterVolumeSpec":{}}`, asked{Unseen: []string{""}, Asks: []string{"object.hostMounts"}}},
	} {
		action := map[string]neutral.Action{create: neutral.ContainerCreate, service: neutral.WorkloadCreate, "/v1.41/volumes/create": neutral.VolumeCreate,
			"/v1.41/containers/web/update": neutral.ContainerUpdate}[tt.path]
		o, err := forecast(t, c, action, tt.path, tt.body)
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		if diff := cmp.Diff(tt.want, askedOf(o)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.body, diff)
		}
	}
	for _, body := range []string{`{"Image":"b","HostConfig":{"UsernsMode":"host"}}`, `{"Image":"b","HostConfig":{"SecurityOpt":["label=disable"]}}`,
		`{"Image":"b","HostConfig":{"PidMode":"container:hostly"}}`, `{"Image":"b","HostConfig":{"VolumesFrom":["hostly"]}}`,
		`{"Image":"b","HostConfig":{"CgroupnsMode":"host"}}`, `{"Image":"b","HostConfig":{"UTSMode":"host"}}`, `{"Image":"b","HostConfig":{"Runtime":"mine"}}`} {
		if _, err := forecast(t, c, neutral.ContainerCreate, create, body); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// A container that is there is seen as one that is asked for.
func TestInspectedRights(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	hostly, joined := running("h1", "hostly", "host", nil, nil), running("j1", "joined", "bridge", nil, nil)
	hostly["inspect"] = object{"HostConfig": object{"NetworkMode": "host", "PidMode": "host", "IpcMode": "host"}}
	joined["inspect"] = object{"HostConfig": object{"NetworkMode": "container:h1", "PidMode": "container:h1", "IpcMode": "container:h1",
		"SecurityOpt": []string{"seccomp=unconfined", "no-new-privileges:true"}, "MaskedPaths": []string{}, "Sysctls": object{"a": "b"},
		"Devices": []object{{"PathOnHost": "/dev/kvm"}}},
		"Mounts": []object{{"Type": "volume", "Name": "hosts", "Source": "/var/lib/docker/volumes/hosts/_data", "Destination": "/x"}}}
	e.containers = []object{hostly, joined}
	e.others = map[string]object{"/volumes/hosts": {"Name": "hosts", "Driver": "local", "Options": object{"o": "bind", "device": "/etc"}}}
	e.start()
	c := e.connect()
	o, err := c.lookupContainer(t.Context(), "joined")
	if err != nil {
		t.Fatal(err)
	}
	want := asked{Seccomp: neutral.ProfileUnconfined, AppArmor: neutral.ProfileDefault, Unmasked: true, Sysctls: map[string]string{"a": "b"},
		Devices: []string{"/dev/kvm"}, HostMounts: []string{"/etc"}, PID: "host", IPC: "host", Network: neutral.NetworkHost}
	if diff := cmp.Diff(want, askedOf(o)); diff != "" {
		t.Error(diff)
	}
	target, err := c.Locate(t.Context(), neutral.TargetRef{Namespace: "default", Container: "joined"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, askedOf(target.Object)); diff != "" {
		t.Error(diff)
	}
	if !o.Container.Security.NoNewPrivileges {
		t.Error("no new privileges")
	}
	if masked := securityFromInspect(&container.HostConfig{MaskedPaths: append(slices.Clone(maskedPaths), "/proc/interrupts")}); masked.UnmaskedPaths {
		t.Error("a newer engine's paths are taken for fewer")
	}
}

// FuzzNative holds what is read of a create for policy against what an engine's own structures make of the same bytes.
func FuzzNative(f *testing.F) {
	for _, seed := range []string{`{"Image":"b","HostConfig":{"SecurityOpt":["seccomp=unconfined","apparmor:x","seccomp=builtin"]}}`,
		`{"Image":"b","hostconfig":{"maskedpaths":[],"ReadonlyPaths":null,"SYSCTLS":{"a":"b"}}}`,
		`{"Image":"b","HostConfig":{"Devices":[{"PathOnHost":"/dev/../a"}],"DeviceCgroupRules":["a"],"DeviceRequests":[{"Driver":"cdi","DeviceIDs":["x"]},{"Capabilities":[["gpu"],null]}]}}`,
		`{"Image":"b","HostConfig":{"Binds":["/a:/b:ro","v:/c"],"Mounts":[{"Type":"bind","Source":"/d","Target":"/e"}],"Privileged":true,"PidMode":"host"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		op := neutral.Operation{Action: neutral.ContainerCreate, Verb: neutral.Create, Object: neutral.Object{Kind: neutral.KindContainer, Name: "web"}}
		read, losses, err := decode(op, dialect.Request{Method: http.MethodPost, Path: "/v1.44/containers/create?name=web", Header: http.Header{}, Body: []byte(body)}, true)
		if err != nil || slices.ContainsFunc(losses, func(l neutral.Loss) bool { return l.Reason == reasonUnknown }) {
			return // refused
		}
		var native struct {
			container.Config
			HostConfig *container.HostConfig
		}
		if err := json.Unmarshal([]byte(body), &native); err != nil {
			return // an engine refuses it
		}
		if native.HostConfig == nil {
			native.HostConfig = &container.HostConfig{}
		}
		want, got := securityFromInspect(native.HostConfig), read.Container.Security
		if got.Privileged != want.Privileged || got.Seccomp != want.Seccomp || got.AppArmor != want.AppArmor || got.UnmaskedPaths != want.UnmaskedPaths ||
			len(got.Sysctls) != len(want.Sysctls) || !slices.Equal(got.Devices, want.Devices) || (got.PIDMode == "host") != (want.PIDMode == "host") ||
			(got.IPCMode == "host") != (want.IPCMode == "host") || len(got.CapAdd) != len(want.CapAdd) {
			t.Errorf("%s\ngot  %+v\nwant %+v", body, got, want)
		}
		binds := 0
		for _, bind := range native.HostConfig.Binds {
			if strings.HasPrefix(bind, "/") {
				binds++
			}
		}
		for _, m := range native.HostConfig.Mounts {
			if m.Type == "bind" {
				binds++
			}
		}
		for _, m := range read.Container.Mounts {
			if m.Type == "bind" {
				binds--
			}
		}
		if binds > 0 {
			t.Errorf("%s: %d binds are not seen in %+v", body, binds, read.Container.Mounts)
		}
	})
}
