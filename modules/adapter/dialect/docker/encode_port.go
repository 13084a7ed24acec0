package docker

import (
	"net/netip"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// anyAddress is how an engine writes that a port is published on all of its addresses. No other address is shown.
var anyAddress = netip.IPv4Unspecified()

func portToDocker(p neutral.Port) (network.Port, bool) {
	protocol := p.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	return network.PortFrom(p.Container, network.IPProtocol(protocol))
}

// portSummaries are the ports of docker ps. As in an engine, nothing is published while the container does not run.
func portSummaries(ports []neutral.Port, running bool) []container.PortSummary {
	list := make([]container.PortSummary, 0, len(ports))
	if !running {
		return list
	}
	for _, p := range ports {
		port, ok := portToDocker(p)
		if !ok {
			continue
		}
		s := container.PortSummary{PrivatePort: p.Container, Type: string(port.Proto())}
		if p.Published != 0 {
			s.PublicPort, s.IP = p.Published, anyAddress
		}
		list = append(list, s)
	}
	return list
}

// portMap are the ports of an inspect: what is exposed, and what of it is published now.
func portMap(ports []neutral.Port, running bool) network.PortMap {
	m := network.PortMap{}
	if !running {
		return m
	}
	for _, p := range ports {
		port, ok := portToDocker(p)
		if !ok {
			continue
		}
		if p.Published != 0 {
			m[port] = append(m[port], network.PortBinding{HostIP: anyAddress, HostPort: strconv.Itoa(int(p.Published))})
		} else if _, there := m[port]; !there {
			m[port] = nil
		}
	}
	return m
}

// portBindings are the ports as they were asked for.
func portBindings(ports []neutral.Port) (network.PortSet, network.PortMap) {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, p := range ports {
		port, ok := portToDocker(p)
		if !ok {
			continue
		}
		exposed[port] = struct{}{}
		if !p.Publish && p.Published == 0 {
			continue
		}
		binding := network.PortBinding{}
		if p.Published != 0 {
			binding.HostPort = strconv.Itoa(int(p.Published))
		}
		bound[port] = append(bound[port], binding)
	}
	return exposed, bound
}

// modeToDocker is the network mode in docker's words; a Kubernetes pod's own network is what docker calls bridge.
func modeToDocker(c *neutral.Container) container.NetworkMode {
	switch c.Network {
	case "", neutral.NetworkBridge, neutral.NetworkPod:
		if len(c.Networks) > 0 {
			return container.NetworkMode(c.Networks[0].Name)
		}
		return "bridge"
	default:
		return container.NetworkMode(c.Network)
	}
}

// endpoints are a container's networks without any address.
func endpoints(c *neutral.Container) map[string]*network.EndpointSettings {
	list := map[string]*network.EndpointSettings{}
	mode := modeToDocker(c)
	if mode.IsContainer() {
		return list
	}
	if len(c.Networks) == 0 {
		list[string(mode)] = &network.EndpointSettings{NetworkID: networkID(string(mode))}
	}
	for _, n := range c.Networks {
		id := n.ID
		if id == "" {
			id = networkID(n.Name)
		}
		list[n.Name] = &network.EndpointSettings{NetworkID: id, Aliases: n.Aliases, DNSNames: append([]string{c.Name}, n.Aliases...)}
	}
	return list
}
