package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// containersFromPods reads every container of every Pod, the newest first as docker lists them. The callers' own
// documents are left out: they are long, and all that a list shows of them is a command, which is told as it was written.
func containersFromPods(cluster string, pods []corev1.Pod, now time.Time) []neutral.Container {
	containers := make([]neutral.Container, 0, len(pods))
	for i := range pods {
		for index := range pods[i].Spec.Containers {
			c := listedContainer(cluster, &pods[i], index, now)
			if mask.MayHide(c.Entrypoint, c.Command) {
				c.Origin = originFromMeta(pods[i].ObjectMeta)
			}
			containers = append(containers, c)
		}
	}
	sortNewestFirst(containers)
	return containers
}

func sortNewestFirst(containers []neutral.Container) {
	slices.SortStableFunc(containers, func(a, b neutral.Container) int {
		if order := b.CreatedAt.Compare(a.CreatedAt); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// containerFromPod reads one container of a Pod.
func containerFromPod(cluster string, pod *corev1.Pod, index int, now time.Time) neutral.Container {
	c := listedContainer(cluster, pod, index, now)
	c.Origin = originFromMeta(pod.ObjectMeta)
	return c
}

func listedContainer(cluster string, pod *corev1.Pod, index int, now time.Time) neutral.Container {
	several := ""
	if len(pod.Spec.Containers) > 1 {
		several = pod.Spec.Containers[index].Name
	}
	c := containerFromSpec(pod.ObjectMeta, &pod.Spec, index)
	c.ID = containerID(cluster, pod, several)
	c.Name = displayName(pod, index)
	c.Namespace, c.Pod = pod.Namespace, pod.Name
	c.CreatedAt = createdAt(pod)
	c.Node = pod.Spec.NodeName
	c.Siblings = len(pod.Spec.Containers) - 1
	c.Owner = ownerFromPod(pod)
	c.State = stateFromPod(pod, index, now)
	for i := range c.Networks {
		c.Networks[i].ID = networkID(cluster, pod.Namespace, c.Networks[i].Name)
	}
	if c.State.Status == neutral.StatusPaused && pod.Annotations[annotationPaused] != "" {
		c.Labels[labelPause] = string(neutral.PauseQuiesce)
	}
	if status := containerStatus(pod, pod.Spec.Containers[index].Name); status != nil {
		c.ImageID = imageID(status.ImageID)
	}
	return c
}

// createdAt is when the caller's container was created, which may be before its Pod was.
func createdAt(pod *corev1.Pod) time.Time {
	if at, err := time.Parse(time.RFC3339, pod.Annotations[annotationCreated]); err == nil {
		return at
	}
	return pod.CreationTimestamp.Time
}

// containerFromSpec reads what was asked for. meta is the Pod's or the template's.
func containerFromSpec(meta metav1.ObjectMeta, spec *corev1.PodSpec, index int) neutral.Container {
	native := &spec.Containers[index]
	c := neutral.Container{
		Image:        native.Image,
		Env:          envFromContainer(native),
		WorkingDir:   native.WorkingDir,
		Hostname:     spec.Hostname,
		Domain:       spec.Subdomain,
		TTY:          native.TTY,
		Stdin:        native.Stdin,
		StdinOnce:    native.StdinOnce,
		Labels:       labelsFromMeta(meta),
		Restart:      restartFromPod(meta, spec),
		AutoRemove:   meta.Labels[labelAutoRemove] == "true",
		StopSignal:   meta.Annotations[annotationStopSignal],
		Resources:    resourcesFromContainer(native),
		Ports:        portsFromContainer(native),
		Mounts:       mountsFromContainer(meta, spec, native),
		Files:        filesFromSpec(meta, spec, index),
		Network:      neutral.NetworkPod,
		Networks:     networksFromMeta(meta),
		UnseenMounts: unseenMounts(spec, native),
		Security:     securityFromContainer(meta, spec, native),
		Health:       healthFromContainer(meta, native),
		Losses:       lossesFromMeta(meta),
	}
	values := literalEnv(native)
	c.Entrypoint, c.Command = expansion.ExpandAll(native.Command, values), expansion.ExpandAll(native.Args, values)
	if meta.Annotations[annotationEntrypoint] == "clear" {
		c.Entrypoint, c.Command = []string{""}, c.Entrypoint
	}
	c.User, c.Groups = userFromContainer(spec, native)
	if spec.HostNetwork {
		c.Network = neutral.NetworkHost
	}
	if grace := spec.TerminationGracePeriodSeconds; grace != nil {
		timeout := int(*grace)
		c.StopTimeout = &timeout
	}
	for _, alias := range spec.HostAliases {
		for _, name := range alias.Hostnames {
			c.ExtraHosts = append(c.ExtraHosts, name+":"+alias.IP)
		}
	}
	if dns := spec.DNSConfig; dns != nil {
		c.DNS = dns.Nameservers
		domains := searchDomains(meta.Namespace, c.Networks)
		for _, domain := range dns.Searches {
			if !slices.Contains(domains, domain) {
				c.DNSSearch = append(c.DNSSearch, domain)
			}
		}
		for _, option := range dns.Options {
			text := option.Name
			if option.Value != nil {
				text += ":" + *option.Value
			}
			c.DNSOptions = append(c.DNSOptions, text)
		}
	}
	return c
}

// ownerFromPod names the controller that a caller thinks of: the Deployment rather than its ReplicaSet, whose name is
// the Deployment's and the hash that the Pod carries as a label.
func ownerFromPod(pod *corev1.Pod) *neutral.Owner {
	ref := metav1.GetControllerOf(pod)
	if ref == nil {
		return nil
	}
	owner := &neutral.Owner{Kind: ref.Kind, Namespace: pod.Namespace, Name: ref.Name}
	if hash := pod.Labels["pod-template-hash"]; ref.Kind == "ReplicaSet" && hash != "" {
		if name, ok := strings.CutSuffix(ref.Name, "-"+hash); ok {
			owner.Kind, owner.Name = "Deployment", name
		}
	}
	return owner
}

// labelsFromMeta gives the labels as the caller wrote them.
func labelsFromMeta(meta metav1.ObjectMeta) map[string]string {
	labels := make(map[string]string, len(meta.Labels))
	for key, value := range meta.Labels {
		if !ownLabel(key) {
			labels[key] = value
		}
	}
	if text := meta.Annotations[annotationLabels]; text != "" {
		var illegal map[string]string
		if json.Unmarshal([]byte(text), &illegal) == nil { // an annotation that somebody broke has no labels
			maps.Copy(labels, illegal)
		}
	}
	return labels
}

// ownLabel tells a label that isthmus keeps for itself from a caller's.
func ownLabel(key string) bool {
	switch key {
	case labelAutoRemove, labelJournal, labelPause, labelWorkload, labelVolume, labelNetwork, labelNetworked, labelStored:
		return true
	}
	return strings.HasPrefix(key, networkLabel) || strings.HasPrefix(key, portLabel)
}

func restartFromPod(meta metav1.ObjectMeta, spec *corev1.PodSpec) neutral.RestartPolicy {
	if mode, count, _ := strings.Cut(meta.Annotations[annotationRestart], ":"); mode != "" {
		limit, _ := strconv.Atoi(count) // none is 0
		return neutral.RestartPolicy{Mode: neutral.RestartMode(mode), Max: limit}
	}
	switch spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return neutral.RestartPolicy{Mode: neutral.RestartNo}
	case corev1.RestartPolicyOnFailure:
		return neutral.RestartPolicy{Mode: neutral.RestartOnFailure}
	}
	return neutral.RestartPolicy{Mode: neutral.RestartAlways}
}

func resourcesFromContainer(c *corev1.Container) neutral.Resources {
	return neutral.Resources{
		MilliCPU:         c.Resources.Limits.Cpu().MilliValue(),
		Memory:           c.Resources.Limits.Memory().Value(),
		MilliCPUReserved: c.Resources.Requests.Cpu().MilliValue(),
		MemoryReserved:   c.Resources.Requests.Memory().Value(),
	}
}

func portsFromContainer(c *corev1.Container) []neutral.Port {
	ports := make([]neutral.Port, 0, len(c.Ports))
	for _, p := range c.Ports {
		protocol := strings.ToLower(string(p.Protocol))
		if protocol == "" {
			protocol = "tcp"
		}
		ports = append(ports, neutral.Port{Name: p.Name, Container: uint16(p.ContainerPort), Published: uint16(p.HostPort),
			Publish: p.HostPort != 0, Protocol: protocol, HostMode: p.HostPort != 0, HostIP: p.HostIP})
	}
	return ports
}

// mountsFromContainer gives the mounts that docker has words for. Files that Kubernetes projects (config maps,
// secrets, tokens) are part of how the Pod is set up, as docker's own /etc/hosts is, and are left out.
func mountsFromContainer(meta metav1.ObjectMeta, spec *corev1.PodSpec, c *corev1.Container) []neutral.Mount {
	var mounts []neutral.Mount
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			continue
		}
		mount := neutral.Mount{Target: m.MountPath, ReadOnly: m.ReadOnly}
		switch v := spec.Volumes[i]; {
		case v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory:
			mount.Type = "tmpfs"
			if v.EmptyDir.SizeLimit != nil {
				mount.Size = v.EmptyDir.SizeLimit.Value()
			}
		case v.EmptyDir != nil && strings.HasPrefix(v.Name, volumeAnonymous):
			mount.Type = "volume"
		case v.EmptyDir != nil:
			mount.Type, mount.Source = "volume", v.Name
		case v.PersistentVolumeClaim != nil:
			mount.Type, mount.Source = "volume", claimName(meta, v.PersistentVolumeClaim.ClaimName)
		case v.HostPath != nil:
			mount.Type, mount.Source = "bind", v.HostPath.Path
		default:
			continue
		}
		mounts = append(mounts, mount)
	}
	return mounts
}

