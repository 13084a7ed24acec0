package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// fakeLister lists fixed targets, and finds them by name.
type fakeLister struct{ targets []neutral.Target }

func (f *fakeLister) Targets(_ context.Context, namespace string) ([]neutral.Target, error) {
	var in []neutral.Target
	for _, t := range f.targets {
		if namespace == "" || t.Object.Namespace == namespace {
			in = append(in, t)
		}
	}
	return in, nil
}

func (f *fakeLister) Locate(_ context.Context, ref neutral.TargetRef) (neutral.Target, error) {
	for _, t := range f.targets {
		if t.Object.Namespace == ref.Namespace && t.Object.Name == objectName(ref) {
			if ref.Node != "" && ref.Node != t.Node {
				return neutral.Target{}, fault.New(fault.Conflict, "container %s does not run on node %s", t.Object.Name, ref.Node)
			}
			return t, nil
		}
	}
	return neutral.Target{}, fault.New(fault.NotFound, "no such container")
}

// fakeReaders lets west list shop, reach bank by access alone, and nobody else anything; addresses of bank are shown.
type fakeReaders struct{}

func (fakeReaders) Judge(s modules.Subject, v neutral.Verb, o neutral.Object) modules.Judgement {
	switch {
	case s.Peer == "west" && o.Namespace == "shop" && v == neutral.List && o.Labels["secret"] == "":
		return modules.Judgement{Allowed: true, Rule: "shop/0"}
	case s.Peer == "west" && o.Namespace == "bank" && v == neutral.Access:
		return modules.Judgement{Allowed: true, Rule: "bank/0", ShowAddresses: true}
	}
	return modules.Judgement{Reason: "no policy allows it"}
}

func (fakeReaders) Foresee(s modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
	if s.Peer == "west" && o.Namespace != "other" {
		return modules.Judgement{Open: true}
	}
	return modules.Judgement{Reason: "no policy allows it"}
}
func (fakeReaders) MayKnow(modules.Subject, neutral.Object) bool { return false }

func hostModule(pods bool, targets ...neutral.Target) *Module {
	return New(Config{Cluster: "east", Suffix: "isthmus.internal", Pods: pods, Policy: func() modules.Policy { return fakeReaders{} },
		Locator: &fakeLister{targets: targets}, StandIn: func(name string) string { return "stand-in-" + fmt.Sprint(len(name)) }})
}

func hostTarget(namespace, name, node string, mode neutral.NetworkMode) neutral.Target {
	return neutral.Target{Object: neutral.Object{Kind: neutral.KindContainer, Namespace: namespace, Name: name, Labels: map[string]string{},
		Container: &neutral.Container{ID: "id-" + name}}, Node: node, Network: mode, Running: true, Address: netip.MustParseAddr("10.9.8.7")}
}

func askHosts(t *testing.T, m *Module, peer, path string) (HostList, modules.Verdict, error) {
	t.Helper()
	verdict, err := m.Decide(t.Context(), &modules.Request{Method: http.MethodGet, Authority: "ctr.east.isthmus.internal", Path: path,
		Peer: modules.Peer{Name: peer}, Header: http.Header{}})
	var list HostList
	if err == nil {
		if verdict.Answer == nil || verdict.Answer.Status != http.StatusOK {
			t.Fatalf("verdict %+v", verdict)
		}
		if strings.Contains(string(verdict.Answer.Body), "10.9.8.7") {
			t.Errorf("an address leaks: %s", verdict.Answer.Body)
		}
		if err := json.Unmarshal(verdict.Answer.Body, &list); err != nil {
			t.Fatal(err)
		}
	}
	return list, verdict, err
}

