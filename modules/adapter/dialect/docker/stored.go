package docker

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// stored is a secret or a config with what a swarm calls it.
type stored struct {
	neutral.StoredFile
	named
	annotations swarm.Annotations
}

func storedFrom(id string, meta swarm.Meta, annotations swarm.Annotations, data []byte) stored {
	s := stored{named: nameOf(id, annotations.Name, annotations.Labels), annotations: annotations}
	kept := readBeside(annotations.Labels)
	s.StoredFile = neutral.StoredFile{ID: id, Name: s.name, Namespace: s.namespace, Labels: kept.labels, Data: data,
		Version: meta.Version.String(), Created: meta.CreatedAt, Updated: meta.UpdatedAt, Origin: kept.origin}
	return s
}

// storedKinds are those of a kind, whoever may see them. What is in a secret a swarm tells nobody.
func (a *action) storedKinds(ctx context.Context, kind neutral.Kind) ([]stored, error) {
	if there, err := a.inSwarm(ctx); err != nil || !there {
		return nil, err
	}
	var all []stored
	if kind == neutral.KindSecret {
		list, err := a.api.SecretList(ctx, client.SecretListOptions{})
		if err != nil {
			return nil, faultOf(err)
		}
		for _, s := range list.Items {
			all = append(all, storedFrom(s.ID, s.Meta, s.Spec.Annotations, nil))
		}
	} else {
		list, err := a.api.ConfigList(ctx, client.ConfigListOptions{})
		if err != nil {
			return nil, faultOf(err)
		}
		for _, c := range list.Items {
			all = append(all, storedFrom(c.ID, c.Meta, c.Spec.Annotations, c.Spec.Data))
		}
	}
	slices.SortFunc(all, func(x, y stored) int { return strings.Compare(x.docker+x.id, y.docker+y.id) })
	return all, nil
}

func (a *action) listStored(ctx context.Context) (neutral.Result, error) {
	kind := a.op.Action.Kind()
	all, err := a.storedKinds(ctx, kind)
	if err != nil {
		return neutral.Result{}, err
	}
	filter := a.op.Filter
	result := neutral.Result{Stored: []neutral.StoredFile{}}
	for _, s := range all {
		if s.in(a.op.Object.Namespace) && anyPrefix(filter.IDs, s.id) && anyContains(filter.Names, s.name) &&
			labelsMatch(filter.Labels, s.Labels) && a.permit(s.object(kind, s.Labels)) == nil {
			result.Stored = append(result.Stored, s.StoredFile)
		}
	}
	return result, nil
}

// storedByRef finds one, whoever may see it.
func (a *action) storedByRef(ctx context.Context, kind neutral.Kind, namespace, ref string) (*stored, error) {
	files, err := a.storedKinds(ctx, kind)
	if err != nil {
		return nil, err
	}
	all := make([]named, len(files))
	for i, s := range files {
		all[i] = s.named
	}
	i, err := find(string(kind), namespace, ref, all)
	if err != nil {
		return nil, err
	}
	return &files[i], nil
}

// findStored finds the one that the operation names, once policy lets the caller have it.
func (a *action) findStored(ctx context.Context) (*stored, error) {
	kind := a.op.Action.Kind()
	found, err := a.storedByRef(ctx, kind, a.op.Object.Namespace, a.op.Ref)
	if err != nil {
		return nil, err
	}
	return found, a.permit(found.object(kind, found.Labels))
}

func (a *action) inspectStored(ctx context.Context) (neutral.Result, error) {
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Stored: []neutral.StoredFile{found.StoredFile}}, nil
}

