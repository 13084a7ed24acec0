package kubernetes

import (
	"cmp"
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
// that name; "<container>.<pod>"; "<pod>.<container>" as docker's callers see it; "<pod>.<subdomain>" as headless
// Services name the pods of a StatefulSet; the pod that carries the name as its caller wrote it, where Kubernetes would
// not allow it.
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

// reading is one thing that a name may stand for.
type reading struct {
	pod, container, subdomain string
}

func (r reading) fits(pod *corev1.Pod) bool {
	return (r.container == "" || hasContainer(pod, r.container)) && (r.subdomain == "" || pod.Spec.Subdomain == r.subdomain)
}

// find gives the pod that ref names and the container in it, "" for the pod as a whole. The cache is searched for
// every reading of the name before the API is asked for any; a cache that is cut off is not searched.
func (c *Cluster) find(ctx context.Context, namespace string, ref neutral.TargetRef) (*corev1.Pod, string, error) {
	name, container := ref.Pod, ref.Container
	if name == "" {
		name, container = ref.Container, ""
	}
	if !isLabel(namespace) || !isSegment(name) {
		return nil, "", fault.New(fault.Invalid, "the target names no container")
	}
	readings := []reading{{pod: name}}
	if first, rest, ok := strings.Cut(name, "."); ok && container == "" && first != "" && rest != "" {
		last := strings.LastIndexByte(name, '.')
		readings = append(readings, reading{pod: rest, container: first},
			reading{pod: name[:last], container: name[last+1:]}, reading{pod: first, subdomain: rest})
	}
	if c.pods.fresh() {
		for _, r := range readings {
			if p := c.pods.get(namespace, r.pod); p != nil && r.fits(p) {
				return p, cmp.Or(container, r.container), nil
			}
		}
		if p := c.pods.named(namespace, name); p != nil {
			return p, container, nil
		}
	}
	for _, r := range readings {
		switch p, err := c.ask(ctx, namespace, r.pod); {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return nil, "", err
		case r.fits(p):
			return p, cmp.Or(container, r.container), nil
		}
	}
	return nil, "", noPod(namespace, name)
}

// ask gives a pod from the API, for when the cache has not seen it yet.
func (c *Cluster) ask(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	if !c.pods.mayExist(namespace, name) {
		return nil, noPod(namespace, name)
	}
	p, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		c.pods.missed(namespace, name)
		return nil, noPod(namespace, name)
	case err != nil:
		return nil, nativeFault(err)
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
			Namespace: pod.Namespace, Name: pod.Name, Labels: labelsFromMeta(pod.ObjectMeta),
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
		t.Container = container
		t.Running = t.Running && containerRuns(pod, container)
	}
	t.Running = t.Running && !stands(pod, container)
	if t.Running { // the address of a pod that ended may be another's by now
		if a, err := netip.ParseAddr(pod.Status.PodIP); err == nil {
			t.Address = a.Unmap()
		}
	}
	return t, nil
}

// stands tells whether a container stands still, or all of a Pod's do where none is named.
func stands(pod *corev1.Pod, container string) bool {
	if container != "" {
		return still(pod, container)
	}
	return len(pod.Spec.Containers) > 0 && !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return !still(pod, c.Name) })
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
