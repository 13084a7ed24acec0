package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const sysctlLongest = 253

var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func (v *validator) podSecurity(spec *corev1.PodSpec, at *field.Path) {
	s := spec.SecurityContext
	v.users(at, s.RunAsUser, s.RunAsGroup)
	if s.FSGroup != nil {
		v.invalid(at.Child("fsGroup"), *s.FSGroup, validation.IsValidGroupID(*s.FSGroup)...)
	}
	for i, group := range s.SupplementalGroups {
		v.invalid(at.Child("supplementalGroups").Index(i), group, validation.IsValidGroupID(group)...)
	}
	if said(spec.ShareProcessNamespace) && spec.HostPID {
		v.invalid(at.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	names := map[string]bool{}
	for i, sysctl := range s.Sysctls {
		path := at.Child("sysctls").Index(i).Child("name")
		switch {
		case sysctl.Name == "":
			v.required(path, "")
		case len(sysctl.Name) > sysctlLongest || !sysctlName.MatchString(sysctl.Name):
			v.invalid(path, sysctl.Name, fmt.Sprintf("must have at most %d characters and match regex %s", sysctlLongest, sysctlName))
		case names[sysctl.Name]:
			v.add(field.Duplicate(path, sysctl.Name))
		}
		names[sysctl.Name] = true
		v.hostSysctl(spec, sysctl.Name, path)
	}
	if s.FSGroupChangePolicy != nil {
		oneOf(v, at.Child("fsGroupChangePolicy"), *s.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	if s.SupplementalGroupsPolicy != nil {
		oneOf(v, at.Child("supplementalGroupsPolicy"), *s.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	v.seccomp(s.SeccompProfile, at.Child("seccompProfile"))
	v.appArmor(s.AppArmorProfile, at.Child("appArmorProfile"))
}

// hostSysctl keeps a Pod from setting what its host's namespaces would keep.
func (v *validator) hostSysctl(spec *corev1.PodSpec, name string, at *field.Path) {
	name = strings.ReplaceAll(name, "/", ".")
	switch {
	case spec.HostNetwork && strings.HasPrefix(name, "net."):
		v.invalid(at, name, "may not be specified when 'hostNetwork' is true")
	case spec.HostIPC && (strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" ||
		strings.HasPrefix(name, "fs.mqueue.")):
		v.invalid(at, name, "may not be specified when 'hostIPC' is true")
	}
}

func (v *validator) users(at *field.Path, user, group *int64) {
	if user != nil {
		v.invalid(at.Child("runAsUser"), *user, validation.IsValidUserID(*user)...)
	}
	if group != nil {
		v.invalid(at.Child("runAsGroup"), *group, validation.IsValidGroupID(*group)...)
	}
}

func (v *validator) security(s *corev1.SecurityContext, hostUsers bool, at *field.Path) {
	if s == nil {
		return
	}
	v.users(at, s.RunAsUser, s.RunAsGroup)
	if s.ProcMount != nil {
		path := at.Child("procMount")
		oneOf(v, path, *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if hostUsers && *s.ProcMount == corev1.UnmaskedProcMount {
			v.invalid(path, *s.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		if said(s.Privileged) {
			v.invalid(at, s, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if s.Capabilities != nil {
			for _, capability := range s.Capabilities.Add {
				if capability == "CAP_SYS_ADMIN" {
					v.invalid(at, s, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
				}
			}
		}
	}
	v.seccomp(s.SeccompProfile, at.Child("seccompProfile"))
	v.appArmor(s.AppArmorProfile, at.Child("appArmorProfile"))
}

func (v *validator) seccomp(p *corev1.SeccompProfile, at *field.Path) {
	if p == nil {
		return
	}
	if p.Type == "" {
		v.required(at.Child("type"), "type is required when seccompProfile is set")
	} else {
		oneOf(v, at.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	switch path := at.Child("localhostProfile"); {
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		v.required(path, "must be set when seccomp type is Localhost")
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		v.relative(path, *p.LocalhostProfile)
	case p.LocalhostProfile != nil:
		v.invalid(path, p, "can only be set when seccomp type is Localhost")
	}
}

func (v *validator) appArmor(p *corev1.AppArmorProfile, at *field.Path) {
	if p == nil {
		return
	}
	if p.Type == "" {
		v.required(at.Child("type"), "type is required when appArmorProfile is set")
	} else {
		oneOf(v, at.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
	switch path := at.Child("localhostProfile"); {
	case p.Type == corev1.AppArmorProfileTypeLocalhost && (p.LocalhostProfile == nil || *p.LocalhostProfile == ""):
		v.required(path, "must be set when AppArmor type is Localhost")
	case p.Type == corev1.AppArmorProfileTypeLocalhost:
		if strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile {
			v.invalid(path, *p.LocalhostProfile, "must not be padded with whitespace")
		}
	case p.LocalhostProfile != nil && p.Type != "":
		v.invalid(path, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
	}
}

// signals are those of Linux, in the order in which they are listed.
var signals = func() []corev1.Signal {
	names := strings.Fields("ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMAX-1 RTMAX-10 RTMAX-11 " +
		"RTMAX-12 RTMAX-13 RTMAX-14 RTMAX-2 RTMAX-3 RTMAX-4 RTMAX-5 RTMAX-6 RTMAX-7 RTMAX-8 RTMAX-9 RTMIN RTMIN+1 RTMIN+10 RTMIN+11 RTMIN+12 " +
		"RTMIN+13 RTMIN+14 RTMIN+15 RTMIN+2 RTMIN+3 RTMIN+4 RTMIN+5 RTMIN+6 RTMIN+7 RTMIN+8 RTMIN+9 SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN " +
		"TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ")
	list := make([]corev1.Signal, len(names))
	for i, name := range names {
		list[i] = corev1.Signal("SIG" + name)
	}
	return list
}()
