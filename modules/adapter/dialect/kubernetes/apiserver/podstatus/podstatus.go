// Package podstatus says in the words of a Pod's status how a container of an engine, or a task of a Swarm, is.
// Addresses stay empty.
package podstatus

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The words that kubectl shows and its users know.
const (
	reasonCreating      = "ContainerCreating"
	reasonPullBackOff   = "ImagePullBackOff"
	reasonCreateError   = "CreateContainerError"
	reasonRunError      = "RunContainerError"
	reasonCrashLoop     = "CrashLoopBackOff"
	reasonCompleted     = "Completed"
	reasonError         = "Error"
	reasonOOM           = "OOMKilled"
	reasonStartError    = "StartError"
	reasonUnknownEnd    = "ContainerStatusUnknown"
	reasonNodeLost      = "NodeLost"
	reasonPaused        = "Paused"
	reasonNotReady      = "ContainersNotReady"
	reasonPodCompleted  = "PodCompleted"
	reasonPodFailed     = "PodFailed"
	reasonUnschedulable = "Unschedulable"
)

// Exit codes of containers that did not start, and of those of which it is not known how they ended.
const (
	exitNoStart = 128
	exitUnknown = 255
)

// subject is a Pod whose status is written.
type subject struct {
	spec      *corev1.PodSpec
	container *neutral.Container
	created   time.Time
	scheduled bool
	phase     corev1.PodPhase
	state     corev1.ContainerState
	last      corev1.ContainerState
	restarts  int
	ready     bool
	since     time.Time // when it became as it is
	reason    string    // of the Pod
	message   string
}

// Container is the status of a Pod that is a container of one engine. spec is the Pod's, with its defaults.
func Container(c *neutral.Container, spec *corev1.PodSpec) corev1.PodStatus {
	s := &subject{spec: spec, container: c, created: c.CreatedAt, scheduled: true, restarts: c.State.RestartCount}
	state := &c.State
	switch state.Status {
	case neutral.StatusRunning, neutral.StatusPaused:
		s.running(state)
		if state.Status == neutral.StatusPaused {
			s.ready, s.reason, s.message = false, reasonPaused, "its processes are frozen"
		}
	case neutral.StatusRestarting:
		s.backingOff(ended(state))
	case neutral.StatusExited, neutral.StatusDead:
		s.over(ended(state))
	case neutral.StatusRemoving:
		if state.FinishedAt.IsZero() || state.FinishedAt.Before(state.StartedAt) {
			s.running(state)
			s.ready = false
		} else {
			s.over(ended(state))
		}
	default:
		s.waiting(waitingReason(state), state.Error)
	}
	return s.status()
}

// waitingReason says why a container that was made does not run.
func waitingReason(state *neutral.State) string {
	switch {
	case state.Reason != "":
		return state.Reason
	case state.Error != "":
		return reasonRunError
	}
	return reasonCreating
}

func (s *subject) running(state *neutral.State) {
	s.phase, s.since = corev1.PodRunning, state.StartedAt
	s.state.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(state.StartedAt)}
	s.ready = state.Health == "" || state.Health == "healthy"
	if s.last.Terminated == nil && s.restarts > 0 && !state.FinishedAt.IsZero() && !state.FinishedAt.After(state.StartedAt) {
		s.last.Terminated = &corev1.ContainerStateTerminated{ExitCode: exitUnknown, Reason: reasonUnknownEnd,
			Message: "an engine does not keep how it ended before", FinishedAt: metav1.NewTime(state.FinishedAt)}
	}
}

