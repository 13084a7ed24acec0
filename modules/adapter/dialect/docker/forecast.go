package docker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Forecaster = (*Cluster)(nil)

// Forecastable are the requests whose bodies say the whole of what they make.
func (c *Cluster) Forecastable(op neutral.Operation) bool {
	if op.Beyond {
		return false
	}
	switch op.Action {
	case neutral.ContainerCreate, neutral.ContainerUpdate, neutral.WorkloadCreate, neutral.WorkloadUpdate, neutral.NetworkCreate,
		neutral.VolumeCreate, neutral.SecretCreate, neutral.ConfigCreate, neutral.ExecCreate:
		return true
	}
	return false
}

// Forecast reads what the body asks for. An engine has no dry run; what policy's conditions have no word for and would
// change what a container may do, such as another one's volumes, is refused.
func (c *Cluster) Forecast(ctx context.Context, op neutral.Operation, req dialect.Request) (dialect.Forecast, error) {
	object, err := wantedObject(op, req)
	if f := fault.Of(err); err != nil && f.Kind != fault.Unsupported {
		return dialect.Forecast{}, err
	} else if err != nil {
		return dialect.Forecast{}, &fault.Error{Kind: f.Kind, Field: f.Field, Cause: err, Message: "the policy that allows it has conditions, to which this " +
			"cannot be held: " + f.Message}
	}
	if object.Container != nil {
		if object.Container, err = c.seen(ctx, object.Container); err != nil {
			return dialect.Forecast{}, err
		}
	}
	switch op.Action {
	case neutral.ContainerCreate, neutral.WorkloadCreate, neutral.WorkloadUpdate, neutral.VolumeCreate:
		object.Asks = asks(object)
	}
	forecast := dialect.Forecast{Objects: []neutral.Object{object}, Request: req}
	if op.Action == neutral.ContainerCreate && borrows(object.Container) {
		forecast.Made = func(ctx context.Context, answer []byte) (neutral.Object, func(context.Context) error, error) {
			return c.made(ctx, object, answer)
		}
	}
	return forecast, nil
}

// borrows tells whether a container has something by the name of another object, which others may have put in the place of
// the one that was looked at.
func borrows(container *neutral.Container) bool {
	joined := func(mode string) bool { return strings.HasPrefix(mode, "container:") }
	return container != nil && (joined(string(container.Network)) || joined(container.Security.PIDMode) || joined(container.Security.IPCMode) ||
		slices.ContainsFunc(container.Mounts, func(m neutral.Mount) bool { return m.Type == "volume" && m.Source != "" }))
}

// made is a container that was created, with what it got under the names that it asked for.
func (c *Cluster) made(ctx context.Context, object neutral.Object, answer []byte) (neutral.Object, func(context.Context) error, error) {
	var created container.CreateResponse
	if err := json.Unmarshal(answer, &created); err != nil || created.ID == "" {
		return object, nil, unreadableElement(err)
	}
	undo := func(ctx context.Context) error {
		_, err := c.api.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true})
		return err
	}
	found, err := c.lookupContainer(ctx, created.ID)
	if err != nil {
		return object, undo, err
	}
	got := *object.Container
	got.Mounts, got.UnseenMounts, got.Network = found.Container.Mounts, found.Container.UnseenMounts, found.Container.Network
	got.Security.PIDMode, got.Security.IPCMode = found.Container.Security.PIDMode, found.Container.Security.IPCMode
	object.Container = &got
	object.Asks = asks(object)
	return object, undo, nil
}

// asks are the words of conditions that must speak of an object, where there are conditions: it is given what no container
// has by itself.
func asks(object neutral.Object) []string {
	var words []string
	ask := func(word string, is bool) {
		if is {
			words = append(words, "object."+word)
		}
	}
	if v := object.Volume; v != nil {
		ask("hostMounts", v.Unseen || len(v.HostPaths) > 0)
	}
	if c := object.Container; c != nil {
		ask("hostMounts", len(c.UnseenMounts) > 0 || slices.ContainsFunc(c.Mounts, func(m neutral.Mount) bool { return m.Type == "bind" }))
		ask("seccomp", c.Security.Seccomp != neutral.ProfileDefault)
		ask("appArmor", c.Security.AppArmor != neutral.ProfileDefault)
		ask("unmaskedPaths", c.Security.UnmaskedPaths)
		ask("sysctls", len(c.Security.Sysctls) > 0)
		ask("devices", len(c.Security.Devices) > 0)
	}
	return words
}

// seen is a container as policy sees it: a volume that is a path of the host is a mount of that path, and a namespace that
// it shares with another container is the host's, where that one is in the host's.
func (c *Cluster) seen(ctx context.Context, container *neutral.Container) (*neutral.Container, error) {
	seen := *container
	for _, m := range container.Mounts {
		if m.Type != "volume" || m.Source == "" {
			continue
		}
		found, err := c.api.VolumeInspect(ctx, m.Source, client.VolumeInspectOptions{})
		switch {
		case cerrdefs.IsNotFound(err): // it is made, and is none of the host's
		case err != nil:
			return nil, faultOf(err)
		default:
			mounted(&seen, []madeVolume{{m, volumeSource(found.Volume.Driver, found.Volume.Options)}})
		}
	}
	if err := c.shared(ctx, &seen); err != nil {
		return nil, err
	}
	return &seen, nil
}

