package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// endMargin is what a node may need beyond a grace period to end a container and to say so.
const endMargin = 30 * time.Second

// stopContainer lets the Pod pass its deadline: the kubelet sends the stop signal, waits the grace period and kills.
// The object, its log and the exit code stay, and no restart policy brings it back.
func (a *action) stopContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{ID: found.ID}
	if found.quiesced() {
		return result, a.forgetPause(ctx, found.pod)
	}
	if !alive(found.pod) {
		return neutral.Result{}, fault.New(fault.NotModified, "container %s is not running", found.Name)
	}
	if err := found.own("stop"); err != nil {
		return neutral.Result{}, err
	}
	grace := gracePeriod(found.pod)
	if stop := a.op.Stop; stop != nil {
		if stop.Timeout != nil && time.Duration(*stop.Timeout)*time.Second != grace {
			result.Losses = append(result.Losses, neutral.Loss{Field: "t", Change: fmt.Sprintf("%d s", int(grace/time.Second)),
				Reason: "a Pod's grace period is fixed when it is created (docker create --stop-timeout)"})
		}
		if stop.Signal != "" && !found.frozen() {
			loss, err := a.sendFirst(ctx, found, stop.Signal)
			if err != nil {
				return neutral.Result{}, err
			}
			result.Losses = append(result.Losses, loss...)
		}
	}
	return result, a.endAndWait(ctx, found, grace)
}

// sendFirst sends a signal of the caller's choice before the kubelet's own.
func (a *action) sendFirst(ctx context.Context, found *located, text string) ([]neutral.Loss, error) {
	signal, ok := signalName(text)
	if !ok {
		return nil, fault.New(fault.Invalid, "Invalid signal: %s", text)
	}
	if signal == "TERM" || text == found.StopSignal || found.State.Status != neutral.StatusRunning {
		return nil, nil
	}
	loss := neutral.Loss{Field: "signal", Change: "followed by the kubelet's own", Reason: "a Pod ends by its stop signal"}
	if signal == "KILL" {
		return []neutral.Loss{killLoss(found.pod)}, nil
	}
	return []neutral.Loss{loss}, a.signal(ctx, found, signal)
}

// alive tells whether the Pod runs, or will run without anybody's doing.
func alive(pod *corev1.Pod) bool {
	return !finished(pod) && !gated(pod) && pod.DeletionTimestamp == nil
}

func gracePeriod(pod *corev1.Pod) time.Duration {
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		return time.Duration(*grace) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// endAndWait ends a Pod and waits until its node says that it has.
func (a *action) endAndWait(ctx context.Context, found *located, grace time.Duration) error {
	return a.endNoted(ctx, found, grace, map[string]any{annotationStopped: time.Now().UTC().Format(time.RFC3339Nano),
		freezer.Annotation: nil}) // what stands still gets no signal
}

// endNoted is endAndWait with notes of its own.
func (a *action) endNoted(ctx context.Context, found *located, grace time.Duration, notes map[string]any) error {
	if found.pod.Spec.NodeName == "" {
		return a.keepStill(ctx, found.pod, notes, "")
	}
	if err := a.endPod(ctx, found.pod, notes); err != nil {
		return err
	}
	if err := a.awaitEnd(ctx, found, grace+endMargin); err != nil {
		return err
	}
	if found.AutoRemove {
		a.collect(ctx, found.pod, found.ID)
	}
	return nil
}

// endPod patches the deadline, and notes why.
func (c *Cluster) endPod(ctx context.Context, pod *corev1.Pod, notes map[string]any) error {
	annotations := map[string]any{}
	for key, value := range notes {
		annotations[key] = value
	}
	if _, noted := pod.Annotations[annotationDeadline]; !noted {
		annotations[annotationDeadline] = ""
		if deadline := pod.Spec.ActiveDeadlineSeconds; deadline != nil {
			annotations[annotationDeadline] = strconv.FormatInt(*deadline, 10)
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID, "annotations": annotations},
		"spec":     map[string]any{"activeDeadlineSeconds": 1},
	})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return nativeFault(err)
}

// awaitEnd waits until the Pod has ended and every container's exit code is known.
func (a *action) awaitEnd(ctx context.Context, found *located, patience time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := a.followPod(wait, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil || pod.UID != found.pod.UID {
			return true, nil
		}
		status := containerStatus(pod, found.native())
		return finished(pod) && (status == nil || status.State.Running == nil), nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fault.New(fault.Timeout, "container %s was told to end, and its node does not say that it has", found.Name)
	}
	return err
}

