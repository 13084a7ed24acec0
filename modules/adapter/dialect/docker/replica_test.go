package docker

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica/replicatest"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func sourceOf(t testing.TB, name string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "replica", name))
	if err != nil {
		t.Fatal(err)
	}
	object, err := replica.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// reader answers reads of a copy from a table.
func reader(t testing.TB, objects map[string]map[string]any) dialect.Read {
	t.Helper()
	return func(_ context.Context, req dialect.Request) (dialect.Response, error) {
		object, ok := objects[req.Path]
		if !ok {
			return dialect.Response{}, fault.New(fault.NotFound, "no %s", req.Path)
		}
		raw, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		return dialect.Response{Status: http.StatusOK, Body: raw}, nil
	}
}

var (
	westWeb   = dialect.ObjectRef{Cluster: "west", Namespace: "default", Kind: "container", Name: "web"}
	eastPlace = dialect.Place{Cluster: "east", Namespace: "default", Name: "copy"}
	westPlace = dialect.Place{Cluster: "west", Namespace: "shop", Name: "copy"}
)

func sources(t testing.TB) map[string]map[string]any {
	return map[string]map[string]any{
		"/containers/web/json":      sourceOf(t, "container.json"),
		"/services/web":             sourceOf(t, "service.json"),
		"/networks/n3tw0rk":         {"Name": "shop_back", "Id": "n3tw0rk"},
		"/images/shop%2Fweb:3/json": {"RepoDigests": []any{"other/web@sha256:aa", "shop/web@sha256:" + strings.Repeat("1", 64)}},
		"/images/shop/web:3/json":   {"RepoDigests": []any{"other/web@sha256:aa", "shop/web@sha256:" + strings.Repeat("1", 64)}},
	}
}

// TestReplicaGolden shows the drafts of a container and a service, for another cluster and for their own.
func TestReplicaGolden(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"container", "service"} {
		for name, to := range map[string]dialect.Place{"elsewhere": eastPlace, "beside": westPlace} {
			from := westWeb
			from.Kind = kind
			draft, err := Dialect{}.Replicate(t.Context(), reader(t, sources(t)), from, to)
			if err != nil {
				t.Fatal(err)
			}
			shown := map[string]any{"create": draft.Create.Method + " " + draft.Create.Path, "body": draft.Body, "left": draft.Left, "needs": needNames(draft)}
			got, err := json.MarshalIndent(shown, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "replica", kind+"_"+name+".golden")
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(got)+"\n" {
				t.Errorf("%s is otherwise:\n%s", path, got)
			}
		}
	}
}

func needNames(draft dialect.Draft) []string {
	var all []string
	for _, n := range draft.Needs {
		all = append(all, n.String())
	}
	return all
}

// freeIn tells objects of docker's that have whatever keys somebody wrote, or a newer engine has.
func freeIn(path string) bool {
	last := path[strings.LastIndexByte(path, '.')+1:]
	return slices.Contains([]string{"Labels", "Sysctls", "Config", "HostConfig", "Spec", "TaskTemplate", "ContainerSpec", "Resources", "EndpointSpec", ""}, last)
}

// TestReplicaKeepsOrTells grows sources and holds the drafts to it that no leaf vanishes.
func TestReplicaKeepsOrTells(t *testing.T) {
	t.Parallel()
	for seed := range uint64(600) {
		random := rand.New(rand.NewPCG(seed, 7))
		for _, kind := range []string{"container", "service"} {
			all := sources(t)
			path := map[string]string{"container": "/containers/web/json", "service": "/services/web"}[kind]
			source := replicatest.Grow(random, "", all[path], freeIn).(map[string]any)
			all[path] = source
			from, to := westWeb, eastPlace
			from.Kind = kind
			if seed%2 == 0 {
				to = westPlace
			}
			draft, err := Dialect{}.Replicate(t.Context(), reader(t, all), from, to)
			if err != nil {
				t.Fatal(err)
			}
			at := func(path string) string {
				path = strings.Replace(path, "NetworkSettings.Networks.", "NetworkingConfig.EndpointsConfig.", 1)
				return strings.TrimPrefix(strings.TrimPrefix(path, "Config."), "Spec.")
			}
			for _, leaf := range replicatest.Vanished(source, draft, at, ownLeaf) {
				t.Errorf("seed %d: %s of a %s is neither copied nor told", seed, leaf, kind)
			}
			if t.Failed() {
				t.Fatalf("left: %v", draft.Left)
			}
		}
	}
}

