package kubernetes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func securityFromContainer(meta metav1.ObjectMeta, spec *corev1.PodSpec, c *corev1.Container) neutral.Security {
	pod, native := spec.SecurityContext, c.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if native == nil {
		native = &corev1.SecurityContext{}
	}
	security := neutral.Security{
		Privileged:      native.Privileged != nil && *native.Privileged || hostProcess(pod.WindowsOptions) || hostProcess(native.WindowsOptions),
		ReadOnlyRoot:    native.ReadOnlyRootFilesystem != nil && *native.ReadOnlyRootFilesystem,
		NoNewPrivileges: native.AllowPrivilegeEscalation != nil && !*native.AllowPrivilegeEscalation,
		Seccomp:         seccompFromContainer(pod, native),
		AppArmor:        appArmorFromContainer(meta, pod, native, c.Name),
		UnmaskedPaths:   native.ProcMount != nil && *native.ProcMount != corev1.DefaultProcMount,
		Devices:         devicesFromContainer(spec, c),
	}
	if spec.HostPID {
		security.PIDMode = "host"
	}
	if spec.HostIPC {
		security.IPCMode = "host"
	}
	for _, sysctl := range pod.Sysctls {
		if security.Sysctls == nil {
			security.Sysctls = map[string]string{}
		}
		security.Sysctls[sysctl.Name] = sysctl.Value
	}
	if caps := native.Capabilities; caps != nil {
		for _, capability := range caps.Add {
			security.CapAdd = append(security.CapAdd, string(capability))
		}
		for _, capability := range caps.Drop {
			security.CapDrop = append(security.CapDrop, string(capability))
		}
	}
	return security
}

// hostProcess tells whether a container of Windows is a process of its host.
func hostProcess(options *corev1.WindowsSecurityContextOptions) bool {
	return options != nil && options.HostProcess != nil && *options.HostProcess
}

// seccompFromContainer reads which system calls are filtered: none, unless the Pod says so or a kubelet was told to, which
// the API does not show. A privileged container has no filter, whatever it says.
func seccompFromContainer(pod *corev1.PodSecurityContext, c *corev1.SecurityContext) neutral.Profile {
	asked := c.SeccompProfile
	if asked == nil {
		asked = pod.SeccompProfile
	}
	switch {
	case asked == nil, asked.Type == corev1.SeccompProfileTypeUnconfined, c.Privileged != nil && *c.Privileged:
		return neutral.ProfileUnconfined
	case asked.Type == corev1.SeccompProfileTypeRuntimeDefault:
		return neutral.ProfileDefault
	case asked.Type == corev1.SeccompProfileTypeLocalhost && asked.LocalhostProfile != nil:
		return neutral.Local(*asked.LocalhostProfile)
	}
	return "" // nothing that is known here
}

// appArmorFromContainer reads the profile, which is the runtime's own where nothing is said. Older objects say it in an
// annotation: https://kubernetes.io/docs/tutorials/security/apparmor/#securing-a-pod
func appArmorFromContainer(meta metav1.ObjectMeta, pod *corev1.PodSecurityContext, c *corev1.SecurityContext, name string) neutral.Profile {
	asked := c.AppArmorProfile
	if asked == nil {
		asked = pod.AppArmorProfile
	}
	if asked == nil {
		switch text := meta.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+name]; text {
		case "", corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
			return neutral.ProfileDefault
		case corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
			return neutral.ProfileUnconfined
		default:
			return neutral.Local(strings.TrimPrefix(text, corev1.DeprecatedAppArmorBetaProfileNamePrefix))
		}
	}
	switch {
	case asked.Type == corev1.AppArmorProfileTypeUnconfined:
		return neutral.ProfileUnconfined
	case asked.Type == corev1.AppArmorProfileTypeRuntimeDefault:
		return neutral.ProfileDefault
	case asked.Type == corev1.AppArmorProfileTypeLocalhost && asked.LocalhostProfile != nil:
		return neutral.Local(*asked.LocalhostProfile)
	}
	return ""
}

// devicesFromContainer reads what devices of its host a container gets: by a driver's resources, and as raw volumes.
func devicesFromContainer(spec *corev1.PodSpec, c *corev1.Container) []string {
	var devices []string
	for _, list := range []corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
		for name := range list {
			if domain, _, ok := strings.Cut(string(name), "/"); ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") {
				devices = append(devices, string(name))
			}
		}
	}
	for _, claim := range c.Resources.Claims {
		devices = append(devices, "claim:"+claim.Name)
	}
	for _, device := range c.VolumeDevices {
		claim := device.Name
		if i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == device.Name }); i >= 0 && spec.Volumes[i].PersistentVolumeClaim != nil {
			claim = spec.Volumes[i].PersistentVolumeClaim.ClaimName
		}
		devices = append(devices, "claim:"+claim)
	}
	slices.Sort(devices)
	return slices.Compact(devices)
}
