package docker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// randomSpec is some service's spec.
func randomSpec(r *rand.Rand) swarm.ServiceSpec {
	some := func() bool { return r.IntN(2) == 0 }
	replicas, grace := uint64(r.IntN(3)), time.Duration(r.IntN(20))*time.Second
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: fmt.Sprintf("web%d", r.IntN(10))},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1", StopGracePeriod: &grace}, ForceUpdate: r.Uint64N(3)}}
	if some() {
		spec.Labels = map[string]string{"a": strings.Repeat("b", r.IntN(2))}
	}
	if some() {
		spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	} else {
		spec.Mode.Global = &swarm.GlobalService{}
	}
	for i := range r.IntN(3) {
		spec.TaskTemplate.Networks = append(spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: fmt.Sprint("net", i), Aliases: []string{"www"}[:r.IntN(2)]})
	}
	if some() {
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role==manager"}[:r.IntN(2)], MaxReplicas: r.Uint64N(2)}
	}
	if some() {
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: []swarm.ResolutionMode{"", swarm.ResolutionModeVIP, swarm.ResolutionModeDNSRR}[r.IntN(3)]}
		for range r.IntN(3) {
			spec.EndpointSpec.Ports = append(spec.EndpointSpec.Ports, swarm.PortConfig{Protocol: network.TCP, TargetPort: 80 + r.Uint32N(2), PublishedPort: 80 + r.Uint32N(2),
				PublishMode: []swarm.PortConfigPublishMode{swarm.PortConfigPublishModeHost, swarm.PortConfigPublishModeIngress}[r.IntN(2)]})
		}
	}
	if some() {
		spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: r.Uint64N(3), Order: swarm.UpdateOrderStartFirst, Delay: time.Duration(r.Int64())}
	}
	return spec
}

// TestServiceSwitchSpecs wants a switch to change what it is about alone, and to know its own work from others'.
func TestServiceSwitchSpecs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same specs each time
	for i := range 500 {
		was := randomSpec(r)
		before, err := json.Marshal(was)
		if err != nil {
			t.Fatal(err)
		}
		made := &serviceSwitch{Service: "s", Was: was, Networks: []swarm.NetworkAttachmentConfig{{Target: "hostnet"}}, Host: i%2 == 0, Apart: i%3 == 0, Slot: 1}
		if i%5 == 0 {
			made.Pin = "node"
		}
		native, err := json.Marshal(made)
		if err != nil {
			t.Fatal(err)
		}
		change, err := readServiceSwitch(native)
		if err != nil {
			t.Fatal(err)
		}
		wanted, half := change.spec("lease"), change.half()
		if after, _ := json.Marshal(change.Was); string(after) != string(before) {
			t.Fatalf("the spec was\n%s\nand is remembered as\n%s", before, after)
		}
		if sameSpec(wanted, was) || sameSpec(wanted, half) || wanted.Labels[labelSwitch] != "lease" || !sameSpec(wanted, made.spec("lease")) || sameSpec(wanted, made.spec("other")) {
			t.Errorf("%s becomes %+v", before, wanted)
		}
		if change.Host && slices.ContainsFunc(wanted.EndpointSpec.Ports, func(p swarm.PortConfig) bool { return p.PublishMode == swarm.PortConfigPublishModeIngress }) {
			t.Errorf("the host's network has ports of the swarm: %+v", wanted.EndpointSpec)
		}
		// What a switch changes, put back, is the spec as it was.
		undone := wanted
		undone.Labels, undone.TaskTemplate.Networks, undone.EndpointSpec = was.Labels, was.TaskTemplate.Networks, was.EndpointSpec
		undone.TaskTemplate.Placement, undone.UpdateConfig = was.TaskTemplate.Placement, was.UpdateConfig
		if !sameSpec(undone, was) {
			t.Errorf("%s: more is changed than the mode takes: %+v", before, wanted)
		}
		half.UpdateConfig = was.UpdateConfig
		if !sameSpec(half, was) {
			t.Errorf("%s: on the way back it is %+v", before, half)
		}
		five := uint64(5)
		scaled := wanted
		if scaled.Mode.Replicated != nil {
			scaled.Mode.Replicated = &swarm.ReplicatedService{Replicas: &five}
		}
		if !sameSpec(scaled, scaledAs(wanted, scaled)) || !sameSpec(scaledAs(was, was), was) {
			t.Errorf("%s: a service that was scaled is not known again", before)
		}
	}
	if plain, err := readServiceSwitch(nil); plain != nil || err != nil {
		t.Errorf("no switch reads as %+v, %v", plain, err)
	}
	if _, err := readServiceSwitch(json.RawMessage(`[`)); err == nil {
		t.Error("half a document is read")
	}
}

