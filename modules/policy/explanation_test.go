package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
)

// shop is one policy whose rule asks for everything that an object has.
func shop(t *testing.T) *policy.Engine {
	t.Helper()
	e, err := policy.Compile([]manifest.AccessPolicy{
		{Metadata: manifest.Metadata{Name: "shop"}, Spec: manifest.AccessPolicySpec{
			From: []manifest.Subject{{Peer: "west"}},
			Allow: []manifest.Rule{
				{Verbs: []string{"stop"}, Objects: []manifest.ObjectMatcher{
					{Kind: "container", Namespace: "shop", Name: "web-*", Labels: map[string]string{"tier": "front*"}},
					{Kind: "workload", Resource: "apps/*"},
				}},
			},
		}},
		{Metadata: manifest.Metadata{Name: "audit"}, Spec: manifest.AccessPolicySpec{
			From:  []manifest.Subject{{Peer: "*"}},
			Allow: []manifest.Rule{{Verbs: []string{"get"}, Objects: []manifest.ObjectMatcher{{}}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestExplanation wants each part of an object that a rule misses named, and the sections in the order of asking.
func TestExplanation(t *testing.T) {
	t.Parallel()
	e := shop(t)
	front := map[string]string{"tier": "frontend"}
	for want, c := range map[string]struct {
		object neutral.Object
		known  bool
	}{
		"allow: it allows this": {neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "web-1", Labels: front}, true},
		"deny: it is not for container other/web-1: objects[0] is for namespace shop, not other": {
			neutral.Object{Kind: neutral.KindContainer, Namespace: "other", Name: "web-1", Labels: front}, true},
		"deny: it is not for container web-1: objects[0] is for namespace shop, and the object is in none or in all": {
			neutral.Object{Kind: neutral.KindContainer, Name: "web-1", Labels: front}, true},
		"deny: it is not for container shop/db: objects[0] is for name web-*, not db": {
			neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "db", Labels: front}, true},
		"deny: it is not for container shop/web-1: objects[0] wants label tier, which the object has not": {
			neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "web-1", Labels: map[string]string{}}, true},
		"deny: it is not for container shop/web-1: objects[0] wants label tier=front*, not back": {
			neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "web-1", Labels: map[string]string{"tier": "back"}}, true},
		"deny: it is not for workload (batch/jobs) x: objects[1] is for resource apps/*, not batch/jobs": {
			neutral.Object{Kind: neutral.KindWorkload, Resource: "batch/jobs", Name: "x"}, true},
		"deny: it is not for node x: its objects are of other kinds": {neutral.Object{Kind: neutral.KindNode, Name: "x"}, true},
		"needs-object: it is for some such objects only: it depends on the object's namespace and name and labels": {
			neutral.Object{Kind: neutral.KindContainer}, false},
		"needs-object: it is for some such objects only: it depends on the object's labels": {
			neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "web-1"}, false},
	} {
		r := policy.Request{Peer: "west", Verb: neutral.Stop, Object: c.object}
		x := e.Explanation(r, c.known)
		if len(x.Policies) != 2 || x.Policies[0].Policy != "audit" || x.Policies[1].Policy != "shop" {
			t.Fatalf("%+v", x)
		}
		f := x.Policies[1].Findings[0]
		if got := fmt.Sprintf("%s: %s", f.Outcome, f.Why); got != want || f.Outcome != x.Outcome {
			t.Errorf("got %s (%s), want %s", got, x.Outcome, want)
		}
		if (x.Outcome == policy.Allow) != (x.Rule == "shop/0") {
			t.Errorf("%s by %q", x.Outcome, x.Rule)
		}
	}
}

// TestExpectation wants a case to fail for each thing that it expects, and only then.
func TestExpectation(t *testing.T) {
	t.Parallel()
	e := shop(t)
	good := policy.Expectation{Name: "x", Peer: "west", Verbs: []string{"get"}, Expect: "allow", Rule: "audit/0",
		Object: policy.ExpectedObject{Kind: "container", Namespace: "shop"}}
	if failures := good.Check(e); len(failures) != 0 {
		t.Errorf("%+v", failures)
	}
	for want, change := range map[string]func(*policy.Expectation){
		"expected deny, got allow by audit/0":                          func(x *policy.Expectation) { x.Expect = "deny" },
		"expected allow by audit/1, got allow by audit/0":              func(x *policy.Expectation) { x.Rule = "audit/1" },
		`expected allow with "shop" in its reason`:                     func(x *policy.Expectation) { x.Why = "shop" },
		"expected allow, got deny: no rule for this caller allows log": func(x *policy.Expectation) { x.Verbs = []string{"get", "logs"} },
	} {
		x := good
		change(&x)
		failures := x.Check(e)
		if len(failures) != 1 || !strings.HasPrefix(failures[0].Problem, want) || len(failures[0].Found.Policies) != 2 {
			t.Errorf("got %+v, want %s", failures, want)
		}
	}
	every := good
	every.Verbs = []string{"*"}
	if n := len(every.Requests()); n != len(neutral.Verbs) {
		t.Errorf("* is %d verbs", n)
	}
	if what := good.Validate(); what != "" {
		t.Error(what)
	}
}

// TestExpectedContainer wants every field to reach the condition that bears its name.
func TestExpectedContainer(t *testing.T) {
	t.Parallel()
	full := policy.ExpectedContainer{Image: "i", User: "u", Privileged: true, ReadOnlyRoot: true, NetworkMode: "host", HostPID: true,
		HostIPC: true, HostMounts: []string{"/etc"}, CapAdd: []string{"NET_ADMIN"}, Env: []string{"A"}, Memory: 1, MilliCPU: 2, HostPorts: []int{80},
		Seccomp: "unconfined", AppArmor: "localhost/a", Unmasked: true, Devices: []string{"/dev/kvm"}, Sysctls: map[string]string{"a": "1"}}
	conditions := []string{"object.image == 'i'", "object.user == 'u'", "object.privileged", "object.readOnlyRoot", "object.networkMode == 'host'",
		"object.hostNetwork", "object.hostPID", "object.hostIPC", "object.hostMounts == ['/etc']", "object.capAdd == ['NET_ADMIN']",
		"object.env == ['A']", "object.memory == 1", "object.milliCPU == 2", "object.hostPorts == [80]",
		"object.seccomp == 'unconfined'", "object.appArmor == 'localhost/a'", "object.unmaskedPaths", "object.devices == ['/dev/kvm']", "object.sysctls.a == '1'"}
	for _, when := range conditions {
		e, err := policy.Compile([]manifest.AccessPolicy{{Metadata: manifest.Metadata{Name: "p"}, Spec: manifest.AccessPolicySpec{
			From:  []manifest.Subject{{Peer: "west"}},
			Allow: []manifest.Rule{{Verbs: []string{"create"}, Objects: []manifest.ObjectMatcher{{}}, When: when}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		for expect, container := range map[string]*policy.ExpectedContainer{"allow": &full, "deny": {NetworkMode: "bridge"}} {
			x := policy.Expectation{Peer: "west", Verbs: []string{"create"}, Expect: expect,
				Object: policy.ExpectedObject{Kind: "container", Container: container}}
			if failures := x.Check(e); len(failures) != 0 {
				t.Errorf("%s: %s", when, failures[0].Problem)
			}
		}
	}
}
