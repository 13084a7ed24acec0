package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planned drives the docker dialect's plans on a real engine that manages a swarm, as callers of other orchestrators do.
type planned struct {
	t         *testing.T
	cluster   dialect.Cluster
	namespace string
}

func plannedOn(t *testing.T, cluster string) *planned {
	t.Helper()
	connected, err := docker.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: cluster, Endpoint: running.Bed.Docker(cluster).Host()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connected.Close(); err != nil {
			t.Error(err)
		}
	})
	return &planned{t: t, cluster: connected, namespace: fmt.Sprintf("plan%d", time.Now().UnixNano()%1e6)}
}

// plan makes an operation's plan. Policy allows what is of the test's namespace, and nodes.
func (p *planned) plan(op neutral.Operation) (dialect.Plan, error) {
	op.Verb, op.Object.Kind, op.Object.Namespace = op.Action.Verb(), op.Action.Kind(), p.namespace
	return p.cluster.Plan(op, func(o neutral.Object) (dialect.Terms, error) {
		if o.Namespace != p.namespace && o.Kind != neutral.KindNode {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission for %s/%s", o.Namespace, o.Name)
		}
		return dialect.Terms{}, nil
	})
}

// try carries an operation out.
func (p *planned) try(ctx context.Context, op neutral.Operation) (neutral.Result, error) {
	plan, err := p.plan(op)
	if err != nil {
		return neutral.Result{}, err
	}
	if plan.Program == nil {
		return neutral.Result{}, fmt.Errorf("%s is a stream", op.Action)
	}
	return plan.Program(ctx)
}

func (p *planned) do(op neutral.Operation) neutral.Result {
	p.t.Helper()
	result, err := p.try(p.t.Context(), op)
	if err != nil {
		p.t.Fatalf("%s %s: %v", op.Action, op.Ref, err)
	}
	return result
}

// refuses wants a kind of fault.
func (p *planned) refuses(kind fault.Kind, op neutral.Operation) {
	p.t.Helper()
	if _, err := p.try(p.t.Context(), op); !fault.Is(err, kind) {
		p.t.Errorf("%s %s: %v, want %s", op.Action, op.Ref, err, kind)
	}
}

// until asks again until what is asked is so.
func (p *planned) until(what string, so func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it did not come about: %s", what)
		}
	}
}

