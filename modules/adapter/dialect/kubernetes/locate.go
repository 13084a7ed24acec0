package kubernetes

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Locate finds the pod, or the container of a pod, that an access names. A name stands for, in this order: the pod of
// that name; "<container>.<pod>"; "<pod>.<subdomain>" as headless Services name the pods of a StatefulSet; the pod
// that carries the name as its caller wrote it, where Kubernetes would not allow it.
func (c *Cluster) Locate(ctx context.Context, ref neutral.TargetRef) (neutral.Target, error) {
	namespace := ref.Namespace
	if namespace == "" {
		namespace = c.namespace
	}
	pod, container, err := c.find(ctx, namespace, ref)
	if err != nil {
		return neutral.Target{}, err
	}
	target, err := targetOf(pod, container)
	if err != nil {
		return neutral.Target{}, err
	}
	if ref.Node != "" && ref.Node != target.Node {
		// The node that does run it is not named: names of nodes are often addresses.
		return neutral.Target{}, fault.New(fault.Conflict, "container %q of namespace %q does not run on node %q",
			target.Object.Name, namespace, ref.Node)
	}
	return target, nil
}

// find gives the pod that ref names and the container in it, "" for the pod as a whole.
func (c *Cluster) find(ctx context.Context, namespace string, ref neutral.TargetRef) (*corev1.Pod, string, error) {
	name, container := ref.Pod, ref.Container
	if name == "" {
		name, container = ref.Container, ""
	}
	if !isLabel(namespace) || !isSegment(name) {
		return nil, "", fault.New(fault.Invalid, "the target names no container")
	}
	pod, err := c.pod(ctx, namespace, name)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return pod, container, err
	}
	if first, rest, ok := strings.Cut(name, "."); ok && container == "" {
		if p, rerr := c.pod(ctx, namespace, rest); rerr == nil {
			if hasContainer(p, first) {
				return p, first, nil
			}
		} else if !fault.Is(rerr, fault.NotFound) {
			return nil, "", rerr
		}
		if p, rerr := c.pod(ctx, namespace, first); rerr == nil && p.Spec.Subdomain != "" && p.Spec.Subdomain == rest {
			return p, "", nil
		}
	}
	if p := c.pods.named(namespace, name); p != nil {
		return p, container, nil
	}
	return nil, "", err
}

// pod gives a pod from the cache, or from the API when the cache has not seen it yet.
func (c *Cluster) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	if p := c.pods.get(namespace, name); p != nil {
		return p, nil
	}
	if !c.pods.mayExist(namespace, name) {
		return nil, noPod(namespace, name)
	}
	p, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.pods.missed(namespace, name)
		return nil, noPod(namespace, name)
	case err != nil:
		return nil, apiFault(err, "the container")
	}
	return p, nil
}

func noPod(namespace, name string) error {
	return fault.New(fault.NotFound, "no container %q in namespace %q", name, namespace)
}

// targetOf reads a pod, or one of its containers, as the target of an access.
func targetOf(pod *corev1.Pod, container string) (neutral.Target, error) {
	t := neutral.Target{
		Object: neutral.Object{
			Kind: neutral.KindContainer, Resource: coreGroup + "/pods",
			Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels,
		},
		Network: neutral.NetworkPod,
		Node:    pod.Spec.NodeName,
		Running: pod.Status.Phase == corev1.PodRunning,
	}
	if pod.Spec.HostNetwork {
		t.Network = neutral.NetworkHost
	}
	if container != "" {
		if !hasContainer(pod, container) {
			return neutral.Target{}, fault.New(fault.NotFound, "no container %q in pod %q of namespace %q",
				container, pod.Name, pod.Namespace)
		}
		t.Running = t.Running && containerRuns(pod, container)
	}
	if t.Running { // the address of a pod that ended may be another's by now
		if a, err := netip.ParseAddr(pod.Status.PodIP); err == nil {
			t.Address = a.Unmap()
		}
	}
	return t, nil
}

func hasContainer(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name }) ||
		slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

// containerRuns tells whether a container runs; a sidecar is an init container that keeps running.
func containerRuns(pod *corev1.Pod, name string) bool {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == name {
				return statuses[i].State.Running != nil
			}
		}
	}
	return false
}
