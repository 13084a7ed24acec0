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

// try carries an operation out. Policy allows everything that is of the test's namespace, and what is of no namespace.
func (p *planned) try(ctx context.Context, op neutral.Operation) (neutral.Result, error) {
	op.Verb, op.Object.Kind, op.Object.Namespace = op.Action.Verb(), op.Action.Kind(), p.namespace
	plan, err := p.cluster.Plan(op, func(o neutral.Object) (dialect.Terms, error) {
		if o.Namespace != p.namespace && o.Kind != neutral.KindNode {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission for %s/%s", o.Namespace, o.Name)
		}
		return dialect.Terms{}, nil
	})
	if err != nil {
		return neutral.Result{}, err
	}
	if plan.Stream != nil {
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
