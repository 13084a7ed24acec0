package policy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
)

// engine compiles policies, written as name and body of the spec in turn.
func engine(t testing.TB, policies ...string) *policy.Engine {
	t.Helper()
	text := "apiVersion: isthmus.io/v1alpha1\nkind: Gateway\nmetadata: {name: here}\nspec: {orchestrator: {type: docker}}\n"
	for i := 0; i+1 < len(policies); i += 2 {
		text += "---\napiVersion: isthmus.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: " + policies[i] + "}\nspec:\n" +
			strings.TrimPrefix(policies[i+1], "\n")
	}
	set, err := manifest.Parse(manifest.Source{Name: "test", Data: []byte(text)})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	e, err := policy.Compile(set.Policies)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const westCI = `
  from: [{peer: west, caller: "ci-*"}]
  allow:
  - verbs: [list, get, create]
    objects: [{kind: container, namespace: team-a}]
    when: "verb != 'create' || !object.privileged && object.image.startsWith('registry.corp/')"
  - verbs: [exec, logs]
    objects: [{kind: container, namespace: team-a, name: "web-*"}, {kind: container, labels: {debug: "true"}}]
  pause: quiesce
  networkSwitch: restore
  addresses: show
`

const everyone = `
  from: [{peer: "*"}]
  allow:
  - verbs: [query]
    objects: [{kind: service, labels: {tier: public}}]
  - verbs: [get]
    objects: [{kind: system}, {kind: node}]
  - verbs: [raw]
    objects: [{resource: "apps/*"}]
`

const ops = `
  from: [{peer: north, caller: root}, {peer: "*", caller: ops}]
  allow:
  - verbs: ["*"]
    objects: [{}]
`

func standard(t testing.TB) *policy.Engine {
	return engine(t, "west-ci", westCI, "everyone", everyone, "ops", ops)
}

func container(namespace, name string, labels map[string]string, spec *neutral.Container) neutral.Object {
	return neutral.Object{Kind: neutral.KindContainer, Namespace: namespace, Name: name, Labels: labels, Container: spec}
}

var (
	none     = map[string]string{}
	debug    = map[string]string{"debug": "true"}
	good     = &neutral.Container{Image: "registry.corp/x"}
	bad      = &neutral.Container{Image: "docker.io/x"}
	mighty   = &neutral.Container{Image: "registry.corp/x", Security: neutral.Security{Privileged: true}}
	showing  = policy.Options{Pause: manifest.PauseQuiesce, NetworkMode: manifest.AccessAny, NetworkSwitch: manifest.SwitchRestore, Addresses: manifest.AddressesShow}
	ordinary = policy.Options{Pause: manifest.PauseFreeze, NetworkMode: manifest.AccessAny, NetworkSwitch: manifest.SwitchNever, Addresses: manifest.AddressesHide}
	strict   = policy.Options{Pause: manifest.PauseRefuse, NetworkMode: manifest.AccessAny, NetworkSwitch: manifest.SwitchNever, Addresses: manifest.AddressesHide}
)

func TestDecide(t *testing.T) {
	t.Parallel()
	e := standard(t)
	for _, c := range []struct {
		peer, caller string
		verb         neutral.Verb
		object       neutral.Object
		rule, reason string
		options      policy.Options
	}{
		{"west", "ci-1", neutral.Create, container("team-a", "x", none, good), "west-ci/0", "allowed by west-ci/0", showing},
		{"west", "ci-1", neutral.Create, container("team-a", "x", none, bad), "", "the condition of west-ci/0 is false", strict},
		{"west", "ci-1", neutral.Create, container("team-a", "x", none, mighty), "", "the condition of west-ci/0 is false", strict},
		{"west", "ci-1", neutral.Create, container("team-a", "x", none, nil), "",
			"the condition of west-ci/0 does not hold: it needs object.image, object.privileged, which this operation does not carry", strict},
		{"west", "ci-1", neutral.Get, container("team-a", "x", none, nil), "west-ci/0", "allowed by west-ci/0", showing},
		{"west", "ci-1", neutral.Get, container("team-b", "x", none, nil), "",
			"no rule that allows get is for container team-b/x", strict},
		{"west", "ci-1", neutral.Get, container("", "x", none, nil), "", "no rule that allows get is for container x", strict},
		{"west", "ci-1", neutral.List, container("", "", none, nil), "", "no rule that allows list is for container", strict},
		{"west", "ci-1", neutral.Destroy, container("team-a", "x", none, nil), "", "no rule for this caller allows destroy", strict},
		{"west", "dev", neutral.Create, container("team-a", "x", none, good), "", "no rule for this caller allows create", strict},
		{"west", "", neutral.Create, container("team-a", "x", none, good), "", "no rule for this caller allows create", strict},
		{"west", "ci-1", neutral.Exec, container("team-a", "web-1", nil, nil), "west-ci/1", "allowed by west-ci/1", showing},
		{"west", "ci-1", neutral.Exec, container("team-a", "db", nil, nil), "", "no rule that allows exec is for container team-a/db", strict},
		{"west", "ci-1", neutral.Exec, container("team-b", "db", debug, nil), "west-ci/1", "allowed by west-ci/1", showing},
		{"west", "ci-1", neutral.Exec, container("team-b", "db", map[string]string{"debug": "false"}, nil), "",
			"no rule that allows exec is for container team-b/db", strict},
		{"south", "ops", neutral.Destroy, container("kube-system", "x", nil, nil), "ops/0", "allowed by ops/0", ordinary},
		{"north", "root", neutral.Raw, neutral.Object{Kind: neutral.KindOther, Resource: "batch/jobs"}, "ops/0", "allowed by ops/0", ordinary},
		{"south", "root", neutral.Destroy, container("a", "x", nil, nil), "", "no rule for this caller allows destroy", strict},
		{"south", "", neutral.Raw, neutral.Object{Kind: neutral.KindOther, Resource: "apps/statefulsets", Namespace: "a"},
			"everyone/2", "allowed by everyone/2", ordinary},
		{"south", "", neutral.Raw, neutral.Object{Kind: neutral.KindOther, Resource: "batch/jobs"}, "",
			"no rule that allows raw is for other (batch/jobs)", strict},
		{"south", "", neutral.Query, neutral.Object{Kind: neutral.KindService, Namespace: "a", Name: "s",
			Labels: map[string]string{"tier": "public"}}, "everyone/0", "allowed by everyone/0", ordinary},
		{"south", "", neutral.Query, neutral.Object{Kind: neutral.KindService, Namespace: "a", Name: "s", Labels: none}, "",
			"no rule that allows query is for service a/s", strict},
		// Words that are not of the model are allowed to nobody but those who may do everything.
		{"south", "", "invented", neutral.Object{Kind: neutral.KindSystem}, "", "no rule for this caller allows invented", strict},
		{"south", "", neutral.Get, neutral.Object{Kind: "invented"}, "", "no rule that allows get is for invented", strict},
		{"south", "ops", "invented", neutral.Object{Kind: neutral.KindSystem}, "", "no rule for this caller allows invented", strict},
		{"south", "ops", neutral.Get, neutral.Object{Kind: "invented"}, "", "no rule that allows get is for invented", strict},
		{"south", "ops", "", neutral.Object{}, "", `no rule for this caller allows ""`, strict},
	} {
		r := policy.Request{Peer: c.peer, Caller: c.caller, Verb: c.verb, Object: c.object}
		want := policy.Decision{Allow: c.rule != "", Rule: c.rule, Reason: c.reason, Options: c.options}
		if got := e.Decide(r); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", r, got, want)
		}
	}
}

