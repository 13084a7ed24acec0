package table

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeUnreachable is the reason of pods whose node is not heard of.
const nodeUnreachable = "NodeLost"

func podRow(pod *corev1.Pod, now time.Time) metav1.TableRow {
	p := progressOf(pod)
	restarts := strconv.Itoa(p.restarts)
	if p.restarts != 0 && !p.restarted.IsZero() {
		restarts += " (" + since(p.restarted, now) + " ago)"
	}
	ip := ""
	if len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	row := metav1.TableRow{Cells: []any{
		pod.Name, fmt.Sprintf("%d/%d", p.ready, p.containers), p.status, restarts, since(pod.CreationTimestamp.Time, now),
		or(ip, none), or(pod.Spec.NodeName, none), or(pod.Status.NominatedNodeName, none), readinessGates(pod),
	}}
	if ended(pod) {
		row.Conditions = []metav1.TableRowCondition{{
			Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(pod.Status.Phase), Message: "The pod has ended.",
		}}
	}
	return row
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func readinessGates(pod *corev1.Pod) string {
	if len(pod.Spec.ReadinessGates) == 0 {
		return none
	}
	open := 0
	for _, gate := range pod.Spec.ReadinessGates {
		if condition(pod, gate.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(pod.Spec.ReadinessGates))
}

// condition tells whether a condition holds.
func condition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	return i >= 0 && pod.Status.Conditions[i].Status == corev1.ConditionTrue
}

// progress is how far a pod has come.
type progress struct {
	status            string
	ready, containers int
	restarts          int
	restarted         time.Time
}

// progressOf reads a pod in the order in which it comes to life: phase, init containers, containers, deletion. What is
// read later overrules what was read before.
func progressOf(pod *corev1.Pod) progress {
	p := progress{
		status:     cmp.Or(pod.Status.Reason, string(pod.Status.Phase)),
		containers: len(pod.Spec.Containers) + len(sidecars(pod)),
	}
	gated := func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated
	}
	if slices.ContainsFunc(pod.Status.Conditions, gated) {
		p.status = corev1.PodReasonSchedulingGated
	}
	if initialized := p.readInit(pod); initialized || condition(pod, corev1.PodInitialized) {
		p.readContainers(pod)
	}
	switch {
	case pod.DeletionTimestamp == nil: // it stays
	case pod.Status.Reason == nodeUnreachable:
		p.status = "Unknown"
	case !ended(pod):
		p.status = "Terminating"
	}
	return p
}

// sidecars are the names of init containers that go on beside the containers.
func sidecars(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			names[c.Name] = true
		}
	}
	return names
}

// readInit reads up to the init container that is not over yet. It tells whether there is none.
func (p *progress) readInit(pod *corev1.Pod) bool {
	sidecars := sidecars(pod)
	for i, c := range pod.Status.InitContainerStatuses {
		p.count(c)
		state, sidecar := c.State, sidecars[c.Name]
		if state.Terminated != nil && state.Terminated.ExitCode == 0 {
			continue
		}
		if sidecar && c.Started != nil && *c.Started {
			if c.Ready {
				p.ready++
			}
			continue
		}
		switch {
		case state.Terminated != nil:
			p.status = "Init:" + ending(state.Terminated)
		case state.Waiting != nil && state.Waiting.Reason != "" && state.Waiting.Reason != "PodInitializing":
			p.status = "Init:" + state.Waiting.Reason
		default:
			p.status = fmt.Sprintf("Init:%d/%d", i, len(pod.Spec.InitContainers))
		}
		return false
	}
	return true
}

// readContainers reads the containers once the pod is initialized: of the init containers, restarts of sidecars alone
// count then. The first container that is not well gives the status.
func (p *progress) readContainers(pod *corev1.Pod) {
	p.restarts, p.restarted = 0, time.Time{}
	sidecars := sidecars(pod)
	for _, c := range pod.Status.InitContainerStatuses {
		if sidecars[c.Name] {
			p.count(c)
		}
	}
	running := false
	for _, c := range slices.Backward(pod.Status.ContainerStatuses) {
		p.count(c)
		switch state := c.State; {
		case state.Waiting != nil && state.Waiting.Reason != "":
			p.status = state.Waiting.Reason
		case state.Terminated != nil:
			p.status = ending(state.Terminated)
		case c.Ready && state.Running != nil:
			running = true
			p.ready++
		}
	}
	if p.status == "Completed" && running { // a part of the pod alone
		p.status = "NotReady"
		if condition(pod, corev1.PodReady) {
			p.status = "Running"
		}
	}
}

func (p *progress) count(c corev1.ContainerStatus) {
	p.restarts += int(c.RestartCount)
	if last := c.LastTerminationState.Terminated; last != nil && last.FinishedAt.After(p.restarted) {
		p.restarted = last.FinishedAt.Time
	}
}

// ending says how a container ended.
func ending(state *corev1.ContainerStateTerminated) string {
	switch {
	case state.Reason != "":
		return state.Reason
	case state.Signal != 0:
		return fmt.Sprintf("Signal:%d", state.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", state.ExitCode)
	}
}
