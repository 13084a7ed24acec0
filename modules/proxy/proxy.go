// Package proxy serves container access: a request to a port inside one container. It finds the container, compares
// the network mode it runs in with what the request needs, and sends the request there.
package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Locator finds containers as their orchestrator has them now.
type Locator interface {
	Locate(ctx context.Context, ref neutral.TargetRef) (neutral.Target, error)
}

// Config is what a Module needs. All fields but Load, StandIn, Switcher and Leases are required.
type Config struct {
	Cluster, Suffix string
	// Pods tells that a name's last label before the namespace is a pod, as on Kubernetes.
	Pods    bool
	Locator Locator
	Policy  func() modules.Policy
	Load    *load.Load // counts accesses by CONNECT as streams; nil has no limits
	// StandIn gives a name to a host whose own tells an address, for peers that may not know it; nil tells none.
	StandIn func(host string) string
	// Switcher and Leases switch network modes; without them none is.
	Switcher lease.Switcher
	Leases   *lease.Book
}

// Module decides about container access.
type Module struct{ config Config }

var _ modules.Module = (*Module)(nil)

// New makes the module.
func New(config Config) *Module {
	if config.Load == nil {
		config.Load = load.New(load.Config{})
	}
	return &Module{config: config}
}

// Class is container access.
func (m *Module) Class() modules.Class { return modules.ContainerAccess }

// Decide finds the target and checks permission, state and network mode, in this order, so that a refusal tells
// nothing about a container that the caller may not reach. Where the mode does not serve, and policy lets it be switched,
// the decision waits for that.
func (m *Module) Decide(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	if m.asksHosts(req.Authority) {
		return m.hosts(ctx, req)
	}
	ref, err := m.parse(req.Authority)
	if err != nil {
		return modules.Verdict{Record: modules.Record{Verb: neutral.Access, Object: neutral.Object{Kind: neutral.KindContainer}}}, err
	}
	ref.Node = req.Header.Get(names.HeaderNode)
	a := &access{module: m, req: req, ref: ref, subject: req.Subject(), policy: m.config.Policy()}
	a.record = modules.Record{Verb: neutral.Access, Object: neutral.Object{Kind: neutral.KindContainer, Namespace: ref.Namespace, Name: objectName(ref)}}
	verdict, err := a.decide(ctx)
	if err != nil {
		return modules.Verdict{Record: a.record}, err
	}
	return verdict, nil
}

// access is one request for a port of a container.
type access struct {
	module  *Module
	req     *modules.Request
	ref     neutral.TargetRef
	need    neutral.NetworkNeed
	subject modules.Subject
	policy  modules.Policy
	target  neutral.Target
	record  modules.Record
}

func (a *access) name() string { return objectName(a.ref) }

func (a *access) decide(ctx context.Context) (modules.Verdict, error) {
	if a.req.Peer.Name == "" {
		return modules.Verdict{}, a.module.stranger()
	}
	if foreseen := a.policy.Foresee(a.subject, neutral.Access, a.record.Object); !foreseen.Allowed && !foreseen.Open {
		return modules.Verdict{}, foreseen.Err()
	}
	var err error
	if a.need, err = needOf(a.req.Header, a.ref.Port); err != nil {
		return modules.Verdict{}, err
	}
	at := a.ref
	held, leased := a.leased(neutral.Object{})
	if leased && (held.Phase == lease.Serving || held.Phase == lease.Keeping) {
		at = held.Now // on Kubernetes it has another name since
		at.Port, at.Node = a.ref.Port, a.ref.Node
	}
	if err := a.locate(ctx, at); err != nil {
		return modules.Verdict{}, err
	}
	if !leased {
		held, leased = a.shared(ctx)
	}
	if a.req.Header.Get(names.HeaderPlan) != "" {
		return a.plan(ctx)
	}
	if leased {
		if verdict, joined := a.join(held); joined {
			return verdict, nil
		}
	}
	missing := serves(a.target, a.need.Mode, a.name())
	if missing == nil {
		return a.route("", nil)
	}
	return a.change(missing)
}

