package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	// startPatience bounds how long a start waits for an image to be pulled and a container to run.
	startPatience = 4 * time.Minute
	// schedulePatience is how long no node may want a container before its start fails.
	schedulePatience = 20 * time.Second
	// portPatience is how long a published port may be another's: of one that is just being removed, mostly.
	portPatience = 3 * time.Second
	// undoTimeout bounds what must still be done when the caller is gone.
	undoTimeout = 20 * time.Second
)

// newLayer is what a start of a container that ran before loses.
var newLayer = neutral.Loss{Field: "file system", Change: "new",
	Reason: "Kubernetes starts a container that ended from its image again: files it wrote outside volumes, and its log, are gone"}

// startContainer starts what was created, or starts again what ended.
func (a *action) startContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return a.start(ctx, found)
}

func (a *action) start(ctx context.Context, found *located) (neutral.Result, error) {
	switch found.State.Status {
	case neutral.StatusRunning, neutral.StatusRestarting:
		return neutral.Result{}, fault.New(fault.NotModified, "container %s is already started", found.Name)
	case neutral.StatusPaused:
		return neutral.Result{}, fault.New(fault.Conflict, "cannot start a paused container, try unpause instead")
	case neutral.StatusRemoving:
		return neutral.Result{}, fault.New(fault.Conflict, "container %s is marked for removal and cannot be started", found.Name)
	}
	return a.bring(ctx, found, nil)
}

// bring makes a container run that does not, with notes on its Pod where that is a new one.
func (a *action) bring(ctx context.Context, found *located, notes map[string]string) (neutral.Result, error) {
	result := neutral.Result{ID: found.ID}
	if err := a.networksThere(ctx, found.pod); err != nil {
		var known *fault.Error
		if errors.As(err, &known) && known.Kind == fault.NotFound && found.AutoRemove {
			a.undoStart(ctx, found, known)
		}
		return neutral.Result{}, err
	}
	switch {
	case finished(found.pod):
		if err := found.own("start"); err != nil {
			return neutral.Result{}, err
		}
		if !found.State.StartedAt.IsZero() {
			result.Losses = append(result.Losses, newLayer)
		}
		next := successor(found.pod)
		maps.Copy(next.Annotations, notes)
		if err := a.replacePod(ctx, found.pod, next, 0); err != nil {
			return neutral.Result{}, err
		}
	case gated(found.pod):
		if err := a.openGate(ctx, found.pod); err != nil {
			return neutral.Result{}, err
		}
	}
	return result, a.awaitStart(ctx, found)
}

// openGate takes the gate away; the scheduler does the rest.
func (a *action) openGate(ctx context.Context, pod *corev1.Pod) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"spec":     map[string]any{"schedulingGates": []map[string]string{{"$patch": "delete", "name": gateNotStarted}}},
	})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = a.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return nativeFault(err)
}

// fieldManager is who the API server keeps our changes under.
const fieldManager = "isthmus"

// awaitStart waits until the container runs or has run. When it cannot start, the start is undone, so that the
// container does not come to life after its caller was told that it did not.
func (a *action) awaitStart(ctx context.Context, found *located) error {
	wait, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	wait, giveUp := context.WithCancelCause(wait)
	defer giveUp(nil)
	var unwanted *time.Timer
	defer func() {
		if unwanted != nil {
			unwanted.Stop()
		}
	}()
	var latest *corev1.Pod
	err := a.followPod(wait, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil {
			return true, fault.New(fault.NotFound, "container %s was removed while it started", found.Name)
		}
		latest = pod
		done, err := startOutcome(pod, found.native())
		switch unscheduled := unschedulable(pod); {
		case strings.Contains(unscheduled, noFreePort) && unwanted == nil:
			unwanted = time.AfterFunc(portPatience, func() { giveUp(portTaken(pod)) })
		case unscheduled != "" && unwanted == nil:
			unwanted = time.AfterFunc(schedulePatience, func() {
				giveUp(fault.New(fault.Unavailable, "container %s cannot be started: no node takes it: %s", found.Name, unscheduled))
			})
		case unscheduled == "" && unwanted != nil:
			unwanted.Stop()
			unwanted = nil
		}
		return done, err
	})
	if err == nil && latest != nil {
		if unnamed := a.writeNames(ctx, latest); unnamed != nil {
			a.log.Warn("the names of a container on its networks are not written yet", "container", found.Name, "err", unnamed)
		}
	}
	var known *fault.Error
	if cause := context.Cause(wait); err != nil && errors.As(cause, &known) {
		err = cause
	}
	if errors.As(err, &known) {
		a.undoStart(ctx, found, known)
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fault.New(fault.Timeout, "container %s is still being started: the node pulls its image", found.Name)
	}
	return err
}

