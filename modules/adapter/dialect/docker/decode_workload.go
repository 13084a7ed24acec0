package docker

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// decodeWorkload reads a service's spec, of a create or an update:
// https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Service.
func decodeWorkload(op *neutral.Operation, q *query, t *tree, body []byte) ([]neutral.Loss, error) {
	w := workloadFromTree(t, op.Action == neutral.WorkloadUpdate)
	losses, err := settle(t, workloadDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	if w.Name == "" {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Name", Message: "the service has no name"}
	}
	if !validName(w.Name) && len(w.Name) != 1 {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Name", Message: "invalid service name: " + shorten(w.Name)}
	}
	if err := checkImage(w.Template.Image); err != nil {
		return nil, err
	}
	if err := checkEnv(w.Template.Env, "TaskTemplate.ContainerSpec.Env"); err != nil {
		return nil, err
	}
	if op.Action == neutral.WorkloadUpdate {
		if err := decodeVersion(op, q); err != nil {
			return nil, err
		}
	}
	w.Origin = &neutral.Origin{Dialect: neutral.Docker, Spec: bytes.Clone(body)}
	op.Workload = w
	if op.Rollback { // the spec is the one that the caller read: nothing of it is applied, so nothing is lost
		op.Workload, losses = &neutral.Workload{Name: w.Name}, nil
	}
	if op.Object.Name == "" {
		op.Object.Name = w.Name
	}
	op.Object.Labels, op.Object.Container = w.Labels, &w.Template
	return losses, nil
}

// decodeVersion reads the lock of an update, and whether it goes back.
func decodeVersion(op *neutral.Operation, q *query) error {
	version := q.text("version")
	if _, err := strconv.ParseUint(version, 10, 64); err != nil {
		return &fault.Error{Kind: fault.Invalid, Field: "version", Message: "invalid service version '" + shorten(version) + "'"}
	}
	op.Version = version
	switch rollback := q.text("rollback"); rollback {
	case "":
		return nil
	case "previous":
		op.Rollback = true
		return nil
	default:
		return &fault.Error{Kind: fault.Invalid, Field: "rollback", Message: "invalid rollback option " + shorten(rollback)}
	}
}

// workloadFromTree reads a service's spec. What it leaves unread is settled by workloadDisposals.
func workloadFromTree(t *tree, update bool) *neutral.Workload {
	w := &neutral.Workload{Name: t.get("Name").str(), Labels: callerLabels(t.get("Labels").strMap())}
	modeFromTree(t.get("Mode"), w)
	task := t.get("TaskTemplate")
	templateFromTree(task, w, update)
	w.Update = updateFromTree(t.get("UpdateConfig"))
	endpoint := t.get("EndpointSpec")
	if mode := endpoint.get("Mode"); mode != nil && mode.text == "vip" {
		mode.understood()
	}
	for _, item := range endpoint.get("Ports").items() {
		w.Template.Ports = append(w.Template.Ports, servicePortFromTree(item))
	}
	slices.SortFunc(w.Template.Ports, comparePorts)
	return w
}

// modeFromTree reads how the service spreads. A service that says nothing is replicated, once.
func modeFromTree(t *tree, w *neutral.Workload) {
	w.Mode, w.Replicas = neutral.ModeReplicated, 1
	var named []string
	if replicated := t.get("Replicated"); replicated != nil {
		named = append(named, "Replicated")
		if n := replicated.get("Replicas"); n != nil {
			w.Replicas = n.count()
		}
	}
	if global := t.get("Global"); global != nil {
		named = append(named, "Global")
		global.entries()
		w.Mode, w.Replicas = neutral.ModeGlobal, 0
	}
	if job := t.get("ReplicatedJob"); job != nil {
		named = append(named, "ReplicatedJob")
		w.Mode = neutral.ModeJob
		atOnce, total := job.get("MaxConcurrent"), job.get("TotalCompletions")
		switch {
		case total != nil:
			w.Replicas = total.count()
		case atOnce != nil:
			w.Replicas = atOnce.count()
		}
		if atOnce != nil && atOnce.count() != w.Replicas {
			atOnce.note(strconv.Itoa(w.Replicas), "all of a job's tasks run at once")
		}
	}
	if job := t.get("GlobalJob"); job != nil {
		named = append(named, "GlobalJob")
		job.entries()
		w.Mode, w.Replicas = neutral.ModeGlobalJob, 0
	}
	if len(named) > 1 {
		t.fail(fault.Invalid, "only one service mode may be set, not %s", strings.Join(named, " and "))
	}
}

// templateFromTree reads the task's container.
func templateFromTree(task *tree, w *neutral.Workload, update bool) {
	spec := task.get("ContainerSpec")
	if task != nil && spec == nil && task.get("PluginSpec") == nil && task.get("NetworkAttachmentSpec") == nil {
		task.fail(fault.Invalid, "TaskTemplate: missing container spec in task template")
	}
	w.Template = neutral.Container{
		Image:      spec.get("Image").str(),
		Entrypoint: spec.get("Command").words(),
		Command:    spec.get("Args").words(),
		Env:        spec.get("Env").strs(),
		WorkingDir: spec.get("Dir").str(),
		User:       spec.get("User").str(),
		Groups:     spec.get("Groups").strs(),
		Hostname:   spec.get("Hostname").str(),
		TTY:        spec.get("TTY").boolean(),
		Stdin:      spec.get("OpenStdin").boolean(),
		Labels:     callerLabels(spec.get("Labels").strMap()),
		StopSignal: spec.get("StopSignal").str(),
		Mounts:     mountListFromTree(spec.get("Mounts"), update),
		DNS:        spec.get("DNSConfig").get("Nameservers").strs(),
		DNSSearch:  spec.get("DNSConfig").get("Search").strs(),
		DNSOptions: spec.get("DNSConfig").get("Options").strs(),
		ExtraHosts: hostsFromTree(spec.get("Hosts")),
		Health:     healthFromTree(spec.get("Healthcheck")),
		Restart:    taskRestartFromTree(task.get("RestartPolicy"), w.Mode),
		Resources:  taskResourcesFromTree(task.get("Resources")),
		Security: neutral.Security{
			CapAdd:          spec.get("CapabilityAdd").strs(),
			CapDrop:         spec.get("CapabilityDrop").strs(),
			ReadOnlyRoot:    spec.get("ReadOnly").boolean(),
			NoNewPrivileges: spec.get("Privileges").get("NoNewPrivileges").boolean(),
			Seccomp:         neutral.ProfileDefault,
			AppArmor:        neutral.ProfileDefault,
		},
	}
	w.Template.Files = append(filesFromTree(spec.get("Secrets"), neutral.KindSecret), filesFromTree(spec.get("Configs"), neutral.KindConfig)...)
	if task.native() {
		nativePrivilegesFromTree(spec, &w.Template.Security)
	}
	checkTargets(spec, w.Template.Mounts)
	if task.native() {
		mounted(&w.Template, task.root.volumes)
	}
	if grace := spec.get("StopGracePeriod"); grace != nil {
		d := grace.duration()
		seconds := int((d + time.Second - 1) / time.Second)
		if d%time.Second != 0 {
			grace.note("rounded up to "+(time.Duration(seconds)*time.Second).String(), "grace periods are whole seconds")
		}
		w.Template.StopTimeout = &seconds
	}
	privileges := spec.get("Privileges")
	for _, name := range []string{"Seccomp", "AppArmor"} {
		if mode := privileges.get(name).get("Mode"); mode != nil && mode.text == "default" {
			mode.understood()
		}
	}
	w.Placement = task.get("Placement").get("Constraints").strs()
	w.Force = task.get("ForceUpdate").count()
	if runtime := task.get("Runtime"); runtime != nil && runtime.text == "container" {
		runtime.understood()
	}
	taskNetworksFromTree(task, &w.Template)
}

// taskNetworksFromTree reads a task's networks. Clients name host and bridge by the ids that this gateway gave them.
func taskNetworksFromTree(task *tree, c *neutral.Container) {
	c.Network = neutral.NetworkBridge
	for _, item := range task.get("Networks").items() {
		target := item.get("Target").str()
		aliases := item.get("Aliases").strs()
		if mode, ok := predefinedNetwork(target); ok {
			c.Network = mode
			continue
		}
		c.Networks = append(c.Networks, neutral.NetworkAttachment{Name: target, Aliases: aliases})
	}
	if c.Network != neutral.NetworkBridge && len(c.Networks) > 0 {
		task.get("Networks").fail(fault.Invalid, "network %s cannot be joined together with others", c.Network)
	}
}

// hostsFromTree reads lines of a hosts file, "address name alias".
func hostsFromTree(t *tree) []string {
	var hosts []string
	for _, item := range t.items() {
		words := strings.Fields(item.str())
		if len(words) < 2 {
			item.fail(fault.Invalid, "invalid host entry %q: an address and a name are wanted", shorten(item.text))
			continue
		}
		for _, name := range words[1:] {
			hosts = append(hosts, name+":"+words[0])
		}
	}
	return hosts
}

// taskRestartFromTree reads a swarm's restart policy; a swarm restarts tasks of services always when nothing is said.
func taskRestartFromTree(t *tree, mode neutral.Mode) neutral.RestartPolicy {
	job := mode == neutral.ModeJob || mode == neutral.ModeGlobalJob
	policy := neutral.RestartPolicy{Mode: neutral.RestartAlways}
	if job {
		policy.Mode = neutral.RestartOnFailure
	}
	condition := t.get("Condition").str()
	switch condition {
	case "", "any":
	case "on-failure":
		policy.Mode = neutral.RestartOnFailure
	case "none":
		policy.Mode = neutral.RestartNo
	default:
		t.fail(fault.Invalid, "invalid RestartCondition: %q", shorten(condition))
	}
	if attempts := t.get("MaxAttempts"); attempts != nil && policy.Mode == neutral.RestartOnFailure {
		policy.Max = attempts.count()
	}
	return policy
}

func taskResourcesFromTree(t *tree) neutral.Resources {
	limits, reservations := t.get("Limits"), t.get("Reservations")
	r := neutral.Resources{
		MilliCPU:         limits.get("NanoCPUs").milliCPU(),
		Memory:           limits.get("MemoryBytes").integer(),
		MilliCPUReserved: reservations.get("NanoCPUs").milliCPU(),
		MemoryReserved:   reservations.get("MemoryBytes").integer(),
	}
	if r.MilliCPU < 0 || r.MilliCPUReserved < 0 || r.Memory < 0 || r.MemoryReserved < 0 {
		t.fail(fault.Invalid, "invalid resources: they cannot be negative")
	}
	return r
}

func updateFromTree(t *tree) *neutral.UpdatePolicy {
	if t == nil {
		return nil
	}
	policy := &neutral.UpdatePolicy{
		Parallelism: t.get("Parallelism").count(),
		Delay:       t.get("Delay").duration(),
		Order:       t.get("Order").str(),
		OnFailure:   t.get("FailureAction").str(),
	}
	if !slices.Contains([]string{"", "stop-first", "start-first"}, policy.Order) {
		t.fail(fault.Invalid, "invalid UpdateOrder: %q", shorten(policy.Order))
	}
	if !slices.Contains([]string{"", "pause", "continue", "rollback"}, policy.OnFailure) {
		t.fail(fault.Invalid, "unrecognized update failure action %s", shorten(policy.OnFailure))
	}
	if policy.Delay < 0 {
		t.fail(fault.Invalid, "UpdateConfig: Delay cannot be negative")
	}
	return policy
}

// comparePorts puts ports in the order in which a swarm shows them.
func comparePorts(a, b neutral.Port) int {
	return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Container, b.Container), strings.Compare(a.Protocol, b.Protocol))
}

func servicePortFromTree(t *tree) neutral.Port {
	port := neutral.Port{Name: t.get("Name").str(), Protocol: t.get("Protocol").str(), Publish: true}
	container, published := t.get("TargetPort").count(), t.get("PublishedPort").count()
	if port.Protocol == "" {
		port.Protocol = "tcp"
	}
	mode := t.get("PublishMode").str()
	switch {
	case container == 0 || container > 1<<16-1 || published > 1<<16-1:
		t.fail(fault.Invalid, "invalid port: target %d, published %d", container, published)
	case !slices.Contains(protocols, port.Protocol):
		t.fail(fault.Invalid, "invalid protocol value %q", shorten(port.Protocol))
	case mode != "" && mode != "ingress" && mode != "host":
		t.fail(fault.Invalid, "invalid publish mode %q", shorten(mode))
	}
	port.Container, port.Published, port.HostMode = uint16(container), uint16(published), mode == "host"
	return port
}
