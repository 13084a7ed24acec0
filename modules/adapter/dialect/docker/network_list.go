package docker

import (
	"context"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// enginesOwn are networks that nobody made.
var enginesOwn = []string{"bridge", "host", "none", "ingress", gatewayBridge}

// foundNetwork is a network with what the engine calls it.
type foundNetwork struct {
	neutral.Network
	named
}

// networkFromNative reads a network. Its subnets are not told.
func networkFromNative(n network.Network) foundNetwork {
	f := foundNetwork{named: nameOf(n.ID, n.Name, n.Labels)}
	f.Network = neutral.Network{ID: n.ID, Name: f.name, Namespace: f.namespace, Driver: driverOf(n), Scope: n.Scope, Internal: n.Internal,
		Labels: readBeside(n.Labels).labels, Created: n.Created}
	return f
}

// driverOf is a network's driver. A swarm's that was just made has none yet, and will be an overlay.
func driverOf(n network.Network) string {
	if n.Driver == "" && n.Scope == "swarm" {
		return driverOverlay
	}
	return n.Driver
}

func (f *foundNetwork) object() neutral.Object { return f.named.object(neutral.KindNetwork, f.Labels) }

func (a *action) foundNetworks(ctx context.Context) ([]foundNetwork, error) {
	all, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]foundNetwork, 0, len(all))
	for _, n := range all {
		if !ofLease(n.Labels) {
			found = append(found, networkFromNative(n.Network))
		}
	}
	slices.SortFunc(found, func(x, y foundNetwork) int { return strings.Compare(x.docker+x.id, y.docker+y.id) })
	return found, nil
}

func (a *action) listNetworks(ctx context.Context) (neutral.Result, error) {
	all, err := a.foundNetworks(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	f := a.op.Filter
	result := neutral.Result{Networks: []neutral.Network{}}
	for i := range all {
		n := &all[i]
		if n.in(a.op.Object.Namespace) && anyPrefix(f.IDs, n.id) && anyContains(f.Names, n.name) && labelsMatch(f.Labels, n.Labels) &&
			(len(f.Drivers) == 0 || slices.Contains(f.Drivers, n.Driver)) && a.permit(n.object()) == nil {
			result.Networks = append(result.Networks, n.Network)
		}
	}
	return result, nil
}

// findNetwork gives the network that the operation names, once policy lets the caller have it.
func (a *action) findNetwork(ctx context.Context) (*foundNetwork, error) {
	networks, err := a.foundNetworks(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]named, len(networks))
	for i := range networks {
		all[i] = networks[i].named
	}
	i, err := find("network", a.op.Object.Namespace, a.op.Ref, all)
	if err != nil {
		return nil, err
	}
	return &networks[i], a.permit(networks[i].object())
}