func (s *subject) waiting(reason, message string) {
	s.phase, s.since = corev1.PodPending, s.created
	s.state.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

// backingOff is a container that ended and is about to start again.
func (s *subject) backingOff(before *corev1.ContainerStateTerminated) {
	s.waiting(reasonCrashLoop, "back-off restarting container "+s.name())
	s.phase, s.last.Terminated = corev1.PodRunning, before
	if !before.FinishedAt.IsZero() {
		s.since = before.FinishedAt.Time
	}
}

// over is a container that will not start again.
func (s *subject) over(end *corev1.ContainerStateTerminated) {
	s.phase, s.since = corev1.PodFailed, s.created
	if end.ExitCode == 0 {
		s.phase = corev1.PodSucceeded
	}
	if !end.FinishedAt.IsZero() {
		s.since = end.FinishedAt.Time
	}
	end.ContainerID = s.containerID()
	s.state.Terminated = end
}

// ended says how a container ended.
func ended(state *neutral.State) *corev1.ContainerStateTerminated {
	end := &corev1.ContainerStateTerminated{ExitCode: int32(state.ExitCode), Reason: reasonCompleted, Message: state.Error}
	if !state.StartedAt.IsZero() {
		end.StartedAt = metav1.NewTime(state.StartedAt)
	}
	if !state.FinishedAt.IsZero() {
		end.FinishedAt = metav1.NewTime(state.FinishedAt)
	}
	switch {
	case state.OOMKilled:
		end.Reason = reasonOOM
	case state.ExitCode != 0:
		end.Reason = reasonError
	}
	if state.Status == neutral.StatusDead && state.ExitCode == 0 {
		end.ExitCode, end.Reason = exitUnknown, reasonUnknownEnd
	}
	return end
}

// name is the container's in its Pod.
func (s *subject) name() string {
	if len(s.spec.Containers) > 0 {
		return s.spec.Containers[0].Name
	}
	return s.container.Name
}

func (s *subject) containerID() string {
	if s.container.ID == "" {
		return ""
	}
	return "docker://" + s.container.ID
}

// status writes what was found.
func (s *subject) status() corev1.PodStatus {
	status := corev1.PodStatus{Phase: s.phase, Reason: s.reason, Message: s.message, QOSClass: QOSClass(s.spec)}
	if !s.scheduled {
		condition := s.condition(corev1.PodScheduled, false, s.created)
		if s.message != "" {
			condition.Reason, condition.Message = reasonUnschedulable, s.message
			status.Message = ""
		}
		status.Conditions = []corev1.PodCondition{condition}
		return status
	}
	start := metav1.NewTime(s.created)
	status.StartTime = &start
	started := s.state.Running != nil
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: s.name(), State: s.state, LastTerminationState: s.last, Ready: s.ready, RestartCount: int32(s.restarts),
		Image: s.container.Image, ImageID: s.container.ImageID, ContainerID: s.containerID(), Started: &started,
	}}
	initialized := s.condition(corev1.PodInitialized, true, s.created)
	ready := s.condition(corev1.PodReady, s.ready, s.since)
	if !s.ready {
		ready.Reason, ready.Message = reasonNotReady, fmt.Sprintf("containers with unready status: [%s]", s.name())
	}
	switch s.phase {
	case corev1.PodSucceeded:
		initialized.Reason, ready.Reason, ready.Message = reasonPodCompleted, reasonPodCompleted, ""
	case corev1.PodFailed:
		ready.Reason, ready.Message = reasonPodFailed, ""
	}
	containers := ready
	containers.Type = corev1.ContainersReady
	status.Conditions = []corev1.PodCondition{initialized, ready, containers, s.condition(corev1.PodScheduled, true, s.created)}
	return status
}

func (s *subject) condition(kind corev1.PodConditionType, is bool, since time.Time) corev1.PodCondition {
	if since.IsZero() { // nobody said
		since = s.created
	}
	c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(since)}
	if is {
		c.Status = corev1.ConditionTrue
	}
	return c
}

// QOSClass is how a Pod is served when its node runs short. A request that is not made is the limit.
func QOSClass(spec *corev1.PodSpec) corev1.PodQOSClass {
	best, guaranteed := true, true
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			r := &containers[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, limited := r.Limits[name]
				request, requested := r.Requests[name]
				limited, requested = limited && !limit.IsZero(), requested && !request.IsZero()
				best = best && !limited && !requested
				guaranteed = guaranteed && limited && (!requested || request.Cmp(limit) == 0)
			}
		}
	}
	switch {
	case best:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// aboutImage tells whether an engine's error is of an image that cannot be had.
func aboutImage(text string) bool {
	text = strings.ToLower(text)
	for _, words := range []string{"no such image", "pull access denied", "manifest unknown", "manifest for ", "pulling image failed",
		"repository does not exist", "image not found", "unauthorized: ", "no matching manifest"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
