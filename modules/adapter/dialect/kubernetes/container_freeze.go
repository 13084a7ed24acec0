package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	// freezePatience is how long an agent may take to answer.
	freezePatience = 10 * time.Second
	// leaseSkew is by how much the clocks of gateway and node may differ.
	leaseSkew = 15 * time.Second
	// wishAttempts bounds how often a wish is written again because the Pod changed meanwhile.
	wishAttempts = 8
)

// reportOf is what the agent of a Pod's node says of its containers.
func reportOf(pod *corev1.Pod) freezer.Report {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == freezer.Condition {
			report, err := freezer.ParseReport(c.Message)
			if err != nil {
				return nil
			}
			return report
		}
	}
	return nil
}

// frozen tells whether an agent holds the container that runs now.
func frozen(pod *corev1.Pod, name string) bool {
	status, answer := containerStatus(pod, name), reportOf(pod)[name]
	return status != nil && status.State.Running != nil && answer.State == freezer.Frozen && answer.Instance == status.ContainerID
}

// wished tells whether somebody waits for the container to be frozen, or wants that it stays so.
func wished(pod *corev1.Pod, name string) bool {
	wishes, err := freezer.ParseWishes(pod.Annotations[freezer.Annotation])
	wish, ok := wishes[name]
	if err != nil || !ok {
		return false
	}
	status, answer := containerStatus(pod, name), reportOf(pod)[name]
	if status == nil || status.State.Running == nil || wish.Instance != status.ContainerID {
		return false
	}
	if answer.Wish != wish.ID { // an agent that comes late refuses it
		return time.Since(wish.At).Abs() <= freezer.WishLifetime+leaseSkew
	}
	return answer.State == freezer.Frozen
}

// still tells whether no request should go to a container: it stands still, or is about to.
func still(pod *corev1.Pod, name string) bool { return frozen(pod, name) || wished(pod, name) }

// stillAt tells it of a port of a Pod: of that of the container that declares it, or of any where none does.
func stillAt(pod *corev1.Pod, port uint16) bool {
	if pod.Annotations[freezer.Annotation] == "" && reportOf(pod) == nil {
		return false
	}
	any := false
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		stands := still(pod, c.Name)
		any = any || stands
		for _, p := range c.Ports {
			if uint16(p.ContainerPort) == port {
				return stands
			}
		}
	}
	return any
}

// frozen tells whether the container is paused by freeze, quiesced whether by quiesce.
func (l *located) frozen() bool {
	return l.State.Status == neutral.StatusPaused && frozen(l.pod, l.native())
}

func (l *located) quiesced() bool { return l.State.Status == neutral.StatusPaused && !l.frozen() }

// takes says whether something can be done inside the container.
func (l *located) takes(what string) error {
	switch l.State.Status {
	case neutral.StatusRunning:
		return nil
	case neutral.StatusPaused:
		return fault.New(fault.Conflict, "Container %s is paused, unpause the container before %s", l.ID, what)
	}
	return fault.New(fault.Conflict, "container %s is not running", l.ID)
}

// freezeContainer has the agent of the container's node freeze it.
func (a *action) freezeContainer(ctx context.Context, found *located) (neutral.Result, error) {
	if found.Owner != nil {
		return neutral.Result{}, belongs(found.Name, *found.Owner, "pause")
	}
	if !a.agentThere(ctx, found.pod.Spec.NodeName) {
		return neutral.Result{}, noAgent(fault.Unsupported, found.Name)
	}
	id, err := newNonce()
	if err != nil {
		return neutral.Result{}, err
	}
	name, instance := found.native(), ""
	if status := containerStatus(found.pod, name); status != nil {
		instance = status.ContainerID
	}
	wish := freezer.Wish{ID: id, Instance: instance, At: time.Now().UTC()}
	if _, err := freezer.ParseWishes(freezer.Wishes{name: wish}.String()); err != nil {
		return neutral.Result{}, fault.Wrap(fault.Unsupported, err, "pause is refused: the node of container %s runs it by another runtime than containerd", found.Name)
	}
	if err := a.wish(ctx, found.pod, func(wishes freezer.Wishes) { wishes[name] = wish }); err != nil {
		return neutral.Result{}, err
	}
	if err := a.awaitFrozen(ctx, found, wish); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if left := a.wish(undo, found.pod, func(wishes freezer.Wishes) {
			if wishes[name].ID == id {
				delete(wishes, name)
			}
		}); left != nil {
			a.log.Warn("the wish that a container be frozen is not taken back", "container", found.Name, "err", left)
		}
		return neutral.Result{}, err
	}
	return neutral.Result{ID: found.ID}, nil
}

