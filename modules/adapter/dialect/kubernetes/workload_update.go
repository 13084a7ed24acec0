package kubernetes

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A caller sends the whole spec to change a part, and its spec knows less than a Deployment does. So what is applied is
// the difference between what the caller read and what it sends; the rest of the object stays as it is.

// aspect is a part of a template that is compared and changed as one.
type aspect struct {
	name string
	// same compares what the caller read with what it sends.
	same func(was, is *neutral.Container) bool
	// take puts the new value into a container that has nothing else.
	take func(to, from *neutral.Container)
	// put moves the built value into the live template, whose container is c.
	put func(c *corev1.Container, live, built *corev1.PodTemplateSpec)
}

// sameList compares with nil and empty as one.
func sameList[T any](x, y []T) bool { return len(x) == 0 && len(y) == 0 || reflect.DeepEqual(x, y) }

var aspects = []aspect{
	{"image", func(x, y *neutral.Container) bool { return x.Image == y.Image },
		func(to, from *neutral.Container) { to.Image = from.Image },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) { c.Image = built.Spec.Containers[0].Image }},
	{"command", func(x, y *neutral.Container) bool {
		return sameList(x.Entrypoint, y.Entrypoint) && sameList(x.Command, y.Command)
	}, func(to, from *neutral.Container) { to.Entrypoint, to.Command = from.Entrypoint, from.Command },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
			c.Command, c.Args = built.Spec.Containers[0].Command, built.Spec.Containers[0].Args
		}},
	{"env", func(x, y *neutral.Container) bool { return sameList(x.Env, y.Env) },
		func(to, from *neutral.Container) { to.Env = from.Env },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
			// Variables whose value only the cluster knows are not in the caller's spec, and stay.
			kept := slices.DeleteFunc(slices.Clone(c.Env), func(e corev1.EnvVar) bool { return e.ValueFrom == nil })
			c.Env = append(kept, built.Spec.Containers[0].Env...)
		}},
	{"working directory", func(x, y *neutral.Container) bool { return x.WorkingDir == y.WorkingDir },
		func(to, from *neutral.Container) { to.WorkingDir = from.WorkingDir },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
			c.WorkingDir = built.Spec.Containers[0].WorkingDir
		}},
	{"user", func(x, y *neutral.Container) bool {
		return (x.User == y.User || sameUser(x.User, y.User)) && sameList(x.Groups, y.Groups)
	}, func(to, from *neutral.Container) { to.User, to.Groups = from.User, from.Groups },
		func(c *corev1.Container, live, built *corev1.PodTemplateSpec) {
			security(c).RunAsUser = built.Spec.Containers[0].SecurityContext.RunAsUser
			security(c).RunAsGroup = built.Spec.Containers[0].SecurityContext.RunAsGroup
			if live.Spec.SecurityContext == nil {
				live.Spec.SecurityContext = &corev1.PodSecurityContext{}
			}
			live.Spec.SecurityContext.SupplementalGroups = built.Spec.SecurityContext.SupplementalGroups
		}},
	{"hostname", func(x, y *neutral.Container) bool { return x.Hostname == y.Hostname },
		func(to, from *neutral.Container) { to.Hostname = from.Hostname },
		func(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
			live.Spec.Hostname = built.Spec.Hostname
		}},
	{"terminal", func(x, y *neutral.Container) bool { return x.TTY == y.TTY && x.Stdin == y.Stdin },
		func(to, from *neutral.Container) { to.TTY, to.Stdin = from.TTY, from.Stdin },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
			c.TTY, c.Stdin = built.Spec.Containers[0].TTY, built.Spec.Containers[0].Stdin
		}},
	{"labels", func(x, y *neutral.Container) bool {
		return len(x.Labels) == 0 && len(y.Labels) == 0 || reflect.DeepEqual(x.Labels, y.Labels)
	}, func(to, from *neutral.Container) { to.Labels = from.Labels }, putLabels},
	{"grace period", func(x, y *neutral.Container) bool {
		return y.StopTimeout == nil || x.StopTimeout != nil && *x.StopTimeout == *y.StopTimeout
	}, func(to, from *neutral.Container) { to.StopTimeout = from.StopTimeout },
		func(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
			live.Spec.TerminationGracePeriodSeconds = built.Spec.TerminationGracePeriodSeconds
		}},
	{"stop signal", func(x, y *neutral.Container) bool { return x.StopSignal == y.StopSignal },
		func(to, from *neutral.Container) { to.StopSignal = from.StopSignal },
		func(c *corev1.Container, live, built *corev1.PodTemplateSpec) {
			c.Lifecycle = built.Spec.Containers[0].Lifecycle
			annotate(live, built, annotationStopSignal)
		}},
	{"resources", func(x, y *neutral.Container) bool {
		return x.Resources == y.Resources || sameLimits(x.Resources, y.Resources)
	},
		func(to, from *neutral.Container) { to.Resources = from.Resources },
		func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
			putResources(c, &built.Spec.Containers[0])
		}},
	{"mounts", func(x, y *neutral.Container) bool { return sameList(x.Mounts, y.Mounts) },
		func(to, from *neutral.Container) { to.Mounts = from.Mounts }, putMounts},
	{"secrets and configs", func(x, y *neutral.Container) bool { return sameList(x.Files, y.Files) },
		func(to, from *neutral.Container) { to.Files = from.Files }, putFiles},
	{"hosts", func(x, y *neutral.Container) bool { return sameList(x.ExtraHosts, y.ExtraHosts) },
		func(to, from *neutral.Container) { to.ExtraHosts = from.ExtraHosts },
		func(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
			live.Spec.HostAliases = built.Spec.HostAliases
		}},
	{"names", func(x, y *neutral.Container) bool {
		return sameList(x.DNS, y.DNS) && sameList(x.DNSSearch, y.DNSSearch) && sameList(x.DNSOptions, y.DNSOptions)
	}, func(to, from *neutral.Container) {
		to.DNS, to.DNSSearch, to.DNSOptions = from.DNS, from.DNSSearch, from.DNSOptions
	}, func(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
		live.Spec.DNSConfig, live.Spec.DNSPolicy = built.Spec.DNSConfig, built.Spec.DNSPolicy
	}},
	{"security", func(x, y *neutral.Container) bool {
		return sameList(x.Security.CapAdd, y.Security.CapAdd) && sameList(x.Security.CapDrop, y.Security.CapDrop) &&
			x.Security.ReadOnlyRoot == y.Security.ReadOnlyRoot && x.Security.NoNewPrivileges == y.Security.NoNewPrivileges
	}, func(to, from *neutral.Container) {
		to.Security = neutral.Security{CapAdd: from.Security.CapAdd, CapDrop: from.Security.CapDrop,
			ReadOnlyRoot: from.Security.ReadOnlyRoot, NoNewPrivileges: from.Security.NoNewPrivileges}
	}, func(c *corev1.Container, _, built *corev1.PodTemplateSpec) {
		from := built.Spec.Containers[0].SecurityContext
		security(c).Capabilities, security(c).ReadOnlyRootFilesystem = from.Capabilities, from.ReadOnlyRootFilesystem
		security(c).AllowPrivilegeEscalation = from.AllowPrivilegeEscalation
	}},
	{"health", func(x, y *neutral.Container) bool { return reflect.DeepEqual(x.Health, y.Health) },
		func(to, from *neutral.Container) { to.Health = from.Health },
		func(c *corev1.Container, live, built *corev1.PodTemplateSpec) {
			c.ReadinessProbe = built.Spec.Containers[0].ReadinessProbe
			annotate(live, built, annotationHealth)
		}},
	{"network", func(x, y *neutral.Container) bool {
		return (x.Network == neutral.NetworkHost) == (y.Network == neutral.NetworkHost) && sameList(x.Networks, y.Networks)
	}, func(to, from *neutral.Container) { to.Network, to.Networks = from.Network, from.Networks },
		func(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
			live.Spec.HostNetwork, live.Spec.DNSPolicy = built.Spec.HostNetwork, built.Spec.DNSPolicy
			_ = noteNetworks(&live.ObjectMeta, networksFromMeta(built.ObjectMeta)) // what was read can be written
		}},
}

