package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// inspects makes inspects at random: of members that a container is switched by, and of others that this code never heard of.
type inspects struct{ *rand.Rand }

func (g inspects) one(values ...any) any { return values[g.IntN(len(values))] }

func (g inspects) text() string { return fmt.Sprintf("t%d", g.IntN(1000)) }

func (g inspects) list(of func() any) any {
	if g.IntN(4) == 0 {
		return nil
	}
	list := []any{}
	for range g.IntN(3) {
		list = append(list, of())
	}
	return list
}

func (g inspects) object(keys ...string) map[string]any {
	o := map[string]any{}
	for _, key := range keys {
		if g.IntN(2) == 0 {
			o[key] = g.text()
		}
	}
	return o
}

func (g inspects) inspect() map[string]any {
	texts := func() any { return g.text() }
	config := map[string]any{
		"Hostname": g.one("", "custom", "0123456789ab"), "User": g.text(), "Env": g.list(texts), "Cmd": g.list(texts), "Entrypoint": g.list(texts),
		"Image": "web:1", "Labels": g.one(nil, g.object("tier", "com.docker.compose.project")), "StopTimeout": g.one(nil, 3), "Tty": g.one(true, false),
		"Healthcheck": g.one(nil, map[string]any{"Test": []any{"CMD", "true"}, "Interval": 5}), "Volumes": map[string]any{"/anonymous": map[string]any{}},
		"ExposedPorts": g.one(nil, map[string]any{"80/tcp": map[string]any{}}), "MacAddress": g.one("", "02:42:ac:11:00:09"), "Unheard": g.text(),
	}
	host := map[string]any{
		"Binds": g.list(func() any {
			return g.one("named:/named", "named:/named:ro", "other:/other:z,nocopy", "/folder:/folder:ro", "/folder:/folder2")
		}),
		"Mounts": g.one(nil, []any{
			map[string]any{"Type": "volume", "Target": "/long"}, map[string]any{"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": map[string]any{"SizeBytes": 7}},
			map[string]any{"Type": "volume", "Source": "named", "Target": "/long2", "VolumeOptions": map[string]any{"Labels": g.object("a")}},
		}),
		"NetworkMode": g.one("default", "shop_net"), "UTSMode": g.one("", "host"), "PortBindings": g.one(nil, map[string]any{"80/tcp": []any{map[string]any{"HostIp": "", "HostPort": "8080"}}}),
		"PublishAllPorts": g.one(true, false), "RestartPolicy": map[string]any{"Name": g.one("no", "always"), "MaximumRetryCount": 0},
		"Sysctls": g.one(nil, map[string]any{"net.core.somaxconn": "1", "kernel.msgmax": "2"}), "CapAdd": g.list(texts), "Memory": g.IntN(9), "Ulimits": g.list(func() any {
			return map[string]any{"Name": g.text(), "Hard": g.IntN(9)}
		}),
		"LogConfig": map[string]any{"Type": "json-file", "Config": g.object("max-size")}, "Devices": g.list(func() any { return g.object("PathOnHost", "PathInContainer") }),
		"ExtraHosts": g.list(texts), "Tmpfs": g.object("/t"), "KernelMemory": g.IntN(2), "Unheard": g.object("of", "this"),
	}
	return map[string]any{
		"Id": "0123456789abcdef", "Config": config, "HostConfig": host,
		"Mounts": []any{
			map[string]any{"Type": "volume", "Name": "v1", "Destination": "/anonymous", "RW": g.one(true, false)},
			map[string]any{"Type": "volume", "Name": "v2", "Destination": "/long", "RW": true},
			map[string]any{"Type": "volume", "Name": "named", "Destination": "/named", "RW": true},
			map[string]any{"Type": "bind", "Source": "/folder", "Destination": "/folder", "RW": true},
		},
		"NetworkSettings": map[string]any{"Networks": map[string]any{"shop_net": map[string]any{"Aliases": g.list(texts), "IPAMConfig": g.one(nil, map[string]any{"IPv4Address": "10.1.1.1"}),
			"DriverOpts": g.one(nil, g.object("opt"))}}},
	}
}