// locate finds the target and asks policy about it.
func (a *access) locate(ctx context.Context, at neutral.TargetRef) error {
	absent := fault.New(fault.NotFound, "no container %s in namespace %s of %s", a.name(), a.ref.Namespace, a.module.config.Cluster)
	target, elsewhere, err := a.module.find(ctx, at)
	if fault.Is(err, fault.NotFound) {
		return absent
	}
	if err != nil {
		return err
	}
	a.record.Object = target.Object
	judgement := a.policy.Judge(a.subject, neutral.Access, target.Object)
	if !judgement.Allowed && !a.policy.MayKnow(a.subject, target.Object) {
		return absent
	}
	if !judgement.Allowed {
		return judgement.Err()
	}
	a.record.Rule, a.target = judgement.Rule, target
	if err := a.demand(judgement.Mode); err != nil {
		return err
	}
	return elsewhere
}

// demand makes the mode that policy has accesses in, if it has one, that of the request.
func (a *access) demand(mode neutral.NetworkMode) error {
	if mode == "" {
		return nil
	}
	if a.need.Mode != "" && !sameMode(a.need.Mode, mode) {
		return fault.New(fault.Denied, "no permission: the policy of this cluster has containers accessed in network mode %s, and the request asks for %s",
			mode, a.need.Mode)
	}
	a.need.Mode = mode
	return nil
}

// route sends the request to the target. leave, where there is one, is told of its end, and switched is for the answer.
func (a *access) route(switched string, leave func()) (modules.Verdict, error) {
	route := &modules.Route{
		Upstream: names.Access, Destination: netip.AddrPortFrom(a.target.Address, a.ref.Port).String(), Set: http.Header{},
		Remove: []string{names.HeaderNode, names.HeaderNetworkMode, names.HeaderLayer},
	}
	raw := a.req.Method == http.MethodConnect
	if raw || leave != nil {
		if leave == nil {
			leave = func() {}
		}
		hold, err := a.module.config.Load.Hold(a.req.Peer.Name, a.req.Caller, raw, leave)
		if err != nil {
			leave()
			return modules.Verdict{}, err
		}
		route.Set.Set(names.HeaderHold, hold)
	}
	a.record.Upstream, a.record.Switched = names.Access, switched
	return modules.Verdict{Record: a.record, Route: route}, nil
}

// Refuse answers in JSON: whoever reaches into a container may speak anything.
func (m *Module) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

func objectName(ref neutral.TargetRef) string {
	switch {
	case ref.Pod == "":
		return ref.Container
	case ref.Container == "":
		return ref.Pod
	}
	return ref.Container + "." + ref.Pod
}

// modes are the network modes that a request may ask for: those in which a port can be reached.
var modes = []neutral.NetworkMode{neutral.NetworkHost, neutral.NetworkBridge, neutral.NetworkPod}

// layers are what a request may say of a target's changed files.
var layers = []neutral.LayerMode{neutral.LayerCommit, neutral.LayerDiscard}

// needOf is what a request needs. Without a wish that is any mode in which the gateway reaches the port.
func needOf(header http.Header, port uint16) (neutral.NetworkNeed, error) {
	need := neutral.NetworkNeed{Mode: neutral.NetworkMode(header.Get(names.HeaderNetworkMode)), Port: port,
		Layer: neutral.LayerMode(header.Get(names.HeaderLayer))}
	if need.Mode != "" && !slices.Contains(modes, need.Mode) {
		return need, fault.New(fault.Invalid, "network mode %q is none in which a port is reached; those are host, bridge and pod", need.Mode)
	}
	if need.Layer != "" && !slices.Contains(layers, need.Layer) {
		return need, fault.New(fault.Invalid, "%s %q is unknown; it is commit or discard", names.HeaderLayer, need.Layer)
	}
	return need, nil
}

// serves compares the mode that a target runs in with the one that a request needs.
func serves(target neutral.Target, wish neutral.NetworkMode, name string) error {
	switch {
	case !target.Running:
		return fault.New(fault.Conflict, "container %s is not running", name)
	case wish != "" && !sameMode(wish, target.Network):
		return fault.New(fault.Conflict, "container %s runs with network mode %s, and the access needs %s", name, target.Network, wish)
	case !target.Address.IsValid():
		return fault.New(fault.Conflict, "container %s runs with network mode %s, and reaching a port of it needs another", name, target.Network)
	}
	return nil
}

// sameMode takes the two words for a network of the container's own for one.
func sameMode(x, y neutral.NetworkMode) bool {
	own := func(mode neutral.NetworkMode) bool {
		return mode == neutral.NetworkBridge || mode == neutral.NetworkPod
	}
	return x == y || own(x) && own(y)
}
