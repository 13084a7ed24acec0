package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// resizePatience is how long a node may take to give a container what it was promised.
const resizePatience = 30 * time.Second

// updateContainer changes what a container may use while it runs. How it restarts is fixed when it is created.
//
// https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
func (a *action) updateContainer(ctx context.Context) (neutral.Result, error) {
	if a.op.Container == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "nothing to update was named")
	}
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := found.own("update"); err != nil {
		return neutral.Result{}, err
	}
	if wanted := a.op.Container.Restart; wanted.Mode != "" && wanted != found.Restart {
		return neutral.Result{}, refuse("RestartPolicy", "how a Pod restarts is fixed when it is created")
	}
	result := neutral.Result{ID: found.ID}
	resources, changed := resized(found.pod.Spec.Containers[found.index].Resources, a.op.Container.Resources)
	if !changed {
		return result, nil
	}
	if terminal(found.pod) {
		return neutral.Result{}, fault.New(fault.Conflict, "cannot update container %s: it has ended, and a Pod that ended changes no more", found.Name)
	}
	if found.pod.Status.QOSClass == corev1.PodQOSBestEffort {
		return neutral.Result{}, refuse("Resources", "it was made without limits of CPU and memory, and Kubernetes fixes with a Pod's creation whether it has any; "+
			"create it anew with limits")
	}
	former := found.pod.Spec.Containers[found.index].Resources
	generation, err := a.resize(ctx, found, resources)
	if err != nil || found.State.Status != neutral.StatusRunning {
		return result, err
	}
	err = a.awaitResize(ctx, found, generation)
	if errors.Is(err, errInfeasible) {
		// The node would try again whenever it has more to give, long after its caller was told that it cannot.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if _, failed := a.resize(undo, found, former); failed != nil {
			a.log.Warn("an update that no node can carry out is not taken back", "container", found.Name, "err", failed)
		}
	}
	return result, err
}

// resize asks for resources; generation tells when the node has seen that.
func (a *action) resize(ctx context.Context, found *located, resources corev1.ResourceRequirements) (generation int64, err error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": found.pod.UID},
		"spec": map[string]any{"containers": []map[string]any{{"name": found.native(), "resources": resources}}}})
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pod, err := a.client.CoreV1().Pods(found.pod.Namespace).Patch(ctx, found.pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager}, "resize")
	if apierrors.IsNotFound(err) {
		return 0, fault.Wrap(fault.Unsupported, err, "update is refused: this cluster's version cannot change what a Pod may use")
	}
	if err != nil {
		return 0, nativeFault(err)
	}
	return pod.Generation, nil
}

// errInfeasible marks what a node said that it cannot do.
var errInfeasible = errors.New("infeasible")

// least is what is reserved where a reservation must be told and none was asked for.
var least = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}

// resized gives the resources with what a caller wants changed. A reservation that was equal to its limit stays so,
// for the class of service that follows from it must stay the same.
func resized(now corev1.ResourceRequirements, wanted neutral.Resources) (corev1.ResourceRequirements, bool) {
	built := resourceRequirements(wanted)
	next := *now.DeepCopy()
	changed := false
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		was, limited := now.Limits[name]
		reserved, reserves := now.Requests[name]
		if limit, ok := built.Limits[name]; ok && limit.Cmp(was) != 0 {
			setResource(&next.Limits, name, limit)
			changed = true
			_, asked := built.Requests[name]
			switch {
			case asked:
			case limited && reserves && reserved.Cmp(was) == 0:
				setResource(&next.Requests, name, limit)
			case !reserves && len(now.Requests) > 0: // left out, it would be the limit, and the class another one
				setResource(&next.Requests, name, least[name])
			}
		}
		if request, ok := built.Requests[name]; ok && request.Cmp(reserved) != 0 {
			setResource(&next.Requests, name, request)
			changed = true
		}
	}
	return next, changed
}

// awaitResize waits until the node has done it, or says that it will not.
func (a *action) awaitResize(ctx context.Context, found *located, generation int64) error {
	wait, cancel := context.WithTimeout(ctx, resizePatience)
	defer cancel()
	err := a.followPod(wait, found.pod.Namespace, found.pod.Name, func(pod *corev1.Pod) (bool, error) {
		if pod == nil || pod.UID != found.pod.UID || terminal(pod) {
			return true, fault.New(fault.Conflict, "container %s ended while it was updated", found.Name)
		}
		for _, condition := range pod.Status.Conditions {
			switch condition.Type {
			case corev1.PodResizePending:
				if condition.Reason == corev1.PodReasonInfeasible {
					return true, fault.Wrap(fault.Conflict, errInfeasible, "the node of container %s cannot give it that: %s", found.Name, condition.Message)
				}
				return false, nil
			case corev1.PodResizeInProgress:
				return false, nil
			}
		}
		return pod.Status.ObservedGeneration >= generation, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fault.New(fault.Timeout, "container %s is being updated, and its node does not say that it has been", found.Name)
	}
	return err
}
