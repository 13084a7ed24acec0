package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Encode renders a result as an engine of APIVersion does. Every answer but a list or an inspect of another kind has one
// shape in all versions that are served; what older clients still look for is there as well.
func (d Dialect) Encode(op neutral.Operation, req dialect.Request, result neutral.Result) (dialect.Response, error) {
	q, err := parseQuery(req)
	if err != nil {
		return dialect.Response{}, err
	}
	switch op.Action {
	case neutral.ContainerStart, neutral.ContainerStop, neutral.ContainerKill, neutral.ContainerRestart,
		neutral.ContainerRemove, neutral.ContainerPause, neutral.ContainerUnpause, neutral.ContainerRename,
		neutral.VolumeRemove, neutral.NetworkRemove, neutral.SecretRemove, neutral.ConfigRemove:
		return answerEmpty(http.StatusNoContent), nil
	case neutral.ContainerResize, neutral.ExecResize, neutral.WorkloadRemove, neutral.NetworkJoin, neutral.NetworkLeave,
		neutral.SecretUpdate, neutral.ConfigUpdate, neutral.ExecStart: // a start that detaches
		return answerEmpty(http.StatusOK), nil
	case neutral.SystemPing:
		return ping(req), nil
	case neutral.ContainerStat:
		return answerStat(result)
	default:
		body, status, err := d.encodeBody(op, q, result)
		if err != nil {
			return dialect.Response{}, err
		}
		return answerJSON(status, body)
	}
}

// encodeBody gives the body and the status of an answer that has one.
func (d Dialect) encodeBody(op neutral.Operation, q *query, result neutral.Result) (any, int, error) {
	switch op.Action {
	case neutral.SystemVersion:
		return required(result.System, versionToDocker, http.StatusOK)
	case neutral.SystemInfo:
		return required(result.System, infoToDocker, http.StatusOK)
	case neutral.SwarmInspect:
		return required(result.System, swarmToDocker, http.StatusOK)
	case neutral.ContainerList:
		return d.containersToDocker(q, result.Containers), http.StatusOK, nil
	case neutral.ContainerInspect:
		return required(result.Container, d.containerToDocker, http.StatusOK)
	case neutral.ContainerCreate:
		return container.CreateResponse{ID: result.ID, Warnings: warnings(result.Losses)}, http.StatusCreated, nil
	case neutral.ContainerUpdate:
		return updateResponse{Warnings: warnings(result.Losses)}, http.StatusOK, nil
	case neutral.ContainerTop:
		return required(result.Top, topToDocker, http.StatusOK)
	case neutral.ContainerWait:
		return container.WaitResponse{StatusCode: int64(result.ExitCode)}, http.StatusOK, nil
	case neutral.ContainerPrune:
		return container.PruneReport{ContainersDeleted: listed(result.Removed)}, http.StatusOK, nil
	case neutral.ExecCreate:
		return container.ExecCreateResponse{ID: result.ID}, http.StatusCreated, nil
	case neutral.ExecInspect:
		return required(result.Exec, execToDocker, http.StatusOK)
	case neutral.ImageList:
		return imagesToDocker(q, result.Images), http.StatusOK, nil
	case neutral.ImageInspect:
		return required(result.Image, imageToDocker, http.StatusOK)
	case neutral.NetworkList:
		return networksToDocker(q, result.Networks), http.StatusOK, nil
	case neutral.NetworkGet:
		return required(result.Network, networkToDocker, http.StatusOK)
	case neutral.NetworkCreate:
		return network.CreateResponse{ID: result.ID, Warning: strings.Join(warnings(result.Losses), "; ")}, http.StatusCreated, nil
	case neutral.NetworkPrune:
		return network.PruneReport{NetworksDeleted: listed(result.Removed)}, http.StatusOK, nil
	case neutral.VolumeList:
		return volumesToDocker(q, result), http.StatusOK, nil
	case neutral.VolumeGet, neutral.VolumeCreate:
		if len(result.Volumes) != 1 {
			return nil, 0, errNoResult
		}
		status := http.StatusOK
		if op.Action == neutral.VolumeCreate {
			status = http.StatusCreated
		}
		return volumeToDocker(result.Volumes[0]), status, nil
	case neutral.VolumePrune:
		return volume.PruneReport{VolumesDeleted: listed(result.Removed)}, http.StatusOK, nil
	default:
		return encodeSwarmBody(op, q, result)
	}
}

// encodeSwarmBody is encodeBody for services, tasks and nodes.
func encodeSwarmBody(op neutral.Operation, q *query, result neutral.Result) (any, int, error) {
	switch op.Action {
	case neutral.WorkloadCreate:
		return serviceCreated{ID: result.ID, Warnings: warnings(result.Losses)}, http.StatusCreated, nil
	case neutral.WorkloadUpdate:
		return updateResponse{Warnings: warnings(result.Losses)}, http.StatusOK, nil
	case neutral.WorkloadList:
		return servicesToDocker(q, result.Workloads), http.StatusOK, nil
	case neutral.WorkloadInspect:
		return required(result.Workload, func(w *neutral.Workload) any {
			return serviceToDocker(w, q.flag("insertDefaults"), false)
		}, http.StatusOK)
	case neutral.SecretCreate, neutral.ConfigCreate:
		return swarm.SecretCreateResponse{ID: result.ID}, http.StatusCreated, nil // a config's is the same
	case neutral.SecretList:
		return storedToDocker(q, result.Stored, secretToDocker), http.StatusOK, nil
	case neutral.ConfigList:
		return storedToDocker(q, result.Stored, configToDockerConfig), http.StatusOK, nil
	case neutral.SecretGet, neutral.ConfigGet:
		if len(result.Stored) != 1 {
			return nil, 0, errNoResult
		}
		if op.Action == neutral.ConfigGet {
			return configToDockerConfig(&result.Stored[0]), http.StatusOK, nil
		}
		return secretToDocker(&result.Stored[0]), http.StatusOK, nil
	case neutral.TaskList:
		return tasksToDocker(result.Tasks), http.StatusOK, nil
	case neutral.TaskInspect:
		return required(result.Task, taskToDocker, http.StatusOK)
	case neutral.NodeList:
		return nodesToDocker(q, result.Nodes), http.StatusOK, nil
	case neutral.NodeInspect:
		return required(result.Node, nodeToDocker, http.StatusOK)
	default:
		return nil, 0, fault.New(fault.Unsupported, "the answer of %s has no form in the Docker API of another orchestrator", op.Action)
	}
}

// errNoResult is a bug of an outbound half: it answered, but not what was asked.
var errNoResult = fault.New(fault.Internal, "the orchestrator's answer does not hold what was asked for")

// required renders a result that must be there.
func required[T any](value *T, render func(*T) any, status int) (any, int, error) {
	if value == nil {
		return nil, 0, errNoResult
	}
	return render(value), status, nil
}

// updateResponse is the answer of an update, of a container or of a service.
type updateResponse struct {
	Warnings []string
}

// serviceCreated is the answer of a service's creation; docker's own type leaves out an empty list of warnings.
type serviceCreated struct {
	ID       string
	Warnings []string
}

// warnings renders losses; a client prints each.
func warnings(losses []neutral.Loss) []string {
	list := make([]string, 0, len(losses))
	for _, loss := range losses {
		list = append(list, loss.String())
	}
	return list
}

// listed makes an empty list of none: clients range over it, and JSON tells null from [].
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func labelled(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

// stableID derives an id of 64 hex digits from words.
func stableID(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// swarmID derives an id of 25 characters, as a swarm's objects have.
func swarmID(words ...string) string { return stableID(words...)[:25] }
