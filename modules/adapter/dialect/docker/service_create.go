package docker

import (
	"context"
	"slices"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// namespace is where an operation makes things.
func (a *action) namespace() string {
	if a.op.Object.Namespace == "" {
		return defaultNamespace
	}
	return a.op.Object.Namespace
}

// createService makes a service and, before it, the networks that it runs on and that are not there. When the service
// cannot be made they go again.
func (a *action) createService(ctx context.Context) (neutral.Result, error) {
	w := a.op.Workload
	if w == nil || w.Name == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the service has no name")
	}
	if err := a.wantSwarm(ctx, "services"); err != nil {
		return neutral.Result{}, err
	}
	b := &specBuilder{namespace: a.namespace(), version: a.engineVersion()}
	spec := b.serviceSpec(w)
	labels, losses := callersLabels("labels", w.Labels)
	b.losses = append(b.losses, losses...)
	spec.Labels = labelsIn(b.namespace, labels)
	if b.err != nil {
		return neutral.Result{}, b.err
	}
	if err := a.permitService(ctx, spec); err != nil {
		return neutral.Result{}, err
	}
	if err := a.putFiles(ctx, b, spec.TaskTemplate.ContainerSpec, w.Template.Files); err != nil {
		return neutral.Result{}, err
	}
	if err := a.permitVolumes(ctx, b.namespace, w.Template.Mounts); err != nil {
		return neutral.Result{}, err
	}
	on, err := a.attachments(ctx, b.namespace, w.Template.Networks)
	if err != nil {
		return neutral.Result{}, err
	}
	b.losses = append(b.losses, keepBeside(spec.Labels, w.Origin, a.op.Peer, slices.Concat(w.Losses, b.losses))...)
	made, err := a.makeAttached(ctx, b.namespace, on)
	if err == nil {
		spec.TaskTemplate.Networks, err = a.taskNetworks(ctx, b.namespace, w, on)
	}
	var created client.ServiceCreateResult
	if err == nil {
		created, err = a.api.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: spec})
	}
	if err != nil {
		a.undoNetworks(ctx, made)
		if fault.Is(faultOf(err), fault.Conflict) {
			err = fault.Wrap(fault.Conflict, err, "name conflicts with an existing object: service %s already exists", w.Name)
		}
		return neutral.Result{}, faultOf(err)
	}
	for _, warning := range created.Warnings {
		b.lose("service", warning, "")
	}
	result := neutral.Result{ID: created.ID, Losses: b.losses}
	now, err := a.serviceByID(ctx, created.ID)
	if err != nil {
		return result, err
	}
	shown := now.shown()
	result.Workload = &shown
	return result, nil
}

// permitService asks policy about a service that is to be.
func (a *action) permitService(ctx context.Context, spec swarm.ServiceSpec) error {
	w, err := workloadFromSpec(spec)
	if err != nil {
		return err
	}
	object := nameOf("", spec.Name, spec.Labels).object(neutral.KindWorkload, readBeside(spec.Labels).labels)
	object.Container = &w.Template
	return a.permitMade(ctx, object)
}

// putFiles writes the secrets and configs into a spec. They must be there, and policy must let the caller do to each what
// it does to the service.
func (a *action) putFiles(ctx context.Context, b *specBuilder, spec *swarm.ContainerSpec, files []neutral.MountedFile) error {
	ids := map[neutral.MountedFile]string{}
	for _, f := range files {
		key := neutral.MountedFile{Kind: f.Kind, Name: f.Name}
		if _, ok := ids[key]; ok {
			continue
		}
		found, err := a.storedByRef(ctx, f.Kind, b.namespace, f.Name)
		if err != nil {
			return err
		}
		if err := a.permit(found.object(f.Kind, found.Labels)); err != nil {
			return err
		}
		ids[key] = found.id
	}
	b.files(spec, files, ids)
	return b.err
}

// permitVolumes asks policy about the volumes that something is to mount, those as well that are made by it.
func (a *action) permitVolumes(ctx context.Context, namespace string, mounts []neutral.Mount) error {
	for _, m := range mounts {
		if m.Type != string(neutral.KindVolume) || m.Source == "" {
			continue
		}
		if _, err := a.volumeSources(ctx); err != nil {
			return err
		}
		name := volumeName(namespace, m.Source)
		found, ok := a.kept[name]
		if !ok {
			found = volume.Volume{Name: name, Labels: labelsIn(namespace, nil)}
		}
		if err := a.permit(volumeObject(found)); err != nil {
			return err
		}
	}
	return nil
}
