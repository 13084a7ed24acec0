package docker

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestUpstream(t *testing.T) {
	t.Parallel()
	tests := map[string]neutral.Upstream{
		"":                         {Socket: "/var/run/docker.sock", Host: apiHost},
		"unix:///run/d.sock":       {Socket: "/run/d.sock", Host: apiHost},
		"tcp://127.0.0.1:2375":     {Address: "127.0.0.1:2375", Host: apiHost},
		"tcp://[::1]:2375":         {Address: "[::1]:2375", Host: apiHost},
		"unix://run/d.sock":        {},
		"unix:///":                 {},
		"tcp://host":               {},
		"tcp://host:1/path":        {},
		"tcp://user:secret@host:1": {},
		"ssh://host":               {},
		"http://host:1":            {},
		"/run/d.sock":              {},
		"tcp://a b:1":              {},
	}
	for endpoint, want := range tests {
		got, err := upstreamFrom(endpoint)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", endpoint, diff)
		}
		if bad := want.Host == ""; bad != fault.Is(err, fault.Invalid) {
			t.Errorf("%q: error %v", endpoint, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.start()
	c := e.connect()
	system, err := c.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := neutral.System{Name: "west", Version: "20.10.24", APIVersion: "1.41", Platform: "Docker Engine", OS: "linux", Architecture: "amd64",
		Kernel: "6.18", Containers: 3, Nodes: 1, MilliCPU: 2000, Memory: 1 << 30, Now: time.Date(2026, 11, 24, 12, 0, 0, 5e8, time.UTC)}
	if diff := cmp.Diff(want, system); diff != "" {
		t.Errorf("system (-want +got):\n%s", diff)
	}
	e.set(func() { e.services = []object{} })
	if system, err := c.System(t.Context()); err != nil || system.Platform != "Docker Swarm" || system.Nodes != 2 {
		t.Errorf("a manager is %q of %d nodes, error %v", system.Platform, system.Nodes, err)
	}
	e.stop()
	_, err = c.System(t.Context())
	if f := fault.Of(err); f.Kind != fault.Unavailable || strings.Contains(f.Message, "/") || strings.Contains(f.Message, "tcp") {
		t.Errorf("an engine that is gone is %v: %s", f.Kind, f.Message)
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.start()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://any.host/v1.41/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := e.connect().Transport().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if body, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(body), "20.10.24") {
		t.Errorf("body %s, error %v", body, err)
	}
}

// Every action has a plan or a reason, and no policy allows nothing.
func TestPlanNamesWhatItCannot(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.start()
	c := e.connect()
	for _, action := range neutral.Actions() {
		op := neutral.Operation{Action: action, Verb: action.Verb(), Object: neutral.Object{Kind: action.Kind(), Resource: "apps/statefulsets"}}
		plan, err := c.Plan(op, nil)
		if plans[action] != nil {
			if err != nil || plan.Program == nil && plan.Stream == nil {
				t.Errorf("%s: %v", action, err)
			}
			continue
		}
		if f := fault.Of(err); f == nil || f.Kind != fault.Unsupported || len(f.Message) < 20 {
			t.Errorf("%s: %v", action, err)
		}
		if plan.Answer != nil || plan.Call != nil || plan.Program != nil || plan.Stream != nil {
			t.Errorf("%s has a plan beside its error", action)
		}
		if refused[action] != "" && plans[action] != nil {
			t.Errorf("%s has a plan and a refusal", action)
		}
	}
	plan, err := c.Plan(neutral.Operation{Action: neutral.NodeInspect, Ref: "node-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Program(t.Context()); !fault.Is(err, fault.Denied) {
		t.Errorf("without a policy: %v", err)
	}
}

// locatable is an engine with a container of each network mode.
func locatable(t *testing.T) *Cluster {
	t.Helper()
	e := newFakeEngine(t)
	stopped := running("c5", "stopped", "default", map[string]string{}, onNetwork("bridge", "net-bridge", ""))
	stopped["State"] = "exited"
	e.networks = append(e.networks, object{"Id": "net-gw", "Name": gatewayBridge, "Driver": "bridge"})
	e.others["/networks/"+gatewayBridge] = object{"Id": "net-gw", "Containers": object{"c7": object{"IPv4Address": "172.19.0.5/16", "IPv6Address": ""}}}
	e.containers = []object{
		running("c1", "web", "default", map[string]string{labelComposeProject: "shop"}, onNetwork("bridge", "net-bridge", "172.17.0.2")),
		running("c2", "hosted", "host", map[string]string{}, onNetwork("host", "net-host", "")),
		running("c3", "isolated", "none", map[string]string{}, onNetwork("none", "net-none", "")),
		running("c4", "sidecar", "container:c1", map[string]string{}, nil),
		running("c8", "orphan", "container:gone", map[string]string{}, nil),
		stopped,
		running("c6", "joined", "none", map[string]string{}, onNetwork("u1", "net-bridge", "172.18.0.2")),
		running("c7", "web.1.abc", "default", map[string]string{labelSwarmTaskName: "web.1.abc"}, onNetwork("ov", "net-overlay", "10.0.9.3")),
	}
	e.start()
	return e.connect()
}

func TestLocate(t *testing.T) {
	t.Parallel()
	c := locatable(t)
	tests := []struct {
		name    string
		ref     neutral.TargetRef
		mode    neutral.NetworkMode
		address string
		stopped bool
		kind    fault.Kind // of the error
		fails   bool
	}{
		{name: "bridge", ref: neutral.TargetRef{Namespace: "shop", Container: "web"}, mode: neutral.NetworkBridge, address: "172.17.0.2"},
		{name: "by id", ref: neutral.TargetRef{Namespace: "shop", Container: "c1"}, mode: neutral.NetworkBridge, address: "172.17.0.2"},
		{name: "host", ref: neutral.TargetRef{Namespace: "default", Container: "hosted"}, mode: neutral.NetworkHost, address: "127.0.0.1"},
		{name: "none", ref: neutral.TargetRef{Namespace: "default", Container: "isolated"}, mode: neutral.NetworkNone},
		{name: "another's", ref: neutral.TargetRef{Namespace: "default", Container: "sidecar"}, mode: "container:c1", address: "172.17.0.2"},
		{name: "another's that is gone", ref: neutral.TargetRef{Namespace: "default", Container: "orphan"}, mode: "container:gone"},
		{name: "none no more", ref: neutral.TargetRef{Namespace: "default", Container: "joined"}, mode: neutral.NetworkBridge, address: "172.18.0.2"},
		{name: "overlay", ref: neutral.TargetRef{Namespace: "default", Container: "web.1"}, mode: neutral.NetworkBridge, address: "172.19.0.5"},
		{name: "dots read as a pod", ref: neutral.TargetRef{Namespace: "default", Container: "web", Pod: "1.abc"}, mode: neutral.NetworkBridge, address: "172.19.0.5"},
		{name: "stopped", ref: neutral.TargetRef{Namespace: "default", Container: "stopped"}, mode: neutral.NetworkBridge, stopped: true},
		{name: "right node", ref: neutral.TargetRef{Namespace: "shop", Container: "web", Node: "NODE-1"}, mode: neutral.NetworkBridge, address: "172.17.0.2"},
		{name: "node id", ref: neutral.TargetRef{Namespace: "shop", Container: "web", Node: "self"}, mode: neutral.NetworkBridge, address: "172.17.0.2"},
		{name: "wrong node", ref: neutral.TargetRef{Namespace: "shop", Container: "web", Node: "node-2"}, fails: true, kind: fault.Conflict},
		{name: "wrong namespace", ref: neutral.TargetRef{Namespace: "default", Container: "web"}, fails: true, kind: fault.NotFound},
		{name: "unknown", ref: neutral.TargetRef{Namespace: "default", Container: "nobody"}, fails: true, kind: fault.NotFound},
		{name: "empty", ref: neutral.TargetRef{Namespace: "default"}, fails: true, kind: fault.NotFound},
		{name: "a path", ref: neutral.TargetRef{Namespace: "default", Container: "../info?"}, fails: true, kind: fault.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, err := c.Locate(t.Context(), tt.ref)
			if tt.fails {
				if !fault.Is(err, tt.kind) {
					t.Errorf("error %v, want kind %v", err, tt.kind)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var address netip.Addr
			if tt.address != "" {
				address = netip.MustParseAddr(tt.address)
			}
			if target.Network != tt.mode || target.Address != address || target.Running == tt.stopped || target.Node != "node-1" {
				t.Errorf("target %s %s on %s, running %t", target.Network, target.Address, target.Node, target.Running)
			}
			if target.Object.Kind != neutral.KindContainer || target.Object.Labels == nil || target.Object.Container == nil {
				t.Errorf("object %+v", target.Object)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	labels := map[string]string{"team": "a", labelStack: "shop"}
	spec := object{"Name": "web", "Labels": labels}
	e.containers = []object{running("c1", "web", "host", labels, nil)}
	e.others = map[string]object{
		"/exec/e1/json":     {"ID": "e1", "ContainerID": "c1"},
		"/services/web":     {"ID": "s1", "Spec": spec},
		"/tasks/t1":         {"ID": "t1", "ServiceID": "s1"},
		"/services/s1":      {"ID": "s1", "Spec": spec},
		"/networks/web":     {"Name": "web", "Labels": labels},
		"/volumes/web":      {"Name": "web", "Labels": labels},
		"/secrets/web":      {"ID": "x", "Spec": spec},
		"/configs/web":      {"ID": "x", "Spec": spec},
		"/nodes/n1":         {"ID": "n1", "Spec": object{"Labels": labels}, "Description": object{"Hostname": "web"}},
		"/images/web/json":  {"Id": "sha256:1", "Config": object{"Labels": labels}},
		"/networks/naked":   {"Name": "naked"},
		"/volumes/a b/json": {},
	}
	e.start()
	c := e.connect()
	tests := []struct {
		action neutral.Action
		ref    string
	}{
		{neutral.ContainerInspect, "web"}, {neutral.ContainerStop, "/web"}, {neutral.ExecCreate, "c1"}, {neutral.ExecStart, "e1"},
		{neutral.WorkloadUpdate, "web"}, {neutral.TaskInspect, "t1"}, {neutral.NetworkGet, "web"}, {neutral.VolumeGet, "web"},
		{neutral.SecretGet, "web"}, {neutral.ConfigGet, "web"}, {neutral.NodeInspect, "n1"}, {neutral.ImageInspect, "web"},
	}
	for _, tt := range tests {
		op := neutral.Operation{Action: tt.action, Verb: tt.action.Verb(), Object: neutral.Object{Kind: tt.action.Kind(), Name: tt.ref}, Ref: tt.ref}
		object, err := c.Lookup(t.Context(), op)
		if err != nil {
			t.Errorf("%s %s: %v", tt.action, tt.ref, err)
			continue
		}
		if object.Kind != tt.action.Kind() || object.Name != "web" || object.Namespace != "shop" || object.Labels["team"] != "a" {
			t.Errorf("%s %s: %+v", tt.action, tt.ref, object)
		}
		op.Ref = "nobody"
		if tt.action == neutral.ExecStart {
			op.Ref = "e2"
		}
		if _, err := c.Lookup(t.Context(), op); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s of nobody: %v", tt.action, err)
		}
	}
	if object, err := c.Lookup(t.Context(), neutral.Operation{Object: neutral.Object{Kind: neutral.KindNetwork}, Ref: "naked"}); err != nil || object.Labels == nil {
		t.Errorf("an object without labels: %+v, %v", object, err)
	}
	list := neutral.Operation{Action: neutral.ContainerList, Object: neutral.Object{Kind: neutral.KindContainer}}
	if object, err := c.Lookup(t.Context(), list); err != nil || object.Name != "" || object.Labels != nil {
		t.Errorf("a list's object: %+v, %v", object, err)
	}
	odd := neutral.Operation{Object: neutral.Object{Kind: neutral.KindVolume}, Ref: "a?b"}
	if _, err := c.Lookup(t.Context(), odd); !fault.Is(err, fault.Invalid) {
		t.Errorf("an odd name: %v", err)
	}
}

func TestFaultOf(t *testing.T) {
	t.Parallel()
	own := fault.New(fault.Denied, "no")
	if !errors.Is(faultOf(own), own) || faultOf(nil) != nil {
		t.Error("a fault is not kept")
	}
	if f := fault.Of(faultOf(errors.New("10.0.0.7: odd"))); f.Kind != fault.Internal || strings.Contains(f.Message, "10.0.0.7") {
		t.Errorf("an unknown error says %q", f.Message)
	}
	e := newFakeEngine(t)
	e.start()
	_, err := e.connect().find(t.Context(), "", "nobody")
	if f := fault.Of(err); f.Message != "No such container: nobody" {
		t.Errorf("the engine's word became %q", f.Message)
	}
}

func TestConnectRefusesAnEndpoint(t *testing.T) {
	t.Parallel()
	if _, err := (Dialect{}).Connect(t.Context(), dialect.Config{Endpoint: "ftp://x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
}
