package kubernetes

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A container's names on a network are endpoints of the network's Service, in an EndpointSlice of the Pod's own, which
// goes with the Pod. The gateway writes it when it starts a container, and looks after those of services' tasks, which
// come and go without it.

// slicesManager is who looks after the slices.
const slicesManager = "isthmus.io"

// namesOn are a Pod's names on a network, as far as name servers know such names.
func namesOn(pod *corev1.Pod, n neutral.NetworkAttachment) []string {
	name := pod.Labels[labelWorkload]
	if metav1.GetControllerOf(pod) == nil {
		name = displayName(pod, 0)
	}
	var names []string
	for _, candidate := range append([]string{name}, n.Aliases...) {
		candidate = strings.ToLower(candidate)
		if len(validation.IsDNS1123Label(candidate)) == 0 && !slices.Contains(names, candidate) {
			names = append(names, candidate)
		}
	}
	slices.Sort(names)
	return names
}

// nameSlices are the slices that a Pod is to have: none before it has an address.
func nameSlices(pod *corev1.Pod) []*discoveryv1.EndpointSlice {
	if pod.Status.PodIP == "" || !alive(pod) || pod.Spec.HostNetwork {
		return nil
	}
	family := discoveryv1.AddressTypeIPv4
	if strings.Contains(pod.Status.PodIP, ":") {
		family = discoveryv1.AddressTypeIPv6
	}
	var list []*discoveryv1.EndpointSlice
	for _, n := range networksFromMeta(pod.ObjectMeta) {
		legal, _ := legalNetwork(n.Name)
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name + "." + networkPrefix + legal, Namespace: pod.Namespace,
				Labels: map[string]string{discoveryv1.LabelServiceName: networkPrefix + legal, discoveryv1.LabelManagedBy: slicesManager,
					labelNetwork: "true"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
			AddressType: family,
		}
		for _, name := range namesOn(pod, n) {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{pod.Status.PodIP}, Hostname: &name})
		}
		if len(slice.Endpoints) > 0 {
			list = append(list, slice)
		}
	}
	return list
}

// writeNames makes a Pod's names what they are to be.
func (c *Cluster) writeNames(ctx context.Context, pod *corev1.Pod) error {
	if !onUserNetwork(pod.Labels) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	there, err := c.client.DiscoveryV1().EndpointSlices(pod.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelNetwork})
	if err != nil {
		return nativeFault(err)
	}
	return c.settleNames(ctx, pod, there.Items)
}

// settleNames makes the slices of a Pod those that it is to have. there are all slices of its namespace.
func (c *Cluster) settleNames(ctx context.Context, pod *corev1.Pod, there []discoveryv1.EndpointSlice) error {
	wanted := nameSlices(pod)
	client := c.client.DiscoveryV1().EndpointSlices(pod.Namespace)
	var failed error
	for i := range there {
		old := &there[i]
		if !strings.HasPrefix(old.Name, pod.Name+"."+networkPrefix) || slices.ContainsFunc(wanted, func(s *discoveryv1.EndpointSlice) bool {
			return s.Name == old.Name && s.AddressType == old.AddressType
		}) {
			continue
		}
		if err := client.Delete(ctx, old.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			failed = errors.Join(failed, nativeFault(err))
		}
	}
	for _, slice := range wanted {
		i := slices.IndexFunc(there, func(s discoveryv1.EndpointSlice) bool {
			return s.Name == slice.Name && s.AddressType == slice.AddressType
		})
		var err error
		switch {
		case i < 0:
			_, err = client.Create(ctx, slice, metav1.CreateOptions{FieldManager: fieldManager})
		case !reflect.DeepEqual(there[i].OwnerReferences, slice.OwnerReferences) || !sameNames(there[i].Endpoints, slice.Endpoints):
			slice.ResourceVersion = there[i].ResourceVersion
			_, err = client.Update(ctx, slice, metav1.UpdateOptions{FieldManager: fieldManager})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) { // another replica was faster
			failed = errors.Join(failed, nativeFault(err))
		}
	}
	return failed
}

// sameNames compares what settleNames writes; the API server adds conditions.
func sameNames(a, b []discoveryv1.Endpoint) bool {
	return slices.EqualFunc(a, b, func(x, y discoveryv1.Endpoint) bool {
		return slices.Equal(x.Addresses, y.Addresses) && x.Hostname != nil && y.Hostname != nil && *x.Hostname == *y.Hostname
	})
}

// reapNames looks after the names of all containers that are on networks, in the names of the peers that they are of.
func (c *Cluster) reapNames(ctx context.Context, peers []string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pods, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelNetworked})
	if err != nil || len(pods.Items) == 0 {
		return nativeFault(err)
	}
	there, err := c.client.DiscoveryV1().EndpointSlices(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelNetwork})
	if err != nil {
		return nativeFault(err)
	}
	var failed error
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil {
			continue
		}
		if as, ok := c.actingFor(ctx, pod.ObjectMeta, peers); ok {
			if err := c.settleNames(as, pod, there.Items); err != nil && !fault.Is(err, fault.Denied) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}