// inspectNetwork tells of a network and of those of its containers that the caller may see.
func (a *action) inspectNetwork(ctx context.Context) (neutral.Result, error) {
	found, err := a.findNetwork(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	inspected, err := a.api.NetworkInspect(ctx, found.id, client.NetworkInspectOptions{})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	var ids []string
	for id := range inspected.Network.Containers { // among them are the network's own ends, which are no containers
		ids = append(ids, id)
	}
	slices.Sort(ids)
	members, err := a.containersByID(ctx, ids)
	if err != nil {
		return neutral.Result{}, err
	}
	for _, l := range members {
		if a.permitSeen(ctx, l.object()) == nil {
			found.Members = append(found.Members, neutral.NetworkMember{ID: l.id, Name: l.name})
		}
	}
	return neutral.Result{Network: &found.Network}, a.permit(found.object()) // once more: the record is about the network
}

func (a *action) createNetwork(ctx context.Context) (neutral.Result, error) {
	n := a.op.Network
	if n == nil || n.Name == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the network has no name")
	}
	switch n.Driver {
	case "", driverBridge, driverOverlay:
	default:
		return neutral.Result{}, &fault.Error{Kind: fault.Unsupported, Field: "Driver",
			Message: "Driver is refused: networks of the driver " + shorten(n.Driver) + " are made by docker callers alone"}
	}
	namespace := a.namespace()
	labels, losses := callersLabels("labels", n.Labels)
	wanted := *n
	wanted.Labels = networkLabels(namespace, n.Name, labels)
	docker := networkName(namespace, n.Name)
	if err := a.permit(nameOf("", docker, wanted.Labels).object(neutral.KindNetwork, wanted.Labels)); err != nil {
		return neutral.Result{}, err
	}
	all, err := a.allNetworks(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if slices.ContainsFunc(all, func(s network.Summary) bool { return s.Name == docker }) { // which older engines would make twice
		return neutral.Result{}, taken("network", n.Name)
	}
	id, err := a.makeNetwork(ctx, docker, wanted)
	if cerrdefs.IsConflict(err) {
		return neutral.Result{}, taken("network", n.Name)
	}
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	result := neutral.Result{ID: id, Losses: losses}
	made, err := a.api.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if err != nil {
		return result, faultOf(err)
	}
	found := networkFromNative(made.Network.Network)
	result.Network = &found.Network
	return result, nil
}

// inUse tells a fault of something that is not removed because it is used. By what, the caller need not know.
func inUse(err error, kind, name string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if strings.Contains(text, "active endpoints") || strings.Contains(text, "in use") {
		return fault.Wrap(fault.Conflict, err, "%s %s is in use", kind, name)
	}
	return faultOf(err)
}

func (a *action) removeNetwork(ctx context.Context) (neutral.Result, error) {
	found, err := a.findNetwork(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if slices.Contains(enginesOwn, found.docker) {
		return neutral.Result{}, fault.New(fault.Conflict, "%s is a pre-defined network and cannot be removed", found.name)
	}
	_, err = a.api.NetworkRemove(ctx, found.id, client.NetworkRemoveOptions{})
	return neutral.Result{ID: found.id, Removed: []string{found.name}}, inUse(err, "network", found.name)
}

// pruneNetworks removes the networks that no container has, running or not. A swarm keeps those of its services.
func (a *action) pruneNetworks(ctx context.Context) (neutral.Result, error) {
	all, err := a.foundNetworks(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	containers, err := a.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	used := map[string]bool{}
	for _, c := range containers.Items {
		if c.NetworkSettings == nil {
			continue
		}
		for name, settings := range c.NetworkSettings.Networks {
			used[name] = true
			if settings != nil {
				used[settings.NetworkID] = true
			}
		}
	}
	var result neutral.Result
	for i := range all {
		n := &all[i]
		if slices.Contains(enginesOwn, n.docker) || used[n.id] || used[n.docker] || !n.in(a.op.Object.Namespace) || !labelsMatch(a.op.Filter.Labels, n.Labels) ||
			!a.op.Until.IsZero() && !n.Created.Before(a.op.Until) || a.permit(n.object()) != nil {
			continue
		}
		_, err := a.api.NetworkRemove(ctx, n.id, client.NetworkRemoveOptions{})
		if err = inUse(err, "network", n.name); fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return result, err
		}
		result.Removed = append(result.Removed, n.name)
	}
	return result, nil
}

// member finds the network and the container of a join or a leave.
func (a *action) member(ctx context.Context) (*foundNetwork, *located, error) {
	if a.op.Member == nil || a.op.Member.Name == "" && a.op.Member.ID == "" {
		return nil, nil, fault.New(fault.Invalid, "no container is named")
	}
	found, err := a.findNetwork(ctx)
	if err != nil {
		return nil, nil, err
	}
	ref := a.op.Member.ID
	if ref == "" {
		ref = a.op.Member.Name
	}
	l, err := a.locateContainer(ctx, a.op.Object.Namespace, ref)
	if err != nil {
		return nil, nil, err
	}
	return found, l, l.own("change the networks of")
}

func (a *action) joinNetwork(ctx context.Context) (neutral.Result, error) {
	n, l, err := a.member(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	to := attached{id: n.id, aliases: a.op.Member.Aliases}
	_, err = a.api.NetworkConnect(ctx, n.id, client.NetworkConnectOptions{Container: l.id, EndpointConfig: endpoint(to, l.namespace, l.name)})
	return neutral.Result{ID: l.id}, faultOf(err)
}

func (a *action) leaveNetwork(ctx context.Context) (neutral.Result, error) {
	n, l, err := a.member(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	_, err = a.api.NetworkDisconnect(ctx, n.id, client.NetworkDisconnectOptions{Container: l.id, Force: a.op.Member.Force})
	return neutral.Result{ID: l.id}, faultOf(err)
}
