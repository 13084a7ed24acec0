package kubernetes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	// removePatience is how long a removal waits for the node to say that nothing runs any more.
	removePatience = 60 * time.Second
	// readersPatience is how long readers of a container that removes itself may take to read on.
	readersPatience = 10 * time.Second
)

// removeContainer deletes the Pod. One that runs is ended first, by the shortest grace period that a kubelet keeps, and
// the answer waits until its node says that nothing of it runs.
func (a *action) removeContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	options := neutral.RemoveOptions{}
	if a.op.Remove != nil {
		options = *a.op.Remove
	}
	if options.Link {
		return neutral.Result{}, fault.New(fault.Unsupported, "links are refused: Kubernetes has none")
	}
	if found.Owner != nil {
		return neutral.Result{}, belongs(found.Name, *found.Owner, "remove")
	}
	result := neutral.Result{ID: found.ID, Removed: []string{found.ID}}
	if found.Siblings > 0 {
		if !options.Force {
			return neutral.Result{}, fault.New(fault.Conflict, "cannot remove container %s: it shares the Pod %s with %d more; "+
				"force removes them together", found.Name, found.Pod, found.Siblings)
		}
		result.Losses = append(result.Losses, neutral.Loss{Field: "containers", Change: "removed with it: the rest of the Pod " + found.Pod,
			Reason: "the containers of a Pod live and end together"})
	}
	running := found.State.Status == neutral.StatusRunning || found.State.Status == neutral.StatusRestarting
	if running && !options.Force {
		return neutral.Result{}, fault.New(fault.Conflict, "You cannot remove a running container %s. "+
			"Stop the container before attempting removal or force remove", found.ID)
	}
	grace := int64(0)
	if alive(found.pod) {
		grace = 1
	}
	if err := a.deletePod(ctx, found.pod, grace); err != nil {
		return neutral.Result{}, err
	}
	wait, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	return result, a.awaitGone(wait, found.pod)
}

// pruneContainers removes what has ended.
func (a *action) pruneContainers(ctx context.Context) (neutral.Result, error) {
	filter, err := newContainerFilter(a.op.Filter)
	if err != nil {
		return neutral.Result{}, err
	}
	filter.All = true
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := a.client.CoreV1().Pods(a.namespace).List(call, metav1.ListOptions{})
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	result := neutral.Result{}
	for i := range list.Items {
		pod := &list.Items[i]
		if alive(pod) || pod.DeletionTimestamp != nil || metav1.GetControllerOf(pod) != nil || len(pod.Spec.Containers) != 1 {
			continue
		}
		c := containerFromPod(a.cluster, pod, 0, time.Now())
		if !filter.matches(&c) || !a.op.Until.IsZero() && !c.CreatedAt.Before(a.op.Until) || a.guard(containerObject(&c)) != nil {
			continue
		}
		if err := a.deletePod(ctx, pod, 0); err != nil {
			return result, err
		}
		result.Removed = append(result.Removed, c.ID)
	}
	return result, nil
}

// collect takes away a container that removes itself at its end, once nobody reads its output. It tells whether the
// container is gone; if not, the reaper tries again.
func (c *Cluster) collect(ctx context.Context, pod *corev1.Pod, id string) (gone bool) {
	c.audience.wait(ctx, id, readersPatience)
	if err := c.deletePod(context.WithoutCancel(ctx), pod, 0); err != nil {
		c.log.Warn("a container that ended is not removed yet", "container", pod.Name, "err", err)
		return false
	}
	return len(pod.Finalizers) == 0
}

const (
	reapInterval = 5 * time.Second
	// reapAge leaves time for what reads the end of a container: another replica's wait, a caller's last log line.
	reapAge = 20 * time.Second
)

// Reap removes containers that were to go at their end and that nobody waits for, and finishes replacements whose
// gateway died. All it knows stands in the cluster, so it can run in several gateways and be killed at any time. It
// ends with ctx, and with its error.
func (c *Cluster) Reap(ctx context.Context) error {
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	failed := false
	for {
		err := c.reapOnce(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			c.log.Warn("containers that ended are not removed", "err", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (c *Cluster) reapOnce(ctx context.Context) error {
	if err := c.recoverJournals(ctx); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.client.CoreV1().Pods(c.namespace).List(call, metav1.ListOptions{LabelSelector: labelAutoRemove + "=true"})
	if err != nil {
		return nativeFault(err)
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if !finished(pod) || metav1.GetControllerOf(pod) != nil || time.Since(endedAt(pod)) < reapAge {
			continue
		}
		c.collect(ctx, pod, containerID(c.cluster, pod, ""))
	}
	return nil
}

// endedAt is when the last container of a Pod ended, or when it was created if none ever ran.
func endedAt(pod *corev1.Pod) time.Time {
	at := pod.CreationTimestamp.Time
	for i := range pod.Status.ContainerStatuses {
		if t := pod.Status.ContainerStatuses[i].State.Terminated; t != nil && t.FinishedAt.After(at) {
			at = t.FinishedAt.Time
		}
	}
	return at
}
