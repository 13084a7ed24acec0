package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// filterUpToDate is the engine's word for tasks of their service's newest spec.
const filterUpToDate = "_up-to-date"

// task is a neutral task with its service.
type task struct {
	neutral.Task
	service *service
}

// taskFromSwarm reads a task. nodes are names by id.
func taskFromSwarm(native swarm.Task, s *service, nodes map[string]string, networks []network.Summary) (task, error) {
	w, err := workloadFromSpec(swarm.ServiceSpec{Annotations: swarm.Annotations{Name: s.docker}, TaskTemplate: native.Spec, Mode: s.native.Spec.Mode})
	if err != nil {
		return task{}, err
	}
	c := w.Template
	c.Name, c.Namespace, c.Node = taskName(s.name, native), s.namespace, nodes[native.NodeID]
	c.CreatedAt = native.CreatedAt
	c.Owner = &neutral.Owner{Kind: nativeService, Namespace: s.namespace, Name: s.name}
	nameNetworks(&c, s.namespace, networks)
	c.Networks = withoutOwnAlias(c.Networks, s.namespace, s.name)
	status := native.Status
	if status.ContainerStatus != nil {
		c.ID = status.ContainerStatus.ContainerID
	}
	c.State = stateOfTask(status)
	c.Ports = append(c.Ports, portsOf(swarm.Service{Endpoint: swarm.Endpoint{Ports: status.PortStatus.Ports}})...)
	return task{service: s, Task: neutral.Task{
		ID: native.ID, Name: c.Name, Workload: native.ServiceID, Slot: native.Slot, Node: c.Node, NodeID: native.NodeID,
		Desired: string(native.DesiredState), State: string(status.State), Message: status.Message, Err: status.Err,
		ExitCode: c.State.ExitCode, Container: c, Created: native.CreatedAt, Updated: native.UpdatedAt, Version: native.Version.String(),
	}}, nil
}

// taskName is the task as docker service ps calls it.
func taskName(service string, native swarm.Task) string {
	if native.Slot != 0 {
		return fmt.Sprintf("%s.%d", service, native.Slot)
	}
	return service + "." + native.NodeID
}

// stateOfTask says in a container's words how a task is. A swarm tells the time of the last change alone.
func stateOfTask(status swarm.TaskStatus) neutral.State {
	state := neutral.State{Status: neutral.StatusCreated, Reason: string(status.State), Error: status.Err}
	if status.ContainerStatus != nil {
		state.ExitCode = status.ContainerStatus.ExitCode
	}
	switch status.State {
	case swarm.TaskStateRunning:
		state.Status, state.StartedAt = neutral.StatusRunning, status.Timestamp
	case swarm.TaskStateComplete, swarm.TaskStateFailed, swarm.TaskStateShutdown, swarm.TaskStateRejected:
		state.Status, state.FinishedAt = neutral.StatusExited, status.Timestamp
	case swarm.TaskStateRemove:
		state.Status, state.FinishedAt = neutral.StatusRemoving, status.Timestamp
	case swarm.TaskStateOrphaned:
		state.Status, state.FinishedAt = neutral.StatusDead, status.Timestamp
	}
	return state
}

// object is what policy sees of a task: its service, whose labels a user sets.
func (t *task) object() neutral.Object {
	o := t.service.named.object(neutral.KindTask, t.service.Labels)
	o.Container = &t.Container
	return o
}

func (t *task) shown() neutral.Task {
	shown := t.Task
	shown.Container = localized(shown.Container, t.service.namespace)
	return shown
}

// tasks are the tasks that match a native filter, whoever may see them. Those of no service are an engine's own.
func (a *action) tasks(ctx context.Context, services []*service, filter client.Filters) ([]task, error) {
	if there, err := a.inSwarm(ctx); err != nil || !there {
		return nil, err
	}
	list, err := a.api.TaskList(ctx, client.TaskListOptions{Filters: filter})
	if err != nil {
		return nil, faultOf(err)
	}
	nodes, err := a.nodes(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, n := range nodes {
		names[n.ID] = n.Name
	}
	networks, err := a.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[string]*service{}
	for _, s := range services {
		byID[s.id] = s
	}
	var tasks []task
	for _, native := range list.Items {
		s := byID[native.ServiceID]
		if s == nil || native.Spec.ContainerSpec == nil {
			continue
		}
		t, err := taskFromSwarm(native, s, names, networks)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(x, y task) int {
		if order := strings.Compare(x.service.docker, y.service.docker); order != 0 {
			return order
		}
		if x.Slot != y.Slot {
			return x.Slot - y.Slot
		}
		return y.Created.Compare(x.Created)
	})
	return tasks, nil
}

func (a *action) listTasks(ctx context.Context) (neutral.Result, error) {
	result := neutral.Result{Tasks: []neutral.Task{}}
	services, err := a.services(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	f, namespace := a.op.Filter, a.op.Object.Namespace
	filter := client.Filters{}
	if len(f.Workloads) > 0 {
		all := make([]named, len(services))
		for i, s := range services {
			all[i] = s.named
		}
		for _, ref := range f.Workloads {
			i, err := find("service", namespace, ref, all)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return neutral.Result{}, err
			}
			filter.Add("service", services[i].id)
		}
		if len(filter) == 0 {
			return result, nil
		}
	}
	if f.Current {
		filter.Add(filterUpToDate, "true")
	}
	tasks, err := a.tasks(ctx, services, filter)
	if err != nil {
		return neutral.Result{}, err
	}
	for i := range tasks {
		t := &tasks[i]
		if !t.service.in(namespace) || !anyPrefix(f.IDs, t.ID) || !anyPrefix(f.Names, t.Name, t.service.name) ||
			len(f.States) > 0 && !slices.Contains(f.States, t.Desired) ||
			len(f.Nodes) > 0 && !slices.ContainsFunc(f.Nodes, func(n string) bool { return n == t.Node || strings.HasPrefix(t.NodeID, n) }) ||
			!labelsMatch(f.Labels, t.Container.Labels) {
			continue
		}
		if err := a.permitSeen(ctx, t.object()); fault.Is(err, fault.Denied) {
			continue
		} else if err != nil {
			return neutral.Result{}, err
		}
		result.Tasks = append(result.Tasks, t.shown())
	}
	return result, nil
}

// findTask gives the task that the operation names, once policy lets the caller have it. A name is of the task that the
// swarm wants now, else of the last one.
func (a *action) findTask(ctx context.Context) (*task, error) {
	services, err := a.services(ctx)
	if err != nil {
		return nil, err
	}
	tasks, err := a.tasks(ctx, services, nil)
	if err != nil {
		return nil, err
	}
	ref := a.op.Ref
	best := -1
	for i := range tasks {
		t := &tasks[i]
		if t.service.in(a.op.Object.Namespace) && t.Name == ref && (best < 0 || t.Desired == string(swarm.TaskStateRunning)) {
			best = i
		}
	}
	if best < 0 {
		all := make([]named, len(tasks))
		for i, t := range tasks {
			all[i] = named{id: t.ID, namespace: t.service.namespace}
		}
		if best, err = find("task", a.op.Object.Namespace, ref, all); err != nil {
			return nil, err
		}
	}
	return &tasks[best], a.permitSeen(ctx, tasks[best].object())
}

func (a *action) inspectTask(ctx context.Context) (neutral.Result, error) {
	found, err := a.findTask(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	t := found.shown()
	return neutral.Result{Task: &t}, nil
}
