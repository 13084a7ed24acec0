package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"path"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// severalNetworks is the first API whose engines take more than one network at a container's creation.
var severalNetworks = apiVersion{1, 44}

// createContainer makes a container and what it needs: networks that are not there, its image where the engine lacks it,
// and the files of its configs. When a step fails, what was made goes again.
func (a *action) createContainer(ctx context.Context) (neutral.Result, error) {
	c := a.op.Container
	if c == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "the container has no spec")
	}
	if len(c.Members) > 0 {
		return a.createPod(ctx, c)
	}
	if _, err := a.allNetworks(ctx); err != nil { // the engine's version is known after it
		return neutral.Result{}, err
	}
	name := c.Name
	if name == "" {
		name = a.op.Object.Name
	}
	b := &specBuilder{namespace: a.namespace(), version: a.engineVersion()}
	config, host := b.containerSpec(c)
	config.Labels = b.containerLabels(c, a.op.Peer)
	if b.err != nil {
		return neutral.Result{}, b.err
	}
	shared, err := a.sharedNetwork(ctx, c.Network)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := a.permitContainer(ctx, b.namespace, name, c, config.Labels); err != nil {
		return neutral.Result{}, err
	}
	if err := a.permitVolumes(ctx, b.namespace, c.Mounts); err != nil {
		return neutral.Result{}, err
	}
	files, err := a.configFiles(ctx, b.namespace, c.Files)
	if err != nil {
		return neutral.Result{}, err
	}
	on, err := a.attachments(ctx, b.namespace, c.Networks)
	if err != nil {
		return neutral.Result{}, err
	}
	networks, err := a.makeAttached(ctx, b.namespace, on)
	options := client.ContainerCreateOptions{Config: config, HostConfig: host}
	if name != "" {
		options.Name = dockerName(b.namespace, name)
	}
	var made client.ContainerCreateResult
	if err == nil {
		later := networking(&options, c, shared, on, b)
		made, err = a.makeContainer(ctx, options)
		if err == nil {
			err = a.finishContainer(ctx, made.ID, later, files, b.namespace, name)
		}
	}
	if err != nil {
		a.undoContainer(ctx, made.ID)
		a.undoNetworks(ctx, networks)
		return neutral.Result{}, faultOf(err)
	}
	for _, warning := range made.Warnings {
		b.lose("container", warning, "")
	}
	result := neutral.Result{ID: made.ID, Losses: b.losses}
	now, err := a.containerByID(ctx, made.ID)
	if err != nil {
		return result, err
	}
	shown := now.shown()
	result.Container = &shown
	return result, nil
}

// sharedNetwork is the mode that shares another container's network namespace, by its id; policy must let the caller have
// that one. Other modes are none.
func (a *action) sharedNetwork(ctx context.Context, mode neutral.NetworkMode) (container.NetworkMode, error) {
	ref, ok := strings.CutPrefix(string(mode), "container:")
	if !ok {
		return "", nil
	}
	found, err := a.locateContainer(ctx, a.op.Object.Namespace, ref)
	if err != nil {
		return "", err
	}
	return container.NetworkMode("container:" + found.id), nil
}

// permitContainer asks policy about a container that is to be.
func (a *action) permitContainer(ctx context.Context, namespace, name string, c *neutral.Container, labels map[string]string) error {
	wanted := *c
	wanted.Name, wanted.Namespace = name, namespace
	wanted.Labels = readBeside(labels).labels
	wanted.Mounts = slices.Clone(c.Mounts)
	for i, m := range wanted.Mounts {
		if m.Type == string(neutral.KindVolume) && m.Source != "" {
			wanted.Mounts[i].Source = volumeName(namespace, m.Source)
		}
	}
	return a.permitMade(ctx, neutral.Object{Kind: neutral.KindContainer, Namespace: namespace, Name: name, Labels: wanted.Labels, Container: &wanted})
}

// networking writes the networks, and gives those that are to be joined later.
func networking(options *client.ContainerCreateOptions, c *neutral.Container, shared container.NetworkMode, on []attached, b *specBuilder) []attached {
	host := options.HostConfig
	switch {
	case shared != "":
		host.NetworkMode = shared
		return nil
	case c.Network == neutral.NetworkHost || c.Network == neutral.NetworkNone:
		host.NetworkMode = container.NetworkMode(c.Network)
		return on
	case len(on) == 0:
		return nil // the engine's own bridge
	}
	host.NetworkMode = container.NetworkMode(on[0].docker)
	now, later := on[:1], on[1:]
	if !b.version.less(severalNetworks) {
		now, later = on, nil
	}
	endpoints := map[string]*network.EndpointSettings{}
	for _, n := range now {
		endpoints[n.docker] = endpoint(n, b.namespace, c.Name)
	}
	options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: endpoints}
	return later
}

// makeContainer creates it; an engine does not pull an image by itself.
func (a *action) makeContainer(ctx context.Context, options client.ContainerCreateOptions) (client.ContainerCreateResult, error) {
	made, err := a.api.ContainerCreate(ctx, options)
	if cerrdefs.IsNotFound(err) && strings.Contains(strings.ToLower(err.Error()), "no such image") {
		if err := a.pull(ctx, options.Config.Image, nil); err != nil {
			return made, err
		}
		made, err = a.api.ContainerCreate(ctx, options)
	}
	if cerrdefs.IsConflict(err) {
		return made, fault.Wrap(fault.Conflict, err, "the container name %s is already in use", options.Name)
	}
	return made, err
}

// finishContainer does what a container's creation cannot.
func (a *action) finishContainer(ctx context.Context, id string, later []attached, files []byte, namespace, name string) error {
	for _, n := range later {
		if _, err := a.api.NetworkConnect(ctx, n.id, client.NetworkConnectOptions{Container: id, EndpointConfig: endpoint(n, namespace, name)}); err != nil {
			return err
		}
	}
	if files == nil {
		return nil
	}
	_, err := a.api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: bytes.NewReader(files)})
	return err
}

func (a *action) undoContainer(ctx context.Context, id string) {
	if id == "" {
		return
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), callDeadline)
	defer cancel()
	if _, err := a.api.ContainerRemove(undo, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !cerrdefs.IsNotFound(err) {
		a.log.Error("a container that could not be made whole is not removed", "container", id, "err", err)
	}
}

// configFiles is an archive of the configs that a container is to have; nil for none. Policy must let the caller do to
// each what it does to the container.
func (a *action) configFiles(ctx context.Context, namespace string, files []neutral.MountedFile) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		found, err := a.storedByRef(ctx, f.Kind, namespace, f.Name)
		if err != nil {
			return nil, err
		}
		if err := a.permit(found.object(f.Kind, found.Labels)); err != nil {
			return nil, err
		}
		target := strings.TrimPrefix(path.Clean("/"+f.Target), "/")
		if target == "" {
			return nil, fault.New(fault.Invalid, "a config has no place in the container")
		}
		mode := int64(f.Mode & 0o777)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: target, Mode: mode, Size: int64(len(found.Data)), ModTime: found.Created}); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "the file %s could not be written", f.Target)
		}
		if _, err := w.Write(found.Data); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "the file %s could not be written", f.Target)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the files of configs could not be written")
	}
	return archive.Bytes(), nil
}
