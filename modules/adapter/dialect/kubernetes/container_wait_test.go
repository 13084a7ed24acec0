package kubernetes

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// step is one look at a Pod: the state of its container, or none of the Pod.
type step struct {
	state     *corev1.ContainerState
	last      *corev1.ContainerState
	uid       string
	policy    corev1.RestartPolicy
	replacing bool
	gone      bool
	gated     bool
	paused    bool
	done      bool // the wait ends here
}

func TestWait(t *testing.T) {
	t.Parallel()
	waitingState := &corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonCrashLoop}}
	second := exited(5)
	second.Terminated.FinishedAt = metav1.NewTime(logStart.Add(time.Hour))
	for name, c := range map[string]struct {
		condition neutral.WaitCondition
		steps     []step
		code      int
	}{
		"not running, at once":      {neutral.WaitNotRunning, []step{{state: exited(3), done: true}}, 3},
		"not running, created":      {neutral.WaitNotRunning, []step{{gated: true, done: true}}, 0},
		"not running, later":        {neutral.WaitNotRunning, []step{{}, {state: running()}, {state: exited(3), done: true}}, 3},
		"not running, restarting":   {neutral.WaitNotRunning, []step{{state: running(), policy: corev1.RestartPolicyAlways}, {state: waitingState, last: exited(1), policy: corev1.RestartPolicyAlways}, {state: running(), last: exited(1), policy: corev1.RestartPolicyAlways}, {gone: true, done: true}}, 1},
		"not running, removed":      {neutral.WaitNotRunning, []step{{state: running()}, {gone: true, done: true}}, exitKilled},
		"not running, paused":       {neutral.WaitNotRunning, []step{{state: exited(3), paused: true}, {state: exited(3), paused: true, replacing: true}, {gone: true}, {uid: "2"}, {uid: "2", state: running()}, {uid: "2", state: exited(4), done: true}}, 4},
		"not running, pausing":      {neutral.WaitNotRunning, []step{{state: running()}, {state: running(), paused: true}, {state: exited(3), paused: true}, {state: exited(3), done: true}}, 3},
		"next exit, paused":         {neutral.WaitNextExit, []step{{state: running()}, {state: exited(3), paused: true}, {state: exited(3), paused: true, replacing: true}, {gone: true}, {uid: "2", state: running()}, {uid: "2", state: second, done: true}}, 5},
		"paused, removed":           {neutral.WaitNotRunning, []step{{state: exited(3), paused: true}, {gone: true, done: true}}, exitKilled},
		"next exit, before start":   {neutral.WaitNextExit, []step{{gated: true}, {}, {state: running()}, {state: exited(4), done: true}}, 4},
		"next exit, not the former": {neutral.WaitNextExit, []step{{state: exited(3)}, {state: exited(3), replacing: true}, {gone: true}, {uid: "2"}, {uid: "2", state: running()}, {uid: "2", state: second, done: true}}, 5},
		"next exit, of a restart":   {neutral.WaitNextExit, []step{{state: running(), policy: corev1.RestartPolicyAlways}, {state: running(), last: exited(2), policy: corev1.RestartPolicyAlways, done: true}}, 2},
		"next exit, removed":        {neutral.WaitNextExit, []step{{state: running()}, {gone: true, done: true}}, exitKilled},
		"removed":                   {neutral.WaitRemoved, []step{{state: running()}, {state: exited(6)}, {gone: true, done: true}}, 6},
		"removed, not replaced":     {neutral.WaitRemoved, []step{{state: exited(6), replacing: true}, {gone: true}, {uid: "2", state: running()}, {uid: "2", state: exited(0)}, {gone: true, done: true}}, 0},
	} {
		w := waiting{condition: c.condition, found: &located{pod: &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}}}}}
		for i, s := range c.steps {
			if done := w.see(t.Context(), s.pod()); done != s.done {
				t.Errorf("%s: step %d: done %v", name, i, done)
			}
		}
		if w.code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, w.code, c.code)
		}
	}
}

func (s step) pod() *corev1.Pod {
	if s.gone {
		return nil
	}
	policy := s.policy
	if policy == "" {
		policy = corev1.RestartPolicyNever
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "1", Annotations: map[string]string{}},
		Spec:   corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "main"}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending}}
	if s.uid != "" {
		pod.UID = "uid-" + pod.UID
	}
	if s.replacing {
		pod.Annotations[annotationReplacing] = "now"
	}
	if s.paused {
		pod.Annotations[annotationPaused] = "now"
	}
	if s.gated {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gateNotStarted}}
	}
	if s.state != nil {
		status := corev1.ContainerStatus{Name: "main", State: *s.state}
		if s.last != nil {
			status.LastTerminationState = *s.last
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
		pod.Status.Phase = corev1.PodRunning
		if s.state.Terminated != nil && policy == corev1.RestartPolicyNever {
			pod.Status.Phase = corev1.PodFailed
		}
	}
	return pod
}
