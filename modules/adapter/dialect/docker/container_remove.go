package docker

import (
	"context"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func (a *action) removeContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.ownContainer(ctx, "remove")
	if err != nil {
		return neutral.Result{}, err
	}
	options := client.ContainerRemoveOptions{}
	if r := a.op.Remove; r != nil {
		if r.Link {
			return neutral.Result{}, fault.New(fault.Unsupported, "links are refused: they are made and removed by docker callers alone")
		}
		options.Force, options.RemoveVolumes = r.Force, r.Volumes
	}
	if found.holds() {
		if found.running() && !options.Force {
			return neutral.Result{}, fault.New(fault.Conflict, "the Pod %s runs; stop its containers, or remove it by force", found.Name)
		}
		return neutral.Result{ID: found.id, Removed: []string{found.id}}, a.removePod(ctx, found)
	}
	if _, err := a.api.ContainerRemove(ctx, found.id, options); err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return neutral.Result{ID: found.id, Removed: []string{found.id}}, nil
}

// spares are the ids of containers in whose place another one is for a while. They have ended, and will be back.
func (c *Cluster) spares(ctx context.Context) (map[string]bool, error) {
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelSwitchOf)})
	if err != nil {
		return nil, faultOf(err)
	}
	return sparesOf(list.Items), nil
}

// sparesOf are those of a list that has all containers which switches made. One that was made and has nobody's place yet is one as well.
func sparesOf(list []container.Summary) map[string]bool {
	spares := map[string]bool{}
	for _, s := range list {
		of := s.Labels[labelSwitchOf]
		if of == "" {
			continue
		}
		spares[of] = true
		draft := draftName("", s.Labels[labelSwitch])
		if slices.ContainsFunc(s.Names, func(name string) bool { return strings.HasSuffix(name, draft) }) {
			spares[s.ID] = true
		}
	}
	return spares
}

// pruneContainers removes what has ended and is of no service.
func (a *action) pruneContainers(ctx context.Context) (neutral.Result, error) {
	a.op.Filter.All = true
	options, err := a.nativeFilters(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	list, err := a.api.ContainerList(ctx, options)
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	spares, err := a.spares(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	var ids []string
	for _, s := range list.Items {
		if n := namedSummary(s); !spares[n.id] && n.in(a.op.Object.Namespace) && anyContains(a.op.Filter.Names, n.name) {
			ids = append(ids, n.id)
		}
	}
	all, err := a.containersByID(ctx, ids)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{}
	for _, l := range all {
		over := l.State.Status == neutral.StatusCreated || l.State.Status == neutral.StatusExited || l.State.Status == neutral.StatusDead
		if !over || l.Owner != nil || l.holds() || l.holder() != "" || !a.wanted(l) || !a.op.Until.IsZero() && !l.CreatedAt.Before(a.op.Until) {
			continue
		}
		if err := a.permitSeen(ctx, l.object()); fault.Is(err, fault.Denied) {
			continue
		} else if err != nil {
			return result, err
		}
		_, err := a.api.ContainerRemove(ctx, l.id, client.ContainerRemoveOptions{})
		if cerrdefs.IsConflict(err) || cerrdefs.IsNotFound(err) { // it was started or removed meanwhile
			continue
		}
		if err != nil {
			return result, faultOf(err)
		}
		result.Removed = append(result.Removed, l.id)
	}
	return result, nil
}
