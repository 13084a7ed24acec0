package docker

import (
	"context"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// action is one operation on its way to a plan.
type action struct {
	*Cluster
	op      neutral.Operation
	guard   dialect.Guard
	terms   dialect.Terms                   // of the object that policy was asked about last
	sources map[string]neutral.VolumeSource // of volumes, by the engine's names; read once
	kept    map[string]volume.Volume        // the volumes themselves
	known   []network.Summary               // networks; read once
}

// plans is the published list of what this dialect does for callers of other orchestrators; refusals stand in refused.
var plans = map[neutral.Action]func(*action) (dialect.Plan, error){
	neutral.SystemPing:    program((*action).system),
	neutral.SystemVersion: program((*action).system),
	neutral.SystemInfo:    program((*action).system),

	neutral.EventWatch: stream((*action).watchEvents),

	neutral.ContainerList:    program((*action).listContainers),
	neutral.ContainerInspect: program((*action).inspectContainer),
	neutral.ContainerCreate:  lasting((*action).createContainer),
	neutral.ContainerStart:   lasting((*action).startContainer),
	neutral.ContainerStop:    lasting((*action).stopContainer),
	neutral.ContainerKill:    lasting((*action).killContainer),
	neutral.ContainerRestart: lasting((*action).restartContainer),
	neutral.ContainerPause:   lasting((*action).pauseContainer),
	neutral.ContainerUnpause: lasting((*action).unpauseContainer),
	neutral.ContainerRemove:  lasting((*action).removeContainer),
	neutral.ContainerPrune:   lasting((*action).pruneContainers),
	neutral.ContainerRename:  program((*action).renameContainer),
	neutral.ContainerUpdate:  program((*action).updateContainer),
	neutral.ContainerTop:     program((*action).topContainer),
	neutral.ContainerStat:    program((*action).statFile),
	neutral.ContainerStats:   stream((*action).containerUsage),
	neutral.ContainerCopyOut: stream((*action).copyOut),
	neutral.ContainerCopyIn:  stream((*action).copyIn),
	neutral.ContainerWait:    stream((*action).waitContainer),
	neutral.ContainerLogs:    stream((*action).containerLogs),
	neutral.ContainerAttach:  stream((*action).attachContainer),
	neutral.ExecCreate:       program((*action).createExec),
	neutral.ExecStart:        stream((*action).startExec),

	neutral.WorkloadList:    program((*action).listServices),
	neutral.WorkloadInspect: program((*action).inspectService),
	neutral.WorkloadCreate:  program((*action).createService),
	neutral.WorkloadUpdate:  program((*action).updateService),
	neutral.WorkloadRemove:  program((*action).removeService),
	neutral.WorkloadLogs:    stream((*action).workloadLogs),
	neutral.TaskLogs:        stream((*action).taskLogs),
	neutral.TaskList:        program((*action).listTasks),
	neutral.TaskInspect:     program((*action).inspectTask),

	neutral.NodeList:      program((*action).listNodes),
	neutral.NodeInspect:   program((*action).inspectNode),
	neutral.NetworkList:   program((*action).listNetworks),
	neutral.NetworkGet:    program((*action).inspectNetwork),
	neutral.NetworkCreate: program((*action).createNetwork),
	neutral.NetworkRemove: program((*action).removeNetwork),
	neutral.NetworkPrune:  lasting((*action).pruneNetworks),
	neutral.NetworkJoin:   program((*action).joinNetwork),
	neutral.NetworkLeave:  program((*action).leaveNetwork),
	neutral.VolumeList:    program((*action).listVolumes),
	neutral.VolumeGet:     program((*action).inspectVolume),
	neutral.VolumeCreate:  program((*action).createVolume),
	neutral.VolumeRemove:  program((*action).removeVolume),
	neutral.VolumePrune:   lasting((*action).pruneVolumes),
	neutral.ImageList:     program((*action).listImages),
	neutral.ImageInspect:  program((*action).inspectImage),
	neutral.ImagePull:     stream((*action).pullImage),
	neutral.SecretList:    program((*action).listStored),
	neutral.SecretGet:     program((*action).inspectStored),
	neutral.SecretCreate:  program((*action).createStored),
	neutral.SecretUpdate:  program((*action).updateStored),
	neutral.SecretRemove:  program((*action).removeStored),
	neutral.ConfigList:    program((*action).listStored),
	neutral.ConfigGet:     program((*action).inspectStored),
	neutral.ConfigCreate:  program((*action).createStored),
	neutral.ConfigUpdate:  program((*action).updateStored),
	neutral.ConfigRemove:  program((*action).removeStored),
}

// refused says why the rest is not done.
var refused = map[neutral.Action]string{
	neutral.SystemUsage:      "the disk usage of an engine is told to docker callers alone",
	neutral.ContainerChanges: "diff is refused: which files a container changed is told to docker callers alone",
	neutral.SystemAuth:       "an engine logs in to registries with the credentials of its own callers",
	neutral.ContainerExport:  "export is refused: a container's whole file system is given to docker callers alone",
	neutral.ContainerCommit:  "commit is refused: images are made by docker callers alone",
}

// refusedKinds says it of all the rest of a kind.
var refusedKinds = map[neutral.Kind]string{
	neutral.KindImage:  "images are made, tagged and removed by docker callers alone",
	neutral.KindVolume: "a volume is not changed once it is made",
	neutral.KindNode:   "nodes of a swarm are changed by docker callers alone",
	neutral.KindSystem: "the make-up of a swarm is changed by docker callers alone",
}

// refusal is why an action is not done, "" for none that is known.
func refusal(action neutral.Action) string {
	if reason, ok := refused[action]; ok {
		return reason
	}
	return refusedKinds[action.Kind()]
}

// Plan says how op is done on an engine. A docker caller's own requests pass through untouched and are not planned.
func (c *Cluster) Plan(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
	a := &action{Cluster: c, op: op, guard: guard}
	if guard == nil {
		a.guard = func(neutral.Object) (dialect.Terms, error) {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission: no policy was asked")
		}
	}
	if plan, ok := plans[op.Action]; ok {
		return plan(a)
	}
	if reason := refusal(op.Action); reason != "" {
		return dialect.Plan{}, fault.New(fault.Unsupported, "%s", reason)
	}
	what := string(op.Action)
	if op.Action == neutral.ObjectRaw && op.Object.Resource != "" {
		what = string(op.Verb) + " of " + op.Object.Resource
	}
	return dialect.Plan{}, fault.New(fault.Unsupported, "%s has no form in Docker", what)
}

// program plans what asks for a few answers, all within callDeadline.
func program(run func(*action, context.Context) (neutral.Result, error)) func(*action) (dialect.Plan, error) {
	return func(a *action) (dialect.Plan, error) {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
			ctx, cancel := context.WithTimeout(ctx, callDeadline)
			defer cancel()
			result, err := run(a, ctx)
			return result, faultOf(err)
		}}, nil
	}
}

