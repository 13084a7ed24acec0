package docker

import (
	"context"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// lostLive is what it costs a running container to be joined to a lease's network.
var lostLive = []string{
	"while the lease lasts the container is on a network with this host alone: it may connect to what listens on all addresses of the host, and to nothing beyond",
	"the line that this adds to the container's /etc/hosts stays there until the container is started again",
}

const networkNone = "none"

// leaseNetwork is the name of the network that a lease's container shares with the host.
func leaseNetwork(lease string) string { return "isthmus-" + lease }

// switchLive joins a running container to a network of the lease's own. It is bridged to this host and to nothing else.
func (c *Cluster) switchLive(ctx context.Context, s *neutral.Switching, r *switchRecord) error {
	found, err := c.ownNetwork(ctx, s.ID)
	if err != nil {
		return err
	}
	if found != nil {
		r.Network = found.ID
	} else if err := c.makeLeaseNetwork(ctx, s, r); err != nil {
		return err
	}
	if r.None {
		if err := step(ctx, s, "the leave of network none", r); err != nil {
			return err
		}
		if err := c.leave(ctx, networkNone, r.Old); err != nil {
			return err
		}
	}
	if err := step(ctx, s, "the join of network "+leaseNetwork(s.ID), r); err != nil {
		return err
	}
	if err := c.join(ctx, r.Network, r.Old); err != nil {
		return err
	}
	return c.reached(ctx, r)
}

// ownNetwork is the network of a lease; nil where there is none.
func (c *Cluster) ownNetwork(ctx context.Context, lease string) (*network.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	list, err := c.api.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("label", labelSwitch+"="+lease)})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		if n.Name == leaseNetwork(lease) && n.Labels[labelSwitch] == lease {
			return &n, nil
		}
	}
	return nil, nil
}

func (c *Cluster) makeLeaseNetwork(ctx context.Context, s *neutral.Switching, r *switchRecord) error {
	if err := step(ctx, s, "the network "+leaseNetwork(s.ID), r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.NetworkInspect(ctx, leaseNetwork(s.ID), client.NetworkInspectOptions{}) // older engines make two of one name
	if err == nil {
		return taken("network", leaseNetwork(s.ID))
	}
	if !cerrdefs.IsNotFound(err) {
		return err
	}
	made, err := c.api.NetworkCreate(ctx, leaseNetwork(s.ID), client.NetworkCreateOptions{Driver: driverBridge, Internal: true,
		Labels: map[string]string{labelSwitch: s.ID}})
	r.Network = made.ID
	return err
}

func (c *Cluster) join(ctx context.Context, network, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.NetworkConnect(ctx, network, client.NetworkConnectOptions{Container: id})
	return err
}

func (c *Cluster) leave(ctx context.Context, network, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.NetworkDisconnect(ctx, network, client.NetworkDisconnectOptions{Container: id})
	return err
}

// reached holds the engine to it that the container runs where this host reaches it.
func (c *Cluster) reached(ctx context.Context, r *switchRecord) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	for {
		found, err := c.inspect(ctx, r.Old)
		if err != nil {
			return err
		}
		if found == nil || !found.Container.State.Running {
			return fault.New(fault.Conflict, "container %s has ended", r.Name)
		}
		if settings := on(found.Container, r.Network); settings != nil && settings.IPAddress.IsValid() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "container %s has no address on the network that it was joined to", r.Name)
		case <-time.After(settlePause):
		}
	}
}

// on is a container's place on a network.
func on(found container.InspectResponse, id string) *network.EndpointSettings {
	for _, settings := range found.NetworkSettings.Networks {
		if settings != nil && settings.NetworkID == id {
			return settings
		}
	}
	return nil
}

// restoreLive takes the container off the lease's network, and that away. What it was on before it has never left, but none.
func (c *Cluster) restoreLive(ctx context.Context, s *neutral.Switching, r *switchRecord) error {
	lease, err := c.ownNetwork(ctx, s.ID)
	if err != nil {
		return err
	}
	found, err := c.inspect(ctx, r.Old)
	if err != nil {
		return err
	}
	joined := 0
	if found != nil {
		joined = len(found.Container.NetworkSettings.Networks)
		if lease != nil && on(found.Container, lease.ID) != nil {
			if err := step(ctx, s, "the leave of network "+lease.Name, r); err != nil {
				return err
			}
			if err := c.leave(ctx, lease.ID, r.Old); err != nil {
				return err
			}
			joined--
		}
	}
	if found != nil && r.None && joined == 0 {
		if err := step(ctx, s, "the join of network none", r); err != nil {
			return err
		}
		if err := c.join(ctx, networkNone, r.Old); err != nil {
			return err
		}
	}
	if lease != nil {
		if err := step(ctx, s, "the end of network "+lease.Name, r); err != nil {
			return err
		}
		if err := c.removeLeaseNetwork(ctx, lease); err != nil {
			return err
		}
	}
	switch {
	case found == nil:
		return fault.New(fault.Conflict, "container %s was removed while it was in another network mode", r.Name)
	case r.None && joined > 0 && found.Container.NetworkSettings.Networks[networkNone] == nil:
		return fault.New(fault.Conflict, "container %s was joined to another network meanwhile, and stays there: it is not on none again", r.Name)
	}
	return nil
}

func (c *Cluster) removeLeaseNetwork(ctx context.Context, lease *network.Summary) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	_, err := c.api.NetworkRemove(ctx, lease.ID, client.NetworkRemoveOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	if err = inUse(err, "network", lease.Name); fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, "network %s stays: somebody joined another container to it", lease.Name)
	}
	return err
}