func TestSameDocument(t *testing.T) {
	for _, c := range []struct {
		x, y string
		same bool
	}{
		{`{}`, `{"Labels":{},"Init":false,"Ports":[],"Name":"","Force":0,"Placement":null,"Resources":{"Limits":{}}}`, true},
		{`{"Args":["","a"]}`, `{"Args":["a"]}`, false},
		{`{"Args":["",""]}`, `{"Args":[""]}`, false},
		{`{"Labels":{"a":""}}`, `{}`, false},
		{`{"Labels":{"a":""}}`, `{"Labels":{"b":""}}`, false},
		{`{"Delay":9007199254740993}`, `{"Delay":9007199254740992}`, false},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, true},
		{`{"a":`, `{"a":`, false},
	} {
		if same := sameDocument([]byte(c.x), []byte(c.y)); same != c.same {
			t.Errorf("%s and %s: %t", c.x, c.y, same)
		}
	}
	known := swarm.Service{Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web"}}}
	if !wholeSpec(known, json.RawMessage(`{"ID":"x","Spec":{"Name":"web","Labels":{},"TaskTemplate":{"ForceUpdate":0}}}`)) {
		t.Error("a spec that was read whole is not known as one")
	}
	if wholeSpec(known, json.RawMessage(`{"Spec":{"Name":"web","Novel":{"Setting":1}}}`)) {
		t.Error("a setting that nobody knows is not missed")
	}
}

// view is a service that runs on the overlay, which nothing stands against.
func view() *serviceView {
	replicas := uint64(1)
	task := swarm.Task{ID: "t1", Slot: 1, NodeID: "n1", DesiredState: swarm.TaskStateRunning}
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "shop_web", Labels: map[string]string{labelStack: "shop"}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}, Networks: []swarm.NetworkAttachmentConfig{{Target: "net1"}}}}
	return &serviceView{service: swarm.Service{ID: "s1", Spec: spec}, whole: true, task: task, running: []swarm.Task{task}, self: node{id: "n1", name: "one", manager: true},
		found:    container.InspectResponse{ID: "c1", Image: "sha256:1", State: &container.State{Running: true}, Config: &container.Config{}},
		where:    location{mode: neutral.NetworkBridge, overlay: true},
		nodes:    []swarm.Node{{ID: "n1", Status: swarm.NodeStatus{State: swarm.NodeStateReady}, Spec: swarm.NodeSpec{Availability: swarm.NodeAvailabilityActive}}},
		networks: map[string]string{"net1": "shop_net"}, image: "sha256:1", target: "hostnet", want: map[uint16]bool{5432: true}}
}