func security(c *corev1.Container) *corev1.SecurityContext {
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	return c.SecurityContext
}

// annotate moves one annotation.
func annotate(live, built *corev1.PodTemplateSpec, key string) {
	if live.Annotations == nil {
		live.Annotations = map[string]string{}
	}
	delete(live.Annotations, key)
	if value, ok := built.Annotations[key]; ok {
		live.Annotations[key] = value
	}
}

// putLabels keeps those that select the containers, whatever the caller says.
func putLabels(_ *corev1.Container, live, built *corev1.PodTemplateSpec) {
	labels := built.Labels
	for label, value := range live.Labels {
		if ownLabel(label) {
			labels[label] = value
		}
	}
	live.Labels = labels
	annotate(live, built, annotationLabels)
}

// sameLimits takes a reservation that follows from a limit as none.
func sameLimits(was, is neutral.Resources) bool {
	if is.MilliCPUReserved == 0 && was.MilliCPUReserved == was.MilliCPU {
		was.MilliCPUReserved = 0
	}
	if is.MemoryReserved == 0 && was.MemoryReserved == was.Memory {
		was.MemoryReserved = 0
	}
	return was == is
}

// putResources leaves what docker cannot name (storage, devices) as it is.
func putResources(c, built *corev1.Container) {
	for _, list := range []struct{ to, from *corev1.ResourceList }{
		{&c.Resources.Limits, &built.Resources.Limits}, {&c.Resources.Requests, &built.Resources.Requests}} {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(*list.to, name)
			if quantity, ok := (*list.from)[name]; ok {
				if *list.to == nil {
					*list.to = corev1.ResourceList{}
				}
				(*list.to)[name] = quantity
			}
		}
	}
}

