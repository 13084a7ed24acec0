package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A switch of a service is an update, and its way back another: between them stands the spec that the service had, which
// the journal keeps. What a service's spec is tells how far a switch got, so nothing else needs to be remembered.

// convergencePatience is how long a swarm may take for an update when its caller sets no time.
const convergencePatience = 5 * time.Minute

// convergenceInterval is how often a swarm is asked how far it is.
const convergenceInterval = 200 * time.Millisecond

// switchService brings a service into its new mode, and finds the container that took the place of the target's.
func (c *Cluster) switchService(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	change, err := readServiceSwitch(s.Plan.Native)
	if err != nil {
		return neutral.TargetRef{}, err
	}
	if len(s.Plan.Refusals) > 0 {
		return neutral.TargetRef{}, fault.New(fault.Conflict, "the mode is not switched: %s", strings.Join(s.Plan.Refusals, "; "))
	}
	if change == nil {
		return s.Ref, nil
	}
	wanted := change.spec(s.ID)
	if _, err := c.rewriteService(ctx, s, change.Service, "the service's update to its new mode", func(live swarm.Service) (*swarm.ServiceSpec, error) {
		switch {
		case sameSpec(live.Spec, wanted):
			return nil, nil
		case !sameSpec(live.Spec, change.Was):
			return nil, fault.New(fault.Conflict, "service %s was changed since its switch was planned", live.Spec.Name)
		}
		return &wanted, nil
	}); err != nil {
		return neutral.TargetRef{}, err
	}
	tasks, err := c.converge(ctx, change.Service, wanted)
	if err != nil {
		return neutral.TargetRef{}, err
	}
	return c.successor(ctx, s, change, tasks)
}

// successor is the target's place after a switch.
func (c *Cluster) successor(ctx context.Context, s *neutral.Switching, change *serviceSwitch, tasks []swarm.Task) (neutral.TargetRef, error) {
	at := slices.IndexFunc(tasks, func(t swarm.Task) bool {
		return change.Slot != 0 && t.Slot == change.Slot || change.Slot == 0 && t.NodeID == change.Node
	})
	if at < 0 {
		return neutral.TargetRef{}, fault.New(fault.Conflict, "no container of service %s took the place of the target's", change.Was.Name)
	}
	self, err := c.node(ctx)
	if err != nil {
		return neutral.TargetRef{}, faultOf(err)
	}
	if tasks[at].NodeID != self.id {
		return neutral.TargetRef{}, fault.New(fault.Conflict, "the swarm runs %s on another node now", taskName(change.Was.Name, tasks[at]))
	}
	ref := s.Ref
	ref.Pod, ref.Container = "", taskName(change.Was.Name, tasks[at])
	found, err := c.Locate(ctx, ref)
	switch {
	case err != nil:
		return neutral.TargetRef{}, err
	case !found.Running:
		return neutral.TargetRef{}, fault.New(fault.Conflict, "container %s does not run", ref.Container)
	case found.Network != s.Plan.To:
		return neutral.TargetRef{}, fault.New(fault.Conflict, "container %s runs in mode %s, not in %s", ref.Container, found.Network, s.Plan.To)
	}
	return ref, nil
}

