package podspec

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// security reads what the container may do. The container's own word stands over the Pod's, which then has no effect.
func (d *decoding) security(c *corev1.Container, at *field.Path) {
	pod, own, out := d.spec.SecurityContext, c.SecurityContext, &d.out.Container.Security
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	d.user(pod, own, at)
	if caps := take(&own.Capabilities); caps != nil {
		for _, capability := range caps.Add {
			out.CapAdd = append(out.CapAdd, string(capability))
		}
		for _, capability := range caps.Drop {
			out.CapDrop = append(out.CapDrop, string(capability))
		}
	}
	out.ReadOnlyRoot = told(&own.ReadOnlyRootFilesystem)
	if escalation := take(&own.AllowPrivilegeEscalation); escalation != nil {
		out.NoNewPrivileges = !*escalation
	}
	plainly(&own.Privileged, false)
	plainly(&own.ProcMount, corev1.DefaultProcMount)
	if !d.target.Swarm {
		out.Privileged = told(&own.Privileged)
		if own.ProcMount != nil && *own.ProcMount == corev1.UnmaskedProcMount {
			out.UnmaskedPaths, own.ProcMount = true, nil
		}
	}
	for _, sysctl := range take(&pod.Sysctls) {
		if out.Sysctls == nil {
			out.Sysctls = map[string]string{}
		}
		out.Sysctls[sysctl.Name] = sysctl.Value
	}
	d.profiles(pod, own)
}

// profiles reads what filters the container's system calls. A profile that is left is one of a host's files, and refused.
func (d *decoding) profiles(pod *corev1.PodSecurityContext, own *corev1.SecurityContext) {
	out := &d.out.Container.Security
	out.Seccomp, out.AppArmor = neutral.ProfileDefault, neutral.ProfileDefault
	seccomp := &own.SeccompProfile
	if *seccomp == nil {
		seccomp = &pod.SeccompProfile
	} else {
		pod.SeccompProfile = nil
	}
	if profile := *seccomp; profile != nil {
		switch profile.Type {
		case corev1.SeccompProfileTypeRuntimeDefault:
			*seccomp = nil
		case corev1.SeccompProfileTypeUnconfined:
			out.Seccomp, *seccomp = neutral.ProfileUnconfined, nil
		}
	}
	armor := &own.AppArmorProfile
	if *armor == nil {
		armor = &pod.AppArmorProfile
	} else {
		pod.AppArmorProfile = nil
	}
	if profile := *armor; profile != nil {
		switch {
		case profile.Type == corev1.AppArmorProfileTypeRuntimeDefault:
			*armor = nil
		case profile.Type == corev1.AppArmorProfileTypeUnconfined:
			out.AppArmor, *armor = neutral.ProfileUnconfined, nil
		case profile.Type == corev1.AppArmorProfileTypeLocalhost && profile.LocalhostProfile != nil && !d.target.Swarm:
			out.AppArmor, *armor = neutral.Local(*profile.LocalhostProfile), nil
		}
	}
}

// user reads whose process it is.
func (d *decoding) user(pod *corev1.PodSecurityContext, own *corev1.SecurityContext, at *field.Path) {
	c := &d.out.Container
	user, group, nonRoot := own.RunAsUser, own.RunAsGroup, own.RunAsNonRoot
	if user == nil {
		user = pod.RunAsUser
	}
	if group == nil {
		group = pod.RunAsGroup
	}
	if nonRoot == nil {
		nonRoot = pod.RunAsNonRoot
	}
	if user != nil {
		c.User = strconv.FormatInt(*user, 10)
		if group != nil {
			c.User += ":" + strconv.FormatInt(*group, 10)
		}
		own.RunAsUser, pod.RunAsUser, own.RunAsGroup, pod.RunAsGroup = nil, nil, nil, nil
	}
	switch {
	case nonRoot == nil:
	case *nonRoot && user != nil && *user == 0:
		path := at.Child("securityContext", "runAsNonRoot")
		if own.RunAsNonRoot == nil {
			path = d.path.Child("securityContext", "runAsNonRoot")
		}
		d.errs = append(d.errs, field.Invalid(path, true, "runAsUser is root"))
		fallthrough
	case !*nonRoot, user != nil:
		own.RunAsNonRoot, pod.RunAsNonRoot = nil, nil
	case own.RunAsNonRoot != nil:
		pod.RunAsNonRoot = nil // what is left of the container's says it
	}
	for _, group := range take(&pod.SupplementalGroups) {
		c.Groups = append(c.Groups, strconv.FormatInt(group, 10))
	}
	plainly(&pod.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge)
	if fs := take(&pod.FSGroup); fs != nil {
		if group := strconv.FormatInt(*fs, 10); !slices.Contains(c.Groups, group) {
			c.Groups = append(c.Groups, group)
		}
		if len(d.spec.Containers[0].VolumeMounts) > 0 {
			d.lose(d.path.Child("securityContext", "fsGroup"), "a group of the container's process",
				"an engine leaves the files of volumes to their owners")
		}
	}
}
