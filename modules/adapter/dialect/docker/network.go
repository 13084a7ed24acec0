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

// labelImplicit is of a network that was made because something was to run on it. Whoever may run something in its
// namespace may run it there.
const labelImplicit = "isthmus.io/implicit"

// ofLease tells a network that is a lease's alone, and nobody else's to see.
func ofLease(labels map[string]string) bool { return labels[labelSwitch] != "" }

const (
	driverBridge  = "bridge"
	driverOverlay = "overlay"
)

// networkName is what an engine calls a network. Its own words are modes, so a network "default" is never called that.
func networkName(namespace, name string) string {
	if name == defaultNamespace && (namespace == "" || namespace == defaultNamespace) {
		return defaultNamespace + "_" + defaultNamespace
	}
	return dockerName(namespace, name)
}

// networkLabels are those of a network that is made.
func networkLabels(namespace, name string, labels map[string]string) map[string]string {
	in := labelsIn(namespace, labels)
	if networkName(namespace, name) != name {
		if namespace == "" {
			namespace = defaultNamespace
		}
		in[labelStack] = namespace
	}
	return in
}

// allNetworks are the engine's networks, read once.
func (a *action) allNetworks(ctx context.Context) ([]network.Summary, error) {
	if a.known == nil {
		list, err := a.api.NetworkList(ctx, client.NetworkListOptions{})
		if err != nil {
			return nil, faultOf(err)
		}
		a.known = append([]network.Summary{}, list.Items...)
	}
	return a.known, nil
}

// nameNetworks gives a container's networks, which are there by their ids, their names.
func nameNetworks(c *neutral.Container, namespace string, all []network.Summary) {
	var kept []neutral.NetworkAttachment
	for _, attached := range c.Networks {
		i := slices.IndexFunc(all, func(n network.Summary) bool { return n.ID == attached.Name || n.Name == attached.Name })
		if i < 0 {
			kept = append(kept, neutral.NetworkAttachment{ID: attached.Name, Name: attached.Name, Aliases: attached.Aliases})
			continue
		}
		if all[i].Driver == "host" {
			c.Network = neutral.NetworkHost
			continue
		}
		if ofLease(all[i].Labels) {
			continue
		}
		kept = append(kept, neutral.NetworkAttachment{ID: all[i].ID, Name: networkNameIn(namespace, all[i]), Aliases: attached.Aliases})
	}
	c.Networks = kept
}

// networkNameIn is a network's name as a container of a namespace has it.
func networkNameIn(namespace string, n network.Summary) string {
	if of, name := neutralName(n.Name, n.Labels); of == namespace {
		return name
	}
	return n.Name
}

// attached is a network that something is to run on. One without an id is to be made.
type attached struct {
	id      string
	docker  string
	name    string // in its namespace
	aliases []string
}

// attachments finds the networks that something of a namespace is to run on. Policy must let the caller do to each that
// is there what it does to the thing itself.
func (a *action) attachments(ctx context.Context, namespace string, asked []neutral.NetworkAttachment) ([]attached, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	all, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]attached, 0, len(asked))
	for _, n := range asked {
		to := attached{docker: networkName(namespace, n.Name), name: n.Name, aliases: n.Aliases}
		i := slices.IndexFunc(all, func(s network.Summary) bool {
			if n.ID != "" {
				return s.ID == n.ID
			}
			return s.Name == to.docker
		})
		switch {
		case i < 0 && n.ID != "", i >= 0 && ofLease(all[i].Labels):
			return nil, fault.New(fault.NotFound, "network %s not found", n.Name)
		case i < 0 && n.Name == "":
			return nil, fault.New(fault.Invalid, "a network has no name")
		case i >= 0:
			found := all[i]
			to.id, to.docker = found.ID, found.Name
			if found.Labels[labelImplicit] == "" || namespaceOf(found.Labels) != namespace {
				if err := a.permit(nameOf(found.ID, found.Name, found.Labels).object(neutral.KindNetwork, found.Labels)); err != nil {
					return nil, err
				}
			}
		}
		list = append(list, to)
	}
	return list, nil
}

// makeAttached makes the networks that are missing, and tells which it made.
func (a *action) makeAttached(ctx context.Context, namespace string, list []attached) (made []string, err error) {
	for i := range list {
		if list[i].id != "" {
			continue
		}
		labels := networkLabels(namespace, list[i].name, map[string]string{labelImplicit: "true"})
		id, err := a.makeNetwork(ctx, list[i].docker, neutral.Network{Labels: labels})
		if cerrdefs.IsConflict(err) { // somebody else was faster
			a.known = nil
			all, listErr := a.allNetworks(ctx)
			if listErr != nil {
				return made, listErr
			}
			at := slices.IndexFunc(all, func(s network.Summary) bool { return s.Name == list[i].docker })
			if at < 0 || all[at].Labels[labelImplicit] == "" {
				return made, taken("network", list[i].docker)
			}
			list[i].id = all[at].ID
			continue
		}
		if err != nil {
			return made, faultOf(err)
		}
		list[i].id = id
		made = append(made, id)
		a.known = nil
	}
	return made, nil
}

// makeNetwork makes one that containers and, on a swarm's manager, services can join.
func (a *action) makeNetwork(ctx context.Context, docker string, n neutral.Network) (id string, err error) {
	self, err := a.node(ctx)
	if err != nil {
		return "", err
	}
	options := client.NetworkCreateOptions{Driver: n.Driver, Internal: n.Internal, Labels: n.Labels}
	if options.Driver == "" {
		options.Driver = driverBridge
		if self.manager {
			options.Driver = driverOverlay
		}
	}
	options.Attachable = options.Driver == driverOverlay
	created, err := a.api.NetworkCreate(ctx, docker, options)
	return created.ID, err
}

// undoNetworks takes away what was made for something that could not be.
func (a *action) undoNetworks(ctx context.Context, ids []string) {
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), callDeadline)
	defer cancel()
	for _, id := range ids {
		if _, err := a.api.NetworkRemove(undo, id, client.NetworkRemoveOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
			a.log.Error("a network of something that could not be made is not removed", "network", id, "err", err)
		}
	}
}

// hostNetwork is the id of the engine's own host network.
func (a *action) hostNetwork(ctx context.Context) (string, error) {
	all, err := a.allNetworks(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range all {
		if n.Driver == "host" && strings.EqualFold(n.Name, "host") {
			return n.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, "network host not found")
}
