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
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Locator finds containers as their orchestrator has them now.
type Locator interface {
	Locate(ctx context.Context, ref neutral.TargetRef) (neutral.Target, error)
}

// Config is what a Module needs. All fields but Load and StandIn are required.
type Config struct {
	Cluster, Suffix string
	// Pods tells that a name's last label before the namespace is a pod, as on Kubernetes.
	Pods    bool
	Locator Locator
	Policy  func() modules.Policy
	Load    *load.Load // counts accesses by CONNECT as streams; nil has no limits
	// StandIn gives a name to a host whose own tells an address, for peers that may not know it; nil tells none.
	StandIn func(host string) string
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
// nothing about a container that the caller may not reach.
func (m *Module) Decide(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	if m.asksHosts(req.Authority) {
		return m.hosts(ctx, req)
	}
	record := modules.Record{Verb: neutral.Access, Object: neutral.Object{Kind: neutral.KindContainer}}
	ref, err := m.parse(req.Authority)
	if err != nil {
		return modules.Verdict{Record: record}, err
	}
	ref.Node = req.Header.Get(names.HeaderNode)
	record.Object.Namespace, record.Object.Name = ref.Namespace, objectName(ref)
	if req.Peer.Name == "" {
		return modules.Verdict{Record: record}, m.stranger()
	}
	subject, policy := req.Subject(), m.config.Policy()
	if foreseen := policy.Foresee(subject, neutral.Access, record.Object); !foreseen.Allowed && !foreseen.Open {
		return modules.Verdict{Record: record}, foreseen.Err()
	}
	absent := fault.New(fault.NotFound, "no container %s in namespace %s of %s", objectName(ref), ref.Namespace, m.config.Cluster)
	target, err := m.locate(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return modules.Verdict{Record: record}, absent
	}
	if err != nil {
		return modules.Verdict{Record: record}, err
	}
	record.Object = target.Object
	judgement := policy.Judge(subject, neutral.Access, target.Object)
	if !judgement.Allowed && !policy.MayKnow(subject, target.Object) {
		return modules.Verdict{Record: record}, absent
	}
	if !judgement.Allowed {
		return modules.Verdict{Record: record}, judgement.Err()
	}
	record.Rule = judgement.Rule
	if err := serves(target, neutral.NetworkMode(req.Header.Get(names.HeaderNetworkMode)), objectName(ref)); err != nil {
		return modules.Verdict{Record: record}, err
	}
	route := &modules.Route{
		Upstream: names.Access, Destination: netip.AddrPortFrom(target.Address, ref.Port).String(),
		Remove: []string{names.HeaderNode, names.HeaderNetworkMode},
	}
	if req.Method == http.MethodConnect {
		hold, err := m.config.Load.Hold(req.Peer.Name, req.Caller, true)
		if err != nil {
			return modules.Verdict{Record: record}, err
		}
		route.Set = http.Header{}
		route.Set.Set(names.HeaderHold, hold)
	}
	record.Upstream = names.Access
	return modules.Verdict{Record: record, Route: route}, nil
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

// modes are the network modes that a request may ask for.
var modes = []neutral.NetworkMode{neutral.NetworkHost, neutral.NetworkBridge, neutral.NetworkNone, neutral.NetworkPod}

// serves compares the mode that a target runs in with the one that a request needs. Without a wish, a request needs
// any mode in which the gateway reaches the port.
func serves(target neutral.Target, wish neutral.NetworkMode, name string) error {
	if !target.Running {
		return fault.New(fault.Conflict, "container %s is not running", name)
	}
	if wish != "" && !slices.Contains(modes, wish) {
		return fault.New(fault.Invalid, "network mode %q is unknown; one of host, bridge, pod, none", wish)
	}
	if wish != "" && wish != target.Network {
		return fault.New(fault.Conflict, "container %s runs with network mode %s, the request asks for %s; "+
			"this gateway does not switch network modes", name, target.Network, wish)
	}
	if !target.Address.IsValid() {
		return fault.New(fault.Conflict, "container %s runs with network mode %s, but reaching a port of it needs host, "+
			"bridge or pod; this gateway does not switch network modes", name, target.Network)
	}
	return nil
}
