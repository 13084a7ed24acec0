package docker

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// loopback reaches what listens in the host's own network namespace, which the gateway shares.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// gatewayBridge is the local network that Swarm gives every container of an overlay, beside it: the host's way in.
const gatewayBridge = "docker_gwbridge"

// topology is what of an engine's networks decides how the host reaches a container.
type topology struct {
	drivers map[string]string     // network id to driver
	gateway map[string]netip.Addr // container id to its address on docker_gwbridge
}

// location is where a container is in the network.
type location struct {
	mode    neutral.NetworkMode
	address netip.Addr // invalid where the host does not reach it
}

// networksOf asks for the engine's networks.
func (c *Cluster) topology(ctx context.Context) (topology, error) {
	t := topology{drivers: map[string]string{}, gateway: map[string]netip.Addr{}}
	list, err := c.api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return topology{}, err
	}
	for _, n := range list.Items {
		t.drivers[n.ID] = n.Driver
		if n.Name != gatewayBridge {
			continue
		}
		bridge, err := c.api.NetworkInspect(ctx, n.ID, client.NetworkInspectOptions{})
		if err != nil {
			return topology{}, err
		}
		for id, endpoint := range bridge.Network.Containers {
			if endpoint.IPv4Address.IsValid() {
				t.gateway[id] = endpoint.IPv4Address.Addr()
			}
		}
	}
	return t, nil
}

// locate tells the network mode of a container and its address for this host. container:<id> is left to the caller:
// its address is the other's.
func (t topology) locate(id, mode string, networks map[string]*network.EndpointSettings) location {
	configured := container.NetworkMode(mode)
	switch {
	case configured.IsContainer():
		return location{mode: neutral.NetworkMode(mode)}
	case configured.IsHost() || networks["host"] != nil:
		return location{mode: neutral.NetworkHost, address: loopback}
	}
	// HostConfig.NetworkMode is what was asked at creation; networks joined and left since then are told apart here.
	joined := make([]attachment, 0, len(networks))
	for name, settings := range networks {
		if name != "none" && settings != nil {
			joined = append(joined, attachment{name: name, driver: t.drivers[settings.NetworkID], settings: settings})
		}
	}
	if len(joined) == 0 && (configured.IsNone() || networks["none"] != nil) {
		return location{mode: neutral.NetworkNone}
	}
	slices.SortFunc(joined, func(a, b attachment) int { return cmp.Compare(a.name, b.name) })
	for _, a := range joined {
		if address := a.address(); address.IsValid() {
			return location{mode: neutral.NetworkBridge, address: address}
		}
	}
	return location{mode: neutral.NetworkBridge, address: t.gateway[id]}
}

// attachment is one network of a container.
type attachment struct {
	name, driver string
	settings     *network.EndpointSettings
}

// address is the container's on a network that the host is on too. An overlay, macvlan or ipvlan is not such a one.
func (a attachment) address() netip.Addr {
	switch a.driver {
	case "overlay", "macvlan", "ipvlan", "null":
		return netip.Addr{}
	}
	if a.settings.IPAddress.IsValid() {
		return a.settings.IPAddress
	}
	return a.settings.GlobalIPv6Address
}

// connectedContainer is whose namespace a mode of container:<id> names.
func connectedContainer(mode string) (string, bool) { return strings.CutPrefix(mode, "container:") }
