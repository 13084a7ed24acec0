package docker

import (
	"bytes"
	"context"
	"encoding/json"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// An answer about one object tells of others: a network of what is on it, the disk's usage of what uses it.

// usages are the members of the disk's usage that hold lists since API 1.52.
var usages = map[string]bool{"ContainerUsage": true, "ImageUsage": true, "VolumeUsage": true, "BuildCacheUsage": true}

// usedPart leaves in a member of the disk's usage what may be seen.
func (c *Cluster) usedPart(ctx context.Context, key string, raw []byte, see func(neutral.Object) bool) ([]byte, error) {
	if !usages[key] || isNull(raw) {
		return raw, nil
	}
	return changedMembers(raw, func(usage map[string]json.RawMessage) error {
		var items []json.RawMessage
		if isNull(usage["Items"]) {
			return nil
		}
		if err := json.Unmarshal(usage["Items"], &items); err != nil {
			return err
		}
		kept := items[:0]
		for _, item := range items {
			one, err := (&listing{cluster: c, ctx: ctx, kind: usedKind(item)}).see(item, see)
			if err != nil {
				return err
			}
			if one != nil {
				kept = append(kept, one)
			}
		}
		var err error
		usage["Items"], err = json.Marshal(kept)
		return err
	})
}

// onNetwork leaves of a network's own parts what may be seen of what is on it.
func (c *Cluster) onNetwork(ctx context.Context, key string, raw []byte, see func(neutral.Object) bool) ([]byte, error) {
	switch {
	case isNull(raw):
		return raw, nil
	case key == "Containers":
		return changedMembers(raw, func(containers map[string]json.RawMessage) error {
			for id := range containers {
				seen, err := c.seenByID(ctx, id, see)
				if err != nil {
					return err
				}
				if !seen {
					delete(containers, id)
				}
			}
			return nil
		})
	case key == "Services":
		return changedMembers(raw, func(services map[string]json.RawMessage) error {
			if len(services) == 0 {
				return nil
			}
			all, err := c.api.ServiceList(ctx, client.ServiceListOptions{})
			if err != nil {
				return faultOf(err)
			}
			known := map[string]swarm.ServiceSpec{}
			for _, s := range all.Items {
				known[s.Spec.Name] = s.Spec
			}
			for name := range services {
				if spec, ok := known[name]; !ok || !see(objectFromService(spec)) {
					delete(services, name)
				}
			}
			return nil
		})
	}
	return raw, nil
}

// seenByID tells whether a container may be seen. One that is gone, or is none (a network's own endpoint), is judged by its id.
func (c *Cluster) seenByID(ctx context.Context, id string, see func(neutral.Object) bool) (bool, error) {
	object, err := c.lookupContainer(ctx, id)
	if fault.Is(err, fault.NotFound) || cerrdefs.IsNotFound(err) {
		object, err = objectFrom(neutral.KindContainer, id, nil), nil
	}
	if err != nil {
		return false, faultOf(err)
	}
	return see(object), nil
}

// networkElement is a network of a list. Before API 1.28 each told of what is on it.
func (c *Cluster) networkElement(ctx context.Context, element []byte, see func(neutral.Object) bool) ([]byte, error) {
	if !bytes.Contains(element, []byte(`"Containers"`)) && !bytes.Contains(element, []byte(`"Services"`)) {
		return element, nil
	}
	return changedMembers(element, func(network map[string]json.RawMessage) error {
		for _, key := range []string{"Containers", "Services"} {
			if raw, ok := network[key]; ok {
				kept, err := c.onNetwork(ctx, key, raw, see)
				if err != nil {
					return err
				}
				network[key] = kept
			}
		}
		return nil
	})
}

func isNull(raw []byte) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null"
}

func changedMembers(raw []byte, change func(map[string]json.RawMessage) error) ([]byte, error) {
	var members map[string]json.RawMessage
	err := json.Unmarshal(raw, &members)
	if err == nil {
		err = change(members)
	}
	if err == nil {
		raw, err = json.Marshal(members)
	}
	if err != nil {
		if f := fault.Of(err); f.Kind != fault.Internal {
			return nil, err
		}
		return nil, unreadableElement(err)
	}
	return raw, nil
}