func (a *action) createStored(ctx context.Context) (neutral.Result, error) {
	f, kind := a.op.File, a.op.Action.Kind()
	if f == nil || f.Name == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the %s has no name", kind)
	}
	if err := a.wantSwarm(ctx, string(kind)+"s"); err != nil {
		return neutral.Result{}, err
	}
	namespace := a.namespace()
	labels, losses := callersLabels("labels", f.Labels)
	annotations := swarm.Annotations{Name: dockerName(namespace, f.Name)}
	losses = append(losses, relabel(&annotations, namespace, labels, f.Origin, a.op.Peer, nil)...)
	if err := a.permit(nameOf("", annotations.Name, annotations.Labels).object(kind, labels)); err != nil {
		return neutral.Result{}, err
	}
	var id string
	var err error
	if kind == neutral.KindSecret {
		var made client.SecretCreateResult
		made, err = a.api.SecretCreate(ctx, client.SecretCreateOptions{Spec: swarm.SecretSpec{Annotations: annotations, Data: f.Data}})
		id = made.ID
	} else {
		var made client.ConfigCreateResult
		made, err = a.api.ConfigCreate(ctx, client.ConfigCreateOptions{Spec: swarm.ConfigSpec{Annotations: annotations, Data: f.Data}})
		id = made.ID
	}
	switch err = faultOf(err); {
	case fault.Is(err, fault.Conflict):
		return neutral.Result{}, fault.Wrap(fault.Conflict, err, "%s %s already exists", kind, f.Name)
	case err != nil:
		return neutral.Result{}, err
	}
	return a.storedResult(ctx, kind, id, losses)
}

// storedResult reads what was made or changed.
func (a *action) storedResult(ctx context.Context, kind neutral.Kind, id string, losses []neutral.Loss) (neutral.Result, error) {
	result := neutral.Result{ID: id, Losses: losses}
	now, err := a.storedByRef(ctx, kind, "", id)
	if err != nil {
		return result, err
	}
	result.Stored = []neutral.StoredFile{now.StoredFile}
	return result, nil
}

// updateStored changes labels and the document beside them. What is in one a swarm never changes.
func (a *action) updateStored(ctx context.Context) (neutral.Result, error) {
	f, kind := a.op.File, a.op.Action.Kind()
	if f == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no %s is asked for", kind)
	}
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	wanted := a.op.Version
	if wanted == "" {
		wanted = f.Version
	}
	if wanted != "" && wanted != found.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	}
	version, err := swarmVersion(found.Version)
	if err != nil {
		return neutral.Result{}, err
	}
	if f.Data != nil && (kind == neutral.KindSecret || !slices.Equal(f.Data, found.Data)) {
		return neutral.Result{}, fault.New(fault.Unsupported, "what is in a %s is not changed once it is made; create another one", kind)
	}
	labels, losses := callersLabels("labels", f.Labels)
	annotations := found.annotations
	losses = append(losses, relabel(&annotations, found.namespace, labels, f.Origin, a.op.Peer, nil)...)
	if err := a.permit(nameOf(found.id, annotations.Name, annotations.Labels).object(kind, labels)); err != nil {
		return neutral.Result{}, err
	}
	if kind == neutral.KindSecret {
		_, err = a.api.SecretUpdate(ctx, found.id, client.SecretUpdateOptions{Version: version, Spec: swarm.SecretSpec{Annotations: annotations}})
	} else {
		_, err = a.api.ConfigUpdate(ctx, found.id, client.ConfigUpdateOptions{Version: version,
			Spec: swarm.ConfigSpec{Annotations: annotations, Data: found.Data}})
	}
	if err != nil {
		return neutral.Result{}, outOfSequence(err)
	}
	return a.storedResult(ctx, kind, found.id, losses)
}

// removeStored removes one that no service uses. Which service does, the caller need not know.
func (a *action) removeStored(ctx context.Context) (neutral.Result, error) {
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	kind := a.op.Action.Kind()
	if kind == neutral.KindSecret {
		_, err = a.api.SecretRemove(ctx, found.id, client.SecretRemoveOptions{})
	} else {
		_, err = a.api.ConfigRemove(ctx, found.id, client.ConfigRemoveOptions{})
	}
	if err != nil && strings.Contains(err.Error(), "in use by") {
		return neutral.Result{}, fault.Wrap(fault.Conflict, err, "%s %s is in use by a service", kind, found.name)
	}
	return neutral.Result{ID: found.id, Removed: []string{found.id}}, faultOf(err)
}

// fileTarget is where a file is that a swarm mounts below a folder.
func fileTarget(folder, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(folder, name)
}
