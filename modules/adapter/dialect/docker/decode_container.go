package docker

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// decodeContainerCreate reads
// https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Container/operation/ContainerCreate.
func decodeContainerCreate(op *neutral.Operation, q *query, t *tree, body []byte) ([]neutral.Loss, error) {
	c, size := containerFromTree(t)
	losses, err := settle(t, containerDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	if len(t.fields) == 0 {
		return nil, fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	c.Name = op.Object.Name
	if c.Name != "" && !validName(c.Name) {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "name",
			Message: "Invalid container name (" + shorten(c.Name) + "), only " + nameCharacters + " are allowed"}
	}
	if platform := q.text("platform"); platform != "" {
		losses = append(losses, neutral.Loss{Field: "platform", Change: "dropped", Reason: "the target picks nodes that can run the image in its own way"})
	}
	if err := checkContainer(c); err != nil {
		return nil, err
	}
	c.Origin = &neutral.Origin{Dialect: neutral.Docker, Spec: bytes.Clone(body)}
	op.Container, op.Size = c, size
	op.Object.Labels, op.Object.Container = c.Labels, c
	return losses, nil
}

// containerFromTree reads the body of a create. What it leaves unread is settled by containerDisposals.
func containerFromTree(t *tree) (*neutral.Container, *neutral.Size) {
	host := t.get("HostConfig")
	c := &neutral.Container{
		Image:       t.get("Image").str(),
		Entrypoint:  t.get("Entrypoint").words(),
		Command:     t.get("Cmd").words(),
		Env:         t.get("Env").strs(),
		WorkingDir:  t.get("WorkingDir").str(),
		User:        t.get("User").str(),
		Groups:      host.get("GroupAdd").strs(),
		Hostname:    t.get("Hostname").str(),
		Domain:      t.get("Domainname").str(),
		TTY:         t.get("Tty").boolean(),
		Stdin:       t.get("OpenStdin").boolean(),
		StdinOnce:   t.get("StdinOnce").boolean(),
		Labels:      callerLabels(t.get("Labels").strMap()),
		AutoRemove:  host.get("AutoRemove").boolean(),
		StopSignal:  t.get("StopSignal").str(),
		StopTimeout: t.get("StopTimeout").seconds(),
		Restart:     restartFromTree(host.get("RestartPolicy")),
		Resources:   resourcesFromTree(host),
		ExtraHosts:  host.get("ExtraHosts").strs(),
		DNS:         host.get("Dns").strs(),
		DNSSearch:   host.get("DnsSearch").strs(),
		DNSOptions:  host.get("DnsOptions").strs(),
		Health:      healthFromTree(t.get("Healthcheck")),
		Security: neutral.Security{
			Privileged:   host.get("Privileged").boolean(),
			CapAdd:       host.get("CapAdd").strs(),
			CapDrop:      host.get("CapDrop").strs(),
			ReadOnlyRoot: host.get("ReadonlyRootfs").boolean(),
			Seccomp:      neutral.ProfileDefault,
			AppArmor:     neutral.ProfileDefault,
		},
	}
	securityFromTree(host, &c.Security)
	if t.native() {
		nativeSecurityFromTree(host, &c.Security)
	}
	c.Ports = portsFromTree(t, host)
	c.Mounts = mountsFromTree(t, host)
	mounted(c, t.root.volumes)
	networkFromTree(t, host, c)
	host.get("LogConfig").get("Type") // so that its parts are settled one by one
	for _, inert := range []string{"AttachStdin", "AttachStdout", "AttachStderr"} {
		t.get(inert).understood() // what the client attaches by itself; kept in Origin
	}
	return c, host.get("ConsoleSize").size()
}

// callerLabels leaves out what this gateway itself adds to an inspect.
func callerLabels(labels map[string]string) map[string]string {
	delete(labels, labelLosses)
	delete(labels, labelOwner)
	if len(labels) == 0 {
		return nil
	}
	return labels
}

// seconds reads a number of seconds that may be absent.
func (t *tree) seconds() *int {
	if t == nil {
		return nil
	}
	n := int(t.integer())
	if n < 0 {
		n = -1
	}
	return &n
}

// duration reads nanoseconds.
func (t *tree) duration() time.Duration { return time.Duration(t.integer()) }

func restartFromTree(t *tree) neutral.RestartPolicy {
	policy := neutral.RestartPolicy{Mode: neutral.RestartMode(t.get("Name").str()), Max: int(t.get("MaximumRetryCount").integer())}
	if policy.Mode == "" {
		policy.Mode = neutral.RestartNo
	}
	switch policy.Mode {
	case neutral.RestartNo, neutral.RestartAlways, neutral.RestartUnlessStopped:
		if policy.Max != 0 {
			t.fail(fault.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case neutral.RestartOnFailure:
		if policy.Max < 0 {
			t.fail(fault.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		t.fail(fault.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or "+
			"'unless-stopped'", shorten(string(policy.Mode)))
	}
	return policy
}

// resourcesFromTree reads limits. A CPU quota says the same as NanoCpus in other words.
func resourcesFromTree(host *tree) neutral.Resources {
	const defaultPeriod = 100000
	r := neutral.Resources{
		MilliCPU:       host.get("NanoCpus").milliCPU(),
		Memory:         host.get("Memory").integer(),
		MemoryReserved: host.get("MemoryReservation").integer(),
	}
	quota, period := host.get("CpuQuota").integer(), host.get("CpuPeriod").integer()
	if quota <= 0 {
		host.get("CpuQuota").unread()
		host.get("CpuPeriod").unread()
	}
	switch {
	case r.MilliCPU != 0 && (quota > 0 || period > 0):
		host.get("CpuQuota").fail(fault.Invalid, "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
	case quota > 0:
		if period == 0 {
			period = defaultPeriod
		}
		if period < 1000 || period > 1000000 || quota > 1<<40 {
			host.get("CpuQuota").fail(fault.Invalid, "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
			return r
		}
		r.MilliCPU = max(quota*1000/period, 1)
	}
	for _, name := range []string{"NanoCpus", "Memory", "MemoryReservation"} {
		if host.get(name).integer() < 0 {
			host.get(name).fail(fault.Invalid, "invalid value: %s cannot be negative", name)
		}
	}
	const leastMemory = 6 << 20
	if r.Memory != 0 && r.Memory < leastMemory {
		host.get("Memory").fail(fault.Invalid, "Minimum memory limit allowed is 6MB")
	}
	if r.Memory != 0 && r.MemoryReserved > r.Memory {
		host.get("MemoryReservation").fail(fault.Invalid, "Minimum memory limit can not be less than memory reservation limit")
	}
	return r
}

// milliCPU reads billionths of a CPU, rounded up to thousandths.
func (t *tree) milliCPU() int64 {
	const nanosPerMilli = 1e6
	n := t.integer()
	milli := n / nanosPerMilli
	if n > 0 && n%nanosPerMilli != 0 {
		milli++
		t.note("rounded up to "+strconv.FormatInt(milli*nanosPerMilli, 10), "CPU is reckoned in thousandths")
	}
	return milli
}

func healthFromTree(t *tree) *neutral.HealthCheck {
	if t == nil {
		return nil
	}
	h := &neutral.HealthCheck{
		Test:        t.get("Test").strs(),
		Interval:    t.get("Interval").duration(),
		Timeout:     t.get("Timeout").duration(),
		StartPeriod: t.get("StartPeriod").duration(),
		Retries:     t.get("Retries").count(),
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "NONE", "CMD", "CMD-SHELL":
		default:
			t.get("Test").fail(fault.Invalid, "Unknown healthcheck type '%s' (expected 'CMD')", shorten(h.Test[0]))
		}
	}
	for _, name := range []string{"Interval", "Timeout", "StartPeriod"} {
		if d := t.get(name).duration(); d != 0 && d < time.Millisecond {
			t.get(name).fail(fault.Invalid, "%s in Healthcheck cannot be less than 1ms", name)
		}
	}
	if len(h.Test) == 0 && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.Retries == 0 {
		return nil
	}
	return h
}

// securityFromTree reads what has a neutral word. The rest stays unread, and containerDisposals refuses it.
func securityFromTree(host *tree, security *neutral.Security) {
	for _, option := range host.get("SecurityOpt").items() {
		text := option.text
		if option.kind != treeString {
			option.wrong("a string")
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			name, value, ok = strings.Cut(text, ":")
		}
		if name != "no-new-privileges" {
			continue
		}
		switch {
		case !ok, value == "true":
			security.NoNewPrivileges = true
		case value != "false":
			option.fail(fault.Invalid, "invalid --security-opt 1: %q", shorten(text))
		}
		option.understood()
	}
	if mode := host.get("PidMode"); mode != nil && mode.text == "host" {
		security.PIDMode = mode.str()
	}
	if mode := host.get("IpcMode"); mode != nil && mode.text == "host" {
		security.IPCMode = mode.str()
	}
	for _, name := range []string{"MaskedPaths", "ReadonlyPaths"} {
		if paths := host.get(name); !host.native() && paths != nil && paths.kind == treeArray && len(paths.fields) == 0 {
			// "systempaths=unconfined": an empty list is no zero value here.
			paths.fail(fault.Unsupported, "%s", reasonPaths)
		}
	}
	if security.Privileged {
		host.get("MaskedPaths").understood()
		host.get("ReadonlyPaths").understood()
	}
}

// checkContainer validates what an engine would.
func checkContainer(c *neutral.Container) error {
	if err := checkImage(c.Image); err != nil {
		return err
	}
	if err := checkEnv(c.Env, "Env"); err != nil {
		return err
	}
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return &fault.Error{Kind: fault.Invalid, Field: "WorkingDir",
			Message: "the working directory '" + shorten(c.WorkingDir) + "' is invalid, it needs to be an absolute path"}
	}
	if c.StopSignal != "" && signal(c.StopSignal) == "" {
		return &fault.Error{Kind: fault.Invalid, Field: "StopSignal", Message: "Invalid signal: " + shorten(c.StopSignal)}
	}
	if c.AutoRemove && c.Restart.Mode != neutral.RestartNo {
		return fault.New(fault.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	for _, host := range c.ExtraHosts {
		if name, address, ok := strings.Cut(host, ":"); !ok || name == "" || address == "" {
			return &fault.Error{Kind: fault.Invalid, Field: "HostConfig.ExtraHosts", Message: "bad format for add-host: " + shorten(host)}
		}
	}
	return nil
}

// checkEnv wants variables to have names.
func checkEnv(env []string, field string) error {
	for _, e := range env {
		if e == "" || e[0] == '=' {
			return &fault.Error{Kind: fault.Invalid, Field: field, Message: "invalid environment variable: " + shorten(e)}
		}
	}
	return nil
}

// decodeContainerUpdate reads
// https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Container/operation/ContainerUpdate.
func decodeContainerUpdate(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	c := &neutral.Container{Resources: resourcesFromTree(t)}
	if policy := t.get("RestartPolicy"); policy != nil && !policy.zero() {
		c.Restart = restartFromTree(policy)
	}
	losses, err := settle(t, updateDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	op.Container = c
	return losses, nil
}