func TestHosts(t *testing.T) {
	t.Parallel()
	secret := hostTarget("shop", "vault", "n1", neutral.NetworkBridge)
	secret.Object.Labels["secret"] = "yes"
	stopped := hostTarget("shop", "old", "n1", neutral.NetworkNone)
	stopped.Running = false
	m := hostModule(false, hostTarget("shop", "web", "n1", neutral.NetworkBridge), stopped, secret,
		hostTarget("shop", "beside", "n1", "container:id-web"), hostTarget("shop", "under", "n1", "container:id-vault"),
		hostTarget("shop", "moved", "ip-10-0-0-3.internal", neutral.NetworkHost), hostTarget("bank", "till", "10.0.0.3", neutral.NetworkBridge),
		hostTarget("other", "x", "n1", neutral.NetworkBridge))
	list, verdict, err := askHosts(t, m, "west", "/")
	if err != nil {
		t.Fatal(err)
	}
	want := HostList{Cluster: "east", Containers: []Placement{
		{Namespace: "bank", Container: "till", Host: "10.0.0.3", NetworkMode: "bridge", Running: true},
		{Namespace: "shop", Container: "beside", Host: "n1", NetworkMode: "container:web", Running: true},
		{Namespace: "shop", Container: "moved", Host: "stand-in-20", NetworkMode: "host", Running: true},
		{Namespace: "shop", Container: "old", Host: "n1", NetworkMode: "none"},
		{Namespace: "shop", Container: "under", Host: "n1", NetworkMode: "container", Running: true},
		{Namespace: "shop", Container: "web", Host: "n1", NetworkMode: "bridge", Running: true},
	}}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("got  %+v\nwant %+v", list, want)
	}
	if r := verdict.Record; r.Verb != neutral.List || r.Object.Kind != neutral.KindContainer || r.Rule != "shop/0" {
		t.Errorf("record %+v", r)
	}
	if list, _, err := askHosts(t, m, "west", "/?namespace=bank"); err != nil || len(list.Containers) != 1 {
		t.Errorf("of a namespace: %+v, %v", list, err)
	}
	for name, test := range map[string]struct {
		peer, path string
		kind       fault.Kind
	}{
		"no rule":            {"south", "/", fault.Denied},
		"no rule of it":      {"west", "/?namespace=other", fault.Denied},
		"no peer":            {"", "/", fault.Denied},
		"another path":       {"west", "/x", fault.NotFound},
		"another query":      {"west", "/?name=web", fault.Invalid},
		"a query of nothing": {"west", "/?%zz", fault.Invalid},
	} {
		if _, _, err := askHosts(t, m, test.peer, test.path); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.Decide(t.Context(), &modules.Request{Method: http.MethodConnect, Authority: "ctr.east.isthmus.internal:80",
		Peer: modules.Peer{Name: "west"}, Header: http.Header{}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a tunnel to no container: %v", err)
	}
}

// TestHostPages holds that the list comes in pages, each container once.
func TestHostPages(t *testing.T) {
	t.Parallel()
	var targets []neutral.Target
	for pod := range 700 {
		for _, container := range []string{"main", "beside"} {
			target := hostTarget("shop", fmt.Sprintf("pod-%03d", pod), "n1", neutral.NetworkPod)
			target.Container, target.Object.Container = container, nil
			targets = append(targets, target)
		}
	}
	m := hostModule(true, targets...)
	seen := map[Placement]bool{}
	for next, pages := "", 0; ; pages++ {
		list, _, err := askHosts(t, m, "west", "/?after="+url.QueryEscape(next))
		if err != nil || len(list.Containers) > HostPage || pages > 2 {
			t.Fatalf("page %d: %d containers, %v", pages, len(list.Containers), err)
		}
		for _, p := range list.Containers {
			if seen[p] || p.Pod == "" {
				t.Fatalf("%+v is told twice, or without its Pod", p)
			}
			seen[p] = true
		}
		if next = list.Next; next == "" {
			break
		}
	}
	if len(seen) != len(targets) {
		t.Errorf("%d of %d containers", len(seen), len(targets))
	}
}

// TestStandInOfHost holds that an access may name a host as the list told it, and no other stand-in.
func TestStandInOfHost(t *testing.T) {
	t.Parallel()
	m := hostModule(false, hostTarget("bank", "moved", "ip-10-0-0-3.internal", neutral.NetworkBridge), hostTarget("bank", "web", "n1", neutral.NetworkBridge))
	for node, ok := range map[string]bool{"stand-in-20": true, "ip-10-0-0-3.internal": true, "stand-in-2": false, "n1": false} {
		req := &modules.Request{Method: http.MethodGet, Authority: "moved.bank.ctr.east.isthmus.internal:80", Peer: modules.Peer{Name: "west"}, Header: http.Header{}}
		req.Header.Set(names.HeaderNode, node)
		_, err := m.Decide(t.Context(), req)
		if ok != (err == nil) || err != nil && (!fault.Is(err, fault.Conflict) || strings.Contains(err.Error(), "10-0-0-3")) {
			t.Errorf("on %s: %v", node, err)
		}
	}
	req := &modules.Request{Method: http.MethodGet, Authority: "web.bank.ctr.east.isthmus.internal:80", Peer: modules.Peer{Name: "west"}, Header: http.Header{}}
	req.Header.Set(names.HeaderNode, "stand-in-2")
	if _, err := m.Decide(t.Context(), req); !fault.Is(err, fault.Conflict) {
		t.Errorf("a host that needs no stand-in is found by one: %v", err)
	}
}

// TestHostOfUnknown holds that who may not know of a container does not learn of it by naming a host.
func TestHostOfUnknown(t *testing.T) {
	t.Parallel()
	m := hostModule(false, hostTarget("shop", "web", "n1", neutral.NetworkBridge))
	for _, name := range []string{"web", "nobody"} {
		req := &modules.Request{Method: http.MethodGet, Authority: name + ".shop.ctr.east.isthmus.internal:80", Peer: modules.Peer{Name: "west"}, Header: http.Header{}}
		req.Header.Set(names.HeaderNode, "elsewhere")
		if _, err := m.Decide(t.Context(), req); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTellsAddress(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"10.0.0.3": true, "ip-10-0-0-3": true, "ip-10-0-0-3.eu-west-1.compute.internal": true, "node_10_0_0_3": true, "fd00::3": true,
		"fd00--3": true, "ip-fd00-0-0-0-0-0-0-3": true, "ip-0a000003": true, "IP-0A000003.internal": true, "worker10-0-0-3": true,
		"node-1": false, "east-control-plane": false, "gke-pool-1-abcd": false, "db1.example.com": false, "worker-a-b-c": false, "": false,
		"n-2026-12": false, "ship-deadbeef": false,
	} {
		if got := tellsAddress(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
