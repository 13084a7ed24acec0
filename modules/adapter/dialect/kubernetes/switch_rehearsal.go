package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// What the cluster would say to a switch is asked of the cluster itself, in dry runs.

// patchOp is a step of a JSON patch. Steps that take away have no value.
type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

var annotationSwitchPath = "/metadata/annotations/" + strings.ReplaceAll(annotationSwitch, "/", "~1")

// leaseOps set or take away the annotation that tells of a switch.
func leaseOps(object *unstructured.Unstructured, lease string) []patchOp {
	_, there := object.GetAnnotations()[annotationSwitch]
	switch {
	case lease == "" && there:
		return []patchOp{{Op: "remove", Path: annotationSwitchPath}}
	case lease == "":
		return nil
	case object.GetAnnotations() == nil:
		return []patchOp{{Op: "add", Path: "/metadata/annotations", Value: map[string]string{annotationSwitch: lease}}}
	}
	return []patchOp{{Op: "add", Path: annotationSwitchPath, Value: lease}}
}

// switchOps are the patch that brings a workload into its new mode.
func switchOps(object *unstructured.Unstructured, template, strategy map[string]any, lease string) []patchOp {
	ops := leaseOps(object, lease)
	ops = append(ops, patchOp{Op: "replace", Path: "/spec/template", Value: template})
	field := switchedKinds[object.GetKind()].strategy
	if !sameNative(replica.Object(object.Object, "spec", field), strategy) {
		ops = append(ops, patchOp{Op: "replace", Path: "/spec/" + field, Value: strategy})
	}
	return ops
}

// patchNative changes an object as it was read, and no other: the API refuses a patch with a version that is not the object's.
func (c *Cluster) patchNative(ctx context.Context, object *unstructured.Unstructured, ops []patchOp, dryRun bool) (*unstructured.Unstructured, error) {
	ops = append(slices.Clone(ops), patchOp{Op: "add", Path: "/metadata/resourceVersion", Value: object.GetResourceVersion()})
	body, err := json.Marshal(ops)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	options := metav1.PatchOptions{FieldManager: fieldManager}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resource := switchedKinds[object.GetKind()].resource
	next, err := c.dynamic.Resource(resource).Namespace(object.GetNamespace()).Patch(ctx, object.GetName(), types.JSONPatchType, body, options)
	return next, nativeFault(err)
}

// rehearsePatch has the API say what it makes of a workload's patch, and notes it.
func (c *Cluster) rehearsePatch(ctx context.Context, s *switchSubject) error {
	field := switchedKinds[s.note.Kind].strategy
	s.note.Template = replica.Object(s.owner.Object, "spec", "template")
	s.note.Strategy = replica.Object(s.owner.Object, "spec", field)
	template, _ := replica.Clone(s.note.Template).(map[string]any)
	template["spec"] = withMode(s.spec, s.to)
	answer, err := c.patchNative(ctx, s.owner, switchOps(s.owner, template, oldFirst(s.note.Kind, s.note.Strategy), "rehearsal"), true)
	if err != nil {
		return err
	}
	s.note.Wrote = replica.Object(answer.Object, "spec", "template")
	s.note.WroteStrategy = replica.Object(answer.Object, "spec", field)
	return nil
}

// mayCreatePods tells whether the dry run of a Pod says anything.
func (c *Cluster) mayCreatePods(ctx context.Context, namespace string) (bool, error) {
	return c.may(ctx, authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Namespace: namespace})
}

// rehearseCreation has the API say whether it would take a Pod, under a name that is free.
func (c *Cluster) rehearseCreation(ctx context.Context, made map[string]any) error {
	object, _ := replica.Clone(made).(map[string]any)
	metadata := replica.Object(object, "metadata")
	name := replica.Text(metadata, "name")
	metadata["generateName"] = strings.TrimRight(name[:min(len(name), 50)], "-.") + "-"
	delete(metadata, "name")
	_, err := c.createPod(ctx, object, metav1.CreateOptions{FieldManager: fieldManager, DryRun: []string{metav1.DryRunAll}})
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota") {
		return nil // the old Pod is in the quota, and gone by then
	}
	return nativeFault(err)
}

func (c *Cluster) createPod(ctx context.Context, made map[string]any, options metav1.CreateOptions) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	namespace := replica.Text(made, "metadata", "namespace")
	return c.dynamic.Resource(corePods).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: made}, options)
}

// rehearseDeletion has the API say whether a Pod may be deleted, and whether a PodDisruptionBudget is against it where the
// peer may ask that.
func (c *Cluster) rehearseDeletion(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pods := c.client.CoreV1().Pods(pod.Namespace)
	dry := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}, Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	if err := pods.Delete(ctx, pod.Name, dry); err != nil {
		return nativeFault(err)
	}
	err := pods.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, DeleteOptions: &dry})
	switch {
	case apierrors.IsTooManyRequests(err):
		return fault.Wrap(fault.Conflict, err, "a PodDisruptionBudget does not let pod %s go", pod.Name)
	case apierrors.IsForbidden(err):
		return nil
	}
	return nativeFault(err)
}

// surveyPorts counts the nodes on which the ports of the new mode are free, as far as Pods say what they take.
func (c *Cluster) surveyPorts(ctx context.Context, s *switchSubject) error {
	nodes := []string{s.note.Node}
	switch s.note.Kind {
	case kindPod:
	case kindDaemonSet:
		nodes = nil
		for i := range s.pods {
			nodes = append(nodes, s.pods[i].Spec.NodeName)
		}
	default:
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		list, err := c.client.CoreV1().Nodes().List(call, metav1.ListOptions{ResourceVersion: "0"})
		if apierrors.IsForbidden(err) {
			return nil // the scheduler will tell
		}
		if err != nil {
			return nativeFault(err)
		}
		nodes = nil
		for i := range list.Items {
			if !list.Items[i].Spec.Unschedulable {
				nodes = append(nodes, list.Items[i].Name)
			}
		}
	}
	ports := hostPortsOf(s.spec, s.need.Port)
	own := map[types.UID]bool{}
	for i := range s.pods {
		own[s.pods[i].UID] = true
	}
	takenBy := map[string]map[hostPortKey]bool{}
	for _, object := range c.pods.informer.GetStore().List() {
		if pod, ok := object.(*corev1.Pod); ok && !own[pod.UID] {
			takePorts(takenBy, pod, ports)
		}
	}
	s.free = 0
	taken := map[string]bool{}
	for _, node := range nodes {
		if len(takenBy[node]) == 0 {
			s.free++
		}
		for port := range takenBy[node] {
			taken[fmt.Sprintf("%d/%s", port.port, strings.ToLower(port.protocol))] = true
		}
	}
	for port := range taken {
		s.taken = append(s.taken, port)
	}
	slices.Sort(s.taken)
	return nil
}

// takePorts notes which of some ports a Pod takes of its node.
func takePorts(takenBy map[string]map[hostPortKey]bool, pod *corev1.Pod, wanted map[hostPortKey]bool) {
	if terminal(pod) {
		return
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for _, port := range containers[i].Ports {
				number := int64(port.HostPort)
				if number == 0 && pod.Spec.HostNetwork {
					number = int64(port.ContainerPort)
				}
				key := hostPortKey{number, string(port.Protocol)}
				if key.protocol == "" {
					key.protocol = "TCP"
				}
				if number == 0 || !wanted[key] {
					continue
				}
				if takenBy[pod.Spec.NodeName] == nil {
					takenBy[pod.Spec.NodeName] = map[hostPortKey]bool{}
				}
				takenBy[pod.Spec.NodeName][key] = true
			}
		}
	}
}
