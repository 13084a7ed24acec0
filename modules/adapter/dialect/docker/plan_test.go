package docker

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planEngine is an engine with services and containers of two namespaces.
func planEngine(t *testing.T) *Cluster {
	t.Helper()
	e := newFakeEngine(t)
	stack := map[string]string{labelStack: "shop"}
	spec := func(name string, labels map[string]string) object {
		return object{"ID": "id-" + name, "Spec": object{"Name": name, "Labels": labels, "Mode": object{"Replicated": object{"Replicas": 1}},
			"TaskTemplate": object{"ContainerSpec": object{"Image": "web:1", "Mounts": []object{{"Type": "volume", "Source": "shop_host", "Target": "/h"}}}}}}
	}
	e.services = []object{spec("shop_web", stack), spec("shop_db", stack), spec("other", map[string]string{})}
	e.others["/volumes"] = object{"Volumes": []object{{"Name": "shop_host", "Driver": "local", "Labels": stack,
		"Options": object{"type": "none", "o": "bind", "device": "/etc"}}}}
	owned := running("c2", "shop_web.1.x", "default", map[string]string{labelStack: "shop", labelSwarmService: "id-shop_web", labelSwarmServiceName: "shop_web"}, nil)
	e.containers = []object{running("c1", "shop_app", "default", stack, nil), owned}
	e.start()
	return e.connect()
}

