package docker

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// ping answers /_ping. No Builder-Version: there is no builder.
func ping(req dialect.Request) dialect.Response {
	header := engineHeader()
	header.Set("Swarm", "active/manager")
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	response := dialect.Response{Status: http.StatusOK, Header: header}
	if req.Method != http.MethodHead {
		response.Body = []byte("OK")
	}
	return response
}

// Local answers what tells nothing of the cluster: ping, and the networks that every engine has by name.
func (Dialect) Local(op neutral.Operation, req dialect.Request, _ dialect.Target) (dialect.Response, bool) {
	switch op.Action {
	case neutral.SystemPing:
		return ping(req), true
	case neutral.NetworkGet:
		if found, ok := findPredefined(op.Ref); ok {
			response, err := answerJSON(http.StatusOK, networkToDocker(found))
			return response, err == nil
		}
	default:
	}
	return dialect.Response{}, false
}

func platformName(s *neutral.System) string {
	if s.Platform == "" {
		return "Isthmus"
	}
	return "Isthmus (" + s.Platform + ")"
}

func serverVersion(s *neutral.System) string { return strings.TrimPrefix(s.Version, "v") }

func osOf(s *neutral.System) string {
	if s.OS == "" {
		return "linux"
	}
	return s.OS
}

// versionToDocker renders GET /version.
func versionToDocker(s *neutral.System) any {
	return system.VersionResponse{
		Platform:      system.PlatformInfo{Name: platformName(s)},
		Version:       serverVersion(s),
		APIVersion:    APIVersion,
		MinAPIVersion: MinAPIVersion,
		Os:            osOf(s),
		Arch:          s.Architecture,
		KernelVersion: s.Kernel,
		Components: []system.ComponentVersion{{
			Name:    "Engine",
			Version: serverVersion(s),
			Details: map[string]string{
				"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion, "Os": osOf(s), "Arch": s.Architecture,
				"KernelVersion": s.Kernel, "Experimental": "false", "GitCommit": "", "GoVersion": "", "BuildTime": "",
			},
		}},
	}
}

// infoToDocker renders GET /info. It reads as an active manager, by which clients tell that services can be asked for.
func infoToDocker(s *neutral.System) any {
	id := swarmID("cluster", s.Name)
	nodes := max(s.Nodes, 1)
	info := system.Info{
		ID:                 stableID("engine", s.Name),
		Containers:         s.Containers,
		ContainersRunning:  s.Running,
		ContainersPaused:   s.Paused,
		ContainersStopped:  s.Stopped,
		Images:             s.Images,
		Driver:             strings.ToLower(s.Platform),
		DriverStatus:       [][2]string{{"Cluster", s.Name}, {"Nodes", strconv.Itoa(s.Nodes)}},
		Plugins:            system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{}},
		MemoryLimit:        true,
		CPUCfsPeriod:       true,
		CPUCfsQuota:        true,
		IPv4Forwarding:     true,
		SystemTime:         stamp(s.Now),
		LoggingDriver:      "json-file",
		CgroupDriver:       "none",
		KernelVersion:      s.Kernel,
		OperatingSystem:    platformName(s),
		OSType:             osOf(s),
		Architecture:       machine(s.Architecture),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     &registry.ServiceConfig{IndexConfigs: map[string]*registry.IndexInfo{}, Mirrors: []string{}},
		NCPU:               int((s.MilliCPU + 999) / 1000),
		MemTotal:           s.Memory,
		GenericResources:   []swarm.GenericResource{},
		Name:               s.Name,
		Labels:             []string{},
		ServerVersion:      serverVersion(s),
		Runtimes:           map[string]system.RuntimeWithStatus{},
		Swarm: swarm.Info{
			NodeID:           swarmID("node", s.Name),
			LocalNodeState:   swarm.LocalNodeStateActive,
			ControlAvailable: true,
			RemoteManagers:   []swarm.Peer{},
			Nodes:            nodes,
			Managers:         1,
			Cluster:          &swarm.ClusterInfo{ID: id, Spec: swarm.Spec{Annotations: swarm.Annotations{Name: s.Name, Labels: map[string]string{}}}},
		},
		SecurityOptions: []string{},
		CDISpecDirs:     []string{},
		Warnings:        listed(s.Warnings),
	}
	if s.Now.IsZero() {
		info.SystemTime = time.Time{}.Format(time.RFC3339Nano)
	}
	return info
}

// swarmToDocker renders GET /swarm. There is nothing to join, so there are no tokens.
func swarmToDocker(s *neutral.System) any {
	return swarm.Swarm{ClusterInfo: swarm.ClusterInfo{ID: swarmID("cluster", s.Name),
		Spec: swarm.Spec{Annotations: swarm.Annotations{Name: s.Name, Labels: map[string]string{}}}}}
}
