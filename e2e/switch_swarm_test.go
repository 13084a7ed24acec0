package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	engine "github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// swarmSwitch drives the docker dialect's switches of services on a real swarm.
type swarmSwitch struct {
	t     *testing.T
	host  string
	api   *engine.Client
	named string // the beginning of all names
}

// gateway is the dialect, as one that has just begun has it.
func (w *swarmSwitch) gateway() interface {
	dialect.Cluster
	dialect.Switcher
} {
	w.t.Helper()
	connected, err := docker.Dialect{}.Connect(w.t.Context(), dialect.Config{Cluster: "west", Endpoint: w.host})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := connected.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return connected.(*docker.Cluster)
}

// served makes a service and waits until its containers run.
func (w *swarmSwitch) served(name string, command []string, change func(*swarm.ServiceSpec)) string {
	w.t.Helper()
	grace, one := time.Second, uint64(1)
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: w.named + name}, Mode: swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: demo.Image, Command: command, StopGracePeriod: &grace, Init: new(bool)}}}
	change(&spec)
	made, err := w.api.ServiceCreate(w.t.Context(), engine.ServiceCreateOptions{Spec: spec})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_, _ = w.api.ServiceRemove(context.WithoutCancel(w.t.Context()), made.ID, engine.ServiceRemoveOptions{})
	})
	w.runs(made.ID)
	return made.ID
}

// overlay makes an overlay.
func (w *swarmSwitch) overlay(name string, internal bool) string {
	w.t.Helper()
	made, err := w.api.NetworkCreate(w.t.Context(), w.named+name, engine.NetworkCreateOptions{Driver: "overlay", Internal: internal})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		for range 50 { // a swarm takes its time to leave one
			if _, err := w.api.NetworkRemove(context.WithoutCancel(w.t.Context()), made.ID, engine.NetworkRemoveOptions{}); err == nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	return made.ID
}

func on(networks ...string) func(*swarm.ServiceSpec) {
	return func(spec *swarm.ServiceSpec) {
		for _, n := range networks {
			spec.TaskTemplate.Networks = append(spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
		}
	}
}

func (w *swarmSwitch) until(what string, so func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it did not come about: %s", what)
		}
	}
}

func (w *swarmSwitch) runs(id string) {
	w.t.Helper()
	w.until("the service runs", func() bool {
		list, err := w.api.TaskList(w.t.Context(), engine.TaskListOptions{Filters: make(engine.Filters).Add("service", id).Add("desired-state", "running")})
		if err != nil {
			w.t.Fatal(err)
		}
		return len(list.Items) > 0 && !slices.ContainsFunc(list.Items, func(task swarm.Task) bool { return task.Status.State != swarm.TaskStateRunning })
	})
}

