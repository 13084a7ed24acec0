package docker

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestServiceComesBackAsItWas does what docker service scale does: inspect, change one number, send the whole back. A
// workload must not change in anything else, whoever made and changed it, and nothing of it is refused or lost.
func TestServiceComesBackAsItWas(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 8))
	for i := range 600 {
		w := someWorkload(random)
		d := Dialect{}
		if i%2 == 0 { // made by a docker client in another form, and changed since
			former := someWorkload(random)
			spec, err := json.Marshal(specToDocker(&former))
			if err != nil {
				t.Fatal(err)
			}
			w.Origin = &neutral.Origin{Dialect: neutral.Docker, Spec: spec}
		}
		inspect := dialect.Request{Method: "GET", Path: "/v1.49/services/shop?insertDefaults=false"}
		op, err := d.Classify(inspect)
		if err != nil {
			t.Fatal(err)
		}
		res, err := d.Encode(op, inspect, neutral.Result{Workload: &w})
		if err != nil {
			t.Fatal(err)
		}
		var shown swarm.Service
		if err := json.Unmarshal(res.Body, &shown); err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(shown.Spec)
		if err != nil {
			t.Fatal(err)
		}
		update := dialect.Request{Method: "POST", Path: "/v1.49/services/shop/update?version=" + shown.Version.String(), Body: body}
		if op, err = d.Classify(update); err != nil {
			t.Fatal(err)
		}
		op, losses, err := d.Decode(op, update)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if len(losses) > 0 || op.Version != w.Version {
			t.Errorf("%s: losses %v, version %s", body, losses, op.Version)
		}
		got := neutral.Workload{Name: op.Workload.Name, Labels: op.Workload.Labels, Mode: op.Workload.Mode, Replicas: op.Workload.Replicas,
			Template: op.Workload.Template, Placement: op.Workload.Placement, Update: op.Workload.Update, Force: op.Workload.Force, Version: op.Version}
		w.Losses, w.Origin = nil, nil
		if !reflect.DeepEqual(got, w) {
			t.Fatalf("sent %s\ngot  %+v\nwant %+v", body, got, w)
		}
	}
}

func someWorkload(r *rand.Rand) neutral.Workload {
	some := func(list ...string) []string {
		if r.IntN(2) == 0 {
			return nil
		}
		return list[:1+r.IntN(len(list))]
	}
	labels := func() map[string]string {
		if r.IntN(2) == 0 {
			return nil
		}
		return map[string]string{"a": "b", "c.d/e": ""}
	}
	w := neutral.Workload{Name: "shop", Labels: labels(), Mode: neutral.ModeReplicated, Replicas: r.IntN(4), Version: strconv.Itoa(1 + r.IntN(99)),
		Placement: some("node.labels.zone==a", "node.role==worker"), Force: r.IntN(3)}
	c := &w.Template
	*c = neutral.Container{Image: "nginx:1", Entrypoint: some("/e", "x"), Command: some("a", "b"), Env: some("A=1", "B="),
		Labels: labels(), Groups: some("1", "2"), TTY: r.IntN(2) == 0, Stdin: r.IntN(2) == 0, Network: neutral.NetworkBridge,
		Restart:   neutral.RestartPolicy{Mode: neutral.RestartAlways},
		Resources: neutral.Resources{MilliCPU: r.Int64N(5), Memory: r.Int64N(5), MilliCPUReserved: r.Int64N(5), MemoryReserved: r.Int64N(5)},
		Security: neutral.Security{CapAdd: some("ALL"), CapDrop: some("NET_RAW"), ReadOnlyRoot: r.IntN(2) == 0, NoNewPrivileges: r.IntN(2) == 0,
			Seccomp: neutral.ProfileDefault, AppArmor: neutral.ProfileDefault}}
	switch r.IntN(5) {
	case 0:
		w.Mode, w.Replicas = neutral.ModeGlobal, 0
	case 1:
		w.Mode, c.Restart = neutral.ModeJob, neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: r.IntN(3)}
	case 2:
		w.Mode, w.Replicas, c.Restart.Mode = neutral.ModeGlobalJob, 0, neutral.RestartNo
	}
	if r.IntN(2) == 0 {
		seconds := r.IntN(60)
		c.StopTimeout, c.User, c.WorkingDir, c.Hostname, c.StopSignal = &seconds, "7:8", "/w", "h", "SIGINT"
		c.Mounts = []neutral.Mount{{Type: "bind", Source: "/etc", Target: "/e", ReadOnly: true}, {Type: "volume", Source: "data", Target: "/d"},
			{Type: "tmpfs", Target: "/t", Size: r.Int64N(2) * 1024}, {Type: "volume", Target: "/anon"}}
		c.Health = &neutral.HealthCheck{Test: []string{"CMD", "x"}, Interval: 5 * time.Second, Retries: r.IntN(3)}
		w.Update = &neutral.UpdatePolicy{Parallelism: r.IntN(3), Delay: time.Second, Order: "start-first", OnFailure: "pause"}
		w.Losses = []neutral.Loss{{Field: "x", Change: "dropped"}}
	}
	if r.IntN(2) == 0 {
		c.Ports = []neutral.Port{{Name: "web", Container: 80, Published: 80, Publish: true, Protocol: "tcp"},
			{Container: 53, Published: 5353, Publish: true, Protocol: "udp", HostMode: true}}
	}
	switch r.IntN(3) {
	case 0:
		c.Network = neutral.NetworkHost
	case 1:
		c.Networks = []neutral.NetworkAttachment{{Name: "front", Aliases: some("www")}}
	}
	return w
}