// dropMounts takes out the volumes that the caller took out. Mounts that no caller can make stay.
func dropMounts(live *corev1.PodTemplateSpec, was, is *neutral.Container) {
	gone := map[string]bool{}
	for _, m := range was.Mounts {
		if m.Type == "volume" && !slices.Contains(is.Mounts, m) {
			gone[m.Target] = true
		}
	}
	c := &live.Spec.Containers[0]
	left := map[string]bool{}
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return gone[m.MountPath] })
	for _, list := range [][]corev1.Container{live.Spec.InitContainers, live.Spec.Containers} {
		for i := range list {
			for _, m := range list[i].VolumeMounts {
				left[m.Name] = true
			}
		}
	}
	live.Spec.Volumes = slices.DeleteFunc(live.Spec.Volumes, func(v corev1.Volume) bool {
		return strings.HasPrefix(v.Name, volumeNamed) && !left[v.Name] || strings.HasPrefix(v.Name, volumeAnonymous) && !left[v.Name]
	})
}

// putMounts changes the tmpfs mounts and adds volumes.
func putMounts(c *corev1.Container, live, built *corev1.PodTemplateSpec) {
	tmpfs := map[string]bool{}
	live.Spec.Volumes = slices.DeleteFunc(live.Spec.Volumes, func(v corev1.Volume) bool {
		gone := v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory
		tmpfs[v.Name] = gone
		return gone
	})
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return tmpfs[m.Name] })
	for _, v := range built.Spec.Volumes {
		if !strings.HasPrefix(v.Name, volumeFile) { // putFiles'
			live.Spec.Volumes = append(live.Spec.Volumes, v)
		}
	}
	for _, m := range built.Spec.Containers[0].VolumeMounts {
		if !strings.HasPrefix(m.Name, volumeFile) {
			c.VolumeMounts = append(c.VolumeMounts, m)
		}
	}
	for claim, name := range volumeNames(built.ObjectMeta) {
		noteVolume(&live.ObjectMeta, claim, name)
	}
}