// awaitFrozen waits for the agent's answer to a wish.
func (a *action) awaitFrozen(ctx context.Context, found *located, wish freezer.Wish) error {
	wait, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	err := a.followPod(wait, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil || pod.UID != found.pod.UID {
			return true, fault.New(fault.NotFound, "No such container: %s", found.Name)
		}
		answer := reportOf(pod)[found.native()]
		if answer.Wish != wish.ID {
			return false, nil
		}
		switch answer.State {
		case freezer.Frozen:
			return true, nil
		case freezer.Ended:
			return true, fault.New(fault.Conflict, "Container %s is not running", found.ID)
		case freezer.Resumed:
			return true, fault.New(fault.Conflict, "container %s was paused, and somebody on its node resumed it", found.Name)
		}
		return true, fault.New(fault.Conflict, "cannot pause container %s: %s", found.Name, answer.Reason)
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		a.log.Warn("the agent of a node does not answer", "node", found.pod.Spec.NodeName, "container", found.Name)
		return noAgent(fault.Unavailable, found.Name)
	}
	return err
}

// thawContainer takes the wish for a container away and waits until it goes on.
func (a *action) thawContainer(ctx context.Context, found *located) error {
	name := found.native()
	if err := a.wish(ctx, found.pod, func(wishes freezer.Wishes) { delete(wishes, name) }); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	err := a.followPod(wait, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		return pod == nil || pod.UID != found.pod.UID || !frozen(pod, name), nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		a.log.Warn("the agent of a node does not answer", "node", found.pod.Spec.NodeName, "container", found.Name)
		return fault.New(fault.Unavailable, "container %s stays paused: no isthmus agent answers on its node; it goes on as soon as one does",
			found.Name)
	}
	return err
}

// noAgent does not name the node: names of nodes are often addresses.
func noAgent(kind fault.Kind, container string) error {
	return fault.New(kind, "pause is refused: Kubernetes has no call that freezes a container, and no isthmus agent answers on the node "+
		"of container %s; run isthmus agent there, or a policy with pause: quiesce ends its processes and starts it again at unpause", container)
}

// wish changes what is wished of a Pod's containers.
func (c *Cluster) wish(ctx context.Context, pod *corev1.Pod, change func(freezer.Wishes)) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pods := c.client.CoreV1().Pods(pod.Namespace)
	for attempt := 1; ; attempt++ {
		now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && now.UID != pod.UID:
			return fault.New(fault.NotFound, "No such container: %s", displayName(pod, 0))
		case err != nil:
			return nativeFault(err)
		}
		before, err := freezer.ParseWishes(now.Annotations[freezer.Annotation])
		if err != nil {
			before = nil // an agent does not read it either
		}
		wishes := freezer.Wishes{}
		maps.Copy(wishes, before)
		change(wishes)
		if err == nil && maps.Equal(before, wishes) {
			return nil
		}
		var text any
		if len(wishes) > 0 {
			text = wishes.String()
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": now.UID, "resourceVersion": now.ResourceVersion,
			"annotations": map[string]any{freezer.Annotation: text}}})
		if err != nil {
			return fault.Wrap(fault.Internal, err, "a patch cannot be written")
		}
		_, err = pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		if !apierrors.IsConflict(err) || attempt == wishAttempts {
			return nativeFault(err)
		}
	}
}

// agentThere tells whether a node's agent says that it is there. Who looks is the gateway: where agents are is no
// peer's business.
func (c *Cluster) agentThere(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(asGateway(ctx), callTimeout)
	defer cancel()
	lease, err := c.client.CoordinationV1().Leases(c.agents).Get(ctx, freezer.LeasePrefix+node, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			c.log.Warn("whether a node has an agent is not known", "node", node, "namespace", c.agents, "err", err)
		}
		return false
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder == "" || lease.Spec.RenewTime == nil {
		return false
	}
	return time.Since(lease.Spec.RenewTime.Time) < freezer.LeaseLifetime+leaseSkew
}
