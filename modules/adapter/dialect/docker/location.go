package docker

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// loopback reaches what listens in the host's own network namespace, which the gateway shares.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// gatewayBridge is the local network that Swarm gives every container of an overlay, beside it: the host's way in.
const gatewayBridge = "docker_gwbridge"

// location is where a container is in the network.
type location struct {
	mode    neutral.NetworkMode
	address netip.Addr // invalid where the host does not reach it
	overlay bool       // on an overlay: gatewayBridge may lead to it
}

// connected is whose namespace a mode of container:<id> names.
func (l location) connected() (string, bool) { return strings.CutPrefix(string(l.mode), "container:") }

// locate tells a container's network mode and its address for this host. drivers are those of the networks, by id.
//
// HostConfig.NetworkMode is what was asked at creation; networks that were joined and left since then count here.
func locate(mode string, networks map[string]*network.EndpointSettings, drivers map[string]string) location {
	configured := container.NetworkMode(mode)
	switch {
	case configured.IsContainer():
		return location{mode: neutral.NetworkMode(mode)}
	case configured.IsHost() || networks["host"] != nil:
		return location{mode: neutral.NetworkHost, address: loopback}
	}
	found := location{mode: neutral.NetworkBridge}
	joined := 0
	for _, name := range slices.SortedFunc(maps.Keys(networks), cmp.Compare) {
		settings := networks[name]
		if name == "none" || settings == nil {
			continue
		}
		joined++
		switch drivers[settings.NetworkID] {
		case "overlay":
			found.overlay = true
		case "macvlan", "ipvlan", "null": // the host is not on it
		default:
			if !found.address.IsValid() {
				found.address = settings.IPAddress
			}
			if !found.address.IsValid() {
				found.address = settings.GlobalIPv6Address
			}
		}
	}
	if joined == 0 && (configured.IsNone() || networks["none"] != nil) {
		found.mode = neutral.NetworkNone
	}
	return found
}

// networks remembers the drivers of an engine's networks. A network's driver never changes.
type networks struct {
	mu      sync.Mutex
	drivers map[string]string
}

// known gives the drivers if they hold every network that is asked for.
func (n *networks) known(asked map[string]*network.EndpointSettings) (map[string]string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, settings := range asked {
		if name == "none" || name == "host" || settings == nil || settings.NetworkID == "" {
			continue
		}
		if _, ok := n.drivers[settings.NetworkID]; !ok {
			return nil, false
		}
	}
	return n.drivers, true
}

func (n *networks) set(drivers map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drivers = drivers
}

// networkDrivers are the drivers of at least the networks asked for, as far as the engine still has them.
func (c *Cluster) networkDrivers(ctx context.Context, asked map[string]*network.EndpointSettings) (map[string]string, error) {
	if drivers, ok := c.networks.known(asked); ok {
		return drivers, nil
	}
	list, err := c.api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, err
	}
	drivers := make(map[string]string, len(list.Items))
	for _, n := range list.Items {
		drivers[n.ID] = driverOf(n.Network)
	}
	c.networks.set(drivers)
	return drivers, nil
}

// gateways are the addresses on gatewayBridge of containers, read when the first one is asked for.
type gateways struct {
	cluster   *Cluster
	addresses map[string]netip.Addr
}

func (g *gateways) address(ctx context.Context, id string) (netip.Addr, error) {
	if g.addresses == nil {
		bridge, err := g.cluster.api.NetworkInspect(ctx, gatewayBridge, client.NetworkInspectOptions{})
		if err != nil && !cerrdefs.IsNotFound(err) {
			return netip.Addr{}, err
		}
		g.addresses = make(map[string]netip.Addr, len(bridge.Network.Containers))
		for id, endpoint := range bridge.Network.Containers {
			if endpoint.IPv4Address.IsValid() {
				g.addresses[id] = endpoint.IPv4Address.Addr()
			}
		}
	}
	return g.addresses[id], nil
}

// place finds a container's location. container:<id> has the address of the other, where that one runs.
func (c *Cluster) place(ctx context.Context, id, mode string, networks map[string]*network.EndpointSettings, g *gateways) (location, error) {
	drivers, err := c.networkDrivers(ctx, networks)
	if err != nil {
		return location{}, err
	}
	where := locate(mode, networks, drivers)
	if other, shared := where.connected(); shared {
		owner, err := c.api.ContainerInspect(ctx, other, client.ContainerInspectOptions{})
		switch {
		case cerrdefs.IsNotFound(err):
			return where, nil
		case err != nil:
			return location{}, err
		case owner.Container.HostConfig == nil || owner.Container.NetworkSettings == nil || owner.Container.State == nil ||
			!owner.Container.State.Running || owner.Container.HostConfig.NetworkMode.IsContainer():
			return where, nil
		}
		theirs, err := c.place(ctx, owner.Container.ID, string(owner.Container.HostConfig.NetworkMode),
			owner.Container.NetworkSettings.Networks, g)
		where.address = theirs.address
		return where, err
	}
	if where.overlay && !where.address.IsValid() {
		where.address, err = g.address(ctx, id)
	}
	return where, err
}