// undoStart keeps a container that could not be started from trying on.
func (a *action) undoStart(ctx context.Context, found *located, why *fault.Error) {
	if why.Kind == fault.NotFound && strings.Contains(why.Message, "was removed") {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if found.AutoRemove && found.Owner == nil {
		if err := a.deletePod(ctx, found.pod, 0); err != nil {
			a.log.Warn("a container that could not be started is not removed", "container", found.Name, "err", err)
		}
		if err := a.dropAnonymous(ctx, found.pod); err != nil {
			a.log.Warn("the volumes of a container that could not be started are not removed", "container", found.Name, "err", err)
		}
		return
	}
	if err := a.keepStill(ctx, found.pod, map[string]any{annotationError: why.Message}, why.Message); err != nil {
		a.log.Warn("a container that could not be started goes on trying", "container", found.Name, "err", err)
	}
}

// keepStill keeps a Pod that never ran from running: by its deadline when a node has it, by a successor when none has.
func (c *Cluster) keepStill(ctx context.Context, pod *corev1.Pod, notes map[string]any, why string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := c.client.CoreV1().Pods(pod.Namespace).Get(call, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return nativeFault(err)
	case now.UID != pod.UID && now.Annotations[annotationNonce] != pod.Annotations[annotationNonce]:
		return nil // another's by now
	case now.Spec.NodeName == "":
		return c.replacePod(ctx, now, unstarted(now, why), 0)
	}
	return c.endPod(ctx, now, notes)
}

// noFreePort is what the scheduler says when each node's ports are taken.
const noFreePort = "didn't have free ports"

// portTaken says it in docker's words, of all ports of which one is taken.
func portTaken(pod *corev1.Pod) *fault.Error {
	var ports []string
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if p.HostPort != 0 {
				ports = append(ports, fmt.Sprintf("%s:%d", cmp.Or(p.HostIP, "0.0.0.0"), p.HostPort))
			}
		}
	}
	return fault.New(fault.Internal, "driver failed programming external connectivity on endpoint %s: Bind for %s failed: port is "+
		"already allocated", displayName(pod, 0), strings.Join(ports, " or "))
}

// unschedulable is why no node wants a Pod, "" when one does or nobody knows yet.
func unschedulable(pod *corev1.Pod) string {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && condition.Reason == reasonUnscheduled {
			return condition.Message
		}
	}
	return ""
}

// startOutcome tells whether a start is over, and why it failed.
func startOutcome(pod *corev1.Pod, name string) (done bool, err error) {
	status := containerStatus(pod, name)
	if status != nil {
		for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
			switch {
			case state.Running != nil:
				return true, nil
			case state.Terminated != nil:
				return true, terminationFault(state.Terminated)
			}
		}
		if waiting := status.State.Waiting; waiting != nil {
			if failure := waitingFault(waiting, imageOf(pod, status)); failure != nil {
				return true, failure
			}
		}
	}
	if terminal(pod) {
		return true, fault.New(fault.Unavailable, "the container could not be started: %s: %s", pod.Status.Reason, pod.Status.Message)
	}
	return false, nil
}

// terminationFault tells a container that never ran from one that has run already.
func terminationFault(t *corev1.ContainerStateTerminated) error {
	if t.Reason != reasonStartError && t.Reason != reasonCannotRun {
		return nil
	}
	return runtimeFault(t.Message)
}

// runtimeFault carries the runtime's own words, by which docker's clients know a command that does not exist (exit
// code 127) from one that cannot be executed (126).
func runtimeFault(message string) *fault.Error {
	message = kubeletMessage(message)
	kind := fault.Internal
	if startExitCode(message) != exitNoStart {
		kind = fault.Invalid
	}
	return fault.New(kind, "failed to create task for container: failed to create shim task: %s", message)
}

// waitingFault reads why a container waits; nil means that it may still start. The kubelet's words about images name
// registries and their addresses, so they stay in the cause.
func waitingFault(waiting *corev1.ContainerStateWaiting, image string) *fault.Error {
	cause := errors.New(waiting.Message)
	switch waiting.Reason {
	case "ErrImageNeverPull":
		return fault.Wrap(fault.NotFound, cause, "No such image: %s (the node does not hold it and may not pull it)", image)
	case "InvalidImageName":
		return fault.Wrap(fault.Invalid, cause, "invalid reference format: %s", image)
	case "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed":
		for _, word := range []string{"not found", "does not exist", "denied", "unauthorized", "insufficient_scope"} {
			if strings.Contains(strings.ToLower(waiting.Message), word) {
				return fault.Wrap(fault.NotFound, cause,
					"No such image: %s (its registry does not give it to the node: it does not exist there, or needs a login)", image)
			}
		}
		return fault.Wrap(fault.Unavailable, cause, "the node could not pull the image %s (%s)", image, waiting.Reason)
	case "CreateContainerConfigError":
		return fault.New(fault.Invalid, "the container's configuration is refused by the node: %s", kubeletMessage(waiting.Message))
	case "CreateContainerError", "RunContainerError", "PreStartHookError", "PostStartHookError":
		return runtimeFault(waiting.Message)
	}
	return nil
}

// imageOf is the image that a container was asked to have.
func imageOf(pod *corev1.Pod, status *corev1.ContainerStatus) string {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == status.Name {
			return pod.Spec.Containers[i].Image
		}
	}
	return status.Image
}

// deletePod deletes exactly this Pod; one that is gone already is no error.
func (c *Cluster) deletePod(ctx context.Context, pod *corev1.Pod, grace int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return nativeFault(err)
}
