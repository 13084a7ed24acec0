package kubernetes

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

const (
	reapInterval = 5 * time.Second
	// reapAge leaves time for what reads the end of a container: another replica's wait, a caller's last log line.
	reapAge = 20 * time.Second
)

// Reap removes containers that were to go at their end and that nobody waits for, and finishes replacements whose
// gateway died. All it knows stands in the cluster, so it can run in several gateways and be killed at any time. It
// ends with ctx, and with its error.
//
// It acts in the name of the peer that left the work, so a peer that is no more leaves it for good.
func (c *Cluster) Reap(ctx context.Context, peers func() []string) error {
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	failed := false
	for {
		err := c.reapOnce(ctx, peers())
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

func (c *Cluster) reapOnce(ctx context.Context, peers []string) error {
	// What one of them cannot do holds up nothing of the others.
	unfinished := errors.Join(c.recoverAll(ctx, peers), c.reapNames(ctx, peers))
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.client.CoreV1().Pods(c.namespace).List(call, metav1.ListOptions{LabelSelector: labelAutoRemove + "=true"})
	if err != nil {
		return errors.Join(unfinished, nativeFault(err))
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if !finished(pod) || metav1.GetControllerOf(pod) != nil || time.Since(endedAt(pod)) < reapAge {
			continue
		}
		as, ok := c.actingFor(ctx, pod.ObjectMeta, peers)
		if !ok {
			continue
		}
		c.collect(as, pod, containerID(c.cluster, pod, ""))
	}
	return unfinished
}

// recoverAll finishes the replacements of every peer. One that has no rights to Secrets has none.
func (c *Cluster) recoverAll(ctx context.Context, peers []string) error {
	if !c.impersonate {
		return c.recoverJournals(ctx)
	}
	var failed error
	for _, peer := range peers {
		err := c.recoverJournals(dialect.WithActor(ctx, dialect.Actor{Peer: peer}))
		if err != nil && !fault.Is(err, fault.Denied) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// actingFor is the context in which work that was left on an object is done; ok false when the peer that left it is no
// more.
func (c *Cluster) actingFor(ctx context.Context, object metav1.ObjectMeta, peers []string) (as context.Context, ok bool) {
	if !c.impersonate {
		return ctx, true
	}
	peer := object.Annotations[annotationPeer]
	return dialect.WithActor(ctx, dialect.Actor{Peer: peer}), slices.Contains(peers, peer)
}

// leftBy notes on an object whose work it is part of.
func leftBy(ctx context.Context, object *metav1.ObjectMeta) {
	if actor, ok := dialect.ActorOf(ctx); ok {
		metav1.SetMetaDataAnnotation(object, annotationPeer, actor.Peer)
	}
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