func userFromContainer(spec *corev1.PodSpec, c *corev1.Container) (user string, groups []string) {
	var uid, gid *int64
	if pod := spec.SecurityContext; pod != nil {
		uid, gid = pod.RunAsUser, pod.RunAsGroup
		for _, group := range pod.SupplementalGroups {
			groups = append(groups, strconv.FormatInt(group, 10))
		}
	}
	if own := c.SecurityContext; own != nil {
		if own.RunAsUser != nil {
			uid = own.RunAsUser
		}
		if own.RunAsGroup != nil {
			gid = own.RunAsGroup
		}
	}
	if uid != nil {
		user = strconv.FormatInt(*uid, 10)
		if gid != nil {
			user += ":" + strconv.FormatInt(*gid, 10)
		}
	}
	return user, groups
}

// healthFromPod and healthFromContainer give the caller's own check where there is one, else what a probe that runs a
// command amounts to. Probes over the network have no form in docker.
func healthFromPod(pod *corev1.Pod, c *corev1.Container) *neutral.HealthCheck {
	return healthFromContainer(pod.ObjectMeta, c)
}

func healthFromContainer(meta metav1.ObjectMeta, c *corev1.Container) *neutral.HealthCheck {
	if text := meta.Annotations[annotationHealth]; text != "" {
		var check neutral.HealthCheck
		if json.Unmarshal([]byte(text), &check) == nil {
			return &check
		}
	}
	probe := c.ReadinessProbe
	if probe == nil || probe.Exec == nil {
		return nil
	}
	return &neutral.HealthCheck{
		Test:        append([]string{"CMD"}, probe.Exec.Command...),
		Interval:    time.Duration(probe.PeriodSeconds) * time.Second,
		Timeout:     time.Duration(probe.TimeoutSeconds) * time.Second,
		StartPeriod: time.Duration(probe.InitialDelaySeconds) * time.Second,
		Retries:     int(probe.FailureThreshold),
	}
}

