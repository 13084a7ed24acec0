package docker

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/moby/moby/api/types/container"

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
		neutral.VolumeCreate, neutral.SecretCreate, neutral.ConfigCreate:
		return true
	}
	return false
}

// Forecast reads what the body asks for. An engine has no dry run; what policy's conditions have no word for and would
// change what a container may do, such as a device, is refused.
func (c *Cluster) Forecast(ctx context.Context, op neutral.Operation, req dialect.Request) (dialect.Forecast, error) {
	object, err := wantedObject(op, req)
	if f := fault.Of(err); err != nil && f.Kind != fault.Unsupported {
		return dialect.Forecast{}, err
	} else if err != nil {
		return dialect.Forecast{}, &fault.Error{Kind: f.Kind, Field: f.Field, Cause: err, Message: "the policy that allows it has conditions, to which this " +
			"cannot be held: " + f.Message}
	}
	if object.Container != nil {
		if object.Container, err = c.sharing(ctx, object.Container); err != nil {
			return dialect.Forecast{}, err
		}
	}
	return dialect.Forecast{Objects: []neutral.Object{object}, Request: req}, nil
}

// sharing is a container that shares another one's network as policy sees it: in the host's, where that one is.
func (c *Cluster) sharing(ctx context.Context, wanted *neutral.Container) (*neutral.Container, error) {
	network := wanted.Network
	for range 8 {
		other, ok := strings.CutPrefix(string(network), "container:")
		if !ok {
			break
		}
		found, err := c.find(ctx, "", other)
		if err != nil {
			return nil, err
		}
		network = networkModeFrom(found.HostConfig.NetworkMode)
	}
	if network != neutral.NetworkHost || wanted.Network == network {
		return wanted, nil
	}
	shared := *wanted
	shared.Network = network
	return &shared, nil
}

func wantedObject(op neutral.Operation, req dialect.Request) (neutral.Object, error) {
	switch op.Action {
	case neutral.ContainerUpdate:
		return updatedContainer(op.Object, req)
	case neutral.NetworkCreate, neutral.VolumeCreate, neutral.SecretCreate, neutral.ConfigCreate:
		var named struct {
			Name   string
			Labels map[string]string
		}
		if err := checkJSON(req); err != nil {
			return neutral.Object{}, err
		}
		if err := json.Unmarshal(req.Body, &named); err != nil {
			return neutral.Object{}, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
		}
		return objectFrom(op.Object.Kind, named.Name, named.Labels), nil
	}
	decoded, losses, err := Dialect{}.Decode(op, req)
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

// updatedContainer is a container with the resources that an update gives it.
func updatedContainer(object neutral.Object, req dialect.Request) (neutral.Object, error) {
	var update container.UpdateConfig
	if err := checkJSON(req); err != nil {
		return object, err
	}
	if err := json.Unmarshal(req.Body, &update); err != nil {
		return object, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
	}
	if len(update.Devices) > 0 || len(update.DeviceRequests) > 0 || len(update.DeviceCgroupRules) > 0 {
		return object, fault.New(fault.Unsupported, "devices")
	}
	if object.Container == nil {
		return object, nil
	}
	next := *object.Container
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
