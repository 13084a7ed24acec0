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
	if found.State.Status == neutral.StatusPaused && !options.Force {
		return neutral.Result{}, fault.New(fault.Conflict, "You cannot remove a paused container %s. Unpause and then stop the "+
			"container before attempting removal or force remove", found.ID)
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
	if err := a.awaitGone(wait, found.pod); err != nil || !options.Volumes {
		return result, err
	}
	return result, a.dropAnonymous(wait, found.pod)
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
		if c.State.Status == neutral.StatusPaused {
			continue // its processes ended by a pause, and it is to go on
		}
		if !filter.matches(&c) || !a.op.Until.IsZero() && !c.CreatedAt.Before(a.op.Until) || a.permit(containerObject(&c)) != nil {
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
	if err := c.dropAnonymous(context.WithoutCancel(ctx), pod); err != nil {
		c.log.Warn("the volumes of a container that ended are not removed", "container", pod.Name, "err", err)
	}
	return len(pod.Finalizers) == 0
}
