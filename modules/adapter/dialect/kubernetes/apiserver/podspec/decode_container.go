package podspec

import (
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// process reads what the container runs.
func (d *decoding) process(c *corev1.Container, at *field.Path) {
	out := &d.out.Container
	d.out.Name = take(&c.Name)
	image := take(&c.Image)
	if image == "" {
		d.errs = append(d.errs, field.Required(at.Child("image"), ""))
	}
	out.Image = image
	d.out.command, d.out.args = take(&c.Command), take(&c.Args)
	out.WorkingDir = take(&c.WorkingDir)
	out.TTY, out.Stdin = take(&c.TTY), take(&c.Stdin)
	if !d.target.Swarm {
		out.StdinOnce = take(&c.StdinOnce)
		d.out.Pull = take(&c.ImagePullPolicy)
	}
	plain(&c.ImagePullPolicy, pullPolicy(image))
	plain(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	plain(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	if c.Lifecycle == nil {
		return
	}
	out.StopSignal = string(told(&c.Lifecycle.StopSignal))
	if pre := c.Lifecycle.PreStop; pre != nil && (pre.Sleep != nil || pre.Exec != nil && sleeps(pre.Exec.Command)) {
		d.lose(at.Child("lifecycle", "preStop"), "dropped", "an engine stops a container without waiting first")
		c.Lifecycle.PreStop = nil
	}
}

var sleeping = regexp.MustCompile(`^(/bin/|/usr/bin/)?sleep [0-9.]+[smh]?$`)

// sleeps tells whether a command does nothing but wait.
func sleeps(command []string) bool {
	if len(command) == 3 && (command[0] == "sh" || command[0] == "/bin/sh" || command[0] == "/bin/bash") && command[1] == "-c" {
		command = command[2:]
	}
	return sleeping.MatchString(strings.TrimSpace(strings.Join(command, " ")))
}

// leastMemory is the smallest limit that an engine takes.
const leastMemory = 6 << 20

// resources reads limits and requests of CPU and memory. A request that is not made is the limit.
func (d *decoding) resources(c *corev1.Container, at *field.Path) {
	at = at.Child("resources")
	out := &d.out.Container.Resources
	cpu, cpuLimited := taken(c.Resources.Limits, corev1.ResourceCPU)
	memory, memoryLimited := taken(c.Resources.Limits, corev1.ResourceMemory)
	out.MilliCPU, out.Memory = cpu.MilliValue(), memory.Value()
	out.MilliCPUReserved, out.MemoryReserved = out.MilliCPU, out.Memory
	if request, ok := taken(c.Resources.Requests, corev1.ResourceCPU); ok {
		out.MilliCPUReserved = request.MilliValue()
		if !d.target.Swarm && (!cpuLimited || out.MilliCPUReserved != out.MilliCPU) && out.MilliCPUReserved != 0 {
			d.lose(at.Child("requests").Key(string(corev1.ResourceCPU)), "dropped", "an engine reserves no CPU for a container")
		}
	}
	if request, ok := taken(c.Resources.Requests, corev1.ResourceMemory); ok {
		out.MemoryReserved = request.Value()
	}
	const mostCPU = math.MaxInt64 / int64(time.Millisecond) // engines count billionths
	for _, amount := range []struct {
		value, least, most int64
		list               string
		name               corev1.ResourceName
	}{
		{out.MilliCPU, 0, mostCPU, "limits", corev1.ResourceCPU},
		{out.MilliCPUReserved, 0, mostCPU, "requests", corev1.ResourceCPU},
		{out.Memory, leastMemory, math.MaxInt64, "limits", corev1.ResourceMemory},
		{out.MemoryReserved, leastMemory, math.MaxInt64, "requests", corev1.ResourceMemory},
	} {
		path := at.Child(amount.list).Key(string(amount.name))
		switch {
		case amount.value == 0:
		case amount.value < amount.least && (amount.list == "limits" || !memoryLimited):
			d.errs = append(d.errs, field.Invalid(path, amount.value, "an engine takes no less than 6Mi"))
		case amount.value < 0 || amount.value > amount.most:
			d.errs = append(d.errs, field.Invalid(path, amount.value, "out of range"))
		}
	}
}

// taken gives a quantity, and leaves none behind.
func taken(list corev1.ResourceList, name corev1.ResourceName) (resource.Quantity, bool) {
	quantity, ok := list[name]
	delete(list, name)
	return quantity, ok
}

// ports reads what the container listens on. On its host's network there is nothing to publish.
func (d *decoding) ports(c *corev1.Container, at *field.Path) {
	for i := range c.Ports {
		p, path := &c.Ports[i], at.Child("ports").Index(i)
		port := neutral.Port{Name: take(&p.Name)}
		if p.ContainerPort <= 0 || p.ContainerPort > math.MaxUint16 || p.HostPort < 0 || p.HostPort > math.MaxUint16 {
			d.errs = append(d.errs, field.Invalid(path, strconv.Itoa(int(p.ContainerPort)), "must be between 1 and 65535, inclusive"))
			*p = corev1.ContainerPort{}
			continue
		}
		port.Container = uint16(take(&p.ContainerPort))
		switch p.Protocol {
		case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
			port.Protocol = strings.ToLower(string(take(&p.Protocol)))
		}
		host := uint16(take(&p.HostPort))
		if d.out.Container.Network != neutral.NetworkHost {
			port.Published, port.Publish, port.HostMode = host, host != 0, host != 0
		}
		if port.Publish && (!d.target.Swarm || p.HostIP == "0.0.0.0") {
			port.HostIP = take(&p.HostIP)
			if _, err := netip.ParseAddr(port.HostIP); port.HostIP != "" && err != nil {
				d.errs = append(d.errs, field.Invalid(path.Child("hostIP"), port.HostIP, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
			}
		}
		d.out.Container.Ports = append(d.out.Container.Ports, port)
	}
}

// health reads the probe that an engine can do: one that runs a command. Only one can be done, and what becomes of a
// container that fails it is not the same everywhere.
func (d *decoding) health(c *corev1.Container, at *field.Path) {
	d.out.Container.Health = &neutral.HealthCheck{Test: []string{"NONE"}} // the image's own is none of Kubernetes'
	readiness, liveness := c.ReadinessProbe, c.LivenessProbe
	commandOf := func(p *corev1.Probe) bool { return p != nil && p.Exec != nil && len(p.Exec.Command) > 0 }
	switch {
	case commandOf(readiness) && commandOf(liveness) && d.target.Swarm:
		d.check(&c.LivenessProbe, at.Child("livenessProbe"))
		d.lose(at.Child("readinessProbe"), "dropped", "a task has one check, by which it is also replaced")
		c.ReadinessProbe = nil
	case commandOf(readiness):
		if d.target.Swarm {
			d.lose(at.Child("readinessProbe"), "a check of health", "a Swarm also replaces a task that fails it")
		}
		d.check(&c.ReadinessProbe, at.Child("readinessProbe"))
	case commandOf(liveness):
		if !d.target.Swarm {
			d.lose(at.Child("livenessProbe"), "a check of health", "an engine does not restart a container that fails it")
		}
		d.check(&c.LivenessProbe, at.Child("livenessProbe"))
	}
}

// check makes a probe the container's check.
func (d *decoding) check(from **corev1.Probe, at *field.Path) {
	probe := take(from)
	d.out.Container.Health = &neutral.HealthCheck{
		Test:        append([]string{"CMD"}, probe.Exec.Command...),
		Interval:    time.Duration(probe.PeriodSeconds) * time.Second,
		Timeout:     time.Duration(probe.TimeoutSeconds) * time.Second,
		StartPeriod: time.Duration(probe.InitialDelaySeconds) * time.Second,
		Retries:     int(probe.FailureThreshold),
	}
	if probe.SuccessThreshold != 1 {
		d.lose(at.Child("successThreshold"), "1", "one success is enough for an engine")
	}
	if probe.TerminationGracePeriodSeconds != nil {
		d.lose(at.Child("terminationGracePeriodSeconds"), "dropped", "a container has one grace period")
	}
}