// ownLeaf tells leaves that are a source's own by nature, and those that the copy has in other words.
func ownLeaf(path, value string) bool {
	top, _, _ := strings.Cut(path, ".")
	key := strings.TrimPrefix(path, "HostConfig.")
	switch {
	case slices.Contains(ownOfService, top), slices.Contains(ownOfContainer, top) && top != "NetworkSettings":
		return true
	case top == "NetworkSettings" && value != "4b1ad0a3f1d2":
		return !strings.Contains(path, ".Aliases") && !strings.Contains(path, ".IPAMConfig") && !strings.Contains(path, ".DriverOpts")
	case strings.HasSuffix(path, ".Aliases") && value == "4b1ad0a3f1d2", path == "Config.Hostname", path == "Config.Image", path == "Spec.Name", path == "Spec.TaskTemplate.ForceUpdate",
		path == "Spec.TaskTemplate.ContainerSpec.Image", strings.HasSuffix(path, ".Networks.Target"), strings.HasSuffix(path, ".SecretID"),
		strings.HasSuffix(path, ".ConfigID"):
		return true
	case strings.Contains(path, "Labels."):
		label := path[strings.Index(path, "Labels.")+len("Labels."):]
		return ownLabel(label) || label == labelLosses || label == labelOwner || label == labelStack
	}
	if key, _, _ := strings.Cut(key, "."); hostDefaults[key] != nil {
		return true
	}
	return false
}

// TestReplicaSecrets never writes what stands for a hidden value.
func TestReplicaSecrets(t *testing.T) {
	t.Parallel()
	source := sourceOf(t, "container.json")
	config := replica.Object(source, "Config")
	config["Env"] = []any{"A=1", "DB_PASSWORD=hidden-by-isthmus", "URL=http://250.1.2.3/"}
	config["Labels"] = map[string]any{"host": "h-0123456789ab.hidden.invalid"}
	all := sources(t)
	all["/containers/web/json"] = source
	draft, err := Dialect{}.Replicate(t.Context(), reader(t, all), westWeb, eastPlace)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(draft.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "hidden") || strings.Contains(string(raw), "250.1.2.3") {
		t.Errorf("a stand-in is copied: %s", raw)
	}
	for _, field := range []string{"Env[DB_PASSWORD]", "Env[URL]", "Labels.host"} {
		if !slices.ContainsFunc(draft.Left, func(l dialect.Left) bool { return l.Field == field && l.Needed }) {
			t.Errorf("%s is not told: %v", field, draft.Left)
		}
	}
}

// TestComplete fills what docker's client leaves empty, and nothing that it says.
func TestComplete(t *testing.T) {
	t.Parallel()
	draft := dialect.Draft{Body: map[string]any{
		"Image": "web:3@sha256:1", "Cmd": []any{"serve"}, "Env": []any{"A=1", "B=2"}, "Tty": true,
		"Labels":     map[string]any{"tier": "front", "x": "y"},
		"HostConfig": map[string]any{"Memory": json.Number("5"), "NetworkMode": "back", "RestartPolicy": map[string]any{"Name": "always"}, "Privileged": true},
	}, Left: []dialect.Left{{Field: "Env[SECRET]", Needed: true}, {Field: "Env[OTHER]", Needed: true}}}
	req := dialect.Request{Header: http.Header{}, Body: []byte(`{"Image":"scratch","Cmd":null,"Env":["B=3","SECRET=s"],"Tty":false,"Labels":{"x":"z"},
		"HostConfig":{"Memory":0,"NetworkMode":"default","RestartPolicy":{"Name":"no","MaximumRetryCount":0},"Privileged":false},
		"NetworkingConfig":{"EndpointsConfig":{"default":{}}}}`)}
	got, left, err := Dialect{}.Complete(req, draft)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Cmd":["serve"],"Env":["B=3","SECRET=s","A=1"],"HostConfig":{"Memory":5,"NetworkMode":"back","Privileged":true,` +
		`"RestartPolicy":{"MaximumRetryCount":0,"Name":"always"}},"Image":"web:3@sha256:1","Labels":{"tier":"front","x":"z"},` +
		`"NetworkingConfig":{"EndpointsConfig":{}},"Tty":false}`
	if string(got.Body) != want {
		t.Errorf("completed to\n%s\nand not\n%s", got.Body, want)
	}
	if len(left) != 1 || left[0].Field != "Env[OTHER]" {
		t.Errorf("left is %v", left)
	}
}