// changeTemplate applies the difference between was and is to the live template.
func changeTemplate(live *corev1.PodTemplateSpec, was, is *neutral.Container) ([]neutral.Loss, error) {
	scratch := neutral.Container{Image: is.Image}
	var changed []aspect
	for _, a := range aspects {
		if !a.same(was, is) {
			a.take(&scratch, is)
			changed = append(changed, a)
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	if len(live.Spec.Containers) != 1 {
		return nil, fault.New(fault.Conflict, "the %s cannot be changed: its Pods have %d containers, and which one is meant, "+
			"the request cannot say", changed[0].name, len(live.Spec.Containers))
	}
	// Mounts that were there before may be of kinds that no caller can make; they stay.
	scratch.Mounts = slices.DeleteFunc(slices.Clone(scratch.Mounts), func(m neutral.Mount) bool {
		return m.Type != "tmpfs" && slices.Contains(was.Mounts, m)
	})
	built, losses, err := serviceTemplate(&scratch, "")
	if err != nil {
		return nil, err
	}
	dropMounts(live, was, is)
	for _, a := range changed {
		a.put(&live.Spec.Containers[0], live, built)
	}
	return losses, nil
}

// updateWorkload changes a workload to what the caller sends, if it is still what the caller read.
func (a *action) updateWorkload(ctx context.Context) (neutral.Result, error) {
	once := a.updateOnce
	switch {
	case a.op.Rollback:
		once = a.rollBackOnce
	case a.op.Workload == nil:
		return neutral.Result{}, fault.New(fault.Invalid, "the service has no spec")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var made []*corev1.PersistentVolumeClaim
	result, err := a.updateWhileSame(ctx, once, &made)
	if err != nil {
		a.undoVolumes(ctx, made)
	}
	return result, err
}

// updateWhileSame adds the volumes that it made for a service to made, unless the service has them.
func (a *action) updateWhileSame(ctx context.Context, once func(context.Context, *[]*corev1.PersistentVolumeClaim) (neutral.Result, error),
	made *[]*corev1.PersistentVolumeClaim) (neutral.Result, error) {
	// Between our reading and our writing the cluster may note something on the object, as it does all the time while
	// it rolls out. Only a changed spec is the caller's business.
	for attempt := 0; ; attempt++ {
		result, err := once(ctx, made)
		if attempt < 4 && apierrors.IsConflict(err) {
			continue
		}
		if apierrors.IsConflict(err) {
			return neutral.Result{}, fault.Wrap(fault.Conflict, err, "update out of sequence")
		}
		return result, nativeFault(err)
	}
}

func (a *action) updateOnce(ctx context.Context, made *[]*corev1.PersistentVolumeClaim) (neutral.Result, error) {
	ref := a.op.Ref
	found, err := a.findWorkload(ctx, ref)
	if err != nil {
		return neutral.Result{}, err
	}
	if a.op.Version != "" && a.op.Version != found.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	}
	is := a.op.Workload
	if is.Name != "" && is.Name != found.Name {
		return neutral.Result{}, fault.New(fault.Unsupported, "renaming services is not supported")
	}
	if is.Mode != "" && is.Mode != found.Mode {
		return neutral.Result{}, fault.New(fault.Unsupported, "service mode change is not allowed")
	}
	if err := dialect.Restore(&is.Template, &found.Template, a.op.Told); err != nil {
		return neutral.Result{}, err
	}
	if !sameList(found.Template.Networks, is.Template.Networks) {
		on, err := a.joined(ctx, is.Template.Networks)
		if err != nil {
			return neutral.Result{}, err
		}
		placed := *is
		placed.Template.Networks = on
		is = &placed
	}
	if !sameList(found.Template.Files, is.Template.Files) {
		if err := a.checkFiles(ctx, is.Template.Files); err != nil {
			return neutral.Result{}, err
		}
	}
	n := found.native
	before := n.template.DeepCopy()
	losses, err := changeWorkload(n, &found.Workload, is)
	if err != nil {
		return neutral.Result{}, err
	}
	searchNetworks(n.template.ObjectMeta, n.meta.Namespace, &n.template.Spec)
	var missing []*corev1.PersistentVolumeClaim
	if !sameList(found.Template.Mounts, is.Template.Mounts) {
		if missing, err = a.missingVolumes(ctx, n.template.ObjectMeta, &n.template.Spec); err != nil {
			return neutral.Result{}, err
		}
	}
	changed := workloadFromNative(a.cluster, n)
	noteBeside(n, before, &found.Workload, &changed)
	if err := a.permitSeen(ctx, workloadObject(&changed)); err != nil {
		return neutral.Result{}, err
	}
	if err := a.makeVolumes(ctx, missing); err != nil {
		return neutral.Result{}, err
	}
	*made = append(*made, missing...)
	if err := n.save(ctx, a.Cluster); err != nil {
		return neutral.Result{}, err
	}
	*made = nil // the service has them
	var offered []neutral.Loss
	if !sameList(found.Template.Ports, is.Template.Ports) || !reflect.DeepEqual(found.Labels, is.Labels) {
		ports, err := servicePorts(is)
		if err != nil {
			return neutral.Result{}, err
		}
		if offered, err = a.offer(ctx, n, ports); err != nil {
			return neutral.Result{}, err
		}
	}
	return neutral.Result{ID: found.ID, Losses: append(losses, offered...)}, nil
}

// changeWorkload applies the difference between was and is to the native object.
func changeWorkload(n *nativeWorkload, was, is *neutral.Workload) ([]neutral.Loss, error) {
	if n.meta.Annotations == nil {
		n.meta.Annotations = map[string]string{}
	}
	if is.Replicas != was.Replicas {
		if n.replicas == nil {
			return nil, fault.New(fault.Invalid, "a global service runs once on every node; it cannot be scaled")
		}
		count := int32(min(max(is.Replicas, 0), 1<<20))
		*n.replicas = &count
	}
	if len(was.Labels)+len(is.Labels) > 0 && !reflect.DeepEqual(was.Labels, is.Labels) {
		own := n.meta.Labels[labelWorkload]
		if err := labelMeta(n.meta, is.Labels); err != nil {
			return nil, err
		}
		if own != "" {
			n.meta.Labels[labelWorkload] = own
		}
	}
	ports := is.Template.Ports
	if _, err := servicePorts(is); err != nil {
		return nil, err
	}
	if err := notePorts(n.meta, ports); err != nil {
		return nil, err
	}
	losses, err := changeTemplate(n.template, &was.Template, &is.Template)
	if err != nil {
		return nil, err
	}
	if is.Template.Restart.Mode == neutral.RestartNo && was.Template.Restart.Mode != neutral.RestartNo {
		return nil, refuse("TaskTemplate.RestartPolicy.Condition",
			"a service of Kubernetes starts its containers again always; a replicated job does not")
	}
	if is.Update != nil && !reflect.DeepEqual(was.Update, is.Update) {
		if err := applyUpdate(n, n.meta, is.Update, &losses); err != nil {
			return nil, err
		}
	}
	if !sameList(hostPorts(was.Template.Ports), hostPorts(ports)) {
		if len(n.template.Spec.Containers) != 1 {
			return nil, fault.New(fault.Conflict, "the ports cannot be published on nodes: its Pods have several containers")
		}
		built, _, err := templateOf(&neutral.Workload{Name: is.Name, Template: neutral.Container{Image: is.Template.Image, Ports: ports}})
		if err != nil {
			return nil, err
		}
		n.template.Spec.Containers[0].Ports = built.Spec.Containers[0].Ports
	}
	if !sameList(was.Placement, is.Placement) {
		affinity, err := placementToAffinity(is.Placement)
		if err != nil {
			return nil, err
		}
		n.template.Spec.Affinity, n.template.Spec.NodeSelector = affinity, nil
	}
	if is.Force != was.Force {
		if n.template.Annotations == nil {
			n.template.Annotations = map[string]string{}
		}
		n.template.Annotations[annotationForce] = strconv.Itoa(is.Force)
	}
	return losses, keepUpdated(n, is, losses)
}

// keepUpdated keeps the caller's new document, where the caller's old one was kept.
func keepUpdated(n *nativeWorkload, is *neutral.Workload, losses []neutral.Loss) error {
	if n.template.Labels[labelWorkload] == "" {
		return nil // not of a caller's making; its own spec is the document
	}
	delete(n.meta.Annotations, annotationOrigin)
	delete(n.meta.Annotations, annotationLosses)
	return keepBeside(n.meta, is.Origin, append(slices.Clone(is.Losses), losses...))
}

// hostPorts are the ports published on the nodes that run the containers.
func hostPorts(ports []neutral.Port) []neutral.Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p neutral.Port) bool { return !p.HostMode })
}