// TestDockerPlansServices makes, changes and removes services, configs and secrets.
func TestDockerPlansServices(t *testing.T) {
	scripting(t)
	defer turn("docker-plans-services")()
	p := plannedOn(t, "west")
	nodes := p.do(neutral.Operation{Action: neutral.NodeList}).Nodes
	if len(nodes) != 1 || nodes[0].Role != "manager" || !nodes[0].Ready || nodes[0].MilliCPU == 0 || nodes[0].Architecture != "amd64" {
		t.Errorf("nodes %+v", nodes)
	}
	config := p.do(neutral.Operation{Action: neutral.ConfigCreate, File: &neutral.StoredFile{Name: "page", Data: []byte("hello"),
		Labels: map[string]string{"app": "web"}, Origin: &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"kind":"ConfigMap"}`)}}})
	if f := config.Stored[0]; f.Name != "page" || f.Namespace != p.namespace || string(f.Data) != "hello" || f.Origin == nil ||
		string(f.Origin.Spec) != `{"kind":"ConfigMap"}` || f.Labels["app"] != "web" || len(f.Labels) != 2 {
		t.Errorf("config %+v", f)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.ConfigCreate, File: &neutral.StoredFile{Name: "page", Data: []byte("again")}})
	secret := p.do(neutral.Operation{Action: neutral.SecretCreate, File: &neutral.StoredFile{Name: "key", Data: []byte("s3cret")}})
	if f := secret.Stored[0]; f.Data != nil {
		t.Errorf("a secret was told: %+v", f)
	}
	stale := secret.Stored[0].Version
	for _, action := range []neutral.Action{neutral.SecretUpdate, neutral.ConfigUpdate} {
		ref := map[neutral.Action]string{neutral.SecretUpdate: "key", neutral.ConfigUpdate: "page"}[action]
		changed := p.do(neutral.Operation{Action: action, Ref: ref, File: &neutral.StoredFile{Labels: map[string]string{"b": "2"}}})
		if f := changed.Stored[0]; f.Labels["b"] != "2" || f.Labels["app"] != "" || f.Name != ref {
			t.Errorf("changed %+v", f)
		}
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.SecretUpdate, Ref: "key", Version: stale, File: &neutral.StoredFile{}})

	grace := 1
	w := neutral.Workload{Name: "web", Mode: neutral.ModeReplicated, Replicas: 2, Labels: map[string]string{"app": "web", "isthmus.io/origin": "x"},
		Origin: &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(strings.Repeat(`{"kind":"Deployment"}`, 100))},
		Template: neutral.Container{Image: demo.Image, Entrypoint: []string{"sh", "-c"}, Command: []string{"echo up; exec sleep 600"},
			Env: []string{"A=b"}, Labels: map[string]string{"tier": "front"}, StopTimeout: &grace,
			Files: []neutral.MountedFile{{Kind: neutral.KindConfig, Name: "page", Target: "/www/page", Mode: 0o444},
				{Kind: neutral.KindSecret, Name: "key", Target: "/run/secrets/key", Mode: 0o400}},
			Mounts:    []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}, {Type: "tmpfs", Target: "/tmp", Size: 1 << 20}},
			Networks:  []neutral.NetworkAttachment{{Name: "default", Aliases: []string{"web"}}},
			Resources: neutral.Resources{Memory: 64 << 20, MilliCPUReserved: 10},
		}}
	created := p.do(neutral.Operation{Action: neutral.WorkloadCreate, Workload: &w})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.WorkloadRemove, Ref: "web"})
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.WorkloadRemove, Ref: "once"})
	})
	if len(created.Losses) != 1 || !strings.Contains(created.Losses[0].Change, "isthmus.io/origin") {
		t.Errorf("losses %v", created.Losses)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &w})
	read := func() neutral.Workload {
		return *p.do(neutral.Operation{Action: neutral.WorkloadInspect, Ref: "web"}).Workload
	}
	p.until("both run", func() bool { return read().Running == 2 })
	now := read()
	if now.Name != "web" || now.Namespace != p.namespace || now.Native != "Service" || now.Desired != 2 || now.Origin == nil ||
		string(now.Origin.Spec) != string(w.Origin.Spec) || now.Labels["isthmus.io/origin"] != "" || now.Labels["app"] != "web" {
		t.Errorf("service %+v", now)
	}
	c := now.Template
	if c.Mounts[0].Source != "data" || c.Files[0].Name != "key" || c.Files[1].Name != "page" || len(c.Networks) != 1 ||
		c.Networks[0].Name != "default" || c.Networks[0].ID == "" || *c.StopTimeout != 1 || c.Labels["tier"] != "front" {
		t.Errorf("template %+v", c)
	}
	tasks := func(current bool) []neutral.Task {
		return p.do(neutral.Operation{Action: neutral.TaskList, Filter: neutral.Filter{Workloads: []string{"web"}, Current: current}}).Tasks
	}
	before := tasks(true)
	if len(before) != 2 || before[0].Name != "web.1" || before[0].State != "running" || before[0].Node != nodes[0].Name ||
		before[0].Container.ID == "" || before[0].Container.State.StartedAt.IsZero() || before[0].Workload != now.ID {
		t.Errorf("tasks %+v", before)
	}

	// The whole spec sent back changes nothing, labels and document alone start no task anew.
	is := now
	is.Labels = map[string]string{"app": "web", "changed": "yes"}
	is.Origin = &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"changed":true}`)}
	p.do(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Version: now.Version, Workload: &is})
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Version: now.Version, Workload: &is})
	now = read()
	if now.Labels["changed"] != "yes" || string(now.Origin.Spec) != `{"changed":true}` || now.Namespace != p.namespace {
		t.Errorf("labels %v, origin %+v", now.Labels, now.Origin)
	}
	if again := tasks(true); len(again) != 2 || again[0].ID != before[0].ID || again[1].ID != before[1].ID {
		t.Errorf("tasks were started anew: %+v", again)
	}
	is = now
	is.Replicas = 3
	p.do(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: now.ID, Version: now.Version, Workload: &is})
	p.until("three run", func() bool { return read().Running == 3 })
	is = read()
	is.Template.Env = []string{"A=c"}
	is.Force++
	p.do(neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "web", Workload: &is})
	p.until("three new ones run", func() bool {
		current := 0
		for _, task := range tasks(true) {
			if task.State == "running" && task.Desired == "running" {
				current++
			}
		}
		return current == 3
	})
	if len(tasks(false)) < 5 {
		t.Error("the former tasks are not told")
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.ConfigRemove, Ref: "page"})
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.WorkloadInspect, Ref: "nobody"})
	p.refuses(fault.Unsupported, neutral.Operation{Action: neutral.WorkloadCreate, Workload: &neutral.Workload{Name: "root",
		Template: neutral.Container{Image: demo.Image, Security: neutral.Security{Privileged: true}}}})

	job := neutral.Workload{Name: "once", Mode: neutral.ModeJob, Replicas: 2, Template: neutral.Container{Image: demo.Image,
		Entrypoint: []string{"true"}, Restart: neutral.RestartPolicy{Mode: neutral.RestartNo}}}
	p.do(neutral.Operation{Action: neutral.WorkloadCreate, Workload: &job})
	p.until("the job is done", func() bool {
		w := p.do(neutral.Operation{Action: neutral.WorkloadInspect, Ref: "once"}).Workload
		return w.Mode == neutral.ModeJob && w.Completed == 2 && w.Desired == 2
	})
	p.do(neutral.Operation{Action: neutral.WorkloadRemove, Ref: "once"})
	p.do(neutral.Operation{Action: neutral.WorkloadRemove, Ref: "web"})
	for _, action := range []neutral.Action{neutral.ConfigRemove, neutral.SecretRemove} {
		ref := map[neutral.Action]string{neutral.SecretRemove: "key", neutral.ConfigRemove: "page"}[action]
		p.do(neutral.Operation{Action: action, Ref: ref})
	}
	if left := p.do(neutral.Operation{Action: neutral.WorkloadList}).Workloads; len(left) != 0 {
		t.Errorf("services that are left: %+v", left)
	}
}

