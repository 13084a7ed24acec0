package kubernetes

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// A Pod that nothing keeps is made anew under its name, there and back; while there is none, it is in the journal:
//
//	the old one --deletion--> none --creation--> ours --deletion--> none --creation--> one as the old one
//
// A Pod of the name that is neither was made by somebody else, and stays.

var replacingPath = "/metadata/annotations/" + strings.ReplaceAll(annotationReplacing, "/", "~1")

// addressNotes are what networks write of a Pod's address on it.
var addressNotes = []string{"cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs", "cni.projectcalico.org/containerID",
	"k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status", "k8s.ovn.org/pod-networks"}

// newPodObject is what a Pod like this one is made by, on the same node.
func newPodObject(pod *unstructured.Unstructured) map[string]any {
	was, _ := replica.Clone(pod.Object).(map[string]any)
	metadata := map[string]any{}
	for _, key := range []string{"name", "namespace", "generateName", "labels", "annotations", "ownerReferences"} {
		if value, ok := replica.Object(was, "metadata")[key]; ok {
			metadata[key] = value
		}
	}
	if annotations := replica.Object(metadata, "annotations"); annotations != nil {
		for _, key := range append([]string{annotationSwitch, annotationReplacing}, addressNotes...) {
			delete(annotations, key)
		}
		if len(annotations) == 0 {
			delete(metadata, "annotations")
		}
	}
	spec := replica.Object(was, "spec")
	delete(spec, "ephemeralContainers") // no Pod is made with them
	return map[string]any{"apiVersion": "v1", "kind": kindPod, "metadata": metadata, "spec": spec}
}

