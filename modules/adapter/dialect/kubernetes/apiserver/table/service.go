package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func serviceCells(s *corev1.Service, now time.Time) []any {
	ip := none
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	}
	return []any{
		s.Name, string(s.Spec.Type), ip, externalIPs(s), or(servicePorts(s.Spec.Ports), none), since(s.CreationTimestamp.Time, now),
		labels.FormatLabels(s.Spec.Selector),
	}
}

// externalIPs are where a service is reached from outside.
func externalIPs(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		return or(strings.Join(append(balancers(s), s.Spec.ExternalIPs...), ","), "<pending>")
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return or(strings.Join(s.Spec.ExternalIPs, ","), none)
	default:
		return absent
	}
}

// balancers are the addresses of a service's load balancer, each once, sorted.
func balancers(s *corev1.Service) []string {
	var all []string
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if address := or(ingress.IP, ingress.Hostname); address != "" {
			all = append(all, address)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func servicePorts(ports []corev1.ServicePort) string {
	var all []string
	for _, p := range ports {
		number := strconv.Itoa(int(p.Port))
		if p.NodePort > 0 {
			number += ":" + strconv.Itoa(int(p.NodePort))
		}
		all = append(all, fmt.Sprintf("%s/%s", number, p.Protocol))
	}
	return strings.Join(all, ",")
}

func endpointSliceCells(s *discoveryv1.EndpointSlice, now time.Time) []any {
	var ports, addresses []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			ports = append(ports, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			ports = append(ports, *p.Name)
		default:
			ports = append(ports, "*")
		}
	}
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	return []any{s.Name, string(s.AddressType), firstOf(ports), firstOf(addresses), since(s.CreationTimestamp.Time, now)}
}
