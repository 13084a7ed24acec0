package docker

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// servicesToDocker renders GET /services.
func servicesToDocker(q *query, workloads []neutral.Workload) []swarm.Service {
	list := make([]swarm.Service, 0, len(workloads))
	status := q.flag("status")
	for i := range workloads {
		list = append(list, serviceToDocker(&workloads[i], q.flag("insertDefaults"), status))
	}
	return list
}

// serviceToDocker renders a service. The status is only in lists that ask for it, as in a swarm.
func serviceToDocker(w *neutral.Workload, defaults, status bool) swarm.Service {
	spec := specToDocker(w)
	if defaults {
		insertDefaults(&spec)
	}
	s := swarm.Service{
		ID:       w.ID,
		Meta:     swarm.Meta{Version: versionIndex(w.Version), CreatedAt: w.CreatedAt.UTC(), UpdatedAt: w.UpdatedAt.UTC()},
		Spec:     spec,
		Endpoint: swarm.Endpoint{Ports: portConfigs(w.Template.Ports)},
	}
	if spec.EndpointSpec != nil && len(s.Endpoint.Ports)+len(spec.TaskTemplate.Networks) > 0 { // else a swarm has no endpoint for it
		s.Endpoint.Spec = *spec.EndpointSpec
	}
	if w.Updating != "" {
		s.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateState(w.Updating), Message: w.UpdateMessage}
		if !w.UpdatedAt.IsZero() {
			at := w.UpdatedAt.UTC()
			s.UpdateStatus.StartedAt = &at
			if w.Updating == "completed" {
				s.UpdateStatus.CompletedAt = &at
			}
		}
	}
	if status {
		desired := w.Desired
		if w.Mode == neutral.ModeGlobalJob {
			desired -= w.Completed // a swarm counts those that are still to end, and clients add the others
		}
		s.ServiceStatus = &swarm.ServiceStatus{RunningTasks: unsigned(w.Running), DesiredTasks: unsigned(desired),
			CompletedTasks: unsigned(w.Completed)}
	}
	if w.Mode == neutral.ModeJob || w.Mode == neutral.ModeGlobalJob {
		s.JobStatus = &swarm.JobStatus{LastExecution: w.CreatedAt.UTC()}
	}
	return s
}

func unsigned(n int) uint64 { return uint64(max(n, 0)) }

// versionIndex is a workload's version as a swarm writes it: a number, which a client sends back to update.
func versionIndex(version string) swarm.Version {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return swarm.Version{}
	}
	return swarm.Version{Index: n}
}

// specToDocker gives a service's spec. Where a docker client wrote it, the client reads back what it wrote, but for what
// is otherwise by now: it will send the whole again to change a part.
func specToDocker(w *neutral.Workload) swarm.ServiceSpec {
	now := specFromNeutral(w)
	if w.Origin == nil || w.Origin.Dialect != neutral.Docker {
		return now
	}
	var asked swarm.ServiceSpec
	if err := json.Unmarshal(w.Origin.Spec, &asked); err != nil || asked.TaskTemplate.ContainerSpec == nil {
		return now
	}
	written, err := parseTree(w.Origin.Spec)
	if err != nil {
		return now
	}
	overlaySpec(&asked, workloadFromTree(written, true), w, now)
	completeMode(&asked.Mode, now.Mode)
	completeTask(&asked.TaskTemplate, now.TaskTemplate)
	return asked
}

// specFromNeutral renders the spec of a workload that no docker client wrote.
func specFromNeutral(w *neutral.Workload) swarm.ServiceSpec {
	c := &w.Template
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: w.Name, Labels: workloadLabels(w)},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: c.Image, Labels: c.Labels, Command: c.Entrypoint, Args: c.Command, Hostname: c.Hostname, Env: c.Env,
				Dir: c.WorkingDir, User: c.User, Groups: c.Groups, StopSignal: c.StopSignal, TTY: c.TTY, OpenStdin: c.Stdin,
				ReadOnly: c.Security.ReadOnlyRoot, Mounts: mountsToDocker(c.Mounts), StopGracePeriod: nanos(c.StopTimeout),
				Healthcheck: healthToDocker(c.Health), CapabilityAdd: c.Security.CapAdd, CapabilityDrop: c.Security.CapDrop,
				Isolation: container.IsolationDefault, Secrets: secretReferences(c.Files), Configs: configReferences(c.Files),
			},
			Resources:     taskResourcesToDocker(c.Resources),
			RestartPolicy: taskRestartToDocker(c.Restart),
			Placement:     &swarm.Placement{Constraints: w.Placement},
			Networks:      taskNetworks(c),
			ForceUpdate:   unsigned(w.Force),
			Runtime:       swarm.RuntimeContainer,
		},
		Mode:         modeOfService(w),
		UpdateConfig: updateToDocker(w.Update),
		EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP, Ports: portConfigs(c.Ports)},
	}
	if c.Security.NoNewPrivileges {
		spec.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{NoNewPrivileges: true}
	}
	return spec
}

// workloadLabels are the workload's labels and the losses of its translation.
func workloadLabels(w *neutral.Workload) map[string]string {
	if len(w.Losses) == 0 {
		return labelled(w.Labels)
	}
	labels := make(map[string]string, len(w.Labels)+1)
	maps.Copy(labels, w.Labels)
	labels[labelLosses] = strings.Join(warnings(w.Losses), "; ")
	return labels
}