func TestServiceSwitchRefusals(t *testing.T) {
	host := neutral.NetworkNeed{Mode: neutral.NetworkHost, Port: 5432}
	discard := host
	discard.Layer = neutral.LayerDiscard
	commit := host
	commit.Layer = neutral.LayerCommit
	updating := func(state swarm.UpdateState) func(*serviceView) {
		return func(v *serviceView) { v.service.UpdateStatus = &swarm.UpdateStatus{State: state} }
	}
	other := swarm.Task{ID: "t2", Slot: 2, NodeID: "n2", DesiredState: swarm.TaskStateRunning}
	second := func(v *serviceView) {
		n := v.nodes[0]
		n.ID = "n2"
		v.nodes = append(v.nodes, n)
	}
	for _, c := range []struct {
		name   string
		need   neutral.NetworkNeed
		change func(*serviceView)
		want   []string // a part of each refusal
		lost   string
	}{
		{"nothing", host, func(*serviceView) {}, nil, "shop_net"},
		{"none", neutral.NetworkNeed{Mode: neutral.NetworkNone}, func(*serviceView) {}, []string{"without a network"}, ""},
		{"another's network", neutral.NetworkNeed{Mode: "container:x"}, func(*serviceView) {}, []string{"host or bridge"}, ""},
		{"ended", host, func(v *serviceView) { v.found.State.Running = false }, []string{"does not run"}, ""},
		{"replaced", host, func(v *serviceView) { v.task.DesiredState = swarm.TaskStateShutdown }, []string{"does not run"}, ""},
		{"updating", host, updating(swarm.UpdateStateUpdating), []string{"middle of an update"}, ""},
		{"rolling back", host, updating(swarm.UpdateStateRollbackStarted), []string{"middle of an update"}, ""},
		{"paused", host, updating(swarm.UpdateStatePaused), []string{"half way"}, ""},
		{"updated", host, updating(swarm.UpdateStateCompleted), nil, ""},
		{"switched", host, func(v *serviceView) { v.service.Spec.Labels[labelSwitch] = "x" }, []string{"of lease x"}, ""},
		{"job", host, func(v *serviceView) {
			v.service.Spec.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
		}, []string{"a job"}, ""},
		{"unknown settings", host, func(v *serviceView) { v.whole = false }, []string{"does not know"}, ""},
		{"image gone", host, func(v *serviceView) { v.image = "" }, []string{"not on the node"}, ""},
		{"image moved", host, func(v *serviceView) { v.image = "sha256:2" }, []string{"another one now"}, ""},
		{"changed files", host, func(v *serviceView) { v.changed = []string{"/etc/motd"} }, []string{"/etc/motd"}, ""},
		{"changed files, to be committed", commit, func(v *serviceView) { v.changed = []string{"/etc/motd"} }, []string{"cannot be committed"}, ""},
		{"changed files, discarded", discard, func(v *serviceView) { v.changed = []string{"/etc/motd"} }, nil, "/etc/motd"},
		{"nothing to commit", commit, func(*serviceView) {}, nil, ""},
		{"anonymous volume", host, func(v *serviceView) {
			v.found.Mounts = []container.MountPoint{{Type: mount.TypeVolume, Name: "ab", Destination: "/data"}}
		}, []string{"/data"}, ""},
		{"named volume", host, func(v *serviceView) {
			v.found.Mounts = []container.MountPoint{{Type: mount.TypeVolume, Name: "data", Destination: "/data"}}
			v.service.Spec.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "data", Target: "/data/"}}
		}, nil, ""},
		{"named volume and two nodes", host, func(v *serviceView) {
			second(v)
			v.service.Spec.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "data", Target: "/data/"}}
		}, []string{"the node's own"}, ""},
		{"named volume and two nodes, held to one", host, func(v *serviceView) {
			second(v)
			v.service.Spec.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "data", Target: "/data/"}}
			v.service.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname == one"}}
		}, nil, ""},
		{"tasks elsewhere", host, func(v *serviceView) {
			second(v)
			v.running = append(v.running, other)
		}, []string{"other nodes"}, ""},
		{"tasks elsewhere, discarded", discard, func(v *serviceView) {
			second(v)
			v.running = append(v.running, other)
		}, nil, "other nodes"},
		{"two on one node", host, func(v *serviceView) {
			two := other
			two.NodeID = "n1"
			v.running = append(v.running, two)
		}, []string{"on one node"}, ""},
		{"more than nodes", host, func(v *serviceView) { *v.service.Spec.Mode.Replicated.Replicas = 2 }, []string{"2 containers on 1 nodes"}, ""},
		{"port taken", host, func(v *serviceView) { v.taken = map[uint16]string{5432: "another container"} }, []string{"5432 of the node is taken by another container"}, ""},
		{"no such network", host, func(v *serviceView) { v.target = "" }, []string{"no network of this mode"}, ""},
		{"all at once", host, func(v *serviceView) {
			v.whole, v.image, v.changed = false, "", []string{"/a"}
			v.taken = map[uint16]string{5432: "another container"}
		}, []string{"does not know", "not on the node", "/a", "5432"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view()
			c.change(v)
			plan, err := v.plan(c.need)
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Refusals) != len(c.want) {
				t.Errorf("refusals %q, want %q", plan.Refusals, c.want)
			}
			for i, part := range c.want {
				if i < len(plan.Refusals) && !strings.Contains(plan.Refusals[i], part) {
					t.Errorf("refusals %q, want %q", plan.Refusals, c.want)
				}
			}
			if !strings.Contains(strings.Join(plan.Lost, "\n"), c.lost) {
				t.Errorf("lost %q, want %q among it", plan.Lost, c.lost)
			}
			if plan.Object.Namespace != "shop" || plan.Object.Name != "shop_web" || plan.Object.Kind != neutral.KindWorkload || plan.Live {
				t.Errorf("plan %+v", plan)
			}
		})
	}
}

