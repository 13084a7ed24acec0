package policy

import (
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// ExpectationKind is the kind of document that holds expected decisions.
const ExpectationKind = "PolicyTest"

// Expectations is a PolicyTest document: decisions that policies are expected to give.
type Expectations struct {
	Metadata manifest.Metadata `yaml:"metadata" required:"true" doc:"The name stands in reports."`
	Spec     ExpectationsSpec  `yaml:"spec" required:"true" doc:"The policies and the cases."`
}

// ExpectationsSpec is a PolicyTest's body.
type ExpectationsSpec struct {
	Policies []string      `yaml:"policies" doc:"Files or folders of AccessPolicy documents, relative to this file. --config overrides them."`
	Cases    []Expectation `yaml:"cases" required:"true" doc:"The requests, each with the decision that is expected."`
}

// Expectation is one request with the decision that is expected; each of its verbs is one question.
type Expectation struct {
	Name   string         `yaml:"name" required:"true" doc:"What the case shows."`
	Peer   string         `yaml:"peer" format:"label" required:"true" doc:"The peer that asks."`
	Caller string         `yaml:"caller" doc:"Who the peer says the caller is. Left out, it does not say."`
	Groups []string       `yaml:"groups" doc:"Groups that the peer says the caller is in."`
	Verbs  []string       `yaml:"verbs" format:"verb" required:"true" doc:"Neutral verbs; each must be decided as expected."`
	Object ExpectedObject `yaml:"object" required:"true" doc:"The object."`
	Expect string         `yaml:"expect" values:"allow|deny" required:"true" doc:"The decision."`
	Why    string         `yaml:"why" doc:"Words that the reason must hold: of a denial what is missing, of a permission the rule."`
	Rule   string         `yaml:"rule" doc:"Only with allow: the rule that must be the one that allows, <policy>/<index>."`
}

// ExpectedObject is the object of an expected decision as it is when it is decided about.
type ExpectedObject struct {
	Kind      string             `yaml:"kind" format:"kind" required:"true" doc:"The neutral kind."`
	Resource  string             `yaml:"resource" doc:"The native resource of a raw call."`
	Namespace string             `yaml:"namespace" doc:"The namespace. Left out, none: a node, or a list over all namespaces."`
	Name      string             `yaml:"name" doc:"The name."`
	Labels    map[string]string  `yaml:"labels" doc:"The labels."`
	Container *ExpectedContainer `yaml:"container" doc:"The container's spec, for conditions. Left out, conditions that ask for it do not hold."`
}

// ExpectedContainer is a container's spec in the words of conditions.
type ExpectedContainer struct {
	Image        string            `yaml:"image" doc:"object.image"`
	User         string            `yaml:"user" doc:"object.user"`
	Privileged   bool              `yaml:"privileged" default:"false" doc:"object.privileged"`
	ReadOnlyRoot bool              `yaml:"readOnlyRoot" default:"false" doc:"object.readOnlyRoot"`
	NetworkMode  string            `yaml:"networkMode" default:"bridge" doc:"object.networkMode; host makes object.hostNetwork true"`
	HostPID      bool              `yaml:"hostPID" default:"false" doc:"object.hostPID"`
	HostIPC      bool              `yaml:"hostIPC" default:"false" doc:"object.hostIPC"`
	HostMounts   []string          `yaml:"hostMounts" doc:"object.hostMounts"`
	CapAdd       []string          `yaml:"capAdd" doc:"object.capAdd"`
	Env          []string          `yaml:"env" doc:"object.env: names"`
	Memory       int               `yaml:"memory" default:"0" min:"0" doc:"object.memory, in bytes"`
	MilliCPU     int               `yaml:"milliCPU" default:"0" min:"0" doc:"object.milliCPU"`
	HostPorts    []int             `yaml:"hostPorts" min:"0" max:"65535" doc:"object.hostPorts"`
	Seccomp      string            `yaml:"seccomp" default:"default" doc:"object.seccomp"`
	AppArmor     string            `yaml:"appArmor" default:"default" doc:"object.appArmor"`
	Unmasked     bool              `yaml:"unmaskedPaths" default:"false" doc:"object.unmaskedPaths; privileged makes it true"`
	Devices      []string          `yaml:"devices" doc:"object.devices"`
	Sysctls      map[string]string `yaml:"sysctls" doc:"object.sysctls"`
}

// Requests are the questions of an expectation, one a verb.
func (x Expectation) Requests() []Request {
	object := x.Object.neutral()
	groups, _ := modules.JoinGroups(x.Groups)
	var requests []Request
	ask := func(verb neutral.Verb) {
		requests = append(requests, Request{Peer: x.Peer, Caller: x.Caller, Groups: groups, Verb: verb, Object: object})
	}
	for _, verb := range x.Verbs {
		if verb != "*" {
			ask(neutral.Verb(verb))
			continue
		}
		for _, v := range neutral.Verbs {
			ask(v)
		}
	}
	return requests
}

func (o ExpectedObject) neutral() neutral.Object {
	object := neutral.Object{Kind: neutral.Kind(o.Kind), Resource: o.Resource, Namespace: o.Namespace, Name: o.Name,
		Labels: o.Labels}
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	if o.Container != nil {
		object.Container = o.Container.neutral()
		object.Container.Name, object.Container.Namespace, object.Container.Labels = o.Name, o.Namespace, object.Labels
	}
	return object
}

func (c *ExpectedContainer) neutral() *neutral.Container {
	made := &neutral.Container{
		Image: c.Image, User: c.User, Env: c.Env, Network: neutral.NetworkMode(c.NetworkMode),
		Resources: neutral.Resources{Memory: int64(c.Memory), MilliCPU: int64(c.MilliCPU)},
		Security: neutral.Security{Privileged: c.Privileged, ReadOnlyRoot: c.ReadOnlyRoot, CapAdd: c.CapAdd, Seccomp: neutral.Profile(c.Seccomp),
			AppArmor: neutral.Profile(c.AppArmor), UnmaskedPaths: c.Unmasked, Devices: c.Devices, Sysctls: c.Sysctls},
	}
	if c.HostPID {
		made.Security.PIDMode = "host"
	}
	if c.HostIPC {
		made.Security.IPCMode = "host"
	}
	for _, path := range c.HostMounts {
		made.Mounts = append(made.Mounts, neutral.Mount{Type: "bind", Source: path})
	}
	for _, port := range c.HostPorts {
		made.Ports = append(made.Ports, neutral.Port{Published: uint16(port), Publish: true})
	}
	return made
}

// Failure is one question that was not decided as expected.
type Failure struct {
	Request Request
	Problem string      // what was expected and what came instead
	Found   Explanation // all that was looked at
}

// Check asks the engine and gives what was not decided as expected.
func (x Expectation) Check(e *Engine) []Failure {
	var failures []Failure
	for _, r := range x.Requests() {
		if problem := x.problem(e.Decide(r)); problem != "" {
			failures = append(failures, Failure{Request: r, Problem: problem, Found: e.Explanation(r, true)})
		}
	}
	return failures
}

func (x Expectation) problem(d Decision) string {
	got := "deny: " + d.Reason
	if d.Allow {
		got = "allow by " + d.Rule
	}
	switch {
	case d.Allow != (x.Expect == Allow.String()):
		return fmt.Sprintf("expected %s, got %s", x.Expect, got)
	case d.Allow && x.Rule != "" && x.Rule != d.Rule:
		return fmt.Sprintf("expected allow by %s, got %s", x.Rule, got)
	case !strings.Contains(d.Reason, x.Why):
		return fmt.Sprintf("expected %s with %q in its reason, got %s", x.Expect, x.Why, got)
	}
	return ""
}

// Validate says what is wrong with an expectation beyond its form, "" for nothing.
func (x Expectation) Validate() string {
	if x.Rule != "" && x.Expect != Allow.String() {
		return "rule is the rule that allows; a denial has none"
	}
	if len(x.Groups) > 0 && x.Caller == "" {
		return "groups are those of the caller, who has a name"
	}
	if _, left := modules.JoinGroups(x.Groups); left > 0 {
		return "a group is printable ASCII without commas, and a caller has at most 128 of them"
	}
	if x.Object.Kind == "*" {
		return `the object's kind is written out; "*" stands for no object`
	}
	return ""
}
