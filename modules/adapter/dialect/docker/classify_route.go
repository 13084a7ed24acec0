package docker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// route is one method and path of the Engine API.
type route struct {
	method   string
	path     string
	action   neutral.Action
	verb     neutral.Verb // "" is the action's
	kind     neutral.Kind // "" is the action's
	resource string       // native resource of object.raw
	// beyond says that it acts on more than what its path names: objects that its body or its query names, or a new name.
	beyond bool
	// reason says why the route is refused (501) when it would have to be translated; "" when it is translated.
	reason string

	segments []string
	hole     int  // index of {ref} or {name}; -1 for none
	wide     bool // {name}: an image's or plugin's name, which may hold slashes
}

// Reasons why a whole route is not translated.
const (
	reasonBuild = "build: images are built by a builder beside the caller, and another cluster's nodes pull them from a " +
		"registry; build elsewhere (docker buildx with its own builder), push, then run"
	reasonImage = "images are held by the nodes of the target cluster, which pull and collect them by themselves; this " +
		"cannot be asked of another orchestrator"
	reasonAuth = "login: credentials are not handed to another cluster, whose nodes pull with their own; log in on the " +
		"client's side only"
	reasonFiles    = "which files a container has beside its image's, only an engine knows"
	reasonCopy     = "POST /containers/{id}/copy left the API with version 1.24; use GET /containers/{id}/archive"
	reasonCommit   = "commit: an image cannot be made from a container of another orchestrator"
	reasonSocket   = "attach by WebSocket is not served; use attach by upgrade (POST /containers/{id}/attach)"
	reasonVolume   = "update: cluster volumes belong to a swarm"
	reasonSwarm    = "the cluster is not a swarm; its membership cannot be changed through the Docker API"
	reasonNode     = "nodes of another orchestrator cannot be changed through the Docker API"
	reasonPlugin   = "plugins belong to a Docker engine; the target cluster has none"
	reasonUsage    = "disk usage belongs to a Docker engine; the target cluster has none"
	reasonSession  = "the build session belongs to a Docker engine's builder; the target cluster has none"
	reasonSnapshot = "checkpoints belong to a Docker engine; the target cluster has none"
)

