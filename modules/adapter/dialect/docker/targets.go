package docker

import (
	"context"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.TargetLister = (*Cluster)(nil)

// Targets are the containers of the engine. A list tells too little of each for policies that look at specs, so each is
// inspected; one that is gone by then is left out, and so is one in whose place another one is for a while.
func (c *Cluster) Targets(ctx context.Context, namespace string) ([]neutral.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, faultOf(err)
	}
	self, err := c.node(ctx)
	if err != nil {
		return nil, faultOf(err)
	}
	type inspected struct {
		container container.InspectResponse
		object    neutral.Object
	}
	found := make([]*inspected, len(list.Items))
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(inspecting)
	spares := sparesOf(list.Items)
	for i, s := range list.Items {
		if spares[s.ID] || namespace != "" && namespaceOf(s.Labels) != namespace {
			continue
		}
		group.Go(func() error {
			answer, err := c.api.ContainerInspect(asking, s.ID, client.ContainerInspectOptions{})
			switch whole := answer.Container; {
			case cerrdefs.IsNotFound(err):
				return nil
			case err != nil:
				return faultOf(err)
			case whole.Config == nil || whole.HostConfig == nil || whole.NetworkSettings == nil:
				return nil // it is being made, or taken away
			}
			object, err := c.judged(asking, answer.Container)
			found[i] = &inspected{container: answer.Container, object: object}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var targets []neutral.Target
	addresses := &gateways{cluster: c}
	for _, f := range found {
		if f == nil {
			continue
		}
		target, err := c.targetOf(ctx, f.container, f.object, self, addresses)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target)
	}
	return targets, nil
}
