package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sliceKind is which Pods are behind a Service. Their addresses are not told: an endpoint is a name.
type sliceKind struct{ *Server }

func (k sliceKind) project(w *world) []entry {
	pods := map[string][]*corev1.Pod{}
	for _, e := range podKind(k).project(w) {
		pod := e.object.(*corev1.Pod)
		pods[pod.Namespace] = append(pods[pod.Namespace], pod)
	}
	var all []entry
	for _, e := range serviceKind(k).project(w) {
		service := e.object.(*corev1.Service)
		if len(service.Spec.Selector) == 0 {
			continue
		}
		o := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeFQDN}
		o.Labels = withLabel(service.Labels, discoveryv1.LabelServiceName, service.Name)
		placed(o, w, sliceResource.Resource, string(service.UID), service.Namespace, service.Name+"-names", service.CreationTimestamp.Time)
		o.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(service, corev1.SchemeGroupVersion.WithKind("Service"))}
		for _, port := range service.Spec.Ports {
			name, protocol, number := port.Name, port.Protocol, port.Port
			o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number})
		}
		for _, pod := range pods[service.Namespace] {
			if selects(service.Spec.Selector, pod.Labels) {
				o.Endpoints = append(o.Endpoints, endpointOf(pod))
			}
		}
		all = append(all, entry{object: o, native: e.native})
	}
	return all
}

func endpointOf(pod *corev1.Pod) discoveryv1.Endpoint {
	ready := false
	for _, c := range pod.Status.Conditions {
		ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	terminating := pod.DeletionTimestamp != nil
	serving := ready
	ready = ready && !terminating
	node := pod.Spec.NodeName
	return discoveryv1.Endpoint{Addresses: []string{pod.Name}, NodeName: &node,
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
}