// ask plans and runs an operation, and gives what policy was asked about.
func ask(t *testing.T, c *Cluster, op neutral.Operation, allows func(neutral.Object) bool) (neutral.Result, []neutral.Object, error) {
	t.Helper()
	var asked []neutral.Object
	plan, err := c.Plan(op, func(o neutral.Object) (dialect.Terms, error) {
		asked = append(asked, o)
		if !allows(o) {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission")
		}
		return dialect.Terms{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := plan.Program(t.Context())
	return result, asked, err
}

// Lists leave out what policy denies, and policy sees what of the host a volume brings.
func TestPlansAskPolicy(t *testing.T) {
	t.Parallel()
	c := planEngine(t)
	everything := func(neutral.Object) bool { return true }
	shop := neutral.Object{Namespace: "shop"}
	result, asked, err := ask(t, c, neutral.Operation{Action: neutral.WorkloadList, Object: shop}, func(o neutral.Object) bool { return o.Name != "db" })
	if err != nil || len(result.Workloads) != 1 || result.Workloads[0].Name != "web" || len(asked) != 2 {
		t.Fatalf("%+v, %v", result.Workloads, err)
	}
	hostMounted := func(o neutral.Object) bool {
		return slices.ContainsFunc(o.Container.Mounts, func(m neutral.Mount) bool { return m.Type == "bind" && m.Source == "/etc" })
	}
	if !hostMounted(asked[0]) || asked[0].Namespace != "shop" {
		t.Errorf("policy sees %+v", asked[0])
	}
	if m := result.Workloads[0].Template.Mounts; len(m) != 1 || m[0].Source != "host" {
		t.Errorf("the caller sees %+v", m)
	}
	if all, _, err := ask(t, c, neutral.Operation{Action: neutral.WorkloadList}, everything); err != nil || len(all.Workloads) != 3 {
		t.Errorf("all namespaces: %+v, %v", all.Workloads, err)
	}
	if _, _, err := ask(t, c, neutral.Operation{Action: neutral.WorkloadInspect, Ref: "db", Object: shop}, func(neutral.Object) bool { return false }); !fault.Is(err, fault.Denied) {
		t.Errorf("inspect: %v", err)
	}
	if containers, _, err := ask(t, c, neutral.Operation{Action: neutral.ContainerList, Object: shop}, func(o neutral.Object) bool { return o.Name != "app" }); err != nil ||
		len(containers.Containers) != 1 || containers.Containers[0].Owner.Name != "web" {
		t.Errorf("containers %+v, %v", containers.Containers, err)
	}
	_, asked, err = ask(t, c, neutral.Operation{Action: neutral.ContainerCreate, Object: shop, Container: &neutral.Container{Name: "x", Image: "web:1",
		Mounts: []neutral.Mount{{Type: "volume", Source: "host", Target: "/h"}}}}, func(neutral.Object) bool { return false })
	if !fault.Is(err, fault.Denied) || len(asked) != 1 || !hostMounted(asked[0]) {
		t.Fatalf("create: %v, %+v", err, asked)
	}
	if diff := cmp.Diff([]string{"object.hostMounts"}, asked[0].Asks); diff != "" {
		t.Errorf("a rule must speak of (-want +got):\n%s", diff)
	}
	for _, action := range []neutral.Action{neutral.ContainerStop, neutral.ContainerRemove, neutral.ContainerPause} {
		if _, _, err := ask(t, c, neutral.Operation{Action: action, Ref: "web.1.x", Object: shop}, everything); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s of a task's container: %v", action, err)
		}
	}
}

// An engine without a swarm has no services, and makes none.
func TestPlansWithoutSwarm(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.others["/info"] = object{"Name": "node-1", "ID": "engine", "Architecture": "x86_64", "OSType": "linux", "NCPU": 2, "Swarm": object{"LocalNodeState": "inactive"}}
	e.start()
	c := e.connect()
	everything := func(neutral.Object) bool { return true }
	for _, action := range []neutral.Action{neutral.WorkloadList, neutral.TaskList, neutral.SecretList, neutral.ConfigList} {
		if result, _, err := ask(t, c, neutral.Operation{Action: action}, everything); err != nil || len(result.Workloads)+len(result.Tasks)+len(result.Stored) > 0 {
			t.Errorf("%s: %+v, %v", action, result, err)
		}
	}
	for _, op := range []neutral.Operation{
		{Action: neutral.WorkloadCreate, Workload: &neutral.Workload{Name: "web", Template: neutral.Container{Image: "web:1"}}},
		{Action: neutral.ConfigCreate, File: &neutral.StoredFile{Name: "page"}},
	} {
		if _, _, err := ask(t, c, op, everything); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", op.Action, err)
		}
	}
	result, _, err := ask(t, c, neutral.Operation{Action: neutral.NodeList}, everything)
	want := []neutral.Node{{ID: swarmID("node", "engine"), Name: "node-1", Hostname: "node-1", Role: "manager", Leader: true, Ready: true,
		Availability: "active", OS: "linux", Architecture: "amd64", Engine: "docker", MilliCPU: 2000, Labels: map[string]string{}}}
	if diff := cmp.Diff(want, result.Nodes); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// listener is a session that takes events.
type listener struct {
	neutral.Session
	accepted chan struct{}
	events   chan neutral.Event
}

func (l listener) Accept() error {
	close(l.accepted)
	return nil
}

func (l listener) Event(e neutral.Event) error {
	l.events <- e
	return nil
}

// Events come with neutral names, and without what the caller may not see.
func TestPlansTellEvents(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	stack := map[string]string{labelStack: "shop", labelOrigin: "kubernetes:deflate:AAAA"}
	e.containers = []object{running("c1", "shop_app", "default", stack, nil), running("c2", "shop_hidden", "default", stack, nil),
		running("c3", "elsewhere", "default", map[string]string{}, nil)}
	e.start()
	c := e.connect()
	plan, err := c.Plan(neutral.Operation{Action: neutral.EventWatch, Object: neutral.Object{Namespace: "shop"},
		Filter: neutral.Filter{Kinds: []neutral.Kind{neutral.KindContainer, neutral.KindNetwork}}},
		func(o neutral.Object) (dialect.Terms, error) {
			if o.Name == "hidden" {
				return dialect.Terms{}, fault.New(fault.Denied, "no permission")
			}
			return dialect.Terms{}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	l := listener{accepted: make(chan struct{}), events: make(chan neutral.Event, 10)}
	ended := make(chan error, 1)
	go func() {
		_, err := plan.Stream(t.Context(), l)
		ended <- err
	}()
	<-l.accepted
	for _, id := range []string{"c2", "c3", "c1"} {
		e.tell("container", "start", id)
	}
	select {
	case got := <-l.events:
		if got.ID != "c1" || got.Action != "start" || got.Namespace != "shop" || got.Attributes["name"] != "app" || got.Time.IsZero() {
			t.Errorf("%+v", got)
		}
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("no event came")
	}
	e.stop()
	if err := <-ended; !fault.Is(err, fault.Unavailable) {
		t.Errorf("the end: %v", err)
	}
	if len(l.events) > 0 {
		t.Errorf("one too many: %+v", <-l.events)
	}
}