// restoreService writes the spec that a service had. A service that somebody else changed keeps the change, and all else but
// the label.
//
// The containers come back first, in the order of the switch: the service's own might start a container before the one that
// has its port ends. Then the rest of the spec is written, which restarts nothing.
func (c *Cluster) restoreService(ctx context.Context, s *neutral.Switching) error {
	change, err := readServiceSwitch(s.Plan.Native)
	if err != nil || change == nil {
		return err
	}
	wanted, half := change.spec(s.ID), change.half()
	var settles bool
	back, err := c.rewriteService(ctx, s, change.Service, "the service's update to the mode that it had", func(live swarm.Service) (*swarm.ServiceSpec, error) {
		settles = true
		was, back := scaledAs(change.Was, live.Spec), scaledAs(half, live.Spec)
		is := sameSpec(live.Spec, was)
		switch {
		case sameSpec(live.Spec, scaledAs(wanted, live.Spec)):
			return &back, nil
		case !is && !sameSpec(live.Spec, back):
			settles = false
			return withoutSwitch(live.Spec, s.ID), nil
		}
		switch updateState(live) {
		case swarm.UpdateStatePaused, swarm.UpdateStateRollbackPaused: // an update goes on where the last one stopped
			return &back, nil
		case swarm.UpdateStateUpdating, swarm.UpdateStateRollbackStarted:
		default:
			settles = !is
		}
		return nil, nil
	})
	switch {
	case err != nil:
		return err
	case settles:
		if _, err := c.converge(ctx, change.Service, back); err != nil {
			return err
		}
	}
	foreign := false
	_, err = c.rewriteService(ctx, s, change.Service, "the service's spec as it was", func(live swarm.Service) (*swarm.ServiceSpec, error) {
		was := scaledAs(change.Was, live.Spec)
		foreign = false
		switch {
		case sameSpec(live.Spec, was):
			return nil, nil
		case sameSpec(live.Spec, scaledAs(half, live.Spec)):
			return &was, nil
		}
		foreign = true
		return nil, nil
	})
	if err == nil && foreign {
		return fault.New(fault.Conflict, "service %s was changed while it was switched, and stays as it is", change.Was.Name)
	}
	return err
}

func updateState(service swarm.Service) swarm.UpdateState {
	if service.UpdateStatus == nil {
		return ""
	}
	return service.UpdateStatus.State
}

// keepService takes the label away, and the way of updates that was the switch's.
func (c *Cluster) keepService(ctx context.Context, s *neutral.Switching) error {
	change, err := readServiceSwitch(s.Plan.Native)
	if err != nil || change == nil {
		return err
	}
	_, err = c.rewriteService(ctx, s, change.Service, "the removal of the service's label", func(live swarm.Service) (*swarm.ServiceSpec, error) {
		kept := withoutSwitch(live.Spec, s.ID)
		if kept == nil {
			return nil, nil
		}
		if sameSpec(swarm.ServiceSpec{UpdateConfig: live.Spec.UpdateConfig}, swarm.ServiceSpec{UpdateConfig: change.update(swarm.UpdateFailureActionRollback)}) {
			kept.UpdateConfig = change.Was.UpdateConfig
		}
		return kept, nil
	})
	return err
}

// withoutSwitch takes the label of a lease from a spec; nil when it has none.
func withoutSwitch(spec swarm.ServiceSpec, lease string) *swarm.ServiceSpec {
	if spec.Labels[labelSwitch] != lease {
		return nil
	}
	spec.Labels = maps.Clone(spec.Labels)
	delete(spec.Labels, labelSwitch)
	return &spec
}

// rewriteService writes the spec that next makes of the one that is there, unless that is nil, and gives the one that is
// there then. The journal has the step before it is written.
func (c *Cluster) rewriteService(ctx context.Context, s *neutral.Switching, id, step string,
	next func(live swarm.Service) (*swarm.ServiceSpec, error)) (swarm.ServiceSpec, error) {
	journaled := false
	for attempt := 1; ; attempt++ {
		live, err := c.readService(ctx, id)
		if err != nil {
			return swarm.ServiceSpec{}, err
		}
		spec, err := next(live)
		if err != nil || spec == nil {
			return live.Spec, err
		}
		if !journaled {
			if err := s.Step(ctx, step, nil); err != nil {
				return swarm.ServiceSpec{}, err
			}
			journaled = true
		}
		call, cancel := context.WithTimeout(ctx, callDeadline)
		_, err = c.api.ServiceUpdate(call, id, client.ServiceUpdateOptions{Version: live.Version, Spec: *spec,
			RegistryAuthFrom: swarm.RegistryAuthFromSpec})
		cancel()
		if err = outOfSequence(err); fault.Is(err, fault.Conflict) && attempt < updateAttempts {
			continue
		}
		return *spec, err
	}
}

func (c *Cluster) readService(ctx context.Context, id string) (swarm.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	found, err := c.api.ServiceInspect(ctx, id, client.ServiceInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return swarm.Service{}, fault.Wrap(fault.Conflict, err, "the service was removed")
	}
	return found.Service, faultOf(err)
}