// TestNoAddressIsShown renders containers, services, tasks and nodes whose neutral forms hold addresses of the target:
// none is in an answer.
func TestNoAddressIsShown(t *testing.T) {
	t.Parallel()
	c := neutral.Container{ID: strings.Repeat("a", 64), Name: "web", Image: "a", DNS: []string{"10.9.8.7"}, ExtraHosts: []string{"db:10.9.8.7"},
		State: neutral.State{Status: neutral.StatusRunning, Address: "10.9.8.7"}, Network: neutral.NetworkPod,
		Ports: []neutral.Port{{Container: 80, Published: 80, Publish: true, HostIP: "10.9.8.7", Protocol: "tcp"}}}
	w := neutral.Workload{ID: "x", Name: "shop", Mode: neutral.ModeReplicated, Template: c, Version: "1"}
	for path, result := range map[string]neutral.Result{
		"/containers/web/json": {Container: &c}, "/containers/json": {Containers: []neutral.Container{c}},
		"/services/shop": {Workload: &w}, "/services": {Workloads: []neutral.Workload{w}},
		"/tasks": {Tasks: []neutral.Task{{ID: "t", Container: c}}}, "/nodes": {Nodes: []neutral.Node{{ID: "n", Name: "n"}}},
	} {
		req := dialect.Request{Method: "GET", Path: path}
		op, err := Dialect{}.Classify(req)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Dialect{}.Encode(op, req, result)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(res.Body), "10.9.8") {
			t.Errorf("%s shows an address: %s", path, res.Body)
		}
	}
}

func BenchmarkContainerList(b *testing.B) {
	containers := make([]neutral.Container, 100)
	for i := range containers {
		containers[i] = neutral.Container{ID: stableID(strconv.Itoa(i)), Name: "c" + strconv.Itoa(i), Image: "busybox:1.36",
			Command: []string{"sleep", "60"}, CreatedAt: epoch, Labels: map[string]string{"app": "web"}, Network: neutral.NetworkPod,
			State: neutral.State{Status: neutral.StatusRunning, StartedAt: epoch}}
	}
	req := dialect.Request{Method: "GET", Path: "/v1.49/containers/json?all=1"}
	for b.Loop() {
		op, err := Dialect{}.Classify(req)
		if err != nil {
			b.Fatal(err)
		}
		if op, _, err = (Dialect{}).Decode(op, req); err != nil {
			b.Fatal(err)
		}
		if _, err := (Dialect{}).Encode(op, req, neutral.Result{Containers: containers}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	req := dialect.Request{Method: "GET", Path: "/v1.49/containers/web/json"}
	for b.Loop() {
		if _, err := (Dialect{}).Classify(req); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for want, words := range map[string][]string{
		"":                            nil,
		"sleep 60":                    {"sleep", "60"},
		"sh -c 'echo a; echo b' '- '": {"sh", "-c", "echo a; echo b", "- "},
		"/my program":                 {"/my program"},
	} {
		if got := commandLine(words); got != want {
			t.Errorf("%q is listed as %s, want %s", words, got, want)
		}
	}
}