// TestGroups holds that a rule for a group is for those in it, by whole names, and that a caller and a group are both meant.
func TestGroups(t *testing.T) {
	t.Parallel()
	e := engine(t, "shop", `
  from: [{peer: west, group: "system:serviceaccounts:shop"}, {peer: west, caller: "ci-*", group: "team-?"}]
  allow: [{verbs: [get], objects: [{kind: container}]}]
`, "when", `
  from: [{peer: west}]
  allow: [{verbs: [stop], objects: [{kind: container}], when: "'ops' in groups || groups.exists(g, g.startsWith('team-')) && caller == 'dev'"}]
`, "not", `
  from: [{peer: west}]
  allow: [{verbs: [destroy], objects: [{kind: container}], when: "caller == 'root' || !('contractors' in groups)"}]
`, "named", `
  from: [{peer: west, group: "?*"}]
  allow: [{verbs: [list], objects: [{kind: container}]}]
`)
	const untold = "the condition of not/0 does not hold: the peer could not tell all groups of the caller"
	for _, c := range []struct {
		peer, caller string
		groups       modules.Groups
		verb         neutral.Verb
		rule, reason string
	}{
		{"west", "system:serviceaccount:shop:ci", "system:authenticated,system:serviceaccounts,system:serviceaccounts:shop", neutral.Get, "shop/0", "allowed by shop/0"},
		{"west", "a", "system:serviceaccounts:shop-2", neutral.Get, "", "no rule for this caller allows get"},
		{"west", "a", "x,system:serviceaccounts", neutral.Get, "", "no rule for this caller allows get"},
		{"west", "system:serviceaccounts:shop", "", neutral.Get, "", "no rule for this caller allows get"},
		{"west", "", "", neutral.Get, "", "no rule for this caller allows get"},
		{"west", "ci-1", "team-a", neutral.Get, "shop/0", "allowed by shop/0"},
		{"west", "ci-1", "team-ab", neutral.Get, "", "no rule for this caller allows get"},
		{"west", "dev", "team-a", neutral.Get, "", "no rule for this caller allows get"},
		{"east", "ci-1", "system:serviceaccounts:shop,team-a", neutral.Get, "", "no policy is for peer east"},
		{"west", "x", "a,ops", neutral.Stop, "when/0", "allowed by when/0"},
		{"west", "dev", "team-z", neutral.Stop, "when/0", "allowed by when/0"},
		{"west", "x", "team-z", neutral.Stop, "", "the condition of when/0 is false"},
		{"west", "x", "", neutral.Destroy, "not/0", "allowed by not/0"},
		{"west", "x", "team-z", neutral.Destroy, "not/0", "allowed by not/0"},
		{"west", "x", "contractors", neutral.Destroy, "", "the condition of not/0 is false"},
		{"west", "x", ",team-z", neutral.Destroy, "", untold},
		{"west", "x", ",", neutral.Destroy, "", untold},
		{"west", "root", ",", neutral.Destroy, "not/0", "allowed by not/0"},
		{"west", "ci-1", ",team-a", neutral.Get, "shop/0", "allowed by shop/0"},
		{"west", "x", ",a", neutral.List, "named/0", "allowed by named/0"},
		{"west", "x", ",", neutral.List, "", "no rule for this caller allows list"},
	} {
		r := policy.Request{Peer: c.peer, Caller: c.caller, Groups: c.groups, Verb: c.verb, Object: container("shop", "web", none, nil)}
		if d := e.Decide(r); d.Rule != c.rule || d.Reason != c.reason {
			t.Errorf("%s: %+v", r, d)
		}
	}
	alone := engine(t, "shop", `
  from: [{peer: west, group: "team-*"}]
  allow: [{verbs: [query], objects: [{kind: service}]}]
`)
	r := policy.Request{Peer: "west", Caller: "dev", Groups: "a,b", Verb: neutral.Query, Object: neutral.Object{Kind: neutral.KindService, Name: "s", Labels: none}}
	if d := alone.Decide(r); d.Reason != "no policy is for caller dev of peer west, in a, b" {
		t.Errorf("%+v", d)
	}
	if f := alone.Explain(r, true); len(f) != 1 || f[0].Why != "it is not for caller dev, in a, b" {
		t.Errorf("%+v", f)
	}
	if q := alone.Queries(neutral.Service{Name: "s"}, []string{"west", "east"}); len(q.Always) != 0 || !slices.Equal(q.ByCaller, []string{"west"}) {
		t.Errorf("%+v", q)
	}
}