func modeOfService(w *neutral.Workload) swarm.ServiceMode {
	n := unsigned(w.Replicas)
	switch w.Mode {
	case neutral.ModeGlobal:
		return swarm.ServiceMode{Global: &swarm.GlobalService{}}
	case neutral.ModeJob:
		total := n
		return swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &n, TotalCompletions: &total}}
	case neutral.ModeGlobalJob:
		return swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
	default:
		return swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &n}}
	}
}

// completeMode fills what a caller left out of its mode: clients read a swarm's answer, where nothing of it is missing.
func completeMode(shown *swarm.ServiceMode, now swarm.ServiceMode) {
	if shown.Replicated == nil && shown.Global == nil && shown.ReplicatedJob == nil && shown.GlobalJob == nil {
		*shown = now
	}
	if r := shown.Replicated; r != nil && r.Replicas == nil && now.Replicated != nil {
		r.Replicas = now.Replicated.Replicas
	}
	if job := shown.ReplicatedJob; job != nil && now.ReplicatedJob != nil {
		if job.MaxConcurrent == nil {
			job.MaxConcurrent = now.ReplicatedJob.MaxConcurrent
		}
		if job.TotalCompletions == nil {
			job.TotalCompletions = now.ReplicatedJob.TotalCompletions
		}
	}
}

// completeTask does so of what kind of task it is.
func completeTask(shown *swarm.TaskSpec, now swarm.TaskSpec) {
	if shown.Runtime == "" {
		shown.Runtime = now.Runtime
	}
	if shown.ContainerSpec.Isolation == "" {
		shown.ContainerSpec.Isolation = now.ContainerSpec.Isolation
	}
}

func taskResourcesToDocker(r neutral.Resources) *swarm.ResourceRequirements {
	return &swarm.ResourceRequirements{
		Limits:       &swarm.Limit{NanoCPUs: r.MilliCPU * 1e6, MemoryBytes: r.Memory},
		Reservations: &swarm.Resources{NanoCPUs: r.MilliCPUReserved * 1e6, MemoryBytes: r.MemoryReserved},
	}
}

func taskRestartToDocker(policy neutral.RestartPolicy) *swarm.RestartPolicy {
	switch policy.Mode {
	case neutral.RestartNo:
		return &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone}
	case neutral.RestartOnFailure:
		p := &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionOnFailure}
		if policy.Max > 0 {
			attempts := uint64(policy.Max)
			p.MaxAttempts = &attempts
		}
		return p
	case neutral.RestartAlways, neutral.RestartUnlessStopped:
		return &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny}
	}
	return nil
}

func taskNetworks(c *neutral.Container) []swarm.NetworkAttachmentConfig {
	var list []swarm.NetworkAttachmentConfig
	if c.Network == neutral.NetworkHost {
		return []swarm.NetworkAttachmentConfig{{Target: networkID("host")}}
	}
	for _, n := range c.Networks {
		list = append(list, swarm.NetworkAttachmentConfig{Target: n.Name, Aliases: n.Aliases})
	}
	return list
}

func updateToDocker(policy *neutral.UpdatePolicy) *swarm.UpdateConfig {
	if policy == nil {
		return nil
	}
	return &swarm.UpdateConfig{Parallelism: unsigned(policy.Parallelism), Delay: policy.Delay,
		FailureAction: swarm.FailureAction(policy.OnFailure), Order: swarm.UpdateOrder(policy.Order)}
}

// portConfigs are the ports that are published.
func portConfigs(ports []neutral.Port) []swarm.PortConfig {
	var list []swarm.PortConfig
	for _, p := range ports {
		if !p.Publish && p.Published == 0 {
			continue
		}
		c := swarm.PortConfig{Name: p.Name, Protocol: network.IPProtocol(p.Protocol), TargetPort: uint32(p.Container),
			PublishedPort: uint32(p.Published), PublishMode: swarm.PortConfigPublishModeIngress}
		if p.HostMode {
			c.PublishMode = swarm.PortConfigPublishModeHost
		}
		list = append(list, c)
	}
	return list
}

// insertDefaults fills what a swarm would fill for a client that shows the spec.
func insertDefaults(spec *swarm.ServiceSpec) {
	const (
		grace   = 10 * time.Second
		delay   = 5 * time.Second
		monitor = 5 * time.Second
	)
	if c := spec.TaskTemplate.ContainerSpec; c != nil {
		if c.StopGracePeriod == nil {
			d := grace
			c.StopGracePeriod = &d
		}
		if c.DNSConfig == nil {
			c.DNSConfig = &swarm.DNSConfig{}
		}
	}
	if spec.TaskTemplate.Resources == nil {
		spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{}, Reservations: &swarm.Resources{}}
	}
	if spec.TaskTemplate.RestartPolicy == nil {
		d, attempts := delay, uint64(0)
		spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &d, MaxAttempts: &attempts}
	}
	if spec.TaskTemplate.Placement == nil {
		spec.TaskTemplate.Placement = &swarm.Placement{}
	}
	if spec.UpdateConfig == nil {
		spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionPause, Monitor: monitor,
			Order: swarm.UpdateOrderStopFirst}
	}
	if spec.RollbackConfig == nil {
		spec.RollbackConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionPause, Monitor: monitor,
			Order: swarm.UpdateOrderStopFirst}
	}
	if spec.EndpointSpec == nil {
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP}
	}
}
