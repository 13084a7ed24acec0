package kubernetes

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	kindPod         = "Pod"
	kindDeployment  = "Deployment"
	kindStatefulSet = "StatefulSet"
	kindDaemonSet   = "DaemonSet"
	kindReplicaSet  = "ReplicaSet"
)

// switchedKind is a kind whose network mode is changed.
type switchedKind struct {
	resource schema.GroupVersionResource
	strategy string // the field of its spec that says how its Pods are replaced
}

var (
	apps          = schema.GroupVersion{Group: "apps", Version: "v1"}
	corePods      = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	replicaSets   = apps.WithResource("replicasets")
	switchedKinds = map[string]switchedKind{
		kindPod:         {corePods, ""},
		kindDeployment:  {apps.WithResource("deployments"), "strategy"},
		kindStatefulSet: {apps.WithResource("statefulsets"), "updateStrategy"},
		kindDaemonSet:   {apps.WithResource("daemonsets"), "updateStrategy"},
	}
)

// described names an object in a sentence.
func described(kind, name string) string { return strings.ToLower(kind) + " " + name }

// ownerStep is what the controller of an object means for a switch.
type ownerStep int

const (
	ownerNone    ownerStep = iota // the object is its own
	ownerActed                    // the controller is what a switch acts on, unless it has one itself
	ownerBetween                  // the controller is on the way to another
	ownerRefused
)

// judgeOwner says what the controller of an object of a kind means, with the reason where it cannot be acted on.
func judgeOwner(kind, name string, controller *metav1.OwnerReference) (ownerStep, string) {
	if controller == nil {
		if kind == kindReplicaSet {
			return ownerRefused, fmt.Sprintf("%s belongs to no deployment, and the Pods of a ReplicaSet do not follow a change of its template",
				described(kind, name))
		}
		return ownerNone, ""
	}
	group, _ := schema.ParseGroupVersion(controller.APIVersion)
	owner := described(controller.Kind, controller.Name)
	switch {
	case kind == kindPod && group.Group == apps.Group && controller.Kind == kindReplicaSet:
		return ownerBetween, ""
	case kind == kindPod && group.Group == apps.Group && (controller.Kind == kindStatefulSet || controller.Kind == kindDaemonSet),
		kind == kindReplicaSet && group.Group == apps.Group && controller.Kind == kindDeployment:
		return ownerActed, ""
	case controller.Kind == "Job" && group.Group == "batch":
		return ownerRefused, fmt.Sprintf("%s belongs to %s, and the template of a Job cannot be changed", described(kind, name), owner)
	case controller.Kind == "Node" && kind == kindPod:
		return ownerRefused, described(kind, name) + " is a static one of its node, which no API changes"
	}
	return ownerRefused, fmt.Sprintf("%s belongs to %s, whose controller would undo a change; it is not known how to ask it for one",
		described(kind, name), owner)
}

// ownerOf follows the controllers of a Pod to the last one. refusal says why that cannot be acted on.
func (c *Cluster) ownerOf(ctx context.Context, pod *unstructured.Unstructured) (owner *unstructured.Unstructured, refusal string, err error) {
	owner = pod
	for {
		controller := metav1.GetControllerOf(owner)
		step, refusal := judgeOwner(owner.GetKind(), owner.GetName(), controller)
		var resource schema.GroupVersionResource
		switch step {
		case ownerNone:
			return owner, "", nil
		case ownerRefused:
			return owner, refusal, nil
		case ownerBetween:
			resource = replicaSets
		case ownerActed:
			resource = switchedKinds[controller.Kind].resource
		}
		next, err := c.readNative(ctx, resource, pod.GetNamespace(), controller.Name)
		if err != nil {
			return nil, "", err
		}
		if next.GetUID() != controller.UID {
			return owner, fmt.Sprintf("%s belongs to a %s %s that is no more", described(owner.GetKind(), owner.GetName()),
				strings.ToLower(controller.Kind), controller.Name), nil
		}
		owner = next
	}
}

// readNative reads an object as the API has it.
func (c *Cluster) readNative(ctx context.Context, resource schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	object, err := c.dynamic.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	return object, nativeFault(err)
}

// podsOf are the Pods that a workload has now.
func (c *Cluster) podsOf(ctx context.Context, workload *unstructured.Unstructured) ([]corev1.Pod, error) {
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(replica.Object(workload.Object, "spec", "selector"), &selector); err != nil {
		return nil, unreadableObject(err)
	}
	selected, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil || selected.Empty() {
		return nil, unreadableObject(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := metav1.ListOptions{LabelSelector: selected.String()}
	owners := map[types.UID]bool{workload.GetUID(): true}
	if workload.GetKind() == kindDeployment {
		sets, err := c.client.AppsV1().ReplicaSets(workload.GetNamespace()).List(ctx, options)
		if err != nil {
			return nil, nativeFault(err)
		}
		for i := range sets.Items {
			if metav1.IsControlledBy(&sets.Items[i], workload) {
				owners[sets.Items[i].UID] = true
			}
		}
	}
	list, err := c.client.CoreV1().Pods(workload.GetNamespace()).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	var pods []corev1.Pod
	for i := range list.Items {
		if controller := metav1.GetControllerOf(&list.Items[i]); controller != nil && owners[controller.UID] {
			pods = append(pods, list.Items[i])
		}
	}
	return pods, nil
}

// podMode is the network mode of a Pod.
func podMode(pod *corev1.Pod) neutral.NetworkMode {
	if pod.Spec.HostNetwork {
		return neutral.NetworkHost
	}
	return neutral.NetworkPod
}

// typedPod reads a Pod.
func typedPod(object *unstructured.Unstructured) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		return nil, unreadableObject(err)
	}
	return &pod, nil
}
