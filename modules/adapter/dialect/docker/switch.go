package docker

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Switcher = (*Cluster)(nil)

// PlanSwitch finds the container, and whose it is: a task is its service's.
func (c *Cluster) PlanSwitch(ctx context.Context, peer string, ref neutral.TargetRef, need neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	name := ref.Container
	if ref.Pod != "" {
		name = joinName(ref.Container, ref.Pod)
	}
	found, err := c.find(ctx, ref.Namespace, name)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	if found.Config.Labels[labelSwarmService] != "" {
		return c.planServiceSwitch(ctx, peer, ref, need, found)
	}
	return neutral.SwitchPlan{}, fault.New(fault.Unsupported, "the network mode of container %s is not changed", name)
}

// Switch carries a plan out.
func (c *Cluster) Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	if ofService(s) {
		return c.switchService(ctx, s)
	}
	return neutral.TargetRef{}, fault.New(fault.Unsupported, "the network mode of containers is not changed")
}

// Restore takes a switch back.
func (c *Cluster) Restore(ctx context.Context, s *neutral.Switching) error {
	if ofService(s) {
		return c.restoreService(ctx, s)
	}
	return fault.New(fault.Unsupported, "the network mode of containers is not changed")
}

// Keep ends a switch and leaves what it did.
func (c *Cluster) Keep(ctx context.Context, s *neutral.Switching) error {
	if ofService(s) {
		return c.keepService(ctx, s)
	}
	return fault.New(fault.Unsupported, "the network mode of containers is not changed")
}

// ofService tells a switch of a swarm's service: its plan's object is the service.
func ofService(s *neutral.Switching) bool { return s.Plan.Object.Kind == neutral.KindWorkload }