// Each leaf of an inspect is asked for again, or it is said that it is lost, or it is one of those that a switch is about.
func TestRemakeKeepsAll(t *testing.T) {
	for seed := range uint64(2000) {
		g := inspects{rand.New(rand.NewPCG(seed, 1))}
		inspect := g.inspect()
		before := replica.Clone(inspect)
		to := []neutral.NetworkMode{neutral.NetworkHost, neutral.NetworkBridge}[g.IntN(2)]
		made, err := remake(inspect, to, "l1", "web:1")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, any(inspect)) {
			t.Fatalf("seed %d: the inspect was changed", seed)
		}
		lost := strings.Join(made.lost, "\n")
		asked := map[string]any{"Config": made.body, "HostConfig": made.body["HostConfig"]}
		for _, at := range []string{"Config", "HostConfig"} {
			for path, value := range leaves(at, inspect[at]) {
				if now, ok := leaves(at, asked[at])[path]; ok && reflect.DeepEqual(now, value) {
					continue
				}
				if !meant(path, value, inspect, made, to, lost) {
					t.Errorf("seed %d to %s: %s (%v) is neither asked for nor lost", seed, to, path, value)
				}
			}
		}
		if aliases := replica.List(inspect, "NetworkSettings", "Networks", "shop_net", "Aliases"); len(aliases) > 0 && !strings.Contains(lost, aliases[0].(string)) {
			t.Errorf("seed %d: nothing is said of alias %s", seed, aliases[0])
		}
	}
}

// meant tells the leaves that a switch changes on purpose.
func meant(path string, value any, inspect map[string]any, made *remade, to neutral.NetworkMode, lost string) bool {
	host := replica.Object(made.body, "HostConfig")
	switch {
	case path == "HostConfig.NetworkMode":
		return host["NetworkMode"] == string(to)
	case strings.HasPrefix(path, "HostConfig.RestartPolicy"):
		return replica.Text(host, "RestartPolicy", "Name") == "no"
	case path == "Config.Entrypoint":
		return replica.Empty(value) && reflect.DeepEqual(made.body["Entrypoint"], []any{""})
	case path == "Config.Labels":
		return replica.Empty(value)
	case path == "Config.Hostname":
		return replica.Text(inspect, "HostConfig", "UTSMode") == "host"
	case path == "Config.MacAddress":
		return to == neutral.NetworkHost && (value == "" || strings.Contains(lost, "MAC address"))
	case strings.HasPrefix(path, "HostConfig.Sysctls.net."):
		return to == neutral.NetworkHost && strings.Contains(lost, strings.TrimPrefix(path, "HostConfig.Sysctls."))
	case path == "HostConfig.Binds":
		return true // held below: they are more
	case strings.HasPrefix(path, "HostConfig.Binds["):
		for _, bind := range replica.List(host, "Binds") {
			if text := bind.(string); strings.HasPrefix(text, value.(string)) && strings.HasSuffix(text, "nocopy") {
				return true
			}
		}
	}
	return false
}

// leaves are the values of a tree by their paths. What is empty is a leaf.
func leaves(path string, value any) map[string]any {
	all := map[string]any{}
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if path == "Config" && key == "HostConfig" {
				continue
			}
			maps.Copy(all, leaves(path+"."+key, inner))
		}
	case []any:
		for i, inner := range v {
			maps.Copy(all, leaves(fmt.Sprintf("%s[%d]", path, i), inner))
		}
	}
	if len(all) == 0 {
		all[path] = value
	}
	return all
}