// shared follows the namespaces that a container shares with others.
func (c *Cluster) shared(ctx context.Context, seen *neutral.Container) error {
	var pid, ipc string
	network := string(seen.Network)
	for _, n := range []struct {
		mode *string
		next func(container.InspectResponse) string
	}{
		{&network, func(o container.InspectResponse) string { return string(networkModeFrom(o.HostConfig.NetworkMode)) }},
		{&pid, func(o container.InspectResponse) string { return string(o.HostConfig.PidMode) }},
		{&ipc, func(o container.InspectResponse) string { return string(o.HostConfig.IpcMode) }},
	} {
		switch n.mode {
		case &pid:
			pid = seen.Security.PIDMode
		case &ipc:
			ipc = seen.Security.IPCMode
		}
		for range sharedDepth {
			other, ok := strings.CutPrefix(*n.mode, "container:")
			if !ok {
				break
			}
			found, err := c.find(ctx, "", other)
			if fault.Is(err, fault.NotFound) || cerrdefs.IsNotFound(err) {
				break // nothing runs in it
			}
			if err != nil {
				return err
			}
			*n.mode = n.next(found)
		}
	}
	const host = "host"
	if network == host {
		seen.Network = neutral.NetworkHost
	}
	if pid == host {
		seen.Security.PIDMode = host
	}
	if ipc == host {
		seen.Security.IPCMode = host
	}
	return nil
}

// sharedDepth is how many containers one after the other may share a namespace.
const sharedDepth = 8

func wantedObject(op neutral.Operation, req dialect.Request) (neutral.Object, error) {
	switch op.Action {
	case neutral.ContainerUpdate:
		return updatedContainer(op.Object, req)
	case neutral.ExecCreate:
		return executedIn(op.Object, req)
	case neutral.NetworkCreate, neutral.VolumeCreate, neutral.SecretCreate, neutral.ConfigCreate:
		var named struct {
			Name   string
			Labels map[string]string
			// Of a volume, what it is of the host.
			Driver            string
			DriverOpts        map[string]string
			ClusterVolumeSpec json.RawMessage
		}
		if err := checkJSON(req); err != nil {
			return neutral.Object{}, err
		}
		if err := json.Unmarshal(req.Body, &named); err != nil {
			return neutral.Object{}, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
		}
		object := objectFrom(op.Object.Kind, named.Name, named.Labels)
		if op.Action == neutral.VolumeCreate {
			source := volumeSource(named.Driver, named.DriverOpts)
			source.Unseen = source.Unseen || len(named.ClusterVolumeSpec) > 0 && string(named.ClusterVolumeSpec) != "null"
			object.Volume = &source
		}
		return object, nil
	}
	decoded, losses, err := decode(op, req, true)
	if err != nil {
		return neutral.Object{}, err
	}
	for _, loss := range losses {
		if loss.Reason == reasonUnknown { // the engine may know it
			return neutral.Object{}, &fault.Error{Kind: fault.Unsupported, Field: loss.Field, Message: loss.Field + " is " + reasonUnknown}
		}
	}
	object := decoded.Object
	if decoded.Workload != nil {
		object.Name = decoded.Workload.Name
	}
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	object.Namespace = namespaceOf(object.Labels)
	return object, nil
}

// executedIn is a container with the rights that an exec gives a process in it.
func executedIn(object neutral.Object, req dialect.Request) (neutral.Object, error) {
	var exec struct {
		Privileged bool
		User       string
	}
	if err := checkJSON(req); err != nil {
		return object, err
	}
	if err := json.Unmarshal(req.Body, &exec); err != nil {
		return object, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
	}
	if object.Container == nil {
		return object, nil
	}
	next := *object.Container
	next.Security.Privileged = next.Security.Privileged || exec.Privileged
	if exec.User != "" {
		next.User = exec.User
	}
	object.Container = &next
	return object, nil
}

// updatedContainer is a container with the resources that an update gives it.
func updatedContainer(object neutral.Object, req dialect.Request) (neutral.Object, error) {
	var update container.UpdateConfig
	if err := checkJSON(req); err != nil {
		return object, err
	}
	if err := json.Unmarshal(req.Body, &update); err != nil {
		return object, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
	}
	if object.Container == nil {
		return object, nil
	}
	next := *object.Container
	given := securityFromInspect(&container.HostConfig{Resources: update.Resources})
	if len(given.Devices) > 0 {
		next.Security.Devices = append(slices.Clip(next.Security.Devices), given.Devices...)
		object.Asks = []string{"object.devices"}
	}
	if update.Memory != 0 {
		next.Resources.Memory = update.Memory
	}
	switch {
	case update.NanoCPUs != 0:
		next.Resources.MilliCPU = update.NanoCPUs / 1e6
	case update.CPUQuota != 0:
		period := update.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		next.Resources.MilliCPU = max(update.CPUQuota, 0) * 1000 / period
	}
	if update.Memory < 0 {
		next.Resources.Memory = 0 // no limit
	}
	object.Container = &next
	return object, nil
}
