package kubernetes

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// quiesced is what a pause by quiesce loses.
var quiesced = neutral.Loss{Field: "pause", Change: string(neutral.PauseQuiesce),
	Reason: "its processes end, what they held in memory and wrote outside volumes is lost, and an unpause starts it from its image"}

// pauseContainer pauses as policy says. By freeze an agent of the container's node stops its processes where they are; by
// quiesce they end, and the container is paused for its caller until somebody unpauses it.
func (a *action) pauseContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	switch found.State.Status {
	case neutral.StatusRunning:
	case neutral.StatusPaused:
		return neutral.Result{}, fault.New(fault.Conflict, "Container %s is already paused", found.ID)
	default:
		return neutral.Result{}, fault.New(fault.Conflict, "Container %s is not running", found.ID)
	}
	switch a.terms.Pause {
	case neutral.PauseQuiesce:
	case neutral.PauseRefuse:
		return neutral.Result{}, fault.New(fault.Denied, "no permission: the policy of this cluster refuses to pause container %s", found.Name)
	default:
		return a.freezeContainer(ctx, found)
	}
	if err := found.own("pause"); err != nil {
		return neutral.Result{}, err
	}
	if found.AutoRemove {
		return neutral.Result{}, fault.New(fault.Unsupported, "pause is refused: by quiesce the processes of a container end, and "+
			"container %s is removed when they do", found.Name)
	}
	result := neutral.Result{ID: found.ID, Losses: []neutral.Loss{quiesced}}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	return result, a.endNoted(ctx, found, gracePeriod(found.pod), map[string]any{annotationPaused: now})
}

// unpauseContainer starts what was paused.
func (a *action) unpauseContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.find(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if wished(found.pod, found.native()) || found.frozen() {
		return neutral.Result{ID: found.ID}, a.thawContainer(ctx, found)
	}
	if found.State.Status != neutral.StatusPaused {
		return neutral.Result{}, fault.New(fault.Conflict, "Container %s is not paused", found.ID)
	}
	return a.bring(ctx, found, map[string]string{annotationUnpaused: time.Now().UTC().Format(time.RFC3339Nano)})
}

// forgetPause makes of a paused container one that was stopped.
func (c *Cluster) forgetPause(ctx context.Context, pod *corev1.Pod) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, "annotations": map[string]any{
		annotationPaused: nil, annotationStopped: time.Now().UTC().Format(time.RFC3339Nano),
	}}})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return nativeFault(err)
}