// routes is the whole Engine API: https://docs.docker.com/reference/api/engine/version/v1.49/ and what older versions
// had. An order matters only between a literal segment and a {ref} in its place: the literal stands first.
var routes = func() []route {
	const get, head, post, put, del = http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		{method: get, path: "_ping", action: neutral.SystemPing},
		{method: head, path: "_ping", action: neutral.SystemPing},
		{method: get, path: "version", action: neutral.SystemVersion},
		{method: get, path: "info", action: neutral.SystemInfo},
		{method: get, path: "system/df", action: neutral.SystemUsage, reason: reasonUsage},
		{method: post, path: "auth", action: neutral.SystemAuth, reason: reasonAuth},
		{method: get, path: "events", action: neutral.EventWatch},

		{method: get, path: "containers/json", action: neutral.ContainerList},
		{method: post, path: "containers/create", action: neutral.ContainerCreate},
		{method: post, path: "containers/prune", action: neutral.ContainerPrune},
		{method: get, path: "containers/{ref}/json", action: neutral.ContainerInspect},
		{method: get, path: "containers/{ref}/top", action: neutral.ContainerTop},
		{method: get, path: "containers/{ref}/logs", action: neutral.ContainerLogs},
		{method: get, path: "containers/{ref}/changes", action: neutral.ContainerChanges, reason: reasonFiles},
		{method: get, path: "containers/{ref}/export", action: neutral.ContainerExport},
		{method: get, path: "containers/{ref}/stats", action: neutral.ContainerStats},
		{method: get, path: "containers/{ref}/attach/ws", action: neutral.ContainerAttach, reason: reasonSocket},
		{method: get, path: "containers/{ref}/archive", action: neutral.ContainerCopyOut},
		{method: head, path: "containers/{ref}/archive", action: neutral.ContainerStat},
		{method: put, path: "containers/{ref}/archive", action: neutral.ContainerCopyIn},
		{method: post, path: "containers/{ref}/copy", action: neutral.ContainerCopyOut, reason: reasonCopy},
		{method: get, path: "containers/{ref}/checkpoints", action: neutral.ObjectRaw, resource: "checkpoints", reason: reasonSnapshot},
		{method: post, path: "containers/{ref}/checkpoints", action: neutral.ObjectRaw, resource: "checkpoints", reason: reasonSnapshot},
		{method: del, path: "containers/{ref}/checkpoints/{checkpoint}", action: neutral.ObjectRaw, resource: "checkpoints", reason: reasonSnapshot},
		{method: post, path: "containers/{ref}/start", action: neutral.ContainerStart},
		{method: post, path: "containers/{ref}/stop", action: neutral.ContainerStop},
		{method: post, path: "containers/{ref}/restart", action: neutral.ContainerRestart},
		{method: post, path: "containers/{ref}/kill", action: neutral.ContainerKill},
		{method: post, path: "containers/{ref}/pause", action: neutral.ContainerPause},
		{method: post, path: "containers/{ref}/unpause", action: neutral.ContainerUnpause},
		{method: post, path: "containers/{ref}/wait", action: neutral.ContainerWait},
		{method: post, path: "containers/{ref}/resize", action: neutral.ContainerResize},
		{method: post, path: "containers/{ref}/attach", action: neutral.ContainerAttach},
		{method: post, path: "containers/{ref}/update", action: neutral.ContainerUpdate},
		{method: post, path: "containers/{ref}/rename", action: neutral.ContainerRename, beyond: true},
		{method: del, path: "containers/{ref}", action: neutral.ContainerRemove},
		{method: post, path: "commit", action: neutral.ContainerCommit, beyond: true, reason: reasonCommit},

		{method: post, path: "containers/{ref}/exec", action: neutral.ExecCreate},
		{method: post, path: "exec/{ref}/start", action: neutral.ExecStart},
		{method: post, path: "exec/{ref}/resize", action: neutral.ExecResize},
		{method: get, path: "exec/{ref}/json", action: neutral.ExecInspect},

		{method: get, path: "images/json", action: neutral.ImageList},
		{method: get, path: "images/search", action: neutral.ImageOther, verb: neutral.List, reason: reasonImage},
		{method: get, path: "images/get", action: neutral.ImageExport, beyond: true, reason: reasonImage},
		{method: post, path: "images/create", action: neutral.ImagePull},
		{method: post, path: "images/load", action: neutral.ImageBuild, beyond: true, reason: reasonImage},
		{method: post, path: "images/prune", action: neutral.ImageRemove, reason: reasonImage},
		{method: get, path: "images/{name}/json", action: neutral.ImageInspect},
		{method: get, path: "images/{name}/history", action: neutral.ImageOther, verb: neutral.Get, reason: reasonImage},
		{method: get, path: "images/{name}/attestations", action: neutral.ImageOther, verb: neutral.Get, reason: reasonImage},
		{method: get, path: "images/{name}/get", action: neutral.ImageExport, reason: reasonImage},
		{method: post, path: "images/{name}/push", action: neutral.ImageExport, reason: reasonImage},
		{method: post, path: "images/{name}/tag", action: neutral.ImageOther, beyond: true, reason: reasonImage},
		{method: del, path: "images/{name}", action: neutral.ImageRemove, reason: reasonImage},
		{method: get, path: "distribution/{name}/json", action: neutral.ImageOther, verb: neutral.Get, reason: "a registry cannot " +
			"be asked through another cluster; the image's digest is not pinned"},
		{method: post, path: "build", action: neutral.ImageBuild, reason: reasonBuild},
		{method: post, path: "build/prune", action: neutral.ImageRemove, reason: reasonBuild},
		{method: post, path: "build/cancel", action: neutral.ImageOther, reason: reasonBuild},
		{method: post, path: "session", action: neutral.ObjectRaw, resource: "session", reason: reasonSession},
		{method: post, path: "grpc", action: neutral.ObjectRaw, resource: "grpc", reason: reasonSession},

		{method: get, path: "networks", action: neutral.NetworkList},
		{method: get, path: "networks/", action: neutral.NetworkList},
		{method: post, path: "networks/create", action: neutral.NetworkCreate},
		{method: post, path: "networks/prune", action: neutral.NetworkPrune},
		{method: get, path: "networks/{ref}", action: neutral.NetworkGet},
		{method: del, path: "networks/{ref}", action: neutral.NetworkRemove},
		{method: post, path: "networks/{ref}/connect", action: neutral.NetworkJoin, beyond: true},
		{method: post, path: "networks/{ref}/disconnect", action: neutral.NetworkLeave, beyond: true},

		{method: get, path: "volumes", action: neutral.VolumeList},
		{method: post, path: "volumes/create", action: neutral.VolumeCreate},
		{method: post, path: "volumes/prune", action: neutral.VolumePrune},
		{method: get, path: "volumes/{ref}", action: neutral.VolumeGet},
		{method: put, path: "volumes/{ref}", action: neutral.VolumeOther, reason: reasonVolume},
		{method: del, path: "volumes/{ref}", action: neutral.VolumeRemove},

		{method: get, path: "services", action: neutral.WorkloadList},
		{method: post, path: "services/create", action: neutral.WorkloadCreate},
		{method: get, path: "services/{ref}", action: neutral.WorkloadInspect},
		{method: get, path: "services/{ref}/logs", action: neutral.WorkloadLogs},
		{method: post, path: "services/{ref}/update", action: neutral.WorkloadUpdate},
		{method: del, path: "services/{ref}", action: neutral.WorkloadRemove},
		{method: get, path: "tasks", action: neutral.TaskList},
		{method: get, path: "tasks/{ref}", action: neutral.TaskInspect},
		{method: get, path: "tasks/{ref}/logs", action: neutral.TaskLogs},
		{method: get, path: "nodes", action: neutral.NodeList},
		{method: get, path: "nodes/{ref}", action: neutral.NodeInspect},
		{method: post, path: "nodes/{ref}/update", action: neutral.NodeUpdate, reason: reasonNode},
		{method: del, path: "nodes/{ref}", action: neutral.NodeRemove, reason: reasonNode},

		{method: get, path: "swarm", action: neutral.SwarmInspect},
		{method: post, path: "swarm/init", action: neutral.SwarmOther, reason: reasonSwarm},
		{method: post, path: "swarm/join", action: neutral.SwarmOther, reason: reasonSwarm},
		{method: post, path: "swarm/leave", action: neutral.SwarmOther, reason: reasonSwarm},
		{method: post, path: "swarm/update", action: neutral.SwarmOther, reason: reasonSwarm},
		{method: post, path: "swarm/unlock", action: neutral.SwarmOther, reason: reasonSwarm},
		{method: get, path: "swarm/unlockkey", action: neutral.SwarmOther, reason: reasonSwarm},

		{method: get, path: "secrets", action: neutral.SecretList},
		{method: post, path: "secrets/create", action: neutral.SecretCreate},
		{method: get, path: "secrets/{ref}", action: neutral.SecretGet},
		{method: post, path: "secrets/{ref}/update", action: neutral.SecretUpdate},
		{method: del, path: "secrets/{ref}", action: neutral.SecretRemove},
		{method: get, path: "configs", action: neutral.ConfigList},
		{method: post, path: "configs/create", action: neutral.ConfigCreate},
		{method: get, path: "configs/{ref}", action: neutral.ConfigGet},
		{method: post, path: "configs/{ref}/update", action: neutral.ConfigUpdate},
		{method: del, path: "configs/{ref}", action: neutral.ConfigRemove},

		{method: get, path: "plugins", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: get, path: "plugins/privileges", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/pull", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/create", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: get, path: "plugins/{name}/json", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: get, path: "plugins/{name}", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/{name}/enable", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/{name}/disable", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/{name}/upgrade", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/{name}/push", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: post, path: "plugins/{name}/set", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
		{method: del, path: "plugins/{name}", action: neutral.ObjectRaw, resource: "plugins", reason: reasonPlugin},
	}
}()

// routesByHead are the routes by their first segment.
var routesByHead = func() map[string][]route {
	byHead := map[string][]route{}
	for _, r := range routes {
		r.segments = strings.Split(r.path, "/")
		r.hole = slices.IndexFunc(r.segments, func(s string) bool { return s == "{ref}" || s == "{name}" })
		r.wide = r.hole >= 0 && r.segments[r.hole] == "{name}"
		byHead[r.segments[0]] = append(byHead[r.segments[0]], r)
	}
	return byHead
}()
