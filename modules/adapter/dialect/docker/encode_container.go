package docker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// containersToDocker renders GET /containers/json: the newest first, and filtered by what only docker's filters say.
func (d Dialect) containersToDocker(q *query, containers []neutral.Container) []container.Summary {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	matches := nameMatcher(set)
	kept := make([]*neutral.Container, 0, len(containers))
	for i := range containers {
		if matches(containers[i].Name) {
			kept = append(kept, &containers[i])
		}
	}
	slices.SortStableFunc(kept, func(a, b *neutral.Container) int { return b.CreatedAt.Compare(a.CreatedAt) })
	if limit, ok := q.number("limit"); ok && limit > 0 && limit < len(kept) {
		kept = kept[:limit]
	}
	now := d.now()
	list := make([]container.Summary, 0, len(kept))
	for _, c := range kept {
		list = append(list, summaryToDocker(c, now))
	}
	return list
}

func summaryToDocker(c *neutral.Container, now time.Time) container.Summary {
	s := container.Summary{
		ID:      c.ID,
		Names:   []string{"/" + c.Name},
		Image:   c.Image,
		ImageID: c.ImageID,
		Command: commandLine(append(slices.Clone(c.Entrypoint), c.Command...)),
		Created: unix(c.CreatedAt),
		Ports:   portSummaries(c.Ports, c.State.Status == neutral.StatusRunning || c.State.Status == neutral.StatusPaused),
		Labels:  shownLabels(c, false),
		State:   container.ContainerState(c.State.Status),
		Status:  statusText(c.State, now),
		Mounts:  mountPoints(c.Mounts),
		NetworkSettings: &container.NetworkSettingsSummary{
			Networks: endpoints(c),
		},
	}
	s.HostConfig.NetworkMode = string(modeToDocker(c))
	if c.State.Health != "" {
		s.Health = &container.HealthSummary{Status: container.HealthStatus(c.State.Health)}
	}
	return s
}

// commandLine is a command as engines list it: arguments with spaces in quotes.
func commandLine(words []string) string {
	for i, word := range words {
		if i > 0 && strings.Contains(word, " ") {
			words[i] = "'" + word + "'"
		}
	}
	return strings.Join(words, " ")
}

// statusText is the state in the words of docker ps.
func statusText(s neutral.State, now time.Time) string {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "some time"
		}
		return units.HumanDuration(max(now.Sub(t), 0))
	}
	switch s.Status {
	case neutral.StatusRunning:
		up := "Up " + ago(s.StartedAt)
		switch s.Health {
		case "":
			return up
		case "starting":
			return up + " (health: starting)"
		}
		return up + " (" + s.Health + ")"
	case neutral.StatusPaused:
		return "Up " + ago(s.StartedAt) + " (Paused)"
	case neutral.StatusRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case neutral.StatusRemoving:
		return "Removal In Progress"
	case neutral.StatusExited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case neutral.StatusDead:
		return "Dead"
	case neutral.StatusCreated:
	}
	if s.Error != "" && s.Reason != "" {
		return "Created (" + s.Reason + ")" // why it does not come up, "ImagePullBackOff"
	}
	return "Created"
}

// shownLabels are the container's labels and what this gateway adds to them.
func shownLabels(c *neutral.Container, losses bool) map[string]string {
	labels := make(map[string]string, len(c.Labels)+2)
	for k, v := range c.Labels {
		labels[k] = v
	}
	if c.Owner != nil {
		labels[labelOwner] = strings.Trim(c.Owner.Kind+"/"+c.Owner.Namespace+"/"+c.Owner.Name, "/")
	}
	if losses && len(c.Losses) > 0 {
		labels[labelLosses] = strings.Join(warnings(c.Losses), "; ")
	}
	return labels
}

// containerInspect is container.InspectResponse with what clients of older versions still read.
type containerInspect struct {
	container.InspectResponse
	NetworkSettings *networkSettings
}

// networkSettings keeps the fields of the default bridge that left the API in 1.52. They hold no address: none of the
// target's network is known to the caller.
type networkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  network.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*network.EndpointSettings
}

// containerToDocker renders GET /containers/{id}/json.
func (d Dialect) containerToDocker(c *neutral.Container) any {
	config, host := configToDocker(c)
	path, args := "", []string{}
	if words := append(slices.Clone(c.Entrypoint), c.Command...); len(words) > 0 {
		path, args = words[0], words[1:]
	}
	running := c.State.Status == neutral.StatusRunning || c.State.Status == neutral.StatusPaused
	return containerInspect{
		InspectResponse: container.InspectResponse{
			ID:           c.ID,
			Created:      stamp(c.CreatedAt),
			Path:         path,
			Args:         listed(args),
			State:        stateToDocker(c.State),
			Image:        c.ImageID,
			Name:         "/" + c.Name,
			RestartCount: c.State.RestartCount,
			Platform:     "linux",
			HostConfig:   host,
			Mounts:       mountPoints(c.Mounts),
			Config:       config,
		},
		NetworkSettings: &networkSettings{Ports: portMap(c.Ports, running), Networks: endpoints(c)},
	}
}

func stateToDocker(s neutral.State) *container.State {
	state := &container.State{
		Status:     container.ContainerState(s.Status),
		Running:    s.Status == neutral.StatusRunning || s.Status == neutral.StatusPaused || s.Status == neutral.StatusRestarting,
		Paused:     s.Status == neutral.StatusPaused,
		Restarting: s.Status == neutral.StatusRestarting,
		OOMKilled:  s.OOMKilled,
		Dead:       s.Status == neutral.StatusDead,
		ExitCode:   s.ExitCode,
		Error:      s.Error,
		StartedAt:  stamp(s.StartedAt),
		FinishedAt: stamp(s.FinishedAt),
	}
	if s.Health != "" {
		state.Health = &container.Health{Status: container.HealthStatus(s.Health), Log: []*container.HealthcheckResult{}}
	}
	return state
}

// mountPoints tell what is mounted. Where on its host a volume lies is not the caller's to know.
func mountPoints(mounts []neutral.Mount) []container.MountPoint {
	points := make([]container.MountPoint, 0, len(mounts))
	for _, m := range mounts {
		p := container.MountPoint{Type: mount.Type(m.Type), Destination: m.Target, RW: !m.ReadOnly}
		switch m.Type {
		case "volume":
			p.Name, p.Driver = m.Source, "local"
		case "bind":
			p.Source, p.Propagation = m.Source, mount.PropagationRPrivate
		}
		points = append(points, p)
	}
	return points
}

// stamp is a time as an engine writes it; one that never was is the year 1.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func topToDocker(top *neutral.ProcessTable) any {
	return container.TopResponse{Titles: listed(top.Titles), Processes: listed(top.Processes)}
}

// execToDocker renders GET /exec/{id}/json.
func execToDocker(e *neutral.ExecState) any {
	process := &container.ExecProcessConfig{Tty: e.Spec.TTY, User: e.Spec.User, Arguments: []string{}}
	if len(e.Spec.Command) > 0 {
		process.Entrypoint, process.Arguments = e.Spec.Command[0], e.Spec.Command[1:]
	}
	process.Privileged = &e.Spec.Privileged
	return container.ExecInspectResponse{
		ID: e.ID, Running: e.Running, ExitCode: e.ExitCode, ProcessConfig: process, OpenStdin: e.Spec.Stdin,
		OpenStdout: e.Spec.Stdout, OpenStderr: e.Spec.Stderr, ContainerID: e.Container, DetachKeys: []byte{}, Pid: e.PID,
	}
}