func (w *swarmSwitch) service(id string) swarm.Service {
	w.t.Helper()
	found, err := w.api.ServiceInspect(w.t.Context(), id, engine.ServiceInspectOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return found.Service
}

// spec is a service's, word by word.
func (w *swarmSwitch) spec(id string) string {
	w.t.Helper()
	raw, err := json.Marshal(w.service(id).Spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(raw)
}

// operate changes a service as its operator does.
func (w *swarmSwitch) operate(id string, change func(*swarm.ServiceSpec)) {
	w.t.Helper()
	now := w.service(id)
	change(&now.Spec)
	if _, err := w.api.ServiceUpdate(w.t.Context(), id, engine.ServiceUpdateOptions{Version: now.Version, Spec: now.Spec}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *swarmSwitch) plan(name string, need neutral.NetworkNeed) *neutral.Switching {
	w.t.Helper()
	ref := neutral.TargetRef{Container: w.named + name, Port: need.Port}
	plan, err := w.gateway().PlanSwitch(w.t.Context(), "east", ref, need)
	if err != nil {
		w.t.Fatal(err)
	}
	return &neutral.Switching{ID: "lease1", Peer: "east", Ref: ref, Need: need, Plan: plan,
		Step: func(context.Context, string, json.RawMessage) error { return nil }}
}

// turns switches, and wants the target to be in the mode then.
func (w *swarmSwitch) turns(s *neutral.Switching) neutral.TargetRef {
	w.t.Helper()
	if len(s.Plan.Refusals) > 0 {
		w.t.Fatalf("refused: %q", s.Plan.Refusals)
	}
	began := time.Now()
	ref, err := w.gateway().Switch(w.t.Context(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("%s is in mode %s after %.1fs (%s away, as the plan has it)", ref.Container, s.Plan.To, time.Since(began).Seconds(), s.Plan.Away)
	w.mode(ref, s.Plan.To)
	return ref
}

func (w *swarmSwitch) mode(ref neutral.TargetRef, mode neutral.NetworkMode) {
	w.t.Helper()
	found, err := w.gateway().Locate(w.t.Context(), ref)
	if err != nil {
		w.t.Fatal(err)
	}
	if found.Network != mode || !found.Running || !found.Address.IsValid() {
		w.t.Errorf("%s is in mode %s (running: %t, reached: %t), want %s", ref.Container, found.Network, found.Running, found.Address.IsValid(), mode)
	}
}

// returns restores, and wants the service to be what it was.
func (w *swarmSwitch) returns(s *neutral.Switching, id, before string) {
	w.t.Helper()
	if err := w.gateway().Restore(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	if now := w.spec(id); now != before {
		w.t.Errorf("the service was\n%s\nand is\n%s", before, now)
	}
	if err := w.gateway().Restore(w.t.Context(), s); err != nil {
		w.t.Errorf("restored once more: %v", err)
	}
}

// fails wants a fault of a kind.
func (w *swarmSwitch) fails(err error, kind fault.Kind, parts ...string) {
	w.t.Helper()
	if !fault.Is(err, kind) {
		w.t.Fatalf("%v, want %s", err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(fault.Of(err).Message, part) {
			w.t.Errorf("%q, want %q in it", fault.Of(err).Message, part)
		}
	}
}

var sleeps = []string{"sleep", "600"}

// TestSwitchSwarm switches network modes of a swarm's services and back.
func TestSwitchSwarm(t *testing.T) {
	scripting(t)
	host := running.Bed.Docker("west").Host()
	api, err := engine.New(engine.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	for name, test := range map[string]func(*swarmSwitch){
		"overlay": overlayToHost, "host": hostToBridge, "global": globalToHost, "internal": besideBridge, "failing": failingSwitch,
		"operator": operatorsChange, "interrupted": interruptedSwitch, "kept": keptSwitch, "refused": refusedSwitch,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer turn("switch-swarm")()
			test(&swarmSwitch{t: t, host: host, api: api, named: fmt.Sprintf("sw%d-%s-", time.Now().UnixNano()%1e6, name)})
		})
	}
}

func overlayToHost(w *swarmSwitch) {
	net := w.overlay("net", false)
	id := w.served("web", sleeps, func(spec *swarm.ServiceSpec) {
		on(net)(spec)
		spec.TaskTemplate.Networks[0].Aliases = []string{"www"}
		spec.Labels = map[string]string{"tier": "", "app": "web"}
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: network.TCP, TargetPort: 80, PublishedPort: 18391, PublishMode: swarm.PortConfigPublishModeIngress},
			{Protocol: network.TCP, TargetPort: 18392, PublishedPort: 18392, PublishMode: swarm.PortConfigPublishModeHost}}}
		spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2, FailureAction: swarm.UpdateFailureActionContinue, Order: swarm.UpdateOrderStartFirst}
	})
	before := w.spec(id)
	if s := w.plan("web.1", neutral.NetworkNeed{Port: 80}); !s.Plan.Live || len(s.Plan.Refusals) > 0 || s.Plan.Native != nil {
		w.t.Errorf("what is reached already: %+v", s.Plan)
	}
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost, Port: 18390})
	lost := strings.Join(s.Plan.Lost, "\n")
	if s.Plan.Object.Kind != neutral.KindWorkload || s.Plan.Object.Name != w.named+"web" || s.Plan.From != neutral.NetworkBridge || s.Plan.Live ||
		!slices.Equal(s.Plan.Recreated, []string{w.named + "web.1"}) || !strings.Contains(lost, w.named+"net") || !strings.Contains(lost, "18391") ||
		strings.Contains(lost, "18392") || s.Plan.Away < time.Second || s.Plan.Away > 10*time.Second {
		w.t.Errorf("plan %+v", s.Plan)
	}
	ref := w.turns(s)
	if ref.Container != w.named+"web.1" {
		w.t.Errorf("it is %+v then", ref)
	}
	now := w.service(id).Spec
	if now.Labels["isthmus.io/switch"] != "lease1" || len(now.EndpointSpec.Ports) != 1 || now.EndpointSpec.Mode != swarm.ResolutionModeDNSRR {
		w.t.Errorf("the service is %+v", now)
	}
	if again, err := w.gateway().Switch(w.t.Context(), s); err != nil || again != ref {
		w.t.Errorf("once more: %+v, %v", again, err)
	}
	if other := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkBridge}); len(other.Plan.Refusals) != 1 || !strings.Contains(other.Plan.Refusals[0], "lease1") {
		w.t.Errorf("another lease meanwhile: %+v", other.Plan)
	}
	w.returns(s, id, before)
	w.mode(ref, neutral.NetworkBridge)
	found, err := w.api.TaskList(w.t.Context(), engine.TaskListOptions{Filters: make(engine.Filters).Add("service", id).Add("desired-state", "running")})
	if err != nil || len(found.Items) != 1 || found.Items[0].NetworksAttachments[0].Network.ID == "" {
		w.t.Errorf("tasks %+v, %v", found.Items, err)
	}
}

