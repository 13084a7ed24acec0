package kubernetes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	exportTrue = "true" // the value of the label isthmus.io/export that offers what carries it
	// annotationPorts says which ports a pod offers where its containers do not declare them, or not these:
	// "[name=]number[/protocol], ...".
	annotationPorts = "isthmus.io/ports"
)

// problem is why an export is not offered; "" for none.
type problem string

const (
	problemNoService    problem = "there is no Service of that name"
	problemExternalName problem = "a Service of type ExternalName leads out of the cluster"
	problemNoPorts      problem = "it declares no port"
	problemPorts        problem = "the annotation " + annotationPorts + " is not valid"
)

// serviceEntry is a Service with the endpoints that serve it now.
func serviceEntry(svc *corev1.Service, all []*discoveryv1.EndpointSlice, podOf func(*corev1.ObjectReference) *corev1.Pod) (neutral.Service, problem) {
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return neutral.Service{}, problemExternalName
	case len(svc.Spec.Ports) == 0:
		return neutral.Service{}, problemNoPorts
	}
	entry := neutral.Service{Namespace: svc.Namespace, Name: svc.Name, Labels: svc.Labels}
	family := familyOf(svc, all)
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		port := neutral.ServicePort{
			Name: p.Name, Number: uint16(p.Port), Protocol: protocol(p.Protocol), App: app(p.AppProtocol, p.Name, p.Protocol),
		}
		for _, slice := range all {
			if slice.AddressType == family {
				port.Endpoints = appendReady(port.Endpoints, slice, p, podOf)
			}
		}
		slices.SortFunc(port.Endpoints, netip.AddrPort.Compare)
		port.Endpoints = slices.Compact(port.Endpoints)
		entry.Ports = append(entry.Ports, port)
	}
	sortPorts(entry.Ports)
	return entry, ""
}

// familyOf is the one address family that is used: a dual-stack service has each pod twice, once a family.
func familyOf(svc *corev1.Service, all []*discoveryv1.EndpointSlice) discoveryv1.AddressType {
	preferred := discoveryv1.AddressTypeIPv4
	if len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol {
		preferred = discoveryv1.AddressTypeIPv6
	}
	other := preferred
	for _, slice := range all {
		switch slice.AddressType {
		case preferred:
			return preferred
		case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
			other = slice.AddressType
		default: // names of hosts are not followed
		}
	}
	return other
}

// appendReady adds the slice's ready endpoints for one port of its service. A container that stands still is none:
// Kubernetes does not know that it does.
func appendReady(endpoints []netip.AddrPort, slice *discoveryv1.EndpointSlice, p *corev1.ServicePort, podOf func(*corev1.ObjectReference) *corev1.Pod) []netip.AddrPort {
	for _, sp := range slice.Ports {
		if sp.Port == nil || *sp.Port < 1 || *sp.Port > 65535 || deref(sp.Name) != p.Name ||
			protocol(deref(sp.Protocol)) != protocol(p.Protocol) {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue // nil is to be read as ready
			}
			if pod := podOf(e.TargetRef); pod != nil && stillAt(pod, uint16(*sp.Port)) {
				continue
			}
			for _, a := range e.Addresses {
				if addr, ok := servable(a); ok {
					endpoints = append(endpoints, netip.AddrPortFrom(addr, uint16(*sp.Port)))
				}
			}
		}
	}
	return endpoints
}

// podEntry is a pod offered by its own name.
func podEntry(pod *corev1.Pod) (neutral.Service, problem) {
	entry := neutral.Service{Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels}
	if written, ok := pod.Annotations[annotationPorts]; ok {
		var err error
		if entry.Ports, err = parsePorts(written); err != nil {
			return neutral.Service{}, problemPorts
		}
	} else {
		for i := range pod.Spec.Containers {
			for _, p := range pod.Spec.Containers[i].Ports {
				entry.Ports = append(entry.Ports, neutral.ServicePort{
					Name: p.Name, Number: uint16(p.ContainerPort), Protocol: protocol(p.Protocol), App: app(nil, p.Name, p.Protocol),
				})
			}
		}
	}
	if len(entry.Ports) == 0 {
		return neutral.Service{}, problemNoPorts
	}
	sortPorts(entry.Ports)
	entry.Ports = slices.CompactFunc(entry.Ports, func(a, b neutral.ServicePort) bool {
		return a.Number == b.Number && a.Protocol == b.Protocol
	})
	namePorts(entry.Ports)
	if addr, ok := servable(pod.Status.PodIP); ok && podReady(pod) {
		for i := range entry.Ports {
			if stillAt(pod, entry.Ports[i].Number) {
				continue
			}
			entry.Ports[i].Endpoints = []netip.AddrPort{netip.AddrPortFrom(addr, entry.Ports[i].Number)}
		}
	}
	return entry, ""
}

// podReady tells whether a pod takes requests: it is ready and nobody has asked it to end.
func podReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning &&
		slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
}

// parsePorts reads "[name=]number[/protocol], ...".
func parsePorts(written string) ([]neutral.ServicePort, error) {
	var ports []neutral.ServicePort
	for item := range strings.SplitSeq(written, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, rest, named := strings.Cut(item, "=")
		if !named {
			name, rest = "", item
		} else if !isLabel(name) {
			return nil, fmt.Errorf("port %q: the name is not valid", item)
		}
		digits, proto, _ := strings.Cut(rest, "/")
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("port %q: the number is not valid", item)
		}
		p := corev1.Protocol(strings.ToUpper(proto))
		switch p {
		case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			return nil, fmt.Errorf("port %q: the protocol is not valid", item)
		}
		ports = append(ports, neutral.ServicePort{
			Name: name, Number: uint16(number), Protocol: protocol(p), App: app(nil, name, p),
		})
	}
	return ports, nil
}

func sortPorts(ports []neutral.ServicePort) {
	slices.SortStableFunc(ports, func(a, b neutral.ServicePort) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name))
	})
}

// namePorts makes the names of several ports unique, as a Service's are; a single port needs none.
func namePorts(ports []neutral.ServicePort) {
	if len(ports) < 2 {
		return
	}
	seen := map[string]bool{}
	for i := range ports {
		p := &ports[i]
		if p.Name == "" || seen[p.Name] {
			p.Name = fmt.Sprintf("port-%d-%s", p.Number, p.Protocol)
		}
		seen[p.Name] = true
	}
}

// servable reads an address that a service may be served from. The API server allows no loopback or link-local
// endpoint; should one come, it would lead to the gateway's own host.
func servable(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	addr = addr.Unmap()
	return addr, addr.Zone() == "" && !addr.IsLoopback() && !addr.IsUnspecified() && !addr.IsLinkLocalUnicast() && !addr.IsMulticast()
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(string(p))
}

// app is what a port speaks: what it says itself, else what its name begins with.
func app(said *string, name string, p corev1.Protocol) neutral.AppProtocol {
	switch {
	case protocol(p) != "tcp":
		return neutral.TCP
	case said != nil && *said != "":
		return neutral.AppProtocolOf(*said)
	}
	return neutral.AppProtocolOf(name)
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
