package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// mostContainers is how many a Pod has, which bounds what a caller has the gateway and the engine do.
const mostContainers = 40

// several reads each container as if the Pod had no other one, and takes what they have in common together. What is said
// of the Pod itself is read, and settled, with each of them, and told once.
func (d *decoding) several() (Result, field.ErrorList) {
	d.ephemeral()
	if count := len(d.spec.InitContainers) + len(d.spec.Containers); count > mostContainers {
		d.errs = append(d.errs, field.TooMany(d.path.Child("containers"), count, mostContainers))
		return d.out, d.errs
	}
	mounted := map[string]bool{}
	for _, list := range [][]corev1.Container{d.spec.InitContainers, d.spec.Containers} {
		for i := range list {
			for _, m := range list[i].VolumeMounts {
				mounted[m.Name] = true
			}
		}
	}
	for i := range d.spec.InitContainers {
		d.member(&d.spec.InitContainers[i], d.path.Child("initContainers").Index(i), mounted, true)
	}
	for i := range d.spec.Containers {
		d.member(&d.spec.Containers[i], d.path.Child("containers").Index(i), mounted, false)
	}
	d.sort()
	d.out.Losses = slices.Compact(d.out.Losses)
	d.errs = slices.CompactFunc(d.errs, func(a, b *field.Error) bool { return a.Field == b.Field && a.Error() == b.Error() })
	return d.out, d.errs
}

// member reads one container.
func (d *decoding) member(c *corev1.Container, at *field.Path, mounted map[string]bool, initial bool) {
	rest := *d.spec
	rest.InitContainers, rest.Containers = nil, nil
	alone := rest.DeepCopy()
	alone.Containers = []corev1.Container{*c.DeepCopy()}
	m := &decoding{target: d.target, written: d.written, spec: alone, path: d.path, mounted: mounted}
	m.one(at, func(c *corev1.Container) {
		if initial {
			m.initial(c, at)
		}
	})
	d.errs, d.out.Losses = append(d.errs, m.errs...), append(d.out.Losses, m.out.Losses...)
	m.out.Losses = nil
	for _, claim := range m.out.Claims {
		if !slices.ContainsFunc(d.out.Claims, func(known Claim) bool { return known.Name == claim.Name }) {
			d.out.Claims = append(d.out.Claims, claim)
		}
	}
	d.out.Placement = m.out.Placement
	d.hold(&m.out.Container, m.shared)
	m.out.Container.Name = m.out.Name
	d.out.Members = append(d.out.Members, m.out)
}

// initial reads when a container that begins before others is over.
func (d *decoding) initial(c *corev1.Container, at *field.Path) {
	out := &d.out.Container
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		c.RestartPolicy = nil
		if d.written.RestartPolicy != "" && d.written.RestartPolicy != corev1.RestartPolicyAlways {
			d.refuse(at.Child("restartPolicy"), "nothing on an engine ends a sidecar once the other containers have ended; it may be in a Pod that restarts Always")
		}
		out.Restart.Mode = neutral.RestartAlways
		return
	}
	out.Initial = true
	if out.Restart.Mode == neutral.RestartAlways {
		out.Restart.Mode = neutral.RestartOnFailure
	}
}

// hold moves what belongs to the whole Pod from a member to its holder.
func (d *decoding) hold(member *neutral.Container, mounts []neutral.Mount) {
	holder := &d.out.Container
	holder.Network, holder.Hostname, holder.Domain = member.Network, member.Hostname, member.Domain
	holder.DNS, holder.DNSSearch, holder.DNSOptions, holder.ExtraHosts = member.DNS, member.DNSSearch, member.DNSOptions, member.ExtraHosts
	holder.Security.Seccomp, holder.Security.AppArmor = neutral.ProfileDefault, neutral.ProfileDefault
	holder.Security.Sysctls = member.Security.Sysctls
	holder.Security.IPCMode = member.Security.IPCMode
	if member.Security.PIDMode != neutral.ShareHolder {
		holder.Security.PIDMode = member.Security.PIDMode
	}
	holder.Restart.Mode = neutral.RestartUnlessStopped
	if d.spec.RestartPolicy == corev1.RestartPolicyNever {
		holder.Restart.Mode = neutral.RestartNo
	}
	holder.Ports = append(holder.Ports, member.Ports...)
	for _, m := range mounts {
		if !slices.Contains(holder.Mounts, m) {
			holder.Mounts = append(holder.Mounts, m)
		}
	}
	member.Hostname, member.Domain, member.Ports = "", "", nil
	member.DNS, member.DNSSearch, member.DNSOptions, member.ExtraHosts = nil, nil, nil, nil
	member.Security.Sysctls = nil
	member.Network = neutral.NetworkPod
	if member.Security.IPCMode == "" {
		member.Security.IPCMode = neutral.ShareHolder
	}
}