// converge waits until a service runs as a spec wants it, and gives the tasks that run.
func (c *Cluster) converge(ctx context.Context, id string, spec swarm.ServiceSpec) ([]swarm.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, convergencePatience)
	defer cancel()
	for {
		tasks, done, err := c.converged(ctx, id, spec)
		if err != nil || done {
			return tasks, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Timeout, ctx.Err(), "the swarm did not come to run service %s in time%s", spec.Name, c.complaints(id))
		case <-time.After(convergenceInterval):
		}
	}
}

// converged asks once. The service's version tells that no update began or ended while its tasks were read.
func (c *Cluster) converged(ctx context.Context, id string, spec swarm.ServiceSpec) ([]swarm.Task, bool, error) {
	live, err := c.readService(ctx, id)
	if err != nil {
		return nil, false, err
	}
	state := updateState(live)
	switch {
	case sameSpec(live.Spec, scaledAs(spec, live.Spec)):
	case state == swarm.UpdateStateRollbackStarted || state == swarm.UpdateStateRollbackPaused || state == swarm.UpdateStateRollbackCompleted:
		return nil, false, fault.New(fault.Conflict, "the swarm took the update of service %s back%s", spec.Name, c.complaints(id))
	default:
		return nil, false, fault.New(fault.Conflict, "service %s was changed while the swarm updated it", spec.Name)
	}
	switch state {
	case swarm.UpdateStateUpdating, swarm.UpdateStateRollbackStarted:
		return nil, false, nil
	case swarm.UpdateStatePaused, swarm.UpdateStateRollbackPaused:
		return nil, false, fault.New(fault.Conflict, "the swarm stopped the update of service %s half way%s", spec.Name, c.complaints(id))
	}
	tasks, done, err := c.allRun(ctx, live)
	if err != nil || !done {
		return nil, false, faultOf(err)
	}
	// An update that began meanwhile ends the old tasks before there are new ones: what was read is of no one moment then.
	after, err := c.readService(ctx, id)
	return tasks, after.Version == live.Version, err
}

// allRun tells whether every container that the swarm wants of a service runs, as the service's spec has it.
func (c *Cluster) allRun(ctx context.Context, live swarm.Service) ([]swarm.Task, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	all, err := c.runningTasks(ctx, live.ID, false)
	if err != nil {
		return nil, false, err
	}
	current, err := c.runningTasks(ctx, live.ID, true)
	if err != nil {
		return nil, false, err
	}
	if len(current) != len(all) || slices.ContainsFunc(current, func(t swarm.Task) bool { return t.Status.State != swarm.TaskStateRunning }) {
		return nil, false, nil
	}
	if replicated := live.Spec.Mode.Replicated; replicated != nil && replicated.Replicas != nil && uint64(len(current)) != *replicated.Replicas {
		return nil, false, nil
	}
	return current, true, nil
}

// complaintsShown is how many of the reasons of tasks that failed an error holds.
const complaintsShown = 3

// complaints are what the newest tasks of a service say went wrong, as the end of a sentence.
func (c *Cluster) complaints(id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), callDeadline)
	defer cancel()
	live, err := c.readService(ctx, id)
	if err != nil {
		return ""
	}
	list, err := c.api.TaskList(ctx, client.TaskListOptions{Filters: make(client.Filters).Add("service", id)})
	if err != nil {
		return ""
	}
	return complaintsOf(live.UpdateStatus, list.Items)
}

// complaintsOf leaves out what was so before the update.
func complaintsOf(status *swarm.UpdateStatus, tasks []swarm.Task) string {
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(t swarm.Task) bool {
		return status != nil && status.StartedAt != nil && t.CreatedAt.Before(*status.StartedAt)
	})
	slices.SortFunc(tasks, func(x, y swarm.Task) int { return y.CreatedAt.Compare(x.CreatedAt) })
	var said []string
	for _, task := range tasks {
		text := plain(task.Status.Err)
		if text == "" || slices.Contains(said, text) {
			continue
		}
		if said = append(said, text); len(said) == complaintsShown {
			break
		}
	}
	if len(said) == 0 {
		return ""
	}
	return fmt.Sprintf(": %s", strings.Join(said, "; "))
}
