package docker

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// switchMonitor is how long a swarm watches a container of a switch before it takes it for good.
const switchMonitor = 3 * time.Second

// serviceSwitch is what is remembered of a service's switch: the spec that it had, and what becomes of it. All that is
// written follows from it.
type serviceSwitch struct {
	Service string            `json:"service"` // its id
	Was     swarm.ServiceSpec `json:"was"`
	// Networks are those of the new mode, as ids of the swarm.
	Networks []swarm.NetworkAttachmentConfig `json:"networks"`
	Host     bool                            `json:"host,omitempty"`  // the new mode is host
	Apart    bool                            `json:"apart,omitempty"` // two containers on one node would want the same port
	Pin      string                          `json:"pin,omitempty"`   // the node that the only container stays on
	// The target's task: its slot, or, of a global service, its node.
	Slot int    `json:"slot,omitempty"`
	Node string `json:"node,omitempty"`
}

// readServiceSwitch gives nil for a plan that changes nothing.
func readServiceSwitch(native json.RawMessage) (*serviceSwitch, error) {
	if len(native) == 0 {
		return nil, nil
	}
	var c *serviceSwitch
	if err := json.Unmarshal(native, &c); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "what was remembered of the switch cannot be read")
	}
	return c, nil
}

// spec is the service's in its new mode. Where a container of it does not stay up, the swarm goes back by itself.
func (c *serviceSwitch) spec(lease string) swarm.ServiceSpec {
	spec := c.Was
	spec.Labels = maps.Clone(c.Was.Labels)
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	spec.Labels[labelSwitch] = lease
	spec.TaskTemplate.Networks = c.Networks
	if c.Host {
		ports, _ := publishedOnHost(c.Was.EndpointSpec)
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR, Ports: ports}
	}
	if c.Apart || c.Pin != "" {
		placement := swarm.Placement{}
		if c.Was.TaskTemplate.Placement != nil {
			placement = *c.Was.TaskTemplate.Placement
		}
		if c.Apart {
			placement.MaxReplicas = 1
		}
		if c.Pin != "" {
			placement.Constraints = append(slices.Clone(placement.Constraints), "node.id=="+c.Pin)
		}
		spec.TaskTemplate.Placement = &placement
	}
	spec.UpdateConfig = c.update(swarm.UpdateFailureActionRollback)
	return spec
}

// half is the spec on the way back: all as it was but for the way of the update. Where a container does not stay up, the
// swarm goes on to try in the mode that the service had.
func (c *serviceSwitch) half() swarm.ServiceSpec {
	spec := c.Was
	spec.UpdateConfig = c.update(swarm.UpdateFailureActionPause)
	return spec
}

// update is how a swarm does it. The old container ends first: on the host's network both would want the port.
func (c *serviceSwitch) update(failure swarm.FailureAction) *swarm.UpdateConfig {
	update := &swarm.UpdateConfig{Parallelism: 1, FailureAction: failure, Monitor: switchMonitor, Order: swarm.UpdateOrderStopFirst}
	if c.Was.UpdateConfig != nil {
		update.Parallelism = c.Was.UpdateConfig.Parallelism
	}
	return update
}

// publishedOnHost are the published ports that mean the same on the host's network, and those that do not.
func publishedOnHost(endpoint *swarm.EndpointSpec) (stay, leave []swarm.PortConfig) {
	if endpoint == nil {
		return nil, nil
	}
	for _, p := range endpoint.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort == p.TargetPort {
			stay = append(stay, p)
		} else {
			leave = append(leave, p)
		}
	}
	return stay, leave
}

// scaledAs gives a spec as many tasks as another one has: a service that was scaled is otherwise what it was.
func scaledAs(spec, live swarm.ServiceSpec) swarm.ServiceSpec {
	if spec.Mode.Replicated != nil && live.Mode.Replicated != nil {
		spec.Mode = live.Mode
	}
	return spec
}

// sameSpec compares specs, whatever is written for nothing.
func sameSpec(x, y swarm.ServiceSpec) bool {
	mine, err := json.Marshal(x)
	if err != nil {
		return false
	}
	theirs, err := json.Marshal(y)
	return err == nil && sameDocument(mine, theirs)
}

func sameDocument(x, y []byte) bool {
	mine, err := canonical(x)
	if err != nil {
		return false
	}
	theirs, err := canonical(y)
	return err == nil && bytes.Equal(mine, theirs)
}

// canonical writes a JSON document without what says nothing: an engine leaves out, or writes, a zero as it likes.
func canonical(raw []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // nanoseconds pass what a float holds
	var document any
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	return json.Marshal(withoutZeros(document))
}

// free are the fields whose keys are the user's: there an empty word says something.
var free = []string{"Labels", "Options", "Sysctls"}

// withoutZeros gives nil for what says nothing.
func withoutZeros(value any) any {
	switch value := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, field := range value {
			if named, ok := field.(map[string]any); !ok || len(named) == 0 || !slices.Contains(free, key) {
				field = withoutZeros(field)
			}
			if field != nil {
				kept[key] = field
			}
		}
		if len(kept) > 0 {
			return kept
		}
	case []any:
		if len(value) == 0 {
			return nil
		}
		kept := make([]any, len(value)) // the place of an element counts
		for i := range value {
			kept[i] = withoutZeros(value[i])
		}
		return kept
	case json.Number:
		if value != "0" {
			return value
		}
	case string:
		if value != "" {
			return value
		}
	case bool:
		if value {
			return value
		}
	}
	return nil
}

// wholeSpec tells whether a service's spec was read whole: what an engine knows and the gateway does not would be gone
// once it is written.
func wholeSpec(service swarm.Service, raw json.RawMessage) bool {
	var document struct{ Spec json.RawMessage }
	if json.Unmarshal(raw, &document) != nil {
		return false
	}
	mine, err := json.Marshal(service.Spec)
	return err == nil && sameDocument(mine, document.Spec)
}