func hostToBridge(w *swarmSwitch) {
	id := w.served("web", sleeps, on("host"))
	before := w.spec(id)
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkBridge, Port: 80})
	if s.Plan.From != neutral.NetworkHost || len(s.Plan.Lost) != 1 || !strings.Contains(s.Plan.Lost[0], "node's own network") {
		w.t.Errorf("plan %+v", s.Plan)
	}
	ref := w.turns(s)
	w.returns(s, id, before)
	w.mode(ref, neutral.NetworkHost)
}

func globalToHost(w *swarmSwitch) {
	id := w.served("agent", sleeps, func(spec *swarm.ServiceSpec) {
		spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	})
	before := w.spec(id)
	list, err := w.api.TaskList(w.t.Context(), engine.TaskListOptions{Filters: make(engine.Filters).Add("service", id)})
	if err != nil || len(list.Items) != 1 {
		w.t.Fatalf("tasks %+v, %v", list.Items, err)
	}
	s := w.plan("agent."+list.Items[0].NodeID, neutral.NetworkNeed{Mode: neutral.NetworkHost})
	ref := w.turns(s)
	w.returns(s, id, before)
	w.mode(ref, neutral.NetworkBridge)
}

// besideBridge reaches a service that no network of the node leads to.
func besideBridge(w *swarmSwitch) {
	id := w.served("db", sleeps, on(w.overlay("inner", true)))
	before := w.spec(id)
	s := w.plan("db.1", neutral.NetworkNeed{Port: 5432})
	if s.Plan.From != neutral.NetworkBridge || s.Plan.To != neutral.NetworkBridge || s.Plan.Live {
		w.t.Errorf("plan %+v", s.Plan)
	}
	w.turns(s)
	if now := w.service(id).Spec.TaskTemplate.Networks; len(now) != 2 {
		w.t.Errorf("it is on %+v", now)
	}
	w.returns(s, id, before)
}

// failingSwitch wants a port that another one took since the plan.
func failingSwitch(w *swarmSwitch) {
	const port = "18393"
	serve := []string{"httpd", "-f", "-p", port}
	id := w.served("web", serve, on(w.overlay("net", false)))
	before := w.spec(id)
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost, Port: 18393})
	w.served("other", serve, func(spec *swarm.ServiceSpec) {
		on("host")(spec)
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	})
	began := time.Now()
	_, err := w.gateway().Switch(w.t.Context(), s)
	w.fails(err, fault.Conflict, "took the update", "non-zero exit")
	w.returns(s, id, before)
	w.runs(id)
	w.t.Logf("the old one is back after %.1fs: %v", time.Since(began).Seconds(), err)
	w.mode(s.Ref, neutral.NetworkBridge)
}

