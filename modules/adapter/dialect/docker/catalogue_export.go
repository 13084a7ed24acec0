package docker

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// export is one exported container, or one swarm service with all of its tasks. Exports of one name are one service.
type export struct {
	namespace string
	name      string // as the user wrote it
	labels    map[string]string
	ports     []exportPort
	standing  bool // is there without members: a swarm service scaled to nothing
	members   []member
}

// member is what serves an export: a container, or a port that the swarm publishes for it.
type member struct {
	id        string // of the container
	ready     bool
	ports     []exportPort
	address   netip.Addr
	published map[socket]netip.AddrPort // where address is not reachable
}

// endpoint is where a member serves a port.
func (m member) endpoint(s socket) (netip.AddrPort, bool) {
	if !m.ready {
		return netip.AddrPort{}, false
	}
	if m.address.IsValid() {
		return netip.AddrPortFrom(m.address, s.number), true
	}
	published, ok := m.published[s]
	return published, ok
}

type serviceKey struct{ namespace, name string }

// compile makes the catalogue of exports. Two names that become one DNS label are not mixed: the one that needed no
// change stays, else the first; complain hears of the others.
func compile(exports []export, complain func(about, message string)) []neutral.Service {
	groups := map[serviceKey][]export{} // by the names as written
	for _, e := range exports {
		key := serviceKey{e.namespace, e.name}
		groups[key] = append(groups[key], e)
	}
	taken := map[serviceKey]serviceKey{} // label to the name that has it
	for _, written := range slices.SortedFunc(maps.Keys(groups), compareKeys) {
		label := serviceKey{dnsLabel(written.namespace), dnsLabel(written.name)}
		if label.namespace == "" || label.name == "" {
			complain(written.namespace+"/"+written.name, "an exported service has a name that cannot stand in a host name")
			continue
		}
		if holder, held := taken[label]; held {
			loser := written
			if written == label {
				loser = holder
			}
			complain(loser.namespace+"/"+loser.name, "an exported service's name is taken by another one")
			if loser == written {
				continue
			}
		}
		taken[label] = written
	}
	services := make([]neutral.Service, 0, len(taken))
	for _, label := range slices.SortedFunc(maps.Keys(taken), compareKeys) {
		service := serviceFrom(label, groups[taken[label]])
		if len(service.Ports) == 0 {
			complain(label.namespace+"/"+label.name, "an exported service exposes no port; name them by the label "+labelPorts)
			continue
		}
		services = append(services, service)
	}
	return services
}

func compareKeys(a, b serviceKey) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// serviceFrom merges what has one name.
func serviceFrom(key serviceKey, exports []export) neutral.Service {
	service := neutral.Service{Namespace: key.namespace, Name: key.name, Labels: commonLabels(exports)}
	var ports []exportPort
	var members []member
	for _, e := range exports {
		ports = append(ports, e.ports...)
		for _, m := range e.members {
			ports = append(ports, m.ports...)
			if m.ports == nil {
				m.ports = e.ports
			}
			members = append(members, m)
		}
	}
	for _, p := range uniquePorts(ports) {
		port := neutral.ServicePort{Name: p.name, Number: p.number, Protocol: p.transport, App: p.app}
		for _, m := range members {
			if !slices.ContainsFunc(m.ports, func(o exportPort) bool { return o.socket == p.socket }) {
				continue
			}
			if endpoint, ok := m.endpoint(p.socket); ok {
				port.Endpoints = append(port.Endpoints, endpoint)
			}
		}
		slices.SortFunc(port.Endpoints, netip.AddrPort.Compare)
		port.Endpoints = slices.Compact(port.Endpoints)
		service.Ports = append(service.Ports, port)
	}
	return service
}

// commonLabels are those that all have alike: a policy must not take a service for what one of its containers says.
func commonLabels(exports []export) map[string]string {
	common := maps.Clone(exports[0].labels)
	for _, e := range exports[1:] {
		maps.DeleteFunc(common, func(key, value string) bool {
			other, ok := e.labels[key]
			return !ok || other != value
		})
	}
	return common
}
