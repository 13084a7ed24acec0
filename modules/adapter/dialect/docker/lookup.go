package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Lookup finds the object of a docker caller's request, with the labels and the namespace that policies speak of. An
// operation without an object of its own (a list, info) comes back as it was.
func (c *Cluster) Lookup(ctx context.Context, op neutral.Operation) (neutral.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	ref := strings.TrimPrefix(op.Ref, "/")
	if ref == "" {
		return op.Object, nil
	}
	if strings.ContainsAny(ref, "?#%\\") {
		return op.Object, fault.New(fault.Invalid, "the object's name %q is none", ref)
	}
	object, err := c.lookup(ctx, op, ref)
	if err != nil {
		return op.Object, faultOf(err)
	}
	object.Resource = op.Object.Resource
	return object, nil
}

func (c *Cluster) lookup(ctx context.Context, op neutral.Operation, ref string) (neutral.Object, error) {
	if op.Action == neutral.ExecStart || op.Action == neutral.ExecInspect || op.Action == neutral.ExecResize {
		exec, err := c.api.ExecInspect(ctx, ref, client.ExecInspectOptions{})
		if err != nil {
			return neutral.Object{}, err
		}
		return c.lookupContainer(ctx, exec.ContainerID)
	}
	switch op.Object.Kind {
	case neutral.KindContainer:
		return c.lookupContainer(ctx, ref)
	case neutral.KindWorkload:
		found, err := c.api.ServiceInspect(ctx, ref, client.ServiceInspectOptions{})
		object := objectFromService(found.Service.Spec)
		if err == nil && object.Container != nil {
			object.Container, err = c.seen(ctx, object.Container)
		}
		return object, err
	case neutral.KindTask:
		return c.lookupTask(ctx, ref)
	case neutral.KindNetwork:
		found, err := c.api.NetworkInspect(ctx, ref, client.NetworkInspectOptions{})
		if err == nil && ofLease(found.Network.Labels) {
			err = fault.New(fault.NotFound, "network %s not found", ref)
		}
		return objectFrom(op.Object.Kind, found.Network.Name, found.Network.Labels), err
	case neutral.KindVolume:
		found, err := c.api.VolumeInspect(ctx, ref, client.VolumeInspectOptions{})
		object := objectFrom(op.Object.Kind, found.Volume.Name, found.Volume.Labels)
		source := volumeSource(found.Volume.Driver, found.Volume.Options)
		object.Volume = &source
		return object, err
	case neutral.KindSecret:
		found, err := c.api.SecretInspect(ctx, ref, client.SecretInspectOptions{})
		return objectFromAnnotations(op.Object.Kind, found.Secret.Spec.Annotations), err
	case neutral.KindConfig:
		found, err := c.api.ConfigInspect(ctx, ref, client.ConfigInspectOptions{})
		return objectFromAnnotations(op.Object.Kind, found.Config.Spec.Annotations), err
	case neutral.KindNode:
		return c.lookupNode(ctx, ref)
	case neutral.KindImage:
		return c.lookupImage(ctx, op, ref)
	default: // nothing that an engine names and labels
		return op.Object, nil
	}
}

func (c *Cluster) lookupContainer(ctx context.Context, ref string) (neutral.Object, error) {
	found, err := c.find(ctx, "", ref)
	if err != nil {
		return neutral.Object{}, err
	}
	return c.judged(ctx, found)
}

// lookupTask judges a task by its service, whose labels a user sets.
func (c *Cluster) lookupTask(ctx context.Context, ref string) (neutral.Object, error) {
	task, err := c.api.TaskInspect(ctx, ref, client.TaskInspectOptions{})
	if err != nil {
		return neutral.Object{}, err
	}
	service, err := c.api.ServiceInspect(ctx, task.Task.ServiceID, client.ServiceInspectOptions{})
	return objectFromAnnotations(neutral.KindTask, service.Service.Spec.Annotations), err
}

func (c *Cluster) lookupNode(ctx context.Context, ref string) (neutral.Object, error) {
	found, err := c.api.NodeInspect(ctx, ref, client.NodeInspectOptions{})
	if err != nil {
		return neutral.Object{}, err
	}
	object := objectFromAnnotations(neutral.KindNode, found.Node.Spec.Annotations)
	object.Name = found.Node.Description.Hostname
	return object, nil
}

// lookupImage finds an image; one that is to be pulled is not there yet and has no labels.
func (c *Cluster) lookupImage(ctx context.Context, op neutral.Operation, ref string) (neutral.Object, error) {
	if op.Action == neutral.ImagePull {
		return op.Object, nil
	}
	found, err := c.api.ImageInspect(ctx, ref)
	if err != nil {
		return neutral.Object{}, err
	}
	var labels map[string]string
	if found.Config != nil {
		labels = found.Config.Labels
	}
	return objectFrom(neutral.KindImage, ref, labels), nil
}

// objectFromService is a service with what its tasks run, read as if it were to be created. What cannot be read so has
// none, which allows nothing that depends on it.
func objectFromService(spec swarm.ServiceSpec) neutral.Object {
	object := objectFromAnnotations(neutral.KindWorkload, spec.Annotations)
	body, err := json.Marshal(spec)
	if err != nil {
		return object
	}
	decoded, _, err := decode(neutral.Operation{Action: neutral.WorkloadCreate}, dialect.Request{Method: http.MethodPost,
		Path: "/services/create", Header: http.Header{}, Body: body}, true)
	if err == nil {
		object.Container = decoded.Object.Container
	}
	return object
}

func objectFromAnnotations(kind neutral.Kind, a swarm.Annotations) neutral.Object {
	return objectFrom(kind, a.Name, a.Labels)
}

// objectFrom is an object that was found: its labels are not nil, even if there are none.
func objectFrom(kind neutral.Kind, name string, labels map[string]string) neutral.Object {
	if labels == nil {
		labels = map[string]string{}
	}
	return neutral.Object{Kind: kind, Namespace: namespaceOf(labels), Name: name, Labels: labels}
}