func TestServiceSwitchHolds(t *testing.T) {
	v := view()
	n := v.nodes[0]
	n.ID = "n2"
	v.nodes = append(v.nodes, n)
	plan, err := v.plan(neutral.NetworkNeed{Mode: neutral.NetworkHost})
	if err != nil {
		t.Fatal(err)
	}
	change, err := readServiceSwitch(plan.Native)
	if err != nil {
		t.Fatal(err)
	}
	if placement := change.spec("x").TaskTemplate.Placement; placement == nil || !slices.Equal(placement.Constraints, []string{"node.id==n1"}) || placement.MaxReplicas != 0 {
		t.Errorf("one container on two nodes: %+v", placement)
	}
	v.running = append(v.running, swarm.Task{ID: "t2", Slot: 2, NodeID: "n2", DesiredState: swarm.TaskStateRunning})
	plan, err = v.plan(neutral.NetworkNeed{Mode: neutral.NetworkHost, Layer: neutral.LayerDiscard})
	if err != nil {
		t.Fatal(err)
	}
	if change, err = readServiceSwitch(plan.Native); err != nil {
		t.Fatal(err)
	}
	if placement := change.spec("x").TaskTemplate.Placement; placement == nil || len(placement.Constraints) != 0 || placement.MaxReplicas != 1 {
		t.Errorf("two containers on two nodes: %+v", placement)
	}
	if !slices.Equal(plan.Recreated, []string{"shop_web.1", "shop_web.2"}) {
		t.Errorf("made anew: %q", plan.Recreated)
	}
}

func TestChangedByTask(t *testing.T) {
	changes := []container.FilesystemChange{{Kind: container.ChangeAdd, Path: "/run"}, {Kind: container.ChangeAdd, Path: "/run/secrets"}, {Kind: container.ChangeAdd, Path: "/run/secrets/key"},
		{Kind: container.ChangeModify, Path: "/var"}, {Kind: container.ChangeModify, Path: "/var/lib"}, {Kind: container.ChangeAdd, Path: "/var/lib/state"},
		{Kind: container.ChangeModify, Path: "/etc"}, {Kind: container.ChangeDelete, Path: "/etc/motd"}, {Kind: container.ChangeAdd, Path: "/data"}, {Kind: container.ChangeAdd, Path: "/data2"}}
	got := changedByTask(changes, []string{"/run/secrets/key", "/data"})
	if !slices.Equal(got, []string{"/var/lib/state", "/etc/motd", "/data2"}) {
		t.Errorf("changed %q", got)
	}
}

func TestComplaints(t *testing.T) {
	began := time.Now()
	task := func(after time.Duration, text string) swarm.Task {
		return swarm.Task{Meta: swarm.Meta{CreatedAt: began.Add(after)}, Status: swarm.TaskStatus{Err: text}}
	}
	tasks := []swarm.Task{task(-time.Second, "old"), task(1, "no such image"), task(2, ""), task(3, "no such image"), task(4, "listen 10.1.2.3:80: taken")}
	text := complaintsOf(&swarm.UpdateStatus{StartedAt: &began}, tasks)
	if !strings.HasPrefix(text, ": listen ") || !strings.HasSuffix(text, "; no such image") || strings.Contains(text, "10.1.2.3") || strings.Contains(text, "old") {
		t.Errorf("complaints %q", text)
	}
	if text := complaintsOf(nil, nil); text != "" {
		t.Errorf("no complaints are %q", text)
	}
}

// TestConverged has an update begin while it is looked whether the last one has ended.
func TestConverged(t *testing.T) {
	e := newFakeEngine(t)
	service := func(version int) object {
		return object{"ID": "s1", "Version": object{"Index": version}, "Spec": object{"Name": "agent", "Mode": object{"Global": object{}}}}
	}
	version := 5
	e.others["/services/s1"] = service(version)
	e.tasks = []object{}
	e.asked = func() {
		version++
		e.others["/services/s1"] = service(version)
	}
	e.start()
	c := e.connect()
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "agent"}, Mode: swarm.ServiceMode{Global: &swarm.GlobalService{}}}
	if _, done, err := c.converged(t.Context(), "s1", spec); done || err != nil {
		t.Errorf("while it is updated: %t, %v", done, err)
	}
	e.set(func() { e.asked = nil })
	if _, done, err := c.converged(t.Context(), "s1", spec); !done || err != nil {
		t.Errorf("afterwards: %t, %v", done, err)
	}
	spec.Name = "other"
	if _, _, err := c.converged(t.Context(), "s1", spec); !fault.Is(err, fault.Conflict) {
		t.Errorf("with another's spec: %v", err)
	}
}
