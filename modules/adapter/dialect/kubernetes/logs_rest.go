package kubernetes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// restPause is between two looks for more of the log of a run that is over.
	restPause = 200 * time.Millisecond
	// restLooks bounds them.
	restLooks = 10
	// restQuiet is how many in a row bring nothing before the log is complete.
	restQuiet = 2
)

// readRest gives what a run's log has after a position. The kubelet ends a log that is followed once the container's
// state is "exited", when the runtime may still be writing what the container left in its pipes.
func (c *Cluster) readRest(ctx context.Context, pod *corev1.Pod, instance string, window *logWindow, request corev1.PodLogOptions, position *logPosition) error {
	var failure, refused error
	request.Follow = false
	quiet := 0
	for look := 0; look < restLooks && quiet < restQuiet; look++ {
		if look > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(restPause):
			}
		}
		there, err := c.keepsLog(ctx, pod, instance, &request)
		if err == nil && !there {
			return nil
		}
		fresh := false
		if err == nil {
			err = c.readAfter(ctx, pod, request, position, func(at time.Time, data []byte) error {
				fresh = true
				refused = window.line(at, data)
				return refused
			})
		}
		switch {
		case refused != nil:
			return refused
		case ctx.Err() != nil:
			return ctx.Err()
		}
		failure = err
		if quiet++; fresh || err != nil {
			quiet = 0
		}
	}
	if failure != nil {
		return nativeFault(failure)
	}
	if quiet < restQuiet {
		c.log.Warn("a container's log goes on although it ended; what follows is left out", "pod", pod.Name)
	}
	return nil
}

// keepsLog tells whether the node still has the log of a run, and asks for the previous run when it is that by now.
func (c *Cluster) keepsLog(ctx context.Context, pod *corev1.Pod, instance string, request *corev1.PodLogOptions) (bool, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := c.client.CoreV1().Pods(pod.Namespace).Get(call, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case now.UID != pod.UID:
		return false, nil
	case logInstance(now, request.Container) == instance:
		request.Previous = false
		return true, nil
	}
	status := containerStatus(now, request.Container)
	request.Previous = true
	return status != nil && status.LastTerminationState.Terminated != nil && status.LastTerminationState.Terminated.ContainerID == instance, nil
}

// readAfter reads a log from a position on, which moves along.
func (c *Cluster) readAfter(ctx context.Context, pod *corev1.Pod, request corev1.PodLogOptions, position *logPosition, take func(time.Time, []byte) error) error {
	native := position.native(request)
	body, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, native).Stream(ctx)
	if apierrors.IsNotFound(err) {
		return nil // the Pod went meanwhile
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // nothing is to be done about a log that does not close
	return scanLog(body, native.SinceTime != nil, position.after(take))
}

// markEnd finds a log's present end, so that what comes after it is told from what was there before.
func (c *Cluster) markEnd(ctx context.Context, pod *corev1.Pod, request corev1.PodLogOptions, position *logPosition) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	one := int64(1)
	request.Follow, request.TailLines, request.SinceTime = false, &one, nil
	body, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &request).Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // nothing is to be done about a log that does not close
	return scanLog(body, false, func(at time.Time, data []byte) error {
		position.pass(at, data)
		return nil
	})
}