// TestDockerPlansParts makes and removes networks and volumes, and looks at images.
func TestDockerPlansParts(t *testing.T) {
	scripting(t)
	defer turn("docker-plans-parts")()
	p := plannedOn(t, "west")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.ContainerRemove, Ref: "user", Remove: &neutral.RemoveOptions{Force: true}})
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.NetworkPrune})
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.VolumePrune})
	})
	made := p.do(neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "front", Labels: map[string]string{"a": "b"}}})
	if n := made.Network; n.Name != "front" || n.Namespace != p.namespace || n.Driver != "overlay" || n.Labels["a"] != "b" || n.ID != made.ID {
		t.Errorf("network %+v", n)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "front"}})
	p.refuses(fault.Unsupported, neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "x", Driver: "macvlan"}})
	p.do(neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "back", Driver: "bridge", Internal: true}})
	if list := p.do(neutral.Operation{Action: neutral.NetworkList}).Networks; len(list) != 2 || list[0].Name != "back" || !list[0].Internal {
		t.Errorf("networks %+v", list)
	}
	volume := p.do(neutral.Operation{Action: neutral.VolumeCreate, Volume: &neutral.Volume{Name: "data", Labels: map[string]string{"a": "b"}}}).Volumes[0]
	if volume.Name != "data" || volume.Namespace != p.namespace || volume.Driver != "local" || volume.Anonymous || volume.Created.IsZero() {
		t.Errorf("volume %+v", volume)
	}
	p.do(neutral.Operation{Action: neutral.VolumeCreate, Volume: &neutral.Volume{Name: "data"}})
	p.do(neutral.Operation{Action: neutral.VolumeCreate, Volume: &neutral.Volume{Name: "spare"}})
	p.do(neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Name: "user", Image: demo.Image, Command: []string{"sleep", "600"},
		Networks: []neutral.NetworkAttachment{{Name: "back"}}, Mounts: []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}}}})
	p.do(neutral.Operation{Action: neutral.ContainerStart, Ref: "user"})
	p.do(neutral.Operation{Action: neutral.NetworkJoin, Ref: "front", Member: &neutral.NetworkMember{Name: "user", Aliases: []string{"u"}}})
	if n := p.do(neutral.Operation{Action: neutral.NetworkGet, Ref: made.ID}).Network; len(n.Members) != 1 || n.Members[0].Name != "user" {
		t.Errorf("members %+v", n.Members)
	}
	if c := p.do(neutral.Operation{Action: neutral.ContainerInspect, Ref: "user"}).Container; len(c.Networks) != 2 || c.Networks[1].Name != "front" ||
		len(c.Networks[1].Aliases) != 1 || c.Networks[1].Aliases[0] != "u" {
		t.Errorf("networks of the container %+v", c.Networks)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.NetworkRemove, Ref: "front"})
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.VolumeRemove, Ref: "data"})
	p.do(neutral.Operation{Action: neutral.NetworkLeave, Ref: "front", Member: &neutral.NetworkMember{Name: "user"}})
	unused := true
	if list := p.do(neutral.Operation{Action: neutral.VolumeList, Filter: neutral.Filter{Dangling: &unused}}).Volumes; len(list) != 1 || list[0].Name != "spare" {
		t.Errorf("volumes that nothing has: %+v", list)
	}
	if pruned := p.do(neutral.Operation{Action: neutral.VolumePrune}).Removed; len(pruned) != 1 || pruned[0] != "spare" {
		t.Errorf("pruned %v", pruned)
	}
	if pruned := p.do(neutral.Operation{Action: neutral.NetworkPrune}).Removed; len(pruned) != 1 || pruned[0] != "front" {
		t.Errorf("pruned %v", pruned)
	}
	p.do(neutral.Operation{Action: neutral.ContainerRemove, Ref: "user", Remove: &neutral.RemoveOptions{Force: true}})
	p.do(neutral.Operation{Action: neutral.NetworkRemove, Ref: "back"})
	p.do(neutral.Operation{Action: neutral.VolumeRemove, Ref: "data"})
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.VolumeGet, Ref: "data"})
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.NetworkGet, Ref: "back"})

	// Images are of no namespace.
	p.namespace = "default"
	image := p.do(neutral.Operation{Action: neutral.ImageInspect, Image: demo.Image}).Image
	if image.Size == 0 || len(image.Tags) == 0 || image.Tags[0] != demo.Image {
		t.Errorf("image %+v", image)
	}
	if list := p.do(neutral.Operation{Action: neutral.ImageList, Filter: neutral.Filter{Names: []string{image.ID[:19]}}}).Images; len(list) != 1 {
		t.Errorf("images %+v", list)
	}
	p.refuses(fault.NotFound, neutral.Operation{Action: neutral.ImageInspect, Image: "nobody/nothing:1"})
	pull, err := p.plan(neutral.Operation{Action: neutral.ImagePull, Image: "127.0.0.1:9/nothing:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull.Stream(t.Context(), hearing(nil)); err == nil {
		t.Error("an image came from a registry that is not there")
	}
	p.refuses(fault.Unsupported, neutral.Operation{Action: neutral.ImageRemove, Ref: demo.Image})
}