// FuzzReplica reads sources of any form.
func FuzzReplica(f *testing.F) {
	for _, name := range []string{"container.json", "service.json"} {
		raw, err := os.ReadFile(filepath.Join("testdata", "replica", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, true)
		f.Add(raw, false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, beside bool) {
		read := func(context.Context, dialect.Request) (dialect.Response, error) {
			return dialect.Response{Status: http.StatusOK, Body: raw}, nil
		}
		to := eastPlace
		if beside {
			to = westPlace
		}
		for _, kind := range []string{"container", "service", "config", "secret", "network"} {
			from := westWeb
			from.Kind = kind
			draft, err := Dialect{}.Replicate(t.Context(), read, from, to)
			if err != nil {
				continue
			}
			body, err := json.Marshal(draft.Body)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(body), "hidden-by-isthmus") {
				t.Fatalf("a stand-in is copied: %s", body)
			}
			if _, _, err := (Dialect{}).Complete(dialect.Request{Body: raw, Header: http.Header{}}, draft); err != nil && !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
		}
	})
}

// TestReplicaDecodes takes what an engine tells of a container that nobody asked anything odd of: another orchestrator's
// gateway has nothing to refuse in its copy.
func TestReplicaDecodes(t *testing.T) {
	t.Parallel()
	const inspect = `{"Id":"0b804cd6f08f10450697bba9293494496c5ded6251ec26588974e990fa056e9d","Created":"2026-01-02T03:04:05Z","Name":"/web","State":{"Running":true},
		"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"shop-net","PortBindings":{},
		"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"CapAdd":null,"CapDrop":null,
		"CgroupnsMode":"host","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,
		"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,
		"Runtime":"runc","ConsoleSize":[0,0],"Isolation":"","CpuShares":0,"Memory":33554432,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],
		"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,
		"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"KernelMemory":0,"KernelMemoryTCP":0,
		"MemoryReservation":0,"MemorySwap":67108864,"MemorySwappiness":null,"OomKillDisable":false,"PidsLimit":null,"Ulimits":null,"CpuCount":0,"CpuPercent":0,
		"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":["/proc/asound","/proc/acpi","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/timer_list",
		"/proc/timer_stats","/proc/sched_debug","/proc/scsi","/sys/firmware"],"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]},
		"Config":{"Hostname":"0b804cd6f08f","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,
		"StdinOnce":false,"Env":["COLOUR=blue","PATH=/bin"],"Cmd":["sh","-c","true"],"Image":"shop/web:3","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,
		"Labels":{"tier":"front"}},
		"NetworkSettings":{"Networks":{"shop-net":{"IPAMConfig":null,"Links":null,"Aliases":["0b804cd6f08f"],"NetworkID":"n","EndpointID":"e","Gateway":"172.18.0.1",
		"IPAddress":"172.18.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"MacAddress":"02:42:ac:12:00:02","DriverOpts":null}}}}`
	source, err := replica.Parse([]byte(inspect))
	if err != nil {
		t.Fatal(err)
	}
	all := sources(t)
	all["/containers/web/json"] = source
	place := eastPlace
	place.Foreign = true
	draft, err := Dialect{}.Replicate(t.Context(), reader(t, all), westWeb, place)
	if err != nil {
		t.Fatal(err)
	}
	draft.Create.Body, err = json.Marshal(draft.Body)
	if err != nil {
		t.Fatal(err)
	}
	op, err := Dialect{}.Classify(draft.Create)
	if err != nil {
		t.Fatal(err)
	}
	op, losses, err := Dialect{}.Decode(op, draft.Create)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if op.Container.Name != "copy" || op.Container.Resources.Memory != 1<<25 || len(op.Container.Networks) != 1 {
		t.Errorf("decoded to %+v", op.Container)
	}
	t.Log(losses)
}

