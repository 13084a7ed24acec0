package podspec

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// stopTimeout is how long an engine waits, in seconds, where nothing else is said.
const stopTimeout = 10

// Encode shows a container that no Kubernetes caller wrote as the spec of a Pod. Addresses of the cluster that has it are
// left out: name servers, hosts, and those that ports are published on.
func Encode(c neutral.Container) corev1.PodSpec {
	no := false
	grace := int64(stopTimeout)
	if c.StopTimeout != nil {
		grace = max(int64(*c.StopTimeout), 0)
	}
	spec := corev1.PodSpec{
		AutomountServiceAccountToken:  &no,
		EnableServiceLinks:            &no,
		NodeName:                      c.Node,
		RestartPolicy:                 encodeRestart(c.Restart),
		TerminationGracePeriodSeconds: &grace,
		HostNetwork:                   c.Network == neutral.NetworkHost,
		HostPID:                       c.Security.PIDMode == "host",
		HostIPC:                       c.Security.IPCMode == "host",
		SecurityContext:               &corev1.PodSecurityContext{},
	}
	if spec.HostNetwork {
		spec.DNSPolicy = corev1.DNSDefault
	}
	if len(validation.IsDNS1123Label(c.Hostname)) == 0 {
		spec.Hostname = c.Hostname
	}
	if len(validation.IsDNS1123Label(c.Domain)) == 0 {
		spec.Subdomain = c.Domain
	}
	if len(c.DNSSearch)+len(c.DNSOptions) > 0 {
		spec.DNSConfig = &corev1.PodDNSConfig{Searches: c.DNSSearch}
		for _, text := range c.DNSOptions {
			name, value, valued := strings.Cut(text, ":")
			option := corev1.PodDNSConfigOption{Name: name}
			if valued {
				option.Value = &value
			}
			spec.DNSConfig.Options = append(spec.DNSConfig.Options, option)
		}
	}
	native := corev1.Container{
		Name: containerName(c.Name), Image: c.Image, WorkingDir: c.WorkingDir,
		Command: expansion.EscapeAll(c.Entrypoint), Args: expansion.EscapeAll(c.Command),
		TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		Resources: encodeResources(c.Resources),
	}
	encodeDevices(c.Security.Devices, &native.Resources)
	if len(c.Entrypoint) > 0 && strings.Join(c.Entrypoint, "") == "" { // the image's entrypoint is cleared
		native.Command, native.Args = native.Args, nil
	}
	for _, pair := range c.Env {
		if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
			native.Env = append(native.Env, corev1.EnvVar{Name: name, Value: expansion.Escape(value)})
		}
	}
	for _, p := range c.Ports {
		port := corev1.ContainerPort{ContainerPort: int32(p.Container), Protocol: corev1.Protocol(strings.ToUpper(p.Protocol))}
		if len(validation.IsValidPortName(p.Name)) == 0 {
			port.Name = p.Name
		}
		if p.HostMode {
			port.HostPort = int32(p.Published)
		}
		if spec.HostNetwork {
			port.HostPort = port.ContainerPort
		}
		native.Ports = append(native.Ports, port)
	}
	if name := strings.TrimPrefix(strings.ToUpper(c.StopSignal), "SIG"); name != "" && (name[0] < '0' || name[0] > '9') {
		signal := corev1.Signal("SIG" + name)
		native.Lifecycle = &corev1.Lifecycle{StopSignal: &signal}
		spec.OS = &corev1.PodOS{Name: corev1.Linux} // a signal is said for one system only
	}
	encodeSecurity(&c, &spec, &native)
	native.ReadinessProbe = encodeHealth(c.Health)
	encodeMounts(&c, &spec, &native)
	spec.Containers = []corev1.Container{native}
	Default(&spec)
	return spec
}

// containerName makes a name that Kubernetes takes of an engine's.
func containerName(name string) string {
	legal := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name), "-")
	legal = strings.TrimRight(legal[:min(len(legal), validation.DNS1123LabelMaxLength)], "-")
	if legal == "" {
		return "container"
	}
	return legal
}

func encodeRestart(policy neutral.RestartPolicy) corev1.RestartPolicy {
	switch policy.Mode {
	case neutral.RestartAlways, neutral.RestartUnlessStopped:
		return corev1.RestartPolicyAlways
	case neutral.RestartOnFailure:
		return corev1.RestartPolicyOnFailure
	}
	return corev1.RestartPolicyNever
}

func encodeResources(r neutral.Resources) corev1.ResourceRequirements {
	var out corev1.ResourceRequirements
	set := func(list *corev1.ResourceList, name corev1.ResourceName, quantity *resource.Quantity) {
		if quantity.Sign() <= 0 {
			return
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = *quantity
	}
	set(&out.Limits, corev1.ResourceCPU, resource.NewMilliQuantity(r.MilliCPU, resource.DecimalSI))
	set(&out.Limits, corev1.ResourceMemory, resource.NewQuantity(r.Memory, resource.BinarySI))
	set(&out.Requests, corev1.ResourceCPU, resource.NewMilliQuantity(r.MilliCPUReserved, resource.DecimalSI))
	set(&out.Requests, corev1.ResourceMemory, resource.NewQuantity(r.MemoryReserved, resource.BinarySI))
	return out
}

// devicesDomain is where devices of a container's host are told as resources, which is how Kubernetes gives devices. Nobody
// asks for one by this name: what an engine gives them by is its own.
const devicesDomain = "devices.isthmus.io/"

func encodeDevices(devices []string, out *corev1.ResourceRequirements) {
	for _, device := range devices {
		name := strings.Trim(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
				return r
			}
			return '-'
		}, device), "-_.")
		name = strings.TrimRight(name[:min(len(name), validation.LabelValueMaxLength)], "-_.")
		for _, list := range []*corev1.ResourceList{&out.Limits, &out.Requests} {
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[corev1.ResourceName(devicesDomain+cmp.Or(name, "device"))] = *resource.NewQuantity(1, resource.DecimalSI)
		}
	}
}

