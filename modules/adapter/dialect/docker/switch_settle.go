package docker

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A container counts as running once it has run on for settleTime; an engine is asked each settlePause. healthLimit bounds how
// long one with a health check may take, whatever its own times are.
const (
	settleTime  = time.Second
	settlePause = 100 * time.Millisecond
	healthLimit = 5 * time.Minute
)

// settled waits until the engine says that a container runs, in a mode, and is healthy where it tells its health. "" is any mode.
func (c *Cluster) settled(ctx context.Context, id, name string, mode neutral.NetworkMode) error {
	began := time.Now()
	var since string
	for {
		found, err := c.inspect(ctx, id)
		if err != nil {
			return err
		}
		if found == nil {
			return fault.New(fault.Conflict, "container %s was removed", name)
		}
		state := found.Container.State
		if !state.Running || state.Restarting || found.Container.RestartCount > 0 && mode != "" {
			return fault.New(fault.Conflict, "container %s does not go on running: it ended with exit code %d", name, state.ExitCode)
		}
		if since != state.StartedAt {
			since, began = state.StartedAt, time.Now()
		}
		done, limit, err := healthy(found.Container, name, mode)
		if err != nil {
			return err
		}
		if done && time.Since(began) >= settleTime {
			return c.inMode(ctx, found.Container, mode)
		}
		if time.Since(began) > max(limit, settleTime) {
			return fault.New(fault.Timeout, "container %s does not become healthy within %s", name, limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePause):
		}
	}
}

// healthy reads a container's health, which only a new one must come to, and how long that may take.
func healthy(found container.InspectResponse, name string, mode neutral.NetworkMode) (done bool, limit time.Duration, err error) {
	check := found.Config.Healthcheck
	if mode == "" || check == nil || len(check.Test) == 0 || check.Test[0] == "NONE" || found.State.Health == nil {
		return true, 0, nil
	}
	switch found.State.Health.Status {
	case container.Healthy:
		return true, 0, nil
	case container.Unhealthy:
		return false, 0, fault.New(fault.Conflict, "container %s is unhealthy in its new network mode", name)
	}
	interval, timeout, retries := check.Interval, check.Timeout, check.Retries
	if interval == 0 {
		interval = 30 * time.Second
	}
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if retries == 0 {
		retries = 3
	}
	return false, min(healthLimit, check.StartPeriod+time.Duration(retries+1)*(interval+timeout)), nil
}

// inMode holds the engine to the mode that was wanted.
func (c *Cluster) inMode(ctx context.Context, found container.InspectResponse, mode neutral.NetworkMode) error {
	if mode == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	where, err := c.place(ctx, found.ID, string(found.HostConfig.NetworkMode), found.NetworkSettings.Networks, &gateways{cluster: c})
	if err != nil {
		return err
	}
	if where.mode != mode {
		return fault.New(fault.Internal, "the engine started the container in network mode %s, not in %s", where.mode, mode)
	}
	return nil
}

// strayed compares what was asked for with what an engine made of it, and names the members that differ.
func strayed(asked, made map[string]any) []string {
	config := maps.Clone(replica.Object(made, "Config"))
	host := replica.Object(made, "HostConfig")
	var other []string
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		if key != "HostConfig" && !alike(asked[key], config[key]) {
			other = append(other, "Config."+key)
		}
	}
	said := replica.Object(asked, "HostConfig")
	for _, key := range slices.Sorted(maps.Keys(said)) {
		if key == "PortBindings" && said["NetworkMode"] == string(neutral.NetworkHost) { // which engines may forget there
			continue
		}
		if !alike(said[key], host[key]) {
			other = append(other, "HostConfig."+key)
		}
	}
	return other
}

// alike tells whether two values mean the same to an engine: nothing is nothing, however it is written.
func alike(x, y any) bool {
	x, y = bare(x), bare(y)
	if replica.Empty(x) && replica.Empty(y) {
		return true
	}
	one, err := json.Marshal(x)
	if err != nil {
		return false
	}
	two, err := json.Marshal(y)
	return err == nil && reflect.DeepEqual(one, two)
}

func bare(value any) any {
	value = replica.Clone(value)
	switch v := value.(type) {
	case map[string]any:
		replica.Prune(v)
	case []any:
		if len(v) == 1 && v[0] == "" { // how an entrypoint of none is asked for
			return nil
		}
	}
	return value
}