// TestReplicaPowers tells an admin what a copy from another cluster would be able to do, and mounts no path of a host.
func TestReplicaPowers(t *testing.T) {
	t.Parallel()
	host := map[string]any{"Privileged": true, "PidMode": "host", "NetworkMode": "bridge", "IpcMode": "shareable", "CapAdd": []any{"ALL"},
		"SecurityOpt": []any{"seccomp=unconfined"}, "Devices": []any{map[string]any{"PathOnHost": "/dev/sda"}}, "Mounts": []any{
			map[string]any{"Type": "volume", "Target": "/host", "VolumeOptions": map[string]any{"DriverConfig": map[string]any{
				"Name": "local", "Options": map[string]any{"type": "none", "o": "bind", "device": "/"}}}},
			map[string]any{"Type": "volume", "Source": "nfs", "Target": "/nfs", "VolumeOptions": map[string]any{"DriverConfig": map[string]any{"Name": "nfs"}}},
			map[string]any{"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": map[string]any{"DriverConfig": map[string]any{"Name": "local"}}},
		}}
	all := map[string]map[string]any{"/containers/web/json": {"Id": "abc", "Config": map[string]any{"Image": "shop/web:3"}, "HostConfig": host}}
	for place, want := range map[dialect.Place][]string{
		eastPlace: {"CapAdd", "Devices", "Mounts[0]!", "Mounts[1]!", "Mounts[2]", "PidMode", "Privileged", "SecurityOpt"},
		westPlace: {"Mounts[1]", "Mounts[2]"},
	} {
		draft, err := Dialect{}.Replicate(t.Context(), reader(t, all), westWeb, place)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, l := range draft.Left {
			field, ok := strings.CutPrefix(l.Field, "HostConfig.")
			if !ok {
				continue
			}
			if l.Needed {
				field += "!"
			}
			told = append(told, field)
		}
		slices.Sort(told)
		if !slices.Equal(told, want) {
			t.Errorf("for %s, told are %v, and not %v", place.Cluster, told, want)
		}
		mounts := replica.List(draft.Body, "HostConfig", "Mounts")
		if place == eastPlace && len(mounts) != 1 || place == westPlace && len(mounts) != 3 {
			t.Errorf("for %s, mounted are %v", place.Cluster, mounts)
		}
	}
}

// TestAlike holds creates against words for kinds.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, kind string
		alike      bool
	}{
		{"/v1.49/containers/create?name=x", "pod", true},
		{"/services/create", "deployment", true},
		{"/services/create", "container", false},
		{"/v1.49/containers/create", "secret", false},
		{"/v1.49/containers/create", "nothing", true},
	} {
		if got := (Dialect{}).Alike(dialect.Request{Path: c.path}, c.kind); got != c.alike {
			t.Errorf("%s for a %s: %t", c.path, c.kind, got)
		}
	}
}

// TestCompleteCommand needs a hidden command only of a request that has none of its own.
func TestCompleteCommand(t *testing.T) {
	t.Parallel()
	all := map[string]map[string]any{"/containers/web/json": {"Id": "abc", "HostConfig": map[string]any{},
		"Config": map[string]any{"Image": "shop/web:3", "Cmd": []any{"serve", "hidden-by-isthmus", "--now"}}}}
	for body, needed := range map[string]bool{`{}`: true, `{"Cmd":["true"]}`: false, `{"Entrypoint":["true"]}`: false} {
		draft, err := Dialect{}.Replicate(t.Context(), reader(t, all), westWeb, westPlace)
		if err != nil {
			t.Fatal(err)
		}
		got, left, err := Dialect{}.Complete(dialect.Request{Header: http.Header{}, Body: []byte(body)}, draft)
		if err != nil {
			t.Fatal(err)
		}
		if told := slices.ContainsFunc(left, func(l dialect.Left) bool { return l.Field == "Cmd" && l.Needed }); told != needed {
			t.Errorf("%s: left is %v", body, left)
		}
		if strings.Contains(string(got.Body), "serve") {
			t.Errorf("%s: a part of the command is copied: %s", body, got.Body)
		}
	}
}
