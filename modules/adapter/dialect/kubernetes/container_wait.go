package kubernetes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// exitKilled is what docker says of a container that went without a word.
const exitKilled = 137

// ending is the last end of a container: which one it was, and its exit code. ok is false when it never ended.
func ending(pod *corev1.Pod, name string) (key string, code int, ok bool) {
	if status := containerStatus(pod, name); status != nil {
		for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
			if t := state.Terminated; t != nil {
				var s neutral.State
				ended(&s, t)
				return fmt.Sprintf("%s/%d/%s", pod.UID, t.FinishedAt.Unix(), t.ContainerID), s.ExitCode, true
			}
		}
	}
	if terminal(pod) {
		return string(pod.UID), exitNoStart, true
	}
	return "", 0, false
}

// waitContainer answers at once that it waits, for docker's clients wait before they start.
func (a *action) waitContainer(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	w := waiting{action: a, found: found, condition: a.op.Wait}
	if err := a.followPod(ctx, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		return w.see(ctx, pod), nil
	}); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{ID: found.ID, ExitCode: w.code}, nil
}

// waiting is a wait under way.
//
//	not-running: done as soon as it does not run
//	next-exit:   done at the first end after the wait began
//	removed:     done when the Pod is gone for good
type waiting struct {
	*action
	found     *located
	condition neutral.WaitCondition
	begun     bool
	first     string // the end that had happened before the wait began
	code      int
	replacing bool // the Pod was last seen on its way to a successor
	paused    bool // it was last seen paused, which is no end for docker
}

// see looks at the Pod as it is now.
func (w *waiting) see(ctx context.Context, pod *corev1.Pod) (done bool) {
	if pod == nil {
		if w.replacing && (w.paused || w.condition != neutral.WaitNotRunning) {
			return false
		}
		if w.begun && w.code == 0 && w.condition != neutral.WaitRemoved {
			w.code = exitKilled
		}
		return true
	}
	w.replacing = pod.Annotations[annotationReplacing] != ""
	key, code, ended := ending(pod, w.found.native())
	if w.paused = pod.Annotations[annotationPaused] != ""; w.paused {
		w.begun, w.first = true, key // and not the end that is waited for
		return false
	}
	if !w.begun {
		w.begun, w.first = true, key
	}
	if ended {
		w.code = code
	}
	switch w.condition {
	case neutral.WaitNextExit:
		return ended && key != w.first
	case neutral.WaitRemoved:
		if ended && w.found.AutoRemove && finished(pod) && pod.DeletionTimestamp == nil {
			return w.collect(ctx, pod, w.found.ID)
		}
		return false
	}
	return ended && !comesBack(pod, w.found.native()) || gated(pod)
}

// comesBack tells whether the kubelet is about to start an ended container again.
func comesBack(pod *corev1.Pod, name string) bool {
	if terminal(pod) {
		return false
	}
	status := containerStatus(pod, name)
	return status == nil || status.State.Terminated == nil || restarts(pod, int(status.State.Terminated.ExitCode))
}
