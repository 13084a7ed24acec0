package docker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func volumeObject(v volume.Volume) neutral.Object {
	object := nameOf("", v.Name, v.Labels).object(neutral.KindVolume, v.Labels)
	source := volumeSource(v.Driver, v.Options)
	object.Volume = &source
	return object
}

// volumeFromNative reads a volume. Its options are not told: they are where its addresses and passwords are.
func volumeFromNative(v volume.Volume) neutral.Volume {
	n := nameOf("", v.Name, v.Labels)
	_, marked := v.Labels[labelAnonymous]
	told := neutral.Volume{Name: n.name, Namespace: n.namespace, Driver: v.Driver, Scope: v.Scope, Labels: readBeside(v.Labels).labels,
		Anonymous: marked || isAnonymous(v.Name)}
	if at, err := time.Parse(time.RFC3339Nano, v.CreatedAt); err == nil {
		told.Created = at
	}
	return told
}

// volumesOf are the engine's volumes that the operation's filter wants and that the caller may see.
func (a *action) volumesOf(ctx context.Context, dangling *bool) ([]volume.Volume, error) {
	options := client.VolumeListOptions{Filters: client.Filters{}}
	if dangling != nil {
		options.Filters.Add("dangling", strconv.FormatBool(*dangling))
	}
	list, err := a.api.VolumeList(ctx, options)
	if err != nil {
		return nil, faultOf(err)
	}
	f := a.op.Filter
	kept := slices.DeleteFunc(list.Items, func(v volume.Volume) bool {
		n := nameOf("", v.Name, v.Labels)
		return !n.in(a.op.Object.Namespace) || !anyContains(f.Names, n.name) || !labelsMatch(f.Labels, v.Labels) ||
			len(f.Drivers) > 0 && !slices.Contains(f.Drivers, v.Driver) || a.permit(volumeObject(v)) != nil
	})
	slices.SortFunc(kept, func(x, y volume.Volume) int { return strings.Compare(x.Name, y.Name) })
	return kept, nil
}

func (a *action) listVolumes(ctx context.Context) (neutral.Result, error) {
	all, err := a.volumesOf(ctx, a.op.Filter.Dangling)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{Volumes: []neutral.Volume{}}
	for _, v := range all {
		result.Volumes = append(result.Volumes, volumeFromNative(v))
	}
	return result, nil
}

// findVolume gives the volume that the operation names, once policy lets the caller have it.
func (a *action) findVolume(ctx context.Context) (*volume.Volume, error) {
	list, err := a.api.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, faultOf(err)
	}
	all := make([]named, len(list.Items))
	for i, v := range list.Items {
		all[i] = nameOf("", v.Name, v.Labels)
	}
	i, err := find("volume", a.op.Object.Namespace, a.op.Ref, all)
	if err != nil {
		return nil, err
	}
	return &list.Items[i], a.permit(volumeObject(list.Items[i]))
}

func (a *action) inspectVolume(ctx context.Context) (neutral.Result, error) {
	found, err := a.findVolume(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Volumes: []neutral.Volume{volumeFromNative(*found)}}, nil
}

// createVolume makes a volume. One that is there already is the answer, as an engine has it.
func (a *action) createVolume(ctx context.Context) (neutral.Result, error) {
	v := a.op.Volume
	if v == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no volume is asked for")
	}
	namespace := a.namespace()
	labels, losses := callersLabels("labels", v.Labels)
	wanted := volume.Volume{Driver: v.Driver, Options: v.Options, Labels: labelsIn(namespace, labels)}
	if v.Name != "" {
		wanted.Name = volumeName(namespace, v.Name)
		if _, err := a.volumeSources(ctx); err != nil {
			return neutral.Result{}, err
		}
		if there, ok := a.kept[wanted.Name]; ok {
			if err := a.permit(volumeObject(there)); err != nil {
				return neutral.Result{}, err
			}
			if v.Driver != "" && v.Driver != there.Driver {
				return neutral.Result{}, fault.New(fault.Conflict, "a volume %s is there already, of the driver %s", v.Name, there.Driver)
			}
			return neutral.Result{Volumes: []neutral.Volume{volumeFromNative(there)}}, nil
		}
	}
	if err := a.permitMade(ctx, volumeObject(wanted)); err != nil {
		return neutral.Result{}, err
	}
	made, err := a.api.VolumeCreate(ctx, client.VolumeCreateOptions{Name: wanted.Name, Driver: wanted.Driver, DriverOpts: wanted.Options, Labels: wanted.Labels})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return neutral.Result{Volumes: []neutral.Volume{volumeFromNative(made.Volume)}, Losses: losses}, nil
}

func (a *action) removeVolume(ctx context.Context) (neutral.Result, error) {
	found, err := a.findVolume(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	force := a.op.Remove != nil && a.op.Remove.Force
	told := volumeFromNative(*found)
	_, err = a.api.VolumeRemove(ctx, found.Name, client.VolumeRemoveOptions{Force: force})
	return neutral.Result{Removed: []string{told.Name}}, inUse(err, "volume", told.Name)
}

// pruneVolumes removes the volumes that no container has.
func (a *action) pruneVolumes(ctx context.Context) (neutral.Result, error) {
	unused := true
	all, err := a.volumesOf(ctx, &unused)
	if err != nil {
		return neutral.Result{}, err
	}
	var result neutral.Result
	for _, v := range all {
		told := volumeFromNative(v)
		if a.op.Filter.Anonymous && !told.Anonymous || !a.op.Until.IsZero() && !told.Created.Before(a.op.Until) {
			continue
		}
		_, err := a.api.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		if err = inUse(err, "volume", told.Name); fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return result, err
		}
		result.Removed = append(result.Removed, told.Name)
	}
	return result, nil
}
