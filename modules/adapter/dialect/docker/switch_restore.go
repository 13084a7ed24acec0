package docker

import (
	"context"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// side is one of the two containers of a switch, as it is found.
type side struct {
	name    string
	running bool
	since   string // it runs
	policy  string // of restarts
}

// restoration is what is to be done so that the old container is back, in the order of the fields. What speaks against it is
// somebody's own change, and stays: then only what nobody uses is taken away.
type restoration struct {
	conflict    string
	stopNew     bool
	renameNew   bool // out of the old one's way; it is removed last, so that one that is missing was removed by somebody
	stopOld     bool // an engine goes on stopping it although whoever asked has gone
	renameOld   bool
	policyOld   bool
	startOld    bool
	removeNew   bool
	removeImage bool
}

// restorationOf decides it. holder tells that a third container has the name.
func restorationOf(r *switchRecord, lease string, old, made *side, stranger bool) restoration {
	spare, draft := spareName(r.Name, lease), draftName(r.Name, lease)
	unused := made != nil && made.name == draft // nobody but the switch knows of it
	do := restoration{removeNew: unused, stopNew: unused && made.running, removeImage: unused || made == nil}
	policy := func() bool { return restarts(r.Restart) && r.Stopped && (old.policy == "" || old.policy == "no") }
	switch {
	case old == nil && made == nil:
		do.conflict = "container " + r.Name + " was removed while it was in another network mode"
	case old == nil:
		do = restoration{conflict: "the original of container " + r.Name + ", which was kept for the way back, was removed; what is in its place stays, as " + made.name}
	case old.name == r.Name:
		do.stopOld = r.Since != "" && old.running && old.since == r.Since
		do.policyOld, do.startOld = policy(), r.Stopped && !old.running || do.stopOld
		if made != nil && !unused {
			do.conflict = "the new container of " + r.Name + " was renamed, and stays as " + made.name
		}
	case old.name != spare:
		do.conflict = "the original of container " + r.Name + " was renamed, and stays as " + old.name
	case old.running:
		do.conflict = "the original of container " + r.Name + " was started by somebody, and stays as " + spare
	case stranger:
		do.conflict = "another container has the name " + r.Name + "; the original stays, stopped, as " + spare
	case made == nil:
		do.conflict = "the container that was in the place of " + r.Name + " was removed; the original stays, stopped, as " + spare
	case made.name == r.Name || unused:
		do = restoration{stopNew: made.running, renameNew: !unused, renameOld: true, policyOld: policy(), startOld: true, removeNew: true, removeImage: true}
	default:
		do.conflict = "the new container of " + r.Name + " was renamed, and stays as " + made.name + "; the original stays, stopped, as " + spare
	}
	return do
}

// madeFor is the container that a switch made; nil where there is none.
func (c *Cluster) madeFor(ctx context.Context, lease string, r *switchRecord) (*client.ContainerInspectResult, error) {
	id := r.New
	if id == "" {
		short, cancel := context.WithTimeout(ctx, callDeadline)
		defer cancel()
		list, err := c.api.ContainerList(short, client.ContainerListOptions{All: true, Filters: make(client.Filters).
			Add("label", labelSwitch+"="+lease).Add("label", labelSwitchOf+"="+r.Old)})
		if err != nil {
			return nil, err
		}
		if len(list.Items) == 0 {
			return nil, nil
		}
		id = list.Items[0].ID
	}
	return c.inspect(ctx, id)
}

func sideOf(found *client.ContainerInspectResult) *side {
	if found == nil {
		return nil
	}
	state := found.Container.State
	return &side{name: strings.TrimPrefix(found.Container.Name, "/"), running: state.Running || state.Restarting, since: state.StartedAt,
		policy: string(found.Container.HostConfig.RestartPolicy.Name)}
}

// sides looks at what is there of a switch.
func (c *Cluster) sides(ctx context.Context, lease string, r *switchRecord) (old, made *client.ContainerInspectResult, stranger bool, err error) {
	if old, err = c.inspect(ctx, r.Old); err != nil {
		return nil, nil, false, err
	}
	if made, err = c.madeFor(ctx, lease, r); err != nil {
		return nil, nil, false, err
	}
	holder, err := c.inspect(ctx, r.Name)
	if err != nil {
		return nil, nil, false, err
	}
	if holder != nil && strings.TrimPrefix(holder.Container.Name, "/") == r.Name { // or its id begins so
		id := holder.Container.ID
		stranger = id != r.Old && (made == nil || id != made.Container.ID)
	}
	return old, made, stranger, nil
}

// restoreRecreated brings the old container back.
func (c *Cluster) restoreRecreated(ctx context.Context, s *neutral.Switching, r *switchRecord) error {
	old, made, stranger, err := c.sides(ctx, s.ID, r)
	if err != nil {
		return err
	}
	if made != nil {
		r.New = made.Container.ID
	}
	do := restorationOf(r, s.ID, sideOf(old), sideOf(made), stranger)
	for _, part := range []struct {
		wanted bool
		what   string
		act    func() error
	}{
		{do.stopNew, "the stop of the new container", func() error { return c.stopByItself(ctx, made.Container) }},
		{do.renameNew, "the spare name of the new container", func() error { return c.rename(ctx, r.New, draftName(r.Name, s.ID)) }},
		{do.stopOld, "the stop of the old container, to its end", func() error { return c.stopByItself(ctx, old.Container) }},
		{do.renameOld, "the name of the old container", func() error { return c.rename(ctx, r.Old, r.Name) }},
		{do.policyOld, "the restart policy of the old container", func() error { return c.restartBy(ctx, r.Old, r.Restart) }},
		{do.startOld, "the start of the old container", func() error {
			if err := c.startOn(ctx, r.Old, old.Container.NetworkSettings); err != nil {
				return err
			}
			return c.settled(ctx, r.Old, r.Name, "")
		}},
		{do.removeNew, "the end of the new container", func() error { return c.removeOwn(ctx, r.New) }},
		{do.removeImage && s.Need.Layer == neutral.LayerCommit, "the end of the image of the old container's files", func() error { return c.removeImage(ctx, s.ID) }},
	} {
		if !part.wanted {
			continue
		}
		if err := step(ctx, s, part.what, r); err != nil {
			return err
		}
		if err := part.act(); err != nil {
			return unsettled(err)
		}
	}
	if do.conflict != "" {
		return fault.New(fault.Conflict, "%s", do.conflict)
	}
	return nil
}

// unsettled is an engine's refusal of something that is tried again: nobody else's change stands behind it.
func unsettled(err error) error {
	if err = faultOf(err); fault.Is(err, fault.Conflict) {
		return fault.Wrap(fault.Unavailable, err, "%s", fault.Of(err).Message)
	}
	return err
}

// removeOwn removes a container, and none of its volumes: they are the old one's.
func (c *Cluster) removeOwn(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callDeadline)
	defer cancel()
	_, err := c.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// removeImage removes what a container's files were committed to, unless something has it now.
func (c *Cluster) removeImage(ctx context.Context, lease string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callDeadline)
	defer cancel()
	_, err := c.api.ImageRemove(ctx, switchImage(lease), client.ImageRemoveOptions{})
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil
	}
	return err
}

// keepRecreated removes the old container; its volumes are the new one's.
func (c *Cluster) keepRecreated(ctx context.Context, s *neutral.Switching, r *switchRecord) error {
	old, made, _, err := c.sides(ctx, s.ID, r)
	if err != nil || old == nil {
		return err
	}
	spare := sideOf(old)
	if made == nil || sideOf(made).name != r.Name || spare.name != spareName(r.Name, s.ID) || spare.running {
		return fault.New(fault.Conflict, "what is in the place of container %s is not what was put there; its original stays, as %s", r.Name, spare.name)
	}
	if err := step(ctx, s, "the end of the old container", r); err != nil {
		return err
	}
	return unsettled(c.removeOwn(ctx, r.Old))
}