func lossesFromMeta(meta metav1.ObjectMeta) []neutral.Loss {
	text := meta.Annotations[annotationLosses]
	if text == "" {
		return nil
	}
	var losses []neutral.Loss
	if err := json.Unmarshal([]byte(text), &losses); err != nil {
		return []neutral.Loss{{Field: "annotation " + annotationLosses, Change: "unreadable", Reason: "somebody changed it"}}
	}
	return losses
}

// imageID leaves the digest of what the runtime calls an image.
func imageID(native string) string {
	if i := strings.LastIndex(native, "sha256:"); i >= 0 {
		return native[i:]
	}
	return native
}

// literalEnv is what variables in a command can refer to. Credentials are not put into commands, which are told.
func literalEnv(c *corev1.Container) map[string]string {
	values := make(map[string]string, len(c.Env))
	left := expansion.Budget
	for _, e := range c.Env {
		if e.ValueFrom == nil && !mask.IsCredential(e.Name) {
			values[e.Name] = expanded(e.Value, values, &left)
		}
	}
	return values
}

func envFromContainer(c *corev1.Container) []string {
	env := make([]string, 0, len(c.Env))
	values := map[string]string{}
	left := expansion.Budget
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			continue // what it becomes is known inside the container only
		}
		values[e.Name] = expanded(e.Value, values, &left)
		env = append(env, fmt.Sprintf("%s=%s", e.Name, values[e.Name]))
	}
	return env
}

// expanded is a variable's value as long as there is room for it; it stays as it was written then.
func expanded(value string, values map[string]string, left *int) string {
	if *left > 0 {
		value = expansion.Expand(value, values)
	}
	*left -= len(value)
	return value
}