// TestGroupsAllocateNothing holds that a decision by groups costs as little as one by names.
func TestGroupsAllocateNothing(t *testing.T) {
	alone := engine(t, "shop", `
  from: [{peer: west, group: "team-*"}]
  allow: [{verbs: [query], objects: [{kind: service}]}]
`)
	r := policy.Request{Peer: "west", Caller: "dev", Groups: "a,team-b", Verb: neutral.Query, Object: neutral.Object{Kind: neutral.KindService, Name: "s", Labels: none}}
	if !alone.Decide(r).Allow {
		t.Fatal("denied")
	}
	if n := testing.AllocsPerRun(100, func() { alone.Decide(r) }); n > 0 {
		t.Errorf("a decision by groups makes %v allocations", n)
	}
}

func TestDecideNobody(t *testing.T) {
	t.Parallel()
	r := policy.Request{Peer: "west", Caller: "x", Verb: neutral.Get, Object: container("a", "b", none, nil)}
	for name, c := range map[string]struct {
		engine *policy.Engine
		reason string
	}{
		"zero":   {&policy.Engine{}, "there is no policy"},
		"none":   {engine(t), "there is no policy"},
		"peer":   {engine(t, "a", "  from: [{peer: east}]\n  allow: [{verbs: [get], objects: [{}]}]\n"), "no policy is for peer west"},
		"caller": {engine(t, "a", "  from: [{peer: west, caller: y}]\n  allow: [{verbs: [get], objects: [{}]}]\n"), "no policy is for caller x of peer west"},
	} {
		if d := c.engine.Decide(r); d.Allow || d.Reason != c.reason || d.Options != strict {
			t.Errorf("%s: %+v", name, d)
		}
		if o, d := c.engine.Check(r); o != policy.Deny || d.Allow || d.Reason != c.reason {
			t.Errorf("%s: check %v %+v", name, o, d)
		}
	}
	// The empty peer, which is what a request over no peer link has, is matched by * alone.
	if d := standard(t).Decide(policy.Request{Verb: neutral.Create, Object: container("team-a", "x", none, good)}); d.Allow {
		t.Errorf("no peer: %+v", d)
	}
}