// Every volume is bound by its name at its place, and none is filled again.
func TestRemakeBindsVolumes(t *testing.T) {
	inspect := map[string]any{"Id": "0123456789ab", "Config": map[string]any{"Image": "web:1"},
		"HostConfig": map[string]any{"Binds": []any{"named:/named:ro", "/folder:/folder"}, "Mounts": []any{map[string]any{"Type": "volume", "Target": "/long"}}},
		"Mounts": []any{
			map[string]any{"Type": "volume", "Name": "named", "Destination": "/named", "RW": false}, map[string]any{"Type": "volume", "Name": "v1", "Destination": "/anonymous", "RW": true},
			map[string]any{"Type": "volume", "Name": "v2", "Destination": "/long", "RW": true}, map[string]any{"Type": "volume", "Name": "v3", "Destination": "/from", "RW": false},
			map[string]any{"Type": "bind", "Source": "/folder", "Destination": "/folder"},
		}}
	made, err := remake(inspect, neutral.NetworkHost, "l1", "web:1")
	if err != nil {
		t.Fatal(err)
	}
	host := replica.Object(made.body, "HostConfig")
	if want := []any{"named:/named:ro,nocopy", "/folder:/folder", "v1:/anonymous:nocopy", "v3:/from:ro,nocopy"}; !reflect.DeepEqual(host["Binds"], want) {
		t.Errorf("binds %v, want %v", host["Binds"], want)
	}
	want := []any{map[string]any{"Type": "volume", "Source": "v2", "Target": "/long", "VolumeOptions": map[string]any{"NoCopy": true}}}
	if !reflect.DeepEqual(host["Mounts"], want) {
		t.Errorf("mounts %v, want %v", host["Mounts"], want)
	}
	if labels := made.body["Labels"]; !reflect.DeepEqual(labels, map[string]any{labelSwitch: "l1", labelSwitchOf: "0123456789ab"}) {
		t.Errorf("labels %v", labels)
	}
	if _, err := remake(map[string]any{"Id": "x"}, neutral.NetworkHost, "l1", "web:1"); err == nil {
		t.Error("nothing was remade")
	}
}

// Whatever a restoration finds, it ends with the old container in its place, or it says why not and touches nobody's work.
func TestRestorationFromEveryState(t *testing.T) {
	const name, lease = "web", "l1"
	spare, draft := spareName(name, lease), draftName(name, lease)
	r := &switchRecord{Name: name, Restart: container.RestartPolicy{Name: "always"}}
	var olds, news []*side
	for _, running := range []bool{true, false} {
		for _, called := range []string{name, spare, "elsewhere"} {
			for _, policy := range []string{"always", "no", "unless-stopped"} {
				olds = append(olds, &side{name: called, running: running, policy: policy, since: "then"})
			}
		}
		for _, called := range []string{name, draft, "elsewhere"} {
			news = append(news, &side{name: called, running: running})
		}
	}
	olds, news = append(olds, nil), append(news, nil)
	states := 0
	for _, old := range olds {
		for _, made := range news {
			for _, stranger := range []bool{true, false} {
				for _, told := range []string{"", "then", "before"} {
					stopped := told != ""
					holders := 0
					for _, holds := range []bool{old != nil && old.name == name, made != nil && made.name == name, stranger} {
						if holds {
							holders++
						}
					}
					if holders > 1 {
						continue // an engine has one container of a name
					}
					states++
					r.Stopped, r.Since = stopped, told
					do := restorationOf(r, lease, old, made, stranger)
					about := fmt.Sprintf("old %+v, new %+v, another %v, stopped %v: %+v", old, made, stranger, stopped, do)
					if do.conflict == "" && old == nil {
						t.Errorf("nothing is restored: %s", about)
						continue
					}
					// It is played through.
					if (do.stopNew || do.renameNew || do.removeNew) && (made == nil || made.name == "elsewhere") || made != nil && made.name == name && do.conflict != "" && do.removeNew {
						t.Errorf("it touches what is somebody's: %s", about)
					}
					if (do.renameOld || do.policyOld || do.startOld) && (old == nil || old.name == "elsewhere") || do.renameOld && (old.running || stranger) {
						t.Errorf("it touches the old one, which somebody changed: %s", about)
					}
					if dying := told == "then" && old != nil && old.running && old.name == name; do.stopOld != dying || dying && !do.startOld {
						t.Errorf("one that is being stopped would stay so, or another is stopped: %s", about)
					}
					if do.policyOld && (old.policy != "no" || !stopped) {
						t.Errorf("it overrules a policy: %s", about)
					}
					if do.conflict == "" {
						called := old.name
						if do.renameOld {
							called = name
						}
						if called != name || !old.running && !do.startOld && (stopped || old.name == spare) || made != nil && !do.removeNew || made != nil && made.running && !do.stopNew {
							t.Errorf("the old one is not back: %s", about)
						}
						if made != nil && made.name == name && do.renameOld && !do.renameNew {
							t.Errorf("two of one name: %s", about)
						}
					}
				}
			}
		}
	}
	if states < 300 {
		t.Errorf("%d states", states)
	}
}

