package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestStartOutcome(t *testing.T) {
	t.Parallel()
	const address = "10.9.9.9:443"
	waiting := func(reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "main", Image: "app:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	startError := exited(128)
	startError.Terminated.Reason = reasonStartError
	startError.Terminated.Message = `failed to create containerd task: OCI runtime create failed: runc create failed: exec: "nosuch": executable file not found in $PATH: unknown`
	crashed := waiting(reasonCrashLoop, "back-off")
	crashed.LastTerminationState = *startError
	restarted := waiting(reasonCrashLoop, "back-off")
	restarted.LastTerminationState = *exited(1)
	for name, c := range map[string]struct {
		status *corev1.ContainerStatus
		phase  corev1.PodPhase
		done   bool
		kind   fault.Kind
		text   string
	}{
		"nothing yet":     {},
		"creating":        {status: ref(waiting("ContainerCreating", ""))},
		"running":         {status: &corev1.ContainerStatus{Name: "main", State: *running()}, done: true},
		"over already":    {status: &corev1.ContainerStatus{Name: "main", State: *exited(3)}, done: true},
		"restarted":       {status: &restarted, done: true},
		"no such command": {status: &corev1.ContainerStatus{Name: "main", State: *startError}, done: true, kind: fault.Invalid, text: "executable file not found in $PATH"},
		"crash loop":      {status: &crashed, done: true, kind: fault.Invalid, text: "executable file not found"},
		"never pulled":    {status: ref(waiting("ErrImageNeverPull", "x")), done: true, kind: fault.NotFound, text: "No such image: app:1"},
		"no such image":   {status: ref(waiting("ErrImagePull", "failed to resolve "+address+": not found")), done: true, kind: fault.NotFound, text: "No such image: app:1"},
		"no registry":     {status: ref(waiting("ImagePullBackOff", "dial tcp "+address+": refused")), done: true, kind: fault.Unavailable, text: "could not pull the image app:1"},
		"bad name":        {status: ref(waiting("InvalidImageName", "")), done: true, kind: fault.Invalid, text: "invalid reference format"},
		"bad config":      {status: ref(waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")), done: true, kind: fault.Invalid, text: "runAsNonRoot"},
		"runtime":         {status: ref(waiting("RunContainerError", "failed to create containerd task: OCI runtime create failed: permission denied: unknown")), done: true, kind: fault.Invalid, text: "permission denied"},
		"evicted":         {phase: corev1.PodFailed, done: true, kind: fault.Unavailable, text: "could not be started"},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app:1"}}}, Status: corev1.PodStatus{Phase: c.phase}}
		if c.status != nil {
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{*c.status}
		}
		done, err := startOutcome(pod, "main")
		if done != c.done || (err != nil) != (c.text != "") {
			t.Errorf("%s: %v, %v", name, done, err)
			continue
		}
		if err != nil && (!fault.Is(err, c.kind) || !strings.Contains(fault.Of(err).Message, c.text) || strings.Contains(fault.Of(err).Message, address)) {
			t.Errorf("%s: %v: %v", name, fault.Of(err).Kind, err)
		}
	}
}

func ref[T any](v T) *T { return &v }