// The first rule by name of policy decides, not the first that was written.
func TestDecideOrder(t *testing.T) {
	t.Parallel()
	body := func(addresses string) string {
		return "  from: [{peer: west}]\n  allow: [{verbs: [get], objects: [{}]}]\n  addresses: " + addresses + "\n"
	}
	e := engine(t, "b", body("show"), "a", body("hide"), "c", body("show"))
	d := e.Decide(policy.Request{Peer: "west", Verb: neutral.Get, Object: container("a", "b", none, nil)})
	if d.Rule != "a/0" || d.Options.Addresses != manifest.AddressesHide {
		t.Errorf("%+v", d)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	e := standard(t)
	kind := func(k neutral.Kind) neutral.Object { return neutral.Object{Kind: k} }
	for _, c := range []struct {
		peer, caller string
		verb         neutral.Verb
		object       neutral.Object
		want         policy.Outcome
		reason       string
	}{
		{"west", "ci-1", neutral.Create, kind(neutral.KindContainer), policy.NeedsObject, "it depends on the object whether west-ci/0 allows it"},
		{"west", "ci-1", neutral.Create, container("team-a", "", nil, nil), policy.NeedsObject, "it depends on the object whether west-ci/0 allows it"},
		{"west", "ci-1", neutral.Create, container("team-b", "", nil, nil), policy.Deny, "no rule that allows create is for container in namespace team-b"},
		{"west", "ci-1", neutral.Create, container("team-a", "", nil, bad), policy.Deny, "the condition of west-ci/0 is false"},
		{"west", "ci-1", neutral.Create, container("team-a", "", nil, good), policy.Allow, "allowed by west-ci/0"},
		{"west", "ci-1", neutral.List, kind(neutral.KindContainer), policy.NeedsObject, "it depends on the object whether west-ci/0 allows it"},
		{"west", "ci-1", neutral.List, container("team-a", "", nil, nil), policy.Allow, "allowed by west-ci/0"},
		{"west", "ci-1", neutral.List, kind(neutral.KindWorkload), policy.Deny, "no rule that allows list is for workload"},
		{"west", "ci-1", neutral.Exec, container("team-b", "x", nil, nil), policy.NeedsObject, "it depends on the object whether west-ci/1 allows it"},
		{"west", "ci-1", neutral.Exec, container("team-b", "x", none, nil), policy.Deny, "no rule that allows exec is for container team-b/x"},
		{"west", "ci-1", neutral.Exec, container("team-a", "web-1", nil, nil), policy.Allow, "allowed by west-ci/1"},
		{"west", "ci-1", neutral.Destroy, kind(neutral.KindContainer), policy.Deny, "no rule for this caller allows destroy"},
		{"west", "", neutral.Get, kind(neutral.KindSystem), policy.Allow, "allowed by everyone/1"},
		{"west", "ops", neutral.Destroy, kind(neutral.KindContainer), policy.Allow, "allowed by ops/0"},
		{"south", "", neutral.Query, kind(neutral.KindService), policy.NeedsObject, "it depends on the object whether everyone/0 allows it"},
	} {
		r := policy.Request{Peer: c.peer, Caller: c.caller, Verb: c.verb, Object: c.object}
		got, d := e.Check(r)
		if got != c.want || d.Reason != c.reason || d.Allow != (got == policy.Allow) {
			t.Errorf("%s: %v %+v, want %v: %s", r, got, d, c.want, c.reason)
		}
	}
}

// Options may differ between the rule that allows whatever the object is and one that may come before it.
func TestCheckOptionsDiffer(t *testing.T) {
	t.Parallel()
	some := "  from: [{peer: west}]\n  allow: [{verbs: [get], objects: [{name: x}]}]\n  addresses: %s\n"
	all := "  from: [{peer: west}]\n  allow: [{verbs: [get], objects: [{}]}]\n  addresses: %s\n"
	r := policy.Request{Peer: "west", Verb: neutral.Get, Object: neutral.Object{Kind: neutral.KindContainer}}
	for _, c := range []struct {
		first, second, third string
		want                 policy.Outcome
	}{
		{"show", "show", "hide", policy.NeedsObject},
		{"hide", "show", "hide", policy.NeedsObject},
		{"hide", "hide", "hide", policy.Allow},
	} {
		e := engine(t, "a", fmt.Sprintf(some, c.first), "b", fmt.Sprintf(some, c.second), "c", fmt.Sprintf(all, c.third))
		if got, d := e.Check(r); got != c.want {
			t.Errorf("%+v: %v %+v", c, got, d)
		}
	}
}

func TestUnrestricted(t *testing.T) {
	t.Parallel()
	e := standard(t)
	for _, c := range []struct {
		peer, caller string
		verb         neutral.Verb
		object       neutral.Object
		want         bool
	}{
		{"west", "ci-1", neutral.List, container("team-a", "x", none, nil), true},
		{"west", "ci-1", neutral.List, container("team-b", "", nil, nil), false},
		{"west", "ci-1", neutral.List, container("", "", nil, nil), false},
		{"west", "ci-1", neutral.Create, container("team-a", "x", none, good), false}, // it depends on the spec
		{"west", "ci-1", neutral.Logs, container("team-a", "web-1", debug, nil), false},
		{"x", "ops", neutral.List, container("", "", nil, nil), true},
		{"x", "", neutral.Raw, neutral.Object{Kind: neutral.KindOther, Resource: "apps/x"}, true},
		{"x", "", neutral.Raw, neutral.Object{Kind: neutral.KindOther, Resource: "x"}, false},
	} {
		r := policy.Request{Peer: c.peer, Caller: c.caller, Verb: c.verb, Object: c.object}
		if got := e.Unrestricted(r); got != c.want {
			t.Errorf("%s: %v", r, got)
		}
	}
}

func TestMayKnow(t *testing.T) {
	t.Parallel()
	e := standard(t)
	for _, c := range []struct {
		peer, caller string
		object       neutral.Object
		want         bool
	}{
		{"west", "ci-1", container("team-a", "x", none, nil), true},
		{"west", "ci-1", container("team-b", "x", none, nil), false},
		{"west", "ci-1", container("team-b", "x", debug, nil), false}, // exec alone is no right to know
		{"west", "dev", container("team-a", "x", none, nil), false},
		{"x", "ops", container("any", "x", none, nil), true},
	} {
		r := policy.Request{Peer: c.peer, Caller: c.caller, Verb: neutral.Destroy, Object: c.object}
		if got := e.MayKnow(r); got != c.want {
			t.Errorf("%s: %v", r, got)
		}
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	e := engine(t,
		"a", "  from: [{peer: west}, {peer: \"n*\", caller: web}]\n  allow: [{verbs: [query], objects: [{kind: service, namespace: shop}]}]\n",
		"b", "  from: [{peer: east}]\n  allow: [{verbs: [query], objects: [{kind: service, labels: {tier: \"*\"}}]}]\n",
		"c", "  from: [{peer: south}]\n  allow:\n  - {verbs: [query], objects: [{}], when: \"caller == 'x' && object.namespace == 'shop'\"}\n",
		"d", "  from: [{peer: far}]\n  allow:\n  - {verbs: [get, list], objects: [{}]}\n",
		"e", "  from: [{peer: cel}]\n  allow:\n  - {verbs: [query], objects: [{}], when: \"object.name != 'cart'\"}\n",
	)
	peers := []string{"west", "north", "east", "south", "far", "cel", "stranger"}
	for _, c := range []struct {
		service neutral.Service
		want    policy.Queriers
	}{
		{neutral.Service{Namespace: "shop", Name: "cart"}, policy.Queriers{Always: []string{"west"}, ByCaller: []string{"north", "south"}}},
		{neutral.Service{Namespace: "shop", Name: "web", Labels: map[string]string{"tier": "x"}},
			policy.Queriers{Always: []string{"west", "east", "cel"}, ByCaller: []string{"north", "south"}}},
		{neutral.Service{Namespace: "other", Name: "cart"}, policy.Queriers{}},
	} {
		if got := e.Queries(c.service, peers); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.service.ID(), got, c.want)
		}
	}
}

