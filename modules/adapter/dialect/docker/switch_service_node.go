package docker

import (
	"context"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// serviceFiles are the files beside their volumes that the service's containers on this node changed.
func (c *Cluster) serviceFiles(ctx context.Context, v *serviceView) ([]string, error) {
	places := v.places()
	var all []string
	for _, id := range v.ownContainers() {
		diff, err := c.api.ContainerDiff(ctx, id, client.ContainerDiffOptions{})
		if cerrdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range changedByTask(diff.Changes, places) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// ownContainers are those of the service that this engine has, the target among them.
func (v *serviceView) ownContainers() []string {
	all := []string{v.found.ID}
	for _, task := range v.running {
		if status := task.Status.ContainerStatus; task.NodeID == v.self.id && status != nil && status.ContainerID != "" &&
			status.ContainerID != v.found.ID {
			all = append(all, status.ContainerID)
		}
	}
	return all
}

// places are where an engine puts something into the service's containers: it makes the directories on the way.
func (v *serviceView) places() []string {
	var all []string
	for _, m := range v.found.Mounts {
		all = append(all, path.Clean(m.Destination))
	}
	spec := v.service.Spec.TaskTemplate.ContainerSpec
	if spec == nil {
		return all
	}
	for _, m := range spec.Mounts {
		all = append(all, path.Clean(m.Target))
	}
	for _, s := range spec.Secrets {
		if s.File != nil {
			all = append(all, fileTarget("/run/secrets", s.File.Name))
		}
	}
	for _, s := range spec.Configs {
		if s.File != nil {
			all = append(all, fileTarget("/", s.File.Name))
		}
	}
	return all
}

// changedByTask are the changes that are no work of an engine's. Of a directory in which something changed, what changed
// is told as well.
func changedByTask(changes []container.FilesystemChange, places []string) []string {
	var all []string
	for _, change := range changes {
		within := strings.TrimSuffix(change.Path, "/") + "/"
		if slices.ContainsFunc(places, func(place string) bool { return strings.HasPrefix(place+"/", within) }) {
			continue
		}
		if change.Kind == container.ChangeModify && slices.ContainsFunc(changes, func(other container.FilesystemChange) bool {
			return len(other.Path) > len(within) && strings.HasPrefix(other.Path, within)
		}) {
			continue
		}
		all = append(all, change.Path)
	}
	return all
}

// probeTimeout is how long a listener of this node may take to be found.
const probeTimeout = 300 * time.Millisecond

// takenPorts tells who else has ports of this node that the service's containers want on its network, which is the gateway's
// own.
func (c *Cluster) takenPorts(ctx context.Context, v *serviceView) (map[uint16]string, error) {
	taken, own := map[uint16]string{}, map[uint16]bool{}
	for _, service := range v.services {
		for _, p := range service.Endpoint.Ports {
			port := uint16(p.PublishedPort) //nolint:gosec // a port
			switch {
			case p.PublishMode != swarm.PortConfigPublishModeIngress || p.Protocol != network.TCP:
			case service.ID == v.service.ID:
				own[port] = true
			case v.want[port]:
				taken[port] = "another service of the swarm"
			}
		}
	}
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return nil, err
	}
	for _, one := range list.Items {
		for _, p := range one.Ports {
			switch {
			case p.PublicPort == 0 || p.Type != string(network.TCP):
			case one.Labels[labelSwarmService] == v.service.ID:
				own[p.PublicPort] = true
			case v.want[p.PublicPort]:
				taken[p.PublicPort] = "another container"
			}
		}
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	for port := range v.want {
		if own[port] || taken[port] != "" {
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(loopback.String(), strconv.Itoa(int(port))))
		if err == nil {
			_ = conn.Close()
			taken[port] = "something that listens on it"
		}
	}
	return taken, nil
}