// lasting plans what an engine may take its time for; whoever runs it bounds it.
func lasting(run func(*action, context.Context) (neutral.Result, error)) func(*action) (dialect.Plan, error) {
	return func(a *action) (dialect.Plan, error) {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
			result, err := run(a, ctx)
			return result, faultOf(err)
		}}, nil
	}
}

func stream(run func(*action, context.Context, neutral.Session) (neutral.Result, error)) func(*action) (dialect.Plan, error) {
	return func(a *action) (dialect.Plan, error) {
		return dialect.Plan{Stream: func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
			return run(a, ctx, session)
		}}, nil
	}
}

// permit asks policy about an object.
func (a *action) permit(object neutral.Object) error {
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	terms, err := a.guard(object)
	a.terms = terms
	return err
}

// permitSeen asks policy about an object with all that its container has by way of volumes and of other containers'
// namespaces. The container's volumes are called as the engine calls them.
func (a *action) permitSeen(ctx context.Context, object neutral.Object) error {
	if object.Container != nil {
		seen, err := a.see(ctx, object.Container)
		if err != nil {
			return err
		}
		object.Container = seen
	}
	return a.permit(object)
}

// permitMade asks policy about what an operation would make. A container of an engine can have what no container has by
// itself, of which a policy's conditions must speak.
func (a *action) permitMade(ctx context.Context, object neutral.Object) error {
	if c := object.Container; c != nil {
		made := *c
		if made.Security.Seccomp == "" {
			made.Security.Seccomp = neutral.ProfileDefault
		}
		if made.Security.AppArmor == "" {
			made.Security.AppArmor = neutral.ProfileDefault
		}
		seen, err := a.see(ctx, &made)
		if err != nil {
			return err
		}
		object.Container = seen
	}
	object.Asks = asks(object)
	return a.permit(object)
}

// see is a container with what of its host volumes and shared namespaces bring into it.
func (a *action) see(ctx context.Context, c *neutral.Container) (*neutral.Container, error) {
	seen := *c
	var made []madeVolume
	for _, m := range c.Mounts {
		if m.Type != string(neutral.KindVolume) || m.Source == "" {
			continue
		}
		sources, err := a.volumeSources(ctx)
		if err != nil {
			return nil, err
		}
		made = append(made, madeVolume{m, sources[m.Source]})
	}
	mounted(&seen, made)
	return &seen, a.shared(ctx, &seen)
}

// volumeSources are what of the host the engine's volumes are, by their names.
func (a *action) volumeSources(ctx context.Context) (map[string]neutral.VolumeSource, error) {
	if a.sources == nil {
		list, err := a.api.VolumeList(ctx, client.VolumeListOptions{})
		if err != nil {
			return nil, faultOf(err)
		}
		a.sources = map[string]neutral.VolumeSource{}
		a.kept = map[string]volume.Volume{}
		for _, v := range list.Items {
			a.sources[v.Name], a.kept[v.Name] = volumeSource(v.Driver, v.Options), v
		}
	}
	return a.sources, nil
}