// switched is the Pod in the new mode.
func (r *switchRun) switched() map[string]any {
	made, _ := replica.Clone(r.note.Object).(map[string]any)
	made["spec"] = withMode(replica.Object(made, "spec"), r.switching.Plan.To)
	metadata := replica.Object(made, "metadata")
	annotations := replica.Object(metadata, "annotations")
	if annotations == nil {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	annotations[annotationSwitch] = r.switching.ID
	return made
}

func (r *switchRun) takenByAnother() error {
	return fault.New(fault.Conflict, "pod %s is another one by now, which somebody else made", r.note.Name)
}

// original tells whether a Pod is the very one that was planned for.
func (r *switchRun) original(pod *unstructured.Unstructured) bool {
	return string(pod.GetUID()) == r.note.UID
}

// switchPod makes a Pod anew in its new mode.
func (r *switchRun) switchPod(ctx context.Context) (*corev1.Pod, error) {
	for {
		live, err := r.current(ctx)
		switch {
		case err != nil:
			return nil, err
		case live == nil && !r.note.Ending:
			return nil, r.removed()
		case live == nil:
			if err := r.create(ctx, r.switched(), "creation of pod "+r.note.Name+" in the network mode "+string(r.switching.Plan.To)); err != nil {
				return nil, err
			}
		case r.original(live):
			if err := r.end(ctx, live, r.switched()); err != nil {
				return nil, err
			}
		case r.ours(live) && live.GetDeletionTimestamp() == nil:
			if r.note.Ending { // from now on it is somebody else who removes it
				r.note.Ending = false
				if err := r.step(ctx, "start of pod "+r.note.Name, true); err != nil {
					return nil, err
				}
			}
			return r.awaitPod(ctx, string(live.GetUID()), false)
		case r.ours(live):
			return nil, r.removed()
		default:
			return nil, r.takenByAnother()
		}
	}
}

// restorePod makes a Pod anew as it was.
func (r *switchRun) restorePod(ctx context.Context) error {
	for {
		live, err := r.current(ctx)
		switch {
		case err != nil:
			return err
		case live == nil && !r.note.Ending:
			return r.removed()
		case live == nil:
			if err := r.create(ctx, r.note.Object, "creation of pod "+r.note.Name+" as it was"); err != nil {
				return err
			}
		case r.original(live) && live.GetDeletionTimestamp() == nil:
			if err := r.unmark(ctx, live); !fault.Is(err, fault.Conflict) {
				return err
			}
		case r.original(live), r.ours(live):
			if r.ours(live) && live.GetDeletionTimestamp() == nil {
				r.takeOver(live)
			}
			if err := r.end(ctx, live, r.note.Object); err != nil {
				return err
			}
		case string(live.GetUID()) == r.made, r.asItWas(live):
			if live.GetDeletionTimestamp() != nil {
				return r.removed()
			}
			_, err := r.awaitPod(ctx, string(live.GetUID()), true)
			return err
		default:
			return r.takenByAnother()
		}
	}
}

// asItWas tells whether a Pod is one that a restoration made.
func (r *switchRun) asItWas(live *unstructured.Unstructured) bool {
	return sameNative(newPodObject(live), r.note.Object)
}

// takeOver notes what may be changed of a Pod while it is, and what somebody did change meanwhile.
func (r *switchRun) takeOver(live *unstructured.Unstructured) {
	now, wrote := newPodObject(live), r.switched()
	metadata, was := replica.Object(r.note.Object, "metadata"), replica.Object(wrote, "metadata")
	delete(replica.Object(was, "annotations"), annotationSwitch)
	for _, key := range []string{"labels", "annotations"} {
		after, _ := replica.Object(now, "metadata")[key].(map[string]any)
		before, _ := was[key].(map[string]any)
		changed, _ := metadata[key].(map[string]any)
		if changed == nil {
			changed = map[string]any{}
		}
		for name, value := range after {
			if before[name] != value {
				changed[name] = value
			}
		}
		for name := range before {
			if _, there := after[name]; !there {
				delete(changed, name)
			}
		}
		if len(changed) > 0 {
			metadata[key] = changed
		} else {
			delete(metadata, key)
		}
	}
	for _, list := range []string{"containers", "initContainers"} {
		images := map[string]any{}
		for _, element := range replica.List(now, "spec", list) {
			container, _ := element.(map[string]any)
			images[replica.Text(container, "name")] = container["image"]
		}
		for _, element := range replica.List(r.note.Object, "spec", list) {
			container, _ := element.(map[string]any)
			if image, ok := images[replica.Text(container, "name")]; ok {
				container["image"] = image
			}
		}
	}
	spec := replica.Object(r.note.Object, "spec")
	for _, key := range []string{"tolerations", "activeDeadlineSeconds"} {
		if value, ok := replica.Object(now, "spec")[key]; ok {
			spec[key] = value
		}
	}
}

// end deletes a Pod that its successor follows, and waits until it is gone. That the cluster takes the successor is asked
// before.
func (r *switchRun) end(ctx context.Context, live *unstructured.Unstructured, next map[string]any) error {
	pod, err := typedPod(live)
	if err != nil {
		return err
	}
	if pod.DeletionTimestamp != nil {
		if !r.note.Ending {
			return fault.New(fault.Conflict, "pod %s is being removed by somebody else", pod.Name)
		}
		return r.cluster.awaitGone(ctx, pod)
	}
	if err := r.cluster.rehearseCreation(ctx, next); err != nil {
		return unsettled(err)
	}
	r.note.Ending = true
	if err := r.step(ctx, "deletion of pod "+pod.Name, true); err != nil {
		return err
	}
	return unsettled(r.cluster.clearWay(ctx, pod, int64(gracePeriod(pod).Seconds())))
}

// unsettled makes of a conflict that the API tells of a reason to try again: whose change it was, the next look shows.
func unsettled(err error) error {
	if fault.Is(err, fault.Conflict) {
		return fault.Wrap(fault.Unavailable, err, "%s", fault.Of(err).Message)
	}
	return err
}

// create makes a Pod of a name that is free; that it is taken by then is found at the next look.
func (r *switchRun) create(ctx context.Context, made map[string]any, step string) error {
	if err := r.step(ctx, step, false); err != nil {
		return err
	}
	pod, err := r.cluster.createPod(ctx, made, metav1.CreateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return unsettled(nativeFault(err))
	}
	r.made = string(pod.GetUID())
	return nil
}

// unmark takes from a Pod that was not deleted what was to be known of its deletion.
func (r *switchRun) unmark(ctx context.Context, live *unstructured.Unstructured) error {
	if _, marked := live.GetAnnotations()[annotationReplacing]; !marked || !r.note.Ending {
		return nil
	}
	if err := r.step(ctx, "mark of pod "+r.note.Name, false); err != nil {
		return err
	}
	_, err := r.cluster.patchNative(ctx, live, []patchOp{{Op: "remove", Path: replacingPath}}, false)
	return err
}

// awaitPod waits until a Pod is ready.
func (r *switchRun) awaitPod(ctx context.Context, uid string, back bool) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := r.await(ctx, back, func(ctx context.Context) (look, error) {
		live, err := r.current(ctx)
		switch {
		case err != nil:
			return look{}, err
		case live == nil, live.GetDeletionTimestamp() != nil:
			return look{}, r.removed()
		case string(live.GetUID()) != uid:
			return look{}, r.takenByAnother()
		}
		if pod, err = typedPod(live); err != nil {
			return look{}, err
		}
		why, lasting := podHindrance(pod)
		return look{done: podReady(pod), why: why, lasting: lasting, final: terminal(pod)}, nil
	})
	return pod, err
}