func TestChangedBeside(t *testing.T) {
	const modify, add, remove = container.ChangeModify, container.ChangeAdd, container.ChangeDelete
	mounts := []container.MountPoint{{Destination: "/var/lib/data"}, {Destination: "/etc/app/"}}
	for _, tt := range []struct {
		name    string
		changes []container.FilesystemChange
		want    []string
	}{
		{"nothing", nil, nil},
		{"places of mounts", []container.FilesystemChange{{Kind: modify, Path: "/var"}, {Kind: modify, Path: "/var/lib"}, {Kind: add, Path: "/var/lib/data"}, {Kind: add, Path: "/etc/app"}, {Kind: add, Path: "/scratch"}}, nil},
		{"the engine's", []container.FilesystemChange{{Kind: modify, Path: "/etc"}, {Kind: modify, Path: "/etc/hosts"}, {Kind: add, Path: "/dev/console"}, {Kind: add, Path: "/sbin/docker-init"}}, nil},
		{"a file", []container.FilesystemChange{{Kind: modify, Path: "/etc"}, {Kind: add, Path: "/etc/mine"}}, []string{"/etc/mine"}},
		{"beneath a place", []container.FilesystemChange{{Kind: add, Path: "/var/lib/data/below"}, {Kind: add, Path: "/var/lib/other"}}, []string{"/var/lib/data/below", "/var/lib/other"}},
		{"what is gone", []container.FilesystemChange{{Kind: remove, Path: "/var"}}, []string{"/var"}},
	} {
		if got := changedBeside(tt.changes, mounts, []string{"/scratch"}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWayTo(t *testing.T) {
	at := netip.MustParseAddr("172.17.0.2")
	for _, tt := range []struct {
		where location
		mode  neutral.NetworkMode
		to    neutral.NetworkMode
		way   string
	}{
		{location{mode: neutral.NetworkNone}, "", neutral.NetworkBridge, wayLive},
		{location{mode: neutral.NetworkNone}, neutral.NetworkBridge, neutral.NetworkBridge, wayLive},
		{location{mode: neutral.NetworkNone}, neutral.NetworkHost, neutral.NetworkHost, wayRecreate},
		{location{mode: neutral.NetworkBridge}, "", neutral.NetworkBridge, wayLive},
		{location{mode: neutral.NetworkBridge, address: at}, "", neutral.NetworkBridge, ""},
		{location{mode: neutral.NetworkBridge, address: at}, neutral.NetworkBridge, neutral.NetworkBridge, ""},
		{location{mode: neutral.NetworkBridge, address: at}, neutral.NetworkHost, neutral.NetworkHost, wayRecreate},
		{location{mode: neutral.NetworkHost, address: loopback}, "", neutral.NetworkHost, ""},
		{location{mode: neutral.NetworkHost, address: loopback}, neutral.NetworkHost, neutral.NetworkHost, ""},
		{location{mode: neutral.NetworkHost, address: loopback}, neutral.NetworkBridge, neutral.NetworkBridge, wayRecreate},
		{location{mode: neutral.NetworkBridge, address: at}, neutral.NetworkNone, neutral.NetworkBridge, ""},
		{location{mode: "container:0123"}, "", "container:0123", ""},
		{location{mode: "container:0123"}, neutral.NetworkHost, "container:0123", ""},
	} {
		if to, way := wayTo(tt.where, tt.mode); to != tt.to || way != tt.way {
			t.Errorf("%+v to %q: %s by %q, want %s by %q", tt.where, tt.mode, to, way, tt.to, tt.way)
		}
	}
}

func TestDependence(t *testing.T) {
	const id = "0123456789abcdef"
	other := func(change func(*container.InspectResponse)) container.InspectResponse {
		o := container.InspectResponse{HostConfig: &container.HostConfig{}, NetworkSettings: &container.NetworkSettings{}}
		change(&o)
		return o
	}
	for want, changes := range map[string][]func(*container.InspectResponse){
		"": {func(*container.InspectResponse) {}, func(o *container.InspectResponse) { o.HostConfig.NetworkMode = "container:fedcba987654" },
			func(o *container.InspectResponse) { o.HostConfig.NetworkMode = "container:0" }, func(o *container.InspectResponse) { o.HostConfig = nil }},
		"shares the network": {func(o *container.InspectResponse) { o.HostConfig.NetworkMode = "container:" + id }, func(o *container.InspectResponse) { o.HostConfig.NetworkMode = "container:web" },
			func(o *container.InspectResponse) { o.HostConfig.NetworkMode = "container:0123456789ab" }},
		"shares the processes": {func(o *container.InspectResponse) { o.HostConfig.PidMode = "container:" + id }},
		"shares the memory":    {func(o *container.InspectResponse) { o.HostConfig.IpcMode = "container:" + id }},
		"is linked to the address": {func(o *container.InspectResponse) { o.HostConfig.Links = []string{"/web:/other/w"} }, func(o *container.InspectResponse) {
			o.NetworkSettings.Networks = map[string]*network.EndpointSettings{"n": {Links: []string{"web:w"}}, "m": nil}
		}},
	} {
		for i, change := range changes {
			if got := dependence(other(change), id, "web"); got != want {
				t.Errorf("%q %d: %q", want, i, got)
			}
		}
	}
}

func TestHostPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ports := []portOf{{uint16(listener.Addr().(*net.TCPAddr).Port), "tcp"}, {uint16(packets.LocalAddr().(*net.UDPAddr).Port), "udp"}} //nolint:gosec // ports are of 16 bits
	all, err := hostPorts()
	if err != nil || !all[ports[0]] || !all[ports[1]] {
		t.Errorf("%v are not among %v, %v", ports, all, err)
	}
	_, _ = listener.Close(), packets.Close()
	if all, err = hostPorts(); err != nil || all[ports[0]] {
		t.Errorf("%v is still there, %v", ports[0], err)
	}
}

func FuzzListeningPorts(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n"), "tcp")
	f.Add([]byte("head\n 1: 00000000000000000000000000000000:0035 0:0 07\n"), "udp")
	f.Add([]byte("head\n1 2 3\n"), "tcp")
	f.Fuzz(func(t *testing.T, table []byte, protocol string) {
		ports, err := listeningPorts(table, protocol)
		if err != nil && ports != nil {
			t.Errorf("ports %v with %v", ports, err)
		}
		if lines := strings.Count(string(table), "\n"); len(ports) > lines {
			t.Errorf("%d ports of %d lines", len(ports), lines)
		}
	})
}

func TestStrayed(t *testing.T) {
	parse := func(text string) map[string]any {
		tree, err := replica.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	asked := `{"Image":"web:1","Entrypoint":[""],"Env":["A=b"],"HostConfig":{"NetworkMode":"host","Memory":5,"Binds":null,"PortBindings":{"80/tcp":[]}}}`
	for made, want := range map[string][]string{
		`{"Config":{"Image":"web:1","Entrypoint":null,"Env":["A=b"]},"HostConfig":{"NetworkMode":"host","Memory":5,"Binds":[],"PortBindings":{}}}`: nil,
		`{"Config":{"Image":"web:1","Env":["A=c"]},"HostConfig":{"NetworkMode":"host","Memory":6}}`:                                                {"Config.Env", "HostConfig.Memory"},
	} {
		if got := strayed(parse(asked), parse(made)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", made, got, want)
		}
	}
}

// A plan looks at an engine and says all at once; networks and spares of leases are nobody's to see or to prune.
func TestPlanSwitchOnEngine(t *testing.T) {
	e := newFakeEngine(t)
	health := object{"State": object{"Status": "running", "Running": true}}
	none := running("n0", "isolated", "none", map[string]string{}, onNetwork("none", "net-none", ""))
	task := running("t0", "shop_web.1.x", "bridge", map[string]string{labelSwarmService: "s"}, onNetwork("bridge", "net-bridge", "172.17.0.3"))
	web := running("w0", "web", "host", map[string]string{labelSwitch: "l1", labelSwitchOf: "w1"}, onNetwork("host", "net-host", ""))
	spare := running("w1", "web-isthmus-l1", "default", map[string]string{}, onNetwork("bridge", "net-bridge", ""))
	spare["State"] = "exited"
	for _, c := range []object{none, task, web} {
		c["inspect"] = health
	}
	draft := running("d1", "other-isthmus-l2-new", "host", map[string]string{labelSwitch: "l2", labelSwitchOf: "o1"}, nil)
	e.containers = []object{none, task, web, spare, draft}
	e.networks = append(e.networks, object{"Id": "net-none", "Name": "none", "Driver": "null"}, object{"Id": "net-host", "Name": "host", "Driver": "host"},
		object{"Id": "net-l1", "Name": leaseNetwork("l1"), "Driver": "bridge", "Labels": map[string]string{labelSwitch: "l1"}})
	e.start()
	c := e.connect()
	plan, err := c.PlanSwitch(t.Context(), "west", neutral.TargetRef{Container: "isolated"}, neutral.NetworkNeed{Port: 80})
	if err != nil || !plan.Live || len(plan.Refusals) > 0 || plan.To != neutral.NetworkBridge || plan.Object.Container.ID != "n0" {
		t.Errorf("plan %+v, %v", plan, err)
	}
	var r switchRecord
	if err := json.Unmarshal(plan.Native, &r); err != nil || r.Old != "n0" || r.Name != "isolated" || !r.None || r.Way != wayLive {
		t.Errorf("record %+v, %v", r, err)
	}
	plan, err = c.PlanSwitch(t.Context(), "west", neutral.TargetRef{Container: "web"}, neutral.NetworkNeed{Port: 80})
	if err != nil || len(plan.Refusals) != 2 || plan.Object.Container.ID != "w1" {
		t.Errorf("plan of what is switched already %+v, %v", plan, err)
	}
	if _, err := c.PlanSwitch(t.Context(), "west", neutral.TargetRef{Container: "away"}, neutral.NetworkNeed{}); err == nil {
		t.Error("a container that is not there was planned")
	}
	for _, native := range []string{"", "{}", `{"way":"x","old":"a","name":"b"}`} {
		if _, err := recordOf(&neutral.Switching{Plan: neutral.SwitchPlan{Native: json.RawMessage(native)}}); err == nil {
			t.Errorf("%q was read", native)
		}
	}
	found, err := c.spares(t.Context())
	if err != nil || !maps.Equal(found, map[string]bool{"w1": true, "o1": true, "d1": true}) {
		t.Errorf("spares %v, %v", found, err)
	}
	var names []string
	targets, err := c.Targets(t.Context(), "")
	for _, target := range targets {
		names = append(names, target.Object.Name)
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"isolated", "shop_web.1.x", "web"}) {
		t.Errorf("targets %q, %v", names, err)
	}
	networks, err := (&action{Cluster: c}).foundNetworks(t.Context())
	if err != nil || slices.ContainsFunc(networks, func(n foundNetwork) bool { return n.docker == leaseNetwork("l1") }) {
		t.Errorf("networks %+v, %v", networks, err)
	}
}
