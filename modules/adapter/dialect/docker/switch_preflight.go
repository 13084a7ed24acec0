package docker

import (
	"context"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planRecreation says what it takes to make a container anew, and all that stands against it.
func (c *Cluster) planRecreation(ctx context.Context, p *planned, found container.InspectResponse, need neutral.NetworkNeed) error {
	name, host := p.record.Name, found.HostConfig
	if host.AutoRemove {
		p.refuse("container %s is removed when it ends (--rm): it could not come back", name)
	}
	if h := found.State.Health; h != nil && h.Status == container.Unhealthy {
		p.refuse("container %s is unhealthy as it is", name)
	}
	if len(host.Links) > 0 || slices.ContainsFunc(slices.Collect(maps.Values(found.NetworkSettings.Networks)), linked) {
		p.refuse("container %s is linked to others by --link, which another network mode has not", name)
	}
	if err := c.refuseOthers(ctx, p, found, need.Port); err != nil {
		return err
	}
	if err := c.refuseImage(ctx, p, found); err != nil {
		return err
	}
	changed, err := c.changedFiles(ctx, found)
	if err != nil {
		return err
	}
	refuseLayer(p, changed, need.Layer)
	inspect, err := c.api.ContainerInspect(ctx, found.ID, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	tree, err := replica.Parse(inspect.Raw)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
	}
	made, err := remake(tree, p.To, "", p.image)
	if err != nil {
		return err
	}
	p.Lost = append(p.Lost, made.lost...)
	p.lose("what it holds in memory, and in its tmpfs mounts, as with every restart; connections to it end")
	p.lose("a container that does not end when it is told to is away longer, by at most %d s each way", stopSeconds(found.Config))
	p.lose("files that it changes beside its volumes while the lease lasts: they are gone when it comes back")
	return nil
}

// stopSeconds is how long an engine waits for a container to end.
func stopSeconds(config *container.Config) int {
	if config.StopTimeout != nil && *config.StopTimeout >= 0 {
		return *config.StopTimeout
	}
	return 10
}

// refuseOthers looks at the other containers: who depends on this one, and whose ports it would want.
func (c *Cluster) refuseOthers(ctx context.Context, p *planned, found container.InspectResponse, port uint16) error {
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	taken := map[portOf]bool{}
	for _, s := range list.Items {
		if s.ID == found.ID {
			continue
		}
		for _, published := range s.Ports {
			if published.PublicPort != 0 {
				taken[portOf{published.PublicPort, published.Type}] = true
			}
		}
		other, err := c.api.ContainerInspect(ctx, s.ID, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if how := dependence(other.Container, found.ID, p.record.Name); how != "" {
			p.refuse("container %s %s of container %s, which it would lose", strings.TrimPrefix(other.Container.Name, "/"), how, p.record.Name)
		}
	}
	if p.To != neutral.NetworkHost {
		return nil
	}
	listening, err := hostPorts()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "which ports of the host are taken cannot be told")
	}
	for _, of := range wantedPorts(found, port) {
		if taken[of] || listening[of] && !publishes(found, of) {
			p.refuse("port %d/%s of the host is taken, on which container %s listens", of.port, of.protocol, p.record.Name)
		}
	}
	return nil
}

// dependence tells what a container shares of another's, that is called by its id or its name.
func dependence(other container.InspectResponse, id, name string) string {
	if other.HostConfig == nil {
		return ""
	}
	means := func(ref string) bool { return ref == name || len(ref) >= 12 && strings.HasPrefix(id, ref) }
	for _, shared := range []struct{ mode, what string }{
		{string(other.HostConfig.NetworkMode), "shares the network"}, {string(other.HostConfig.PidMode), "shares the processes"},
		{string(other.HostConfig.IpcMode), "shares the memory"},
	} {
		if ref, ok := strings.CutPrefix(shared.mode, "container:"); ok && means(ref) {
			return shared.what
		}
	}
	for _, link := range other.HostConfig.Links {
		to, _, _ := strings.Cut(strings.TrimPrefix(link, "/"), ":")
		if means(to) {
			return "is linked to the address"
		}
	}
	if other.NetworkSettings != nil {
		for _, settings := range other.NetworkSettings.Networks {
			if settings == nil {
				continue
			}
			for _, link := range settings.Links {
				if to, _, _ := strings.Cut(link, ":"); means(to) {
					return "is linked to the address"
				}
			}
		}
	}
	return ""
}

// refuseImage finds what the new container's image is called: by the name, while that is the same image, or by its id.
func (c *Cluster) refuseImage(ctx context.Context, p *planned, found container.InspectResponse) error {
	if _, err := c.api.ImageInspect(ctx, found.Image); cerrdefs.IsNotFound(err) {
		p.refuse("the image of container %s is gone", p.record.Name)
		return nil
	} else if err != nil {
		return err
	}
	p.image = found.Image
	named, err := c.api.ImageInspect(ctx, found.Config.Image)
	if err == nil && named.ID == found.Image {
		p.image = found.Config.Image
	} else if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsInvalidArgument(err) {
		return err
	}
	return nil
}

// changedFiles are those that a container changed beside its volumes, as far as the engine did not make them itself.
func (c *Cluster) changedFiles(ctx context.Context, found container.InspectResponse) ([]string, error) {
	diff, err := c.api.ContainerDiff(ctx, found.ID, client.ContainerDiffOptions{})
	if err != nil {
		return nil, err
	}
	return changedBeside(diff.Changes, found.Mounts, slices.Sorted(maps.Keys(found.HostConfig.Tmpfs))), nil
}

// enginesFiles are where an engine mounts something into every container.
var enginesFiles = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", "/dev/console", "/dev/shm", "/proc", "/sys", "/etc/mtab",
	"/sbin/docker-init"}

func changedBeside(changes []container.FilesystemChange, mounts []container.MountPoint, tmpfs []string) []string {
	places := slices.Concat(enginesFiles, tmpfs)
	for _, m := range mounts {
		places = append(places, m.Destination)
	}
	own := map[string]bool{} // places, and the folders on the way there
	for _, place := range places {
		for at := path.Clean("/" + place); at != "/"; at = path.Dir(at) {
			own[at] = true
		}
	}
	var changed []string
	for _, change := range changes {
		if change.Kind == container.ChangeDelete || !own[change.Path] {
			changed = append(changed, change.Path)
		}
	}
	return changed
}

// toldFiles is how many changed files a refusal names.
const toldFiles = 3

func toldChanges(changed []string) string {
	text := strings.Join(changed[:min(len(changed), toldFiles)], ", ")
	if more := len(changed) - toldFiles; more > 0 {
		text += " and " + strconv.Itoa(more) + " more"
	}
	return text
}

func refuseLayer(p *planned, changed []string, layer neutral.LayerMode) {
	if len(changed) == 0 {
		return
	}
	switch layer {
	case neutral.LayerCommit:
		p.lose("the room that an image of its changed files takes while the lease lasts, and the time to write it")
	case neutral.LayerDiscard:
		p.lose("the files that it changed beside its volumes, while the lease lasts: %s", toldChanges(changed))
	case neutral.LayerRefuse:
		p.refuse("container %s has changed files beside its volumes, which a new one would not have: %s; say that they are committed or discarded",
			p.record.Name, toldChanges(changed))
	default:
		p.refuse("%s is not known as what becomes of files that a container changed", shorten(string(layer)))
	}
}

func linked(on *network.EndpointSettings) bool { return on != nil && len(on.Links) > 0 }
