package docker

import (
	"maps"
	"reflect"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// overlay is a part of a service's spec that is shown as the caller wrote it while it still is so, and as it is now
// when it differs. A caller sends the whole spec back to change another part of it: what was shown out of date would
// undo what somebody else did.
type overlay struct {
	same func(was, is *neutral.Workload) bool
	take func(shown, now *swarm.ServiceSpec)
}

// templateOverlay is an overlay of the task's container.
func templateOverlay(same func(was, is *neutral.Container) bool, take func(shown, now *swarm.ContainerSpec)) overlay {
	return overlay{
		same: func(was, is *neutral.Workload) bool { return same(&was.Template, &is.Template) },
		take: func(shown, now *swarm.ServiceSpec) {
			take(shown.TaskTemplate.ContainerSpec, now.TaskTemplate.ContainerSpec)
		},
	}
}

// sameAs compares one value of two workloads, none and empty being one.
func sameAs[T any](value func(*neutral.Workload) T) func(was, is *neutral.Workload) bool {
	return func(was, is *neutral.Workload) bool { return sameValue(value(was), value(is)) }
}

func sameIn[T any](value func(*neutral.Container) T) func(was, is *neutral.Container) bool {
	return func(was, is *neutral.Container) bool { return sameValue(value(was), value(is)) }
}

func sameValue(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0 && y.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a, b)
}

// overlays are all that the neutral model carries of a service, but for hosts and name servers: those of the target are
// addresses of it, and are never shown.
var overlays = []overlay{
	{sameAs(func(w *neutral.Workload) [2]any { return [2]any{w.Mode, w.Replicas} }),
		func(shown, now *swarm.ServiceSpec) { shown.Mode = now.Mode }},
	{sameAs(func(w *neutral.Workload) neutral.UpdatePolicy {
		if w.Update == nil {
			return neutral.UpdatePolicy{}
		}
		return *w.Update
	}), func(shown, now *swarm.ServiceSpec) { shown.UpdateConfig = now.UpdateConfig }},
	{sameAs(func(w *neutral.Workload) []string { return w.Placement }),
		func(shown, now *swarm.ServiceSpec) { shown.TaskTemplate.Placement = now.TaskTemplate.Placement }},
	{sameAs(func(w *neutral.Workload) int { return w.Force }),
		func(shown, now *swarm.ServiceSpec) { shown.TaskTemplate.ForceUpdate = now.TaskTemplate.ForceUpdate }},
	{sameAs(func(w *neutral.Workload) neutral.Resources { return w.Template.Resources }),
		func(shown, now *swarm.ServiceSpec) { shown.TaskTemplate.Resources = now.TaskTemplate.Resources }},
	{sameAs(func(w *neutral.Workload) neutral.RestartPolicy { return w.Template.Restart }),
		func(shown, now *swarm.ServiceSpec) { shown.TaskTemplate.RestartPolicy = now.TaskTemplate.RestartPolicy }},
	{func(was, is *neutral.Workload) bool {
		return (was.Template.Network == neutral.NetworkHost) == (is.Template.Network == neutral.NetworkHost) &&
			sameValue(was.Template.Networks, is.Template.Networks)
	}, func(shown, now *swarm.ServiceSpec) { shown.TaskTemplate.Networks = now.TaskTemplate.Networks }},
	{func(was, is *neutral.Workload) bool {
		return slices.Equal(publishedPorts(&was.Template), publishedPorts(&is.Template))
	}, func(shown, now *swarm.ServiceSpec) {
		if shown.EndpointSpec == nil {
			shown.EndpointSpec = &swarm.EndpointSpec{}
		}
		shown.EndpointSpec.Ports = now.EndpointSpec.Ports
	}},

	templateOverlay(func(was, is *neutral.Container) bool { return sameImage(was.Image, is.Image) },
		func(shown, now *swarm.ContainerSpec) { shown.Image = now.Image }),
	templateOverlay(func(was, is *neutral.Container) bool { return maps.Equal(was.Labels, is.Labels) },
		func(shown, now *swarm.ContainerSpec) { shown.Labels = now.Labels }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Entrypoint }),
		func(shown, now *swarm.ContainerSpec) { shown.Command = now.Command }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Command }),
		func(shown, now *swarm.ContainerSpec) { shown.Args = now.Args }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Env }),
		func(shown, now *swarm.ContainerSpec) { shown.Env = now.Env }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Groups }),
		func(shown, now *swarm.ContainerSpec) { shown.Groups = now.Groups }),
	templateOverlay(sameIn(func(c *neutral.Container) [4]string {
		return [4]string{c.WorkingDir, c.User, c.Hostname, c.StopSignal}
	}), func(shown, now *swarm.ContainerSpec) {
		shown.Dir, shown.User, shown.Hostname, shown.StopSignal = now.Dir, now.User, now.Hostname, now.StopSignal
	}),
	templateOverlay(sameIn(func(c *neutral.Container) [2]bool { return [2]bool{c.TTY, c.Stdin} }),
		func(shown, now *swarm.ContainerSpec) { shown.TTY, shown.OpenStdin = now.TTY, now.OpenStdin }),
	templateOverlay(sameIn(func(c *neutral.Container) *int { return c.StopTimeout }),
		func(shown, now *swarm.ContainerSpec) { shown.StopGracePeriod = now.StopGracePeriod }),
	templateOverlay(sameIn(func(c *neutral.Container) []neutral.Mount { return c.Mounts }),
		func(shown, now *swarm.ContainerSpec) { shown.Mounts = now.Mounts }),
	templateOverlay(sameIn(func(c *neutral.Container) []neutral.MountedFile { return c.Files }),
		func(shown, now *swarm.ContainerSpec) { shown.Secrets, shown.Configs = now.Secrets, now.Configs }),
	templateOverlay(sameIn(func(c *neutral.Container) *neutral.HealthCheck { return c.Health }),
		func(shown, now *swarm.ContainerSpec) { shown.Healthcheck = now.Healthcheck }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Security.CapAdd }),
		func(shown, now *swarm.ContainerSpec) { shown.CapabilityAdd = now.CapabilityAdd }),
	templateOverlay(sameIn(func(c *neutral.Container) []string { return c.Security.CapDrop }),
		func(shown, now *swarm.ContainerSpec) { shown.CapabilityDrop = now.CapabilityDrop }),
	templateOverlay(sameIn(func(c *neutral.Container) [2]bool {
		return [2]bool{c.Security.ReadOnlyRoot, c.Security.NoNewPrivileges}
	}), func(shown, now *swarm.ContainerSpec) { shown.ReadOnly, shown.Privileges = now.ReadOnly, now.Privileges }),
}

// overlaySpec brings what a caller wrote up to date.
func overlaySpec(shown *swarm.ServiceSpec, was, is *neutral.Workload, now swarm.ServiceSpec) {
	shown.Name, shown.Labels = now.Name, now.Labels
	for _, o := range overlays {
		if !o.same(was, is) {
			o.take(shown, &now)
		}
	}
}

// publishedPorts are the ports that a service's spec has, in one order.
func publishedPorts(c *neutral.Container) []neutral.Port {
	var ports []neutral.Port
	for _, p := range c.Ports {
		if p.Publish || p.Published != 0 {
			p.HostIP = ""
			ports = append(ports, p)
		}
	}
	slices.SortFunc(ports, comparePorts)
	return ports
}