// encodeSecurity says what the container may do. Users and groups that have only names have no form here.
func encodeSecurity(c *neutral.Container, spec *corev1.PodSpec, native *corev1.Container) {
	context, security := &corev1.SecurityContext{}, &c.Security
	number := func(text string) *int64 {
		if n, err := strconv.ParseInt(text, 10, 32); err == nil && n >= 0 {
			return &n
		}
		return nil
	}
	user, group, _ := strings.Cut(c.User, ":")
	context.RunAsUser, context.RunAsGroup = number(user), number(group)
	for _, group := range c.Groups {
		if n := number(group); n != nil {
			spec.SecurityContext.SupplementalGroups = append(spec.SecurityContext.SupplementalGroups, *n)
		}
	}
	yes, no := true, false
	if security.Privileged {
		context.Privileged = &yes
	}
	if security.ReadOnlyRoot {
		context.ReadOnlyRootFilesystem = &yes
	}
	if security.NoNewPrivileges {
		context.AllowPrivilegeEscalation = &no
	}
	if len(security.CapAdd)+len(security.CapDrop) > 0 {
		context.Capabilities = &corev1.Capabilities{}
		for _, name := range security.CapAdd {
			context.Capabilities.Add = append(context.Capabilities.Add, corev1.Capability(strings.TrimPrefix(name, "CAP_")))
		}
		for _, name := range security.CapDrop {
			context.Capabilities.Drop = append(context.Capabilities.Drop, corev1.Capability(strings.TrimPrefix(name, "CAP_")))
		}
	}
	switch name, local := strings.CutPrefix(string(security.Seccomp), "localhost/"); {
	case local:
		context.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name}
	case security.Seccomp == neutral.ProfileDefault:
		context.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	case security.Seccomp == neutral.ProfileUnconfined:
		context.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	}
	switch name, local := strings.CutPrefix(string(security.AppArmor), "localhost/"); {
	case local:
		context.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	case security.AppArmor == neutral.ProfileUnconfined:
		context.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	}
	if security.UnmaskedPaths {
		unmasked := corev1.UnmaskedProcMount
		context.ProcMount = &unmasked
	}
	for _, name := range slices.Sorted(maps.Keys(security.Sysctls)) {
		spec.SecurityContext.Sysctls = append(spec.SecurityContext.Sysctls, corev1.Sysctl{Name: name, Value: security.Sysctls[name]})
	}
	if written(context) {
		native.SecurityContext = context
	}
}

// healthInterval is how often an engine checks a container, and how long it waits, where nothing else is said.
const healthInterval = 30 * time.Second

// seconds rounds up.
func seconds(d time.Duration) int32 {
	return int32(min(max(d+time.Second-1, 0)/time.Second, math.MaxInt32))
}

func encodeHealth(check *neutral.HealthCheck) *corev1.Probe {
	if check == nil || len(check.Test) < 2 {
		return nil
	}
	probe := &corev1.Probe{
		InitialDelaySeconds: seconds(check.StartPeriod),
		TimeoutSeconds:      seconds(cmp.Or(check.Timeout, healthInterval)),
		PeriodSeconds:       seconds(cmp.Or(check.Interval, healthInterval)),
		FailureThreshold:    int32(check.Retries),
	}
	switch check.Test[0] {
	case "CMD":
		probe.Exec = &corev1.ExecAction{Command: check.Test[1:]}
	case "CMD-SHELL":
		probe.Exec = &corev1.ExecAction{Command: append([]string{"/bin/sh", "-c"}, check.Test[1:]...)}
	default:
		return nil
	}
	return probe
}

// encodeMounts shows mounts as volumes. A secret or a config is a file, whose key is its name.
func encodeMounts(c *neutral.Container, spec *corev1.PodSpec, native *corev1.Container) {
	add := func(name string, source corev1.VolumeSource, mount corev1.VolumeMount) {
		mount.Name = fmt.Sprintf("%s-%d", name, len(spec.Volumes))
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: mount.Name, VolumeSource: source})
		native.VolumeMounts = append(native.VolumeMounts, mount)
	}
	for _, m := range c.Mounts {
		mount := corev1.VolumeMount{MountPath: m.Target, ReadOnly: m.ReadOnly}
		switch {
		case m.Type == "bind":
			add("bind", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.Source}}, mount)
		case m.Type == "tmpfs":
			dir := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
			if m.Size > 0 {
				dir.SizeLimit = resource.NewQuantity(m.Size, resource.BinarySI)
			}
			add("tmpfs", corev1.VolumeSource{EmptyDir: dir}, mount)
		case m.Type == "volume" && m.Source != "":
			add("volume", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: m.Source}}, mount)
		case m.Type == "volume":
			add("volume", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, mount)
		}
	}
	for _, f := range c.Files {
		mode := int32(f.Mode)
		file := path.Base(f.Target)
		items := []corev1.KeyToPath{{Key: f.Name, Path: file, Mode: &mode}}
		mount := corev1.VolumeMount{MountPath: f.Target, SubPath: file, ReadOnly: true}
		if f.Kind == neutral.KindSecret {
			add("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: f.Name, Items: items}}, mount)
			continue
		}
		add("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: f.Name}, Items: items}}, mount)
	}
}