// A rule with a condition allows nothing that is asked for and that its condition does not speak of.
func TestAsked(t *testing.T) {
	t.Parallel()
	e := engine(t, "west", `
  from: [{peer: west}]
  allow:
  - verbs: [create]
    objects: [{kind: container}]
    when: "!object.privileged && object.devices.all(d, d == '/dev/kvm')"
  - verbs: [create]
    objects: [{kind: container, name: "free-*"}]
`)
	device := &neutral.Container{Security: neutral.Security{Devices: []string{"/dev/kvm"}}}
	for name, allow := range map[string]bool{"web": false, "free-web": true} {
		o := container("a", name, none, device)
		o.Asks = []string{"object.devices", "object.hostMounts"}
		d := e.Decide(policy.Request{Peer: "west", Verb: neutral.Create, Object: o})
		if d.Allow != allow || !allow && !strings.Contains(d.Reason, "object.hostMounts") {
			t.Errorf("%s: %+v", name, d)
		}
		o.Asks = o.Asks[:1]
		if d := e.Decide(policy.Request{Peer: "west", Verb: neutral.Create, Object: o}); !d.Allow {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	e := standard(t)
	r := policy.Request{Peer: "west", Caller: "ci-1", Verb: neutral.Destroy, Object: container("team-a", "x", none, nil)}
	err := e.Decide(r).Fault(r)
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Denied {
		t.Fatalf("%v", err)
	}
	if want := "no policy of this cluster allows caller ci-1 of peer west to destroy container team-a/x"; f.Message != want {
		t.Errorf("message %q", f.Message)
	}
	if strings.Contains(f.Message, "west-ci") || !strings.Contains(err.Error(), "no rule for this caller allows destroy") {
		t.Errorf("the reason is for logs alone: %v", err)
	}
	if err := (policy.Decision{Allow: true}).Fault(r); err != nil {
		t.Errorf("a permission has a fault: %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	e := standard(t)
	var lines []string
	for _, known := range []bool{false, true} {
		r := policy.Request{Peer: "west", Caller: "ci-1", Verb: neutral.Create, Object: container("team-a", "", nil, nil)}
		if known {
			r.Object = container("team-a", "x", none, mighty)
		}
		for _, f := range e.Explain(r, known) {
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.Rule, f.Outcome, f.Why))
		}
	}
	want := []string{
		"everyone/0 deny: it does not allow create",
		"everyone/1 deny: it does not allow create",
		"everyone/2 deny: it does not allow create",
		"ops/0 deny: it is not for caller ci-1",
		"west-ci/0 needs-object: its condition is undecided: it needs object.image, object.privileged, which this operation does not carry",
		"west-ci/1 deny: it does not allow create",
		"everyone/0 deny: it does not allow create",
		"everyone/1 deny: it does not allow create",
		"everyone/2 deny: it does not allow create",
		"ops/0 deny: it is not for caller ci-1",
		"west-ci/0 deny: its condition is false: verb != 'create' || !object.privileged && object.image.startsWith('registry.corp/')",
		"west-ci/1 deny: it does not allow create",
	}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	valid := func() manifest.AccessPolicy {
		return manifest.AccessPolicy{Metadata: manifest.Metadata{Name: "p"}, Spec: manifest.AccessPolicySpec{
			From:  []manifest.Subject{{Peer: "west"}},
			Allow: []manifest.Rule{{Verbs: []string{"get"}, Objects: []manifest.ObjectMatcher{{}}}},
		}}
	}
	for want, change := range map[string]func(*manifest.AccessPolicySpec){
		"policy p: from[0]: peer is required":    func(s *manifest.AccessPolicySpec) { s.From[0].Peer = "" },
		"policy p: from[0]: caller: ":            func(s *manifest.AccessPolicySpec) { s.From[0].Caller = "[" },
		"policy rule p/0: verbs: unknown word":   func(s *manifest.AccessPolicySpec) { s.Allow[0].Verbs[0] = "run" },
		"p/0: objects[0]: kind: unknown word":    func(s *manifest.AccessPolicySpec) { s.Allow[0].Objects[0].Kind = "pod" },
		"p/0: objects[0]: name: ":                func(s *manifest.AccessPolicySpec) { s.Allow[0].Objects[0].Name = "{" },
		"p/0: objects[0]: labels: a: ":           func(s *manifest.AccessPolicySpec) { s.Allow[0].Objects[0].Labels = map[string]string{"a": "]"} },
		"p/0: when: column 1: unknown attribute": func(s *manifest.AccessPolicySpec) { s.Allow[0].When = "object.x == 1" },
	} {
		p := valid()
		change(&p.Spec)
		if _, err := policy.Compile([]manifest.AccessPolicy{p}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := policy.Compile([]manifest.AccessPolicy{valid()}); err != nil {
		t.Error(err)
	}
	// Rules without verbs or objects allow nothing.
	for _, change := range []func(*manifest.AccessPolicySpec){
		func(s *manifest.AccessPolicySpec) { s.Allow[0].Verbs = nil },
		func(s *manifest.AccessPolicySpec) { s.Allow[0].Objects = nil },
		func(s *manifest.AccessPolicySpec) { s.From = nil },
	} {
		p := valid()
		change(&p.Spec)
		e, err := policy.Compile([]manifest.AccessPolicy{p})
		if err != nil {
			t.Fatal(err)
		}
		if d := e.Decide(policy.Request{Peer: "west", Verb: neutral.Get, Object: container("a", "b", none, nil)}); d.Allow {
			t.Errorf("%+v allows", p.Spec)
		}
	}
}

// chance makes policies and requests of few words, so that they often meet.
type chance struct{ *rand.Rand }

func (c chance) of(words ...string) string { return words[c.IntN(len(words))] }

func (c chance) policies() []manifest.AccessPolicy {
	var all []manifest.AccessPolicy
	for i := range 1 + c.IntN(4) {
		p := manifest.AccessPolicy{Metadata: manifest.Metadata{Name: fmt.Sprintf("p%d", i)}}
		p.Spec.Addresses = manifest.AddressMode(c.of("hide", "show"))
		for range 1 + c.IntN(2) {
			p.Spec.From = append(p.Spec.From, manifest.Subject{Peer: c.of("a", "b", "*", "?"), Caller: c.of("", "", "x", "x*", "y"), Group: c.of("", "", "g", "g*")})
		}
		for range 1 + c.IntN(2) {
			r := manifest.Rule{Verbs: []string{c.of("get", "list", "*")}, When: c.of("", "", "",
				"object.name == 'n1'", "caller != 'x'", "'g1' in groups", "!object.privileged", "object.labels.k == 'v'",
				"object.namespace == 'n1' || object.privileged", "'k' in object.labels", "object.image != 'i' && object.name == 'n2'")}
			for range 1 + c.IntN(2) {
				o := manifest.ObjectMatcher{Kind: c.of("", "container", "node", "*"), Namespace: c.of("", "", "n1", "n*"),
					Name: c.of("", "", "n1", "?1"), Resource: c.of("", "", "", "r/*")}
				if c.IntN(3) == 0 {
					o.Labels = map[string]string{"k": c.of("v", "*", "")}
				}
				r.Objects = append(r.Objects, o)
			}
			p.Spec.Allow = append(p.Spec.Allow, r)
		}
		all = append(all, p)
	}
	return all
}

func (c chance) request() policy.Request {
	r := policy.Request{Peer: c.of("a", "b"), Caller: c.of("", "x", "xy", "y"), Verb: neutral.Verb(c.of("get", "list", "stop"))}
	if r.Caller != "" {
		r.Groups = modules.Groups(c.of("", "g", "g1", "g,g1", "h"))
	}
	r.Object = neutral.Object{Kind: neutral.Kind(c.of("container", "node", "volume")), Namespace: c.of("n1", "n2"),
		Name: c.of("n1", "n2"), Resource: c.of("", "r/s"), Labels: map[string]string{}}
	if v := c.of("", "v", "w", "-"); v != "-" {
		r.Object.Labels["k"] = v
	}
	if c.IntN(4) > 0 {
		r.Object.Container = &neutral.Container{Image: c.of("i", "j"), Security: neutral.Security{Privileged: c.IntN(2) == 0}}
	}
	return r
}

// forget takes away what may not be known at a request's head.
func (c chance) forget(r policy.Request) policy.Request {
	if c.IntN(2) == 0 && r.Object.Kind != neutral.KindNode {
		r.Object.Namespace = ""
	}
	if c.IntN(2) == 0 {
		r.Object.Name = ""
	}
	if c.IntN(2) == 0 {
		r.Object.Labels = nil
	}
	if c.IntN(2) == 0 {
		r.Object.Container = nil
	}
	return r
}

// agree holds the engine's answers about one request against each other.
func agree(t *testing.T, c chance) {
	t.Helper()
	policies := c.policies()
	e, err := policy.Compile(policies)
	if err != nil {
		t.Fatalf("%v: %+v", err, policies)
	}
	r := c.request()
	decision := e.Decide(r)
	allowed := false
	for _, f := range e.Explain(r, true) {
		if f.Outcome == policy.Allow && !allowed {
			allowed = true
			if f.Rule != decision.Rule {
				t.Errorf("explained by %s: %+v", f.Rule, decision)
			}
		}
	}
	if allowed != decision.Allow {
		t.Errorf("explain says %v: %+v", allowed, decision)
	}
	if decision.Allow != (decision.Rule != "") || decision.Reason == "" || (decision.Fault(r) == nil) != decision.Allow {
		t.Errorf("no consistent decision: %+v", decision)
	}
	head := c.forget(r)
	switch outcome, d := e.Check(head); {
	case outcome == policy.Deny && decision.Allow:
		t.Errorf("%s: denied at the head (%s), then allowed by %s", r, d.Reason, decision.Rule)
	case outcome == policy.Allow && (!decision.Allow || d.Options != decision.Options):
		t.Errorf("%s: allowed at the head by %s (%+v), then %+v", r, d.Rule, d.Options, decision)
	}
	if e.Unrestricted(r) && !decision.Allow {
		t.Errorf("%s: unrestricted, then denied: %s", r, decision.Reason)
	}
	service := neutral.Service{Namespace: r.Object.Namespace, Name: r.Object.Name, Labels: r.Object.Labels}
	query := policy.Request{Peer: r.Peer, Caller: r.Caller, Groups: r.Groups, Verb: neutral.Query, Object: neutral.Object{Kind: neutral.KindService,
		Namespace: service.Namespace, Name: service.Name, Labels: service.Labels}}
	queriers, may := e.Queries(service, []string{r.Peer}), e.Decide(query).Allow
	if len(queriers.Always) == 1 && !may || len(queriers.Always)+len(queriers.ByCaller) == 0 && may {
		t.Errorf("%s: queriers %+v, decided %v", query, queriers, may)
	}
	if t.Failed() {
		t.Logf("policies %+v", policies)
	}
}

func TestAnswersAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		agree(t, chance{rand.New(rand.NewPCG(seed, 1))})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzAnswersAgree(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { agree(t, chance{rand.New(rand.NewPCG(a, b))}) })
}

// many is an engine of forty rules, of which the last is the one that allows.
func many(b testing.TB) *policy.Engine {
	var policies []string
	for i := range 20 {
		policies = append(policies, fmt.Sprintf("p%02d", i), fmt.Sprintf(`
  from: [{peer: west, caller: "ci-*"}]
  allow:
  - verbs: [list, get]
    objects: [{kind: container, namespace: "team-%d", name: "web-*"}]
  - verbs: [logs]
    objects: [{kind: container, namespace: "team-%d"}]
`, i, i))
	}
	return engine(b, append(policies, "z", "\n  from: [{peer: west}]\n  allow: [{verbs: [get], objects: [{kind: container, namespace: default}]}]\n")...)
}

func BenchmarkDecide(b *testing.B) {
	e := many(b)
	r := policy.Request{Peer: "west", Caller: "ci-17", Verb: neutral.Get, Object: container("default", "web-1", none, nil)}
	b.ReportAllocs()
	for b.Loop() {
		if !e.Decide(r).Allow {
			b.Fatal("denied")
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	e := many(b)
	r := policy.Request{Peer: "west", Caller: "ci-17", Verb: neutral.Get, Object: container("default", "", nil, nil)}
	b.ReportAllocs()
	for b.Loop() {
		if o, _ := e.Check(r); o != policy.Allow {
			b.Fatal(o)
		}
	}
}

func BenchmarkDecideCondition(b *testing.B) {
	e := standard(b)
	r := policy.Request{Peer: "west", Caller: "ci-1", Verb: neutral.Create, Object: container("team-a", "x", none, good)}
	b.ReportAllocs()
	for b.Loop() {
		if !e.Decide(r).Allow {
			b.Fatal("denied")
		}
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	e := many(t)
	r := policy.Request{Peer: "west", Caller: "ci-17", Verb: neutral.Get, Object: container("default", "web-1", none, nil)}
	if n := testing.AllocsPerRun(100, func() { e.Decide(r) }); n != 0 {
		t.Errorf("%v allocations a permission", n)
	}
}
