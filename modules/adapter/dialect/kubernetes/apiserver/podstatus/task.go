package podstatus

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The states of a task, in the order in which it goes through them:
// https://docs.docker.com/engine/swarm/how-swarm-mode-works/swarm-task-states/
const (
	taskNew       = "new"
	taskAllocated = "allocated"
	taskPending   = "pending"
	taskAssigned  = "assigned"
	taskAccepted  = "accepted"
	taskPreparing = "preparing"
	taskReady     = "ready"
	taskStarting  = "starting"
	taskRunning   = "running"
	taskComplete  = "complete"
	taskShutdown  = "shutdown"
	taskFailed    = "failed"
	taskRejected  = "rejected"
	taskRemove    = "remove"
	taskOrphaned  = "orphaned"
)

// Task is the status of a Pod that is a task of a Swarm. spec is the Pod's, with its defaults. A Swarm makes a new task
// instead of starting one again: before are those that were in its place, the newest first.
func Task(t *neutral.Task, spec *corev1.PodSpec, before ...neutral.Task) corev1.PodStatus {
	c := &t.Container
	s := &subject{spec: spec, container: c, created: t.Created, scheduled: true, restarts: c.State.RestartCount + len(before)}
	if len(before) > 0 {
		s.last.Terminated = taskEnd(&before[0])
	}
	switch t.State {
	case taskNew, taskAllocated, taskPending:
		s.phase, s.scheduled, s.message = corev1.PodPending, t.NodeID != "", t.Err
		if s.scheduled {
			s.waiting(reasonCreating, t.Err)
		}
	case taskAssigned, taskAccepted, taskPreparing, taskReady:
		if t.Desired == taskReady && s.last.Terminated != nil { // it waits for the delay between restarts
			s.backingOff(s.last.Terminated)
			break
		}
		s.waiting(reasonCreating, t.Err)
	case taskStarting:
		if c.ID != "" && checked(c.Health) { // it runs, and is not yet known to be healthy
			s.running(&neutral.State{StartedAt: t.Updated, Health: "starting"})
			break
		}
		s.waiting(reasonCreating, t.Err)
	case taskRunning:
		state := c.State
		if state.StartedAt.IsZero() {
			state.StartedAt = t.Updated
		}
		s.running(&state)
	case taskComplete, taskShutdown, taskFailed, taskRemove:
		s.over(taskEnd(t))
	case taskRejected:
		// Its node could not make the container, which a Swarm tries again with another task, and a kubelet with the same Pod.
		reason := reasonCreateError
		if aboutImage(t.Err) {
			reason = reasonPullBackOff
		}
		s.waiting(reason, t.Err)
		s.since = t.Updated
	case taskOrphaned:
		s.running(&neutral.State{StartedAt: c.State.StartedAt})
		s.phase, s.ready, s.reason, s.since = corev1.PodUnknown, false, reasonNodeLost, t.Updated
		s.message = "nothing has been heard of the node for long"
	default:
		s.waiting(reasonCreating, "the task is in a state that is not known here: "+t.State)
		s.phase = corev1.PodUnknown
	}
	return s.status()
}

// checked tells whether a container's health is checked, as far as it was said with the container.
func checked(h *neutral.HealthCheck) bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// taskEnd says how a task ended.
func taskEnd(t *neutral.Task) *corev1.ContainerStateTerminated {
	state := t.Container.State
	state.ExitCode, state.Error = t.ExitCode, t.Err
	if state.FinishedAt.IsZero() {
		state.FinishedAt = t.Updated
	}
	if t.State == taskComplete {
		state.ExitCode = 0
	}
	end := ended(&state)
	switch {
	case t.State == taskRejected, t.State == taskFailed && strings.Contains(t.Err, "starting container failed"):
		end.Reason = reasonStartError
		if end.ExitCode == 0 {
			end.ExitCode = exitNoStart
		}
	case t.State == taskFailed && end.ExitCode == 0:
		end.ExitCode, end.Reason = exitUnknown, reasonError
	case t.State == taskOrphaned:
		end.ExitCode, end.Reason = exitUnknown, reasonUnknownEnd
	}
	if t.Container.ID != "" {
		end.ContainerID = "docker://" + t.Container.ID
	}
	return end
}
