package kubernetes

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Lookup finds the labels of the object that a call of this dialect is about and, of pods and workloads, the spec of
// the container that conditions are evaluated over. The API is asked, not the cache: policy decides by what it says. A
// call about no single object (a list, a create) is given back as it is.
//
// Of several containers the spec is that of the one which the call names; where it names none, no single spec stands
// for them all and none is given, which allows nothing that depends on it.
func (c *Cluster) Lookup(ctx context.Context, op neutral.Operation) (neutral.Object, error) {
	object := op.Object
	if object.Name == "" {
		return object, nil
	}
	resource, err := c.resourceOf(op)
	if err != nil {
		return object, err
	}
	namespace := object.Namespace
	if object.Kind == neutral.KindNamespace { // its path names it as its own namespace, yet it is in none
		namespace = ""
	}
	switch {
	case resource.Group == "" && resource.Resource == "pods":
		pod, err := c.client.CoreV1().Pods(namespace).Get(ctx, object.Name, metav1.GetOptions{})
		if err != nil {
			return object, nativeFault(err)
		}
		object.Labels = labelsFromMeta(pod.ObjectMeta)
		if i, ok := containerIndex(&pod.Spec, op.Extra[extraContainer]); ok {
			container := containerFromPod(c.cluster, pod, i, time.Now())
			(&volumes{cluster: c}).resolve(ctx, namespace, &container)
			object.Container = &container
		}
	case object.Kind == neutral.KindWorkload:
		found, err := c.dynamic.Resource(resource).Namespace(namespace).Get(ctx, object.Name, metav1.GetOptions{})
		if err != nil {
			return object, nativeFault(err)
		}
		object.Labels = labelsFromMeta(metav1.ObjectMeta{Labels: found.GetLabels(), Annotations: found.GetAnnotations()})
		if object.Container, err = templateContainer(found); err != nil {
			return object, fault.Wrap(fault.Internal, err, "the orchestrator's answer could not be read")
		}
		(&volumes{cluster: c}).resolve(ctx, namespace, object.Container)
	default:
		found, err := c.metadata.Resource(resource).Namespace(namespace).Get(ctx, object.Name, metav1.GetOptions{})
		if err != nil {
			return object, nativeFault(err)
		}
		object.Labels = labelsFromMeta(found.ObjectMeta)
	}
	return object, nil
}

// containerIndex is the container that a call is about: the one it names, or the only one. Init and ephemeral
// containers have no spec that policy could be asked about.
func containerIndex(spec *corev1.PodSpec, name string) (int, bool) {
	if name == "" {
		return 0, len(spec.Containers) == 1
	}
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	return i, i >= 0
}

// templateContainer is the one container that a workload keeps running, nil when there are several.
func templateContainer(workload *unstructured.Unstructured) (*neutral.Container, error) {
	template, ok, err := nativeTemplate(workload)
	if err != nil || !ok {
		return nil, err
	}
	i, ok := containerIndex(&template.Spec, "")
	if !ok {
		return nil, nil
	}
	container := containerFromSpec(template.ObjectMeta, &template.Spec, i)
	container.Namespace, container.Name = workload.GetNamespace(), workload.GetName()
	return &container, nil
}

// nativeTemplate is the template of a workload's Pods.
func nativeTemplate(workload *unstructured.Unstructured) (template corev1.PodTemplateSpec, ok bool, err error) {
	path := []string{"spec", "template"}
	if workload.GetKind() == "CronJob" {
		path = []string{"spec", "jobTemplate", "spec", "template"}
	}
	written, ok, err := unstructured.NestedMap(workload.Object, path...)
	if err == nil && ok {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(written, &template)
	}
	return template, ok, err
}

// resourceOf is the API's own name of what an operation is about.
func (c *Cluster) resourceOf(op neutral.Operation) (schema.GroupVersionResource, error) {
	qualified := op.Object.Resource
	if qualified == "" && op.Object.Kind == neutral.KindContainer {
		qualified = coreGroup + "/pods"
	}
	group, rest, ok := strings.Cut(qualified, "/")
	resource, _, _ := strings.Cut(rest, "/") // without the subresource
	if !ok || group == "" || resource == "" {
		return schema.GroupVersionResource{}, fault.New(fault.Unsupported, "an object of kind %s cannot be looked up", op.Object.Kind)
	}
	if group == coreGroup {
		group = ""
	}
	if version := op.Extra[extraVersion]; version != "" {
		return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, nil
	}
	found, err := c.mapper.ResourceFor(schema.GroupVersionResource{Group: group, Resource: resource})
	if err != nil {
		return schema.GroupVersionResource{}, nativeFault(err)
	}
	return found, nil
}
