package docker

import (
	"context"
	"slices"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// inspecting is how many containers are read at once, for lists do not tell all.
const inspecting = 8

// namedSummary is what a container of a list is found by. Names with more slashes are links of other containers to it.
func namedSummary(s container.Summary) named {
	name := s.ID
	for _, n := range s.Names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			name = n
		}
	}
	return nameOf(s.ID, name, s.Labels)
}

// nativeFilters are a caller's filters that an engine applies as they are.
func (a *action) nativeFilters(ctx context.Context) (client.ContainerListOptions, error) {
	f := a.op.Filter
	options := client.ContainerListOptions{All: f.All || f.Limit > 0 || len(f.Status) > 0 || len(f.ExitCodes) > 0, Filters: client.Filters{}}
	for term, values := range map[string][]string{"id": f.IDs, "label": f.Labels, "ancestor": f.Ancestors, "health": f.Health,
		"publish": f.Publish, "expose": f.Expose} {
		for _, v := range values {
			options.Filters.Add(term, v)
		}
	}
	for _, s := range f.Status {
		options.Filters.Add("status", string(s))
	}
	for _, code := range f.ExitCodes {
		options.Filters.Add("exited", strconv.Itoa(code))
	}
	for term, ref := range map[string]string{"before": f.Before, "since": f.Since} {
		if ref == "" {
			continue
		}
		found, err := a.summaryOf(ctx, a.op.Object.Namespace, ref)
		if err != nil {
			return options, err
		}
		options.Filters.Add(term, found.id)
	}
	return options, nil
}

// listContainers lists containers in full.
func (a *action) listContainers(ctx context.Context) (neutral.Result, error) {
	options, err := a.nativeFilters(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	list, err := a.api.ContainerList(ctx, options)
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	f := a.op.Filter
	var ids []string
	for _, s := range list.Items {
		if n := namedSummary(s); n.in(a.op.Object.Namespace) && anyContains(f.Names, n.name) {
			ids = append(ids, n.id)
		}
	}
	all, err := a.containersByID(ctx, ids)
	if err != nil {
		return neutral.Result{}, err
	}
	var seen []*located
	for _, l := range all {
		if !a.wanted(l) {
			continue
		}
		if err := a.permitSeen(ctx, l.object()); fault.Is(err, fault.Denied) {
			continue
		} else if err != nil {
			return neutral.Result{}, err
		}
		seen = append(seen, l)
	}
	result := neutral.Result{Containers: []neutral.Container{}}
	for _, l := range assembled(seen) {
		if result.Containers = append(result.Containers, l.shown()); f.Limit > 0 && len(result.Containers) == f.Limit {
			break
		}
	}
	if f.Size {
		result.Losses = append(result.Losses, neutral.Loss{Field: "size", Change: "dropped", Reason: "sizes are told to docker callers alone"})
	}
	return result, nil
}

// wanted applies the filters that speak in neutral names.
func (a *action) wanted(l *located) bool {
	f := a.op.Filter
	shown := l.shown()
	on := func(name string) bool {
		return name == string(l.Network) && len(l.Networks) == 0 || slices.ContainsFunc(l.Networks, func(n neutral.NetworkAttachment) bool {
			return n.Name == name || n.ID == name
		})
	}
	has := func(volume string) bool {
		return slices.ContainsFunc(shown.Mounts, func(m neutral.Mount) bool { return m.Source == volume || m.Target == volume })
	}
	owned := func(name string) bool { return l.Owner != nil && l.Owner.Name == name }
	return (len(f.Networks) == 0 || slices.ContainsFunc(f.Networks, on)) && (len(f.Volumes) == 0 || slices.ContainsFunc(f.Volumes, has)) &&
		(len(f.Workloads) == 0 || slices.ContainsFunc(f.Workloads, owned)) && (len(f.Nodes) == 0 || slices.Contains(f.Nodes, l.Node))
}

// containersByID reads containers; those that are gone meanwhile are left out.
func (a *action) containersByID(ctx context.Context, ids []string) ([]*located, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	self, err := a.node(ctx)
	if err != nil {
		return nil, faultOf(err)
	}
	networks, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]*located, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inspecting)
	for i, id := range ids {
		group.Go(func() error {
			inspected, err := a.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
			if err == nil {
				found[i] = containerFromNative(inspected.Container, self.name, networks)
			}
			if cerrdefs.IsNotFound(err) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, faultOf(err)
	}
	return slices.DeleteFunc(found, func(l *located) bool { return l == nil }), nil
}

func (a *action) containerByID(ctx context.Context, id string) (*located, error) {
	found, err := a.containersByID(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "No such container: %s", id)
	}
	return found[0], nil
}

// summaryOf finds a container by name or id, whoever may see it.
func (a *action) summaryOf(ctx context.Context, namespace, ref string) (named, error) {
	list, err := a.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return named{}, faultOf(err)
	}
	all := make([]named, len(list.Items))
	for i, s := range list.Items {
		all[i] = namedSummary(s)
	}
	i, err := find("container", namespace, ref, all)
	if fault.Is(err, fault.NotFound) {
		return named{}, fault.New(fault.NotFound, "No such container: %s", ref)
	}
	if err != nil {
		return named{}, err
	}
	return all[i], nil
}

// locateContainer gives the container that a reference means, once policy lets the caller have it.
func (a *action) locateContainer(ctx context.Context, namespace, ref string) (*located, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	n, err := a.summaryOf(ctx, namespace, ref)
	if err != nil {
		return nil, err
	}
	found, err := a.containerByID(ctx, n.id)
	if err != nil {
		return nil, err
	}
	return found, a.permitSeen(ctx, found.object())
}

// findContainer gives the container that the operation names, once policy lets the caller have it.
func (a *action) findContainer(ctx context.Context) (*located, error) {
	return a.locateContainer(ctx, a.op.Object.Namespace, a.op.Ref)
}

// ownContainer gives one that no service keeps: what is done to a task's container behind its swarm's back, the swarm
// undoes or does not know.
func (a *action) ownContainer(ctx context.Context, verb string) (*located, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return nil, err
	}
	return found, found.own(verb)
}

// own refuses what a service keeps.
func (l *located) own(verb string) error {
	if o := l.Owner; o != nil {
		return fault.New(fault.Conflict, "cannot %s container %s: it belongs to %s %s/%s; change, scale or remove the service",
			verb, l.Name, o.Kind, o.Namespace, o.Name)
	}
	return nil
}

func (a *action) inspectContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if found, err = a.wholePod(ctx, found); err != nil {
		return neutral.Result{}, err
	}
	c := found.shown()
	return neutral.Result{Container: &c}, nil
}
