package docker

import (
	"context"

	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func (c *Cluster) planServiceSwitch(_ context.Context, _ string, _ neutral.TargetRef, _ neutral.NetworkNeed, _ container.InspectResponse) (neutral.SwitchPlan, error) {
	return neutral.SwitchPlan{}, errServiceSwitch
}

func (c *Cluster) switchService(context.Context, *neutral.Switching) (neutral.TargetRef, error) {
	return neutral.TargetRef{}, errServiceSwitch
}

func (c *Cluster) restoreService(context.Context, *neutral.Switching) error { return errServiceSwitch }

func (c *Cluster) keepService(context.Context, *neutral.Switching) error { return errServiceSwitch }

var errServiceSwitch = fault.New(fault.Unsupported, "the network mode of a swarm's service is not changed")