func operatorsChange(w *swarmSwitch) {
	net := w.overlay("net", false)
	id := w.served("web", sleeps, on(net))
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost})
	w.turns(s)
	w.operate(id, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Env = []string{"A=b"} })
	w.runs(id)
	w.fails(w.gateway().Restore(w.t.Context(), s), fault.Conflict, "stays as it is")
	now := w.service(id).Spec
	if _, ok := now.Labels["isthmus.io/switch"]; ok || len(now.TaskTemplate.ContainerSpec.Env) != 1 || now.TaskTemplate.Networks[0].Target == net {
		w.t.Errorf("the service is %+v", now)
	}
	w.fails(w.gateway().Restore(w.t.Context(), s), fault.Conflict)

	// One that was only scaled is brought back, as many as it is.
	two := uint64(2)
	scaled := w.served("scaled", sleeps, on(net))
	s = w.plan("scaled.1", neutral.NetworkNeed{Mode: neutral.NetworkHost})
	w.turns(s)
	w.operate(scaled, func(spec *swarm.ServiceSpec) { spec.Mode.Replicated.Replicas = &two })
	if err := w.gateway().Restore(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	if now := w.service(scaled).Spec; *now.Mode.Replicated.Replicas != 2 || now.TaskTemplate.Networks[0].Target != net || len(now.Labels) != 0 {
		w.t.Errorf("the scaled service is %+v", now)
	}

	// What was changed since the plan is not switched.
	s = w.plan("scaled.1", neutral.NetworkNeed{Mode: neutral.NetworkHost})
	s.Plan.Refusals = nil // two on one node
	w.operate(scaled, func(spec *swarm.ServiceSpec) { spec.Labels = map[string]string{"a": ""} })
	_, err := w.gateway().Switch(w.t.Context(), s)
	w.fails(err, fault.Conflict, "since its switch was planned")

	// A service that is gone is nobody's to restore.
	if _, err := w.api.ServiceRemove(w.t.Context(), scaled, engine.ServiceRemoveOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.fails(w.gateway().Restore(w.t.Context(), s), fault.Conflict, "removed")
}

// interruptedSwitch is cut short before and after each touch, and goes on from there.
func interruptedSwitch(w *swarmSwitch) {
	id := w.served("web", sleeps, on(w.overlay("net", false)))
	before := w.spec(id)
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost})
	journal, lost := s.Step, errors.New("the journal cannot be written")
	var steps []string
	s.Step = func(_ context.Context, step string, _ json.RawMessage) error {
		steps = append(steps, step)
		return lost
	}
	if _, err := w.gateway().Switch(w.t.Context(), s); !errors.Is(err, lost) || len(steps) != 1 {
		w.t.Errorf("cut before the first touch: %v, %q", err, steps)
	}
	w.returns(s, id, before)
	s.Step = journal

	// cut ends a call as soon as the service was written.
	cut := func(call func(context.Context) error) {
		w.t.Helper()
		version := w.service(id).Version
		ctx, cancel := context.WithCancel(w.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- call(ctx) }()
		w.until("the service is written", func() bool { return w.service(id).Version != version })
		cancel()
		if err := <-ended; err == nil {
			w.t.Error("a call that was cut short says that all is well")
		}
	}
	turn := func(ctx context.Context) error {
		_, err := w.gateway().Switch(ctx, s)
		return err
	}
	cut(turn)
	w.returns(s, id, before)
	w.mode(s.Ref, neutral.NetworkBridge)
	cut(turn)
	w.turns(s)
	cut(func(ctx context.Context) error { return w.gateway().Restore(ctx, s) })
	w.returns(s, id, before)
	w.turns(s)
	for written := range 2 {
		s.Step = func(context.Context, string, json.RawMessage) error {
			if written--; written < 0 {
				return lost
			}
			return nil
		}
		if err := w.gateway().Restore(w.t.Context(), s); !errors.Is(err, lost) {
			w.t.Errorf("cut before a touch on the way back: %v", err)
		}
	}
	s.Step = journal
	w.returns(s, id, before)
	w.mode(s.Ref, neutral.NetworkBridge)
}

func keptSwitch(w *swarmSwitch) {
	id := w.served("web", sleeps, on(w.overlay("net", false)))
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost})
	ref := w.turns(s)
	for range 2 {
		if err := w.gateway().Keep(w.t.Context(), s); err != nil {
			w.t.Fatal(err)
		}
	}
	w.mode(ref, neutral.NetworkHost)
	if now := w.service(id).Spec; len(now.Labels) != 0 || now.UpdateConfig != nil && now.UpdateConfig.FailureAction == swarm.UpdateFailureActionRollback {
		w.t.Errorf("the service is %+v", now)
	}
}

func refusedSwitch(w *swarmSwitch) {
	two := uint64(2)
	w.t.Cleanup(func() {
		for range 50 {
			if _, err := w.api.VolumeRemove(context.WithoutCancel(w.t.Context()), w.named+"data", engine.VolumeRemoveOptions{}); err == nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	w.served("web", []string{"sh", "-c", "echo x > /left; exec sleep 600"}, func(spec *swarm.ServiceSpec) {
		spec.Mode.Replicated.Replicas = &two
		spec.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/anonymous/here"}, {Type: mount.TypeVolume, Source: w.named + "data", Target: "/data"},
			{Type: mount.TypeTmpfs, Target: "/scratch"}}
	})
	s := w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost, Layer: neutral.LayerCommit})
	all := strings.Join(s.Plan.Refusals, "\n")
	for _, part := range []string{"(/left)", "cannot be committed", "/anonymous/here", "two of its containers"} {
		if !strings.Contains(all, part) {
			w.t.Errorf("refusals %q, want %q in them", all, part)
		}
	}
	if _, err := w.gateway().Switch(w.t.Context(), s); !fault.Is(err, fault.Conflict) {
		w.t.Errorf("a plan that is refused is carried out: %v", err)
	}
	if s = w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkNone}); !strings.Contains(strings.Join(s.Plan.Refusals, ""), "without a network") {
		w.t.Errorf("mode none: %+v", s.Plan)
	}
	if s = w.plan("web.1", neutral.NetworkNeed{Mode: neutral.NetworkHost, Layer: neutral.LayerDiscard}); len(s.Plan.Refusals) != 1 ||
		!strings.Contains(strings.Join(s.Plan.Lost, "\n"), "/scratch") || len(s.Plan.Recreated) != 2 {
		w.t.Errorf("with discard: %+v", s.Plan)
	}
}
