package kubernetes

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Exit codes that docker's clients know.
const (
	exitNotFound  = 127 // the command does not exist
	exitForbidden = 126 // the command cannot be executed
	exitNoStart   = 128 // the container could not be started for another reason
	exitUnknown   = 255 // it ran, and nobody knows how it ended
)

// Words of the kubelet for containers that cannot start.
const (
	reasonStartError  = "StartError"
	reasonCannotRun   = "ContainerCannotRun"
	reasonUnknownEnd  = "ContainerStatusUnknown"
	reasonCrashLoop   = "CrashLoopBackOff"
	reasonUnscheduled = "Unschedulable"
)

// containerStatus is what the kubelet says of a container; nil before it said anything.
func containerStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == name {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

// gated tells whether the Pod waits for its start.
func gated(pod *corev1.Pod) bool {
	for _, gate := range pod.Spec.SchedulingGates {
		if gate.Name == gateNotStarted {
			return true
		}
	}
	return false
}

// terminal tells whether no container of the Pod will ever run again.
func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// finished tells whether all that the Pod had to run has ended, which its phase tells a moment later.
func finished(pod *corev1.Pod) bool {
	if terminal(pod) {
		return true
	}
	for i := range pod.Spec.Containers {
		status := containerStatus(pod, pod.Spec.Containers[i].Name)
		if status == nil || status.State.Terminated == nil || restarts(pod, int(status.State.Terminated.ExitCode)) {
			return false
		}
	}
	return true
}

// stateFromPod says in docker's words how one container of a Pod is.
func stateFromPod(pod *corev1.Pod, index int, now time.Time) neutral.State {
	spec := &pod.Spec.Containers[index]
	state := neutral.State{Status: neutral.StatusCreated, Address: pod.Status.PodIP}
	status := containerStatus(pod, spec.Name)
	if status == nil {
		state.Reason, state.Error = pendingReason(pod)
		if terminal(pod) {
			state.ExitCode = exitNoStart
		}
	} else {
		state.RestartCount = int(status.RestartCount)
		readStatus(&state, pod, status)
		state.Health = health(pod, spec, status, now)
	}
	if failure := pod.Annotations[annotationError]; failure != "" && state.Status == neutral.StatusCreated {
		state.Error = failure
		state.ExitCode = startExitCode(failure)
	}
	if pod.Annotations[annotationPaused] != "" && state.Status == neutral.StatusExited {
		state.Status, state.ExitCode, state.Reason, state.FinishedAt = neutral.StatusPaused, 0, "", time.Time{}
	}
	if state.Status == neutral.StatusRunning && frozen(pod, spec.Name) {
		state.Status = neutral.StatusPaused
	}
	if pod.DeletionTimestamp != nil {
		state.Status = neutral.StatusRemoving
	}
	return state
}

func readStatus(state *neutral.State, pod *corev1.Pod, status *corev1.ContainerStatus) {
	switch {
	case status.State.Running != nil:
		state.Status = neutral.StatusRunning
		state.StartedAt = status.State.Running.StartedAt.Time
		if last := status.LastTerminationState.Terminated; last != nil {
			state.FinishedAt = last.FinishedAt.Time
		}
	case status.State.Terminated != nil:
		ended(state, status.State.Terminated)
		if state.Status == neutral.StatusExited && !terminal(pod) && restarts(pod, state.ExitCode) {
			state.Status = neutral.StatusRestarting
		}
	case status.LastTerminationState.Terminated != nil:
		ended(state, status.LastTerminationState.Terminated)
		if waiting := status.State.Waiting; waiting != nil && !terminal(pod) {
			if state.Status == neutral.StatusExited {
				state.Status = neutral.StatusRestarting
			}
			state.Reason = waiting.Reason
		}
	default:
		state.Reason, state.Error = pendingReason(pod)
		if waiting := status.State.Waiting; waiting != nil && waiting.Reason != "" {
			state.Reason, state.Error = waiting.Reason, ""
			if failure := waitingFault(waiting, imageOf(pod, status)); failure != nil {
				state.Error = failure.Message
			}
		}
		if terminal(pod) {
			state.ExitCode = exitNoStart
		}
	}
}

// ended reads a termination. One that never ran is "created" with an error, as docker has it.
func ended(state *neutral.State, t *corev1.ContainerStateTerminated) {
	state.Status, state.ExitCode, state.Reason = neutral.StatusExited, int(t.ExitCode), t.Reason
	state.StartedAt, state.FinishedAt = t.StartedAt.Time, t.FinishedAt.Time
	state.OOMKilled = t.Reason == "OOMKilled"
	switch t.Reason {
	case reasonStartError, reasonCannotRun:
		state.Status = neutral.StatusCreated
		state.Error = kubeletMessage(t.Message)
		state.ExitCode = startExitCode(state.Error)
		state.StartedAt, state.FinishedAt = time.Time{}, time.Time{}
	case reasonUnknownEnd:
		state.ExitCode, state.Error = exitUnknown, kubeletMessage(t.Message)
	}
}

// restarts tells whether the kubelet starts a container again that ended with code.
func restarts(pod *corev1.Pod, code int) bool {
	switch pod.Spec.RestartPolicy {
	case corev1.RestartPolicyAlways:
		return true
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return false
}

// startExitCode is the code that docker gives a container that did not start.
func startExitCode(message string) int {
	switch {
	case strings.Contains(message, "executable file not found"), strings.Contains(message, "no such file or directory"):
		return exitNotFound
	case strings.Contains(message, "permission denied"), strings.Contains(message, "is a directory"),
		strings.Contains(message, "exec format error"):
		return exitForbidden
	}
	return exitNoStart
}

// pendingReason says why nothing runs yet.
func pendingReason(pod *corev1.Pod) (reason, message string) {
	if terminal(pod) {
		return pod.Status.Reason, pod.Status.Message
	}
	if gated(pod) {
		return "", ""
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Reason, condition.Message
		}
	}
	return string(pod.Status.Phase), ""
}

// kubeletMessage leaves of a kubelet's message what the runtime said, without the ids and paths of its own calls.
func kubeletMessage(message string) string {
	for _, start := range []string{"OCI runtime exec failed", "OCI runtime create failed", "runc create failed",
		"unable to start container process", "failed to generate"} {
		if i := strings.Index(message, start); i >= 0 {
			return strings.TrimSpace(message[i:])
		}
	}
	return strings.TrimSpace(message)
}

// health reads docker's health from readiness. now tells a container that is still starting from one that is ill.
func health(pod *corev1.Pod, spec *corev1.Container, status *corev1.ContainerStatus, now time.Time) string {
	probe := spec.ReadinessProbe
	if probe == nil || status.State.Running == nil {
		return ""
	}
	if status.Ready {
		return "healthy"
	}
	patience := time.Duration(probe.InitialDelaySeconds+max(probe.PeriodSeconds, 1)*max(probe.FailureThreshold, 1)) * time.Second
	if check := healthFromPod(pod, spec); check != nil {
		patience += check.StartPeriod
	}
	if now.Sub(status.State.Running.StartedAt.Time) < patience {
		return "starting"
	}
	return "unhealthy"
}
