package docker

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// swapPerMemory is what engines give a container of memory and swap together, where nobody says it.
const swapPerMemory = 2

// updateContainer changes what a container may use and how it restarts. Zero leaves a resource as it is.
func (a *action) updateContainer(ctx context.Context) (neutral.Result, error) {
	asked := a.op.Container
	if asked == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "nothing to update was named")
	}
	found, err := a.ownContainer(ctx, "update")
	if err != nil {
		return neutral.Result{}, err
	}
	next := found.Container
	resources := resourcesToNative(asked.Resources)
	if asked.Resources.Memory != 0 && asked.Resources.Memory != found.Resources.Memory {
		resources.MemorySwap = asked.Resources.Memory * swapPerMemory
	}
	for _, r := range []struct{ to, from *int64 }{
		{&next.Resources.MilliCPU, &asked.Resources.MilliCPU}, {&next.Resources.MilliCPUReserved, &asked.Resources.MilliCPUReserved},
		{&next.Resources.Memory, &asked.Resources.Memory}, {&next.Resources.MemoryReserved, &asked.Resources.MemoryReserved},
	} {
		if *r.from != 0 {
			*r.to = *r.from
		}
	}
	options := client.ContainerUpdateOptions{Resources: &resources}
	if asked.Restart.Mode != "" {
		next.Restart = asked.Restart
		options.RestartPolicy = &container.RestartPolicy{Name: container.RestartPolicyMode(asked.Restart.Mode), MaximumRetryCount: asked.Restart.Max}
	}
	object := found.object()
	object.Container = &next
	if err := a.permitSeen(ctx, object); err != nil {
		return neutral.Result{}, err
	}
	updated, err := a.api.ContainerUpdate(ctx, found.id, options)
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	result := neutral.Result{ID: found.id}
	for _, warning := range updated.Warnings {
		result.Losses = append(result.Losses, neutral.Loss{Field: "container", Change: warning})
	}
	return result, nil
}

// renameContainer gives a container another name in its namespace.
func (a *action) renameContainer(ctx context.Context) (neutral.Result, error) {
	if a.op.NewName == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the new name is missing")
	}
	found, err := a.ownContainer(ctx, "rename")
	if err != nil {
		return neutral.Result{}, err
	}
	object := found.object()
	object.Name = a.op.NewName
	if err := a.permitSeen(ctx, object); err != nil {
		return neutral.Result{}, err
	}
	_, err = a.api.ContainerRename(ctx, found.id, client.ContainerRenameOptions{NewName: dockerName(found.namespace, a.op.NewName)})
	return neutral.Result{ID: found.id}, faultOf(err)
}