// killLoss says what KILL becomes: nothing inside a container can kill its first process, and the kubelet always asks
// before it kills.
func killLoss(pod *corev1.Pod) neutral.Loss {
	return neutral.Loss{Field: "signal", Change: fmt.Sprintf("SIGKILL after the stop signal and %d s", int(gracePeriod(pod)/time.Second)),
		Reason: "the kubelet kills a container only when the Pod's grace period has passed (docker create --stop-timeout)"}
}

// killContainer sends a signal. KILL is the Pod's deadline; the others are sent from inside.
func (a *action) killContainer(ctx context.Context) (neutral.Result, error) {
	text := "KILL"
	if a.op.Stop != nil && a.op.Stop.Signal != "" {
		text = a.op.Stop.Signal
	}
	signal, ok := signalName(text)
	if !ok {
		return neutral.Result{}, fault.New(fault.Invalid, "Invalid signal: %s", text)
	}
	found, err := a.find(ctx)
	if fault.Is(err, fault.NotFound) {
		return neutral.Result{}, fault.Wrap(fault.NotFound, err, "cannot kill container: %s: %s", a.op.Ref, fault.Of(err).Message)
	}
	if err != nil {
		return neutral.Result{}, err
	}
	switch {
	case found.quiesced() && signal == "KILL":
		return neutral.Result{ID: found.ID}, a.forgetPause(ctx, found.pod)
	case found.frozen() && signal == "KILL":
	case found.frozen():
		return neutral.Result{}, fault.New(fault.Conflict, "signal SIG%s is refused: Kubernetes sends no signals, and container %s is "+
			"paused, so that it cannot be sent from inside; unpause it before", signal, found.Name)
	case found.quiesced():
		return neutral.Result{}, fault.New(fault.Unsupported, "signal SIG%s is refused: container %s is paused by quiesce, and has no process that "+
			"could get it", signal, found.Name)
	case found.State.Status != neutral.StatusRunning:
		return neutral.Result{}, fault.New(fault.Conflict, "cannot kill container: %s: container %s is not running", a.op.Ref, found.ID)
	}
	if err := found.own("kill"); err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{ID: found.ID}
	switch signal {
	case "KILL":
		result.Losses = []neutral.Loss{killLoss(found.pod)}
		return result, a.endAndWait(ctx, found, gracePeriod(found.pod))
	case "STOP", "TSTP", "TTIN", "TTOU", "CONT":
		return neutral.Result{}, fault.New(fault.Unsupported, "signal SIG%s is refused: "+
			"a container's first process cannot be held from inside, and Kubernetes has no call that does it from outside", signal)
	}
	return result, a.signal(ctx, found, signal)
}

// signal sends a signal to the container's first process, with the kill of its image or with that of its shell.
func (a *action) signal(ctx context.Context, found *located, signal string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var last error
	for _, command := range [][]string{{"kill", "-s", signal, "1"}, {"/bin/sh", "-c", "kill -s " + signal + " 1"}} {
		output, code, err := a.capture(ctx, found, command)
		switch {
		case err == nil && (code == 0 || code == exitKilled): // the first process has ended of the signal, and kill with it
			return nil
		case err == nil && code != exitNotFound && code != exitForbidden:
			return fault.New(fault.Internal, "the signal could not be sent: kill in the container ended with %d: %.200s", code, output)
		}
		last = err
	}
	if last != nil {
		return last
	}
	return fault.New(fault.Unsupported, "signal SIG%s is refused: Kubernetes sends no signals, and the image has no kill "+
		"and no shell to send it from inside", signal)
}

// restartContainer replaces the Pod, with the grace period that the caller asks for: a deletion has its own.
func (a *action) restartContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	switch {
	case found.quiesced():
		return a.bring(ctx, found, nil)
	case !alive(found.pod):
		return a.start(ctx, found)
	}
	if err := found.own("restart"); err != nil {
		return neutral.Result{}, err
	}
	grace := int64(gracePeriod(found.pod) / time.Second)
	if stop := a.op.Stop; stop != nil {
		if stop.Timeout != nil && *stop.Timeout >= 0 {
			grace = int64(*stop.Timeout)
		}
		if stop.Signal != "" && !found.frozen() {
			if _, err := a.sendFirst(ctx, found, stop.Signal); err != nil {
				return neutral.Result{}, err
			}
		}
	}
	if err := a.replacePod(ctx, found.pod, successor(found.pod), max(grace, 1)); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{ID: found.ID, Losses: []neutral.Loss{newLayer}}, a.awaitStart(ctx, found)
}
