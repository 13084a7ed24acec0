package kubernetes

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// defaultStopTimeout is docker's, in seconds.
const defaultStopTimeout = 10

// podFromContainer writes a container as a Pod that waits for its start. nonce makes its id and, where nothing else
// decides, its name and ports. What would change safety or data is refused.
func podFromContainer(c *neutral.Container, namespace, nonce string) (*corev1.Pod, []neutral.Loss, error) {
	name := c.Name
	if name == "" {
		name = randomName(nonce)
	}
	legal, kept, err := podName(name)
	if err != nil {
		return nil, nil, err
	}
	template, losses, err := templateFromContainer(c, nonce)
	if err != nil {
		return nil, nil, err
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: template.ObjectMeta,
		Spec:       template.Spec,
	}
	pod.Name, pod.Namespace = legal, namespace
	searchNetworks(pod.ObjectMeta, namespace, &pod.Spec)
	pod.Annotations[annotationNonce] = nonce
	if !kept {
		pod.Annotations[annotationName] = name
	}
	if c.AutoRemove {
		pod.Labels[labelAutoRemove] = "true"
	}
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gateNotStarted}}
	var restartLosses []neutral.Loss
	pod.Spec.RestartPolicy, restartLosses = restartToPod(c.Restart, pod.Annotations)
	losses = append(losses, restartLosses...)
	if err := keepBeside(&pod.ObjectMeta, c.Origin, append(slices.Clone(c.Losses), losses...)); err != nil {
		return nil, nil, err
	}
	return pod, losses, nil
}

// keepBeside keeps the caller's document and what was lost in annotations.
func keepBeside(meta *metav1.ObjectMeta, origin *neutral.Origin, losses []neutral.Loss) error {
	if origin != nil {
		if text, ok := originAnnotation(origin); ok {
			meta.Annotations[annotationOrigin] = text
			if origin.Peer != "" {
				meta.Annotations[annotationPeer] = origin.Peer
			}
		} else {
			losses = append(losses, neutral.Loss{Field: "the document as sent", Change: "not kept beside the object",
				Reason: "it is too long for an annotation"})
		}
	}
	if len(losses) == 0 {
		return nil
	}
	text, err := json.Marshal(losses)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "losses cannot be written")
	}
	meta.Annotations[annotationLosses] = string(text)
	return nil
}

// templateFromContainer writes what a Pod and a workload's template share.
func templateFromContainer(c *neutral.Container, nonce string) (*corev1.PodTemplateSpec, []neutral.Loss, error) {
	if c.Image == "" {
		return nil, nil, fault.New(fault.Invalid, "no image was named")
	}
	t := &podTemplate{in: c, nonce: nonce}
	t.out.Annotations, t.out.Labels = map[string]string{}, map[string]string{}
	no, grace := false, int64(defaultStopTimeout)
	if c.StopTimeout != nil {
		grace = max(int64(*c.StopTimeout), 0)
		if *c.StopTimeout < 0 {
			t.lose("StopTimeout", fmt.Sprintf("%d s", defaultStopTimeout), "Kubernetes has no endless grace period")
			grace = defaultStopTimeout
		}
	}
	t.out.Spec = corev1.PodSpec{
		AutomountServiceAccountToken:  &no, // docker gives its containers no right over the engine either
		EnableServiceLinks:            &no,
		TerminationGracePeriodSeconds: &grace,
		SecurityContext:               &corev1.PodSecurityContext{},
	}
	t.container = corev1.Container{
		Name: containerName, Image: c.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		WorkingDir: c.WorkingDir, TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		SecurityContext: &corev1.SecurityContext{},
	}
	for _, step := range []func() error{t.command, t.environment, t.labels, t.user, t.hostname, t.resources, t.network,
		t.ports, t.mounts, t.files, t.names, t.security, t.health, t.stopSignal} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	t.out.Spec.Containers = []corev1.Container{t.container}
	return &t.out, t.losses, nil
}

// podTemplate is a translation under way.
type podTemplate struct {
	in        *neutral.Container
	nonce     string
	out       corev1.PodTemplateSpec
	container corev1.Container
	losses    []neutral.Loss
}

func (t *podTemplate) lose(field, change, reason string) {
	t.losses = append(t.losses, neutral.Loss{Field: field, Change: change, Reason: reason})
}

// refuse names a field that cannot be carried and whose loss would change safety or data.
func refuse(field, format string, args ...any) error {
	err := fault.New(fault.Unsupported, field+" is refused: "+format, args...)
	err.Field = field
	return err
}

// invalid names a field whose value is wrong.
func invalid(field, format string, args ...any) error {
	err := fault.New(fault.Invalid, format, args...)
	err.Field = field
	return err
}

// command follows docker: an entrypoint that is given drops the image's command too, and an empty one leaves the
// command alone.
func (t *podTemplate) command() error {
	entrypoint := t.in.Entrypoint
	if len(entrypoint) > 0 && !slices.ContainsFunc(entrypoint, func(s string) bool { return s != "" }) {
		if len(t.in.Command) == 0 {
			return invalid("Cmd", "no command specified")
		}
		t.container.Command = expansion.EscapeAll(t.in.Command)
		t.out.Annotations[annotationEntrypoint] = "clear"
		return nil
	}
	if len(entrypoint) > 0 {
		t.container.Command = expansion.EscapeAll(entrypoint)
	}
	if len(t.in.Command) > 0 {
		t.container.Args = expansion.EscapeAll(t.in.Command)
	}
	return nil
}

// environment keeps the last of several values, as docker does.
func (t *podTemplate) environment() error {
	at := map[string]int{}
	for _, pair := range t.in.Env {
		name, value, ok := strings.Cut(pair, "=")
		if name == "" {
			return invalid("Env", "invalid environment variable: %q", pair)
		}
		if !ok {
			continue // docker's "unset"; nothing is inherited here
		}
		if reasons := validation.IsRelaxedEnvVarName(name); len(reasons) > 0 {
			return refuse("Env", "Kubernetes takes no variable of the name %q", name)
		}
		variable := corev1.EnvVar{Name: name, Value: expansion.Escape(value)}
		if i, seen := at[name]; seen {
			t.container.Env[i] = variable
			continue
		}
		at[name] = len(t.container.Env)
		t.container.Env = append(t.container.Env, variable)
	}
	return nil
}

func (t *podTemplate) labels() error {
	legal, illegal := splitLabels(t.in.Labels)
	t.out.Labels = legal
	if ports := t.in.Labels[annotationPorts]; ports != "" {
		if _, err := parsePorts(ports); err != nil {
			return invalid("Labels."+annotationPorts, "the label %s is not valid: %v", annotationPorts, err)
		}
		t.out.Annotations[annotationPorts] = ports // where the catalogue looks for it
	}
	if len(illegal) == 0 {
		return nil
	}
	text, err := json.Marshal(illegal)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "labels cannot be written")
	}
	t.out.Annotations[annotationLabels] = string(text)
	return nil
}

// splitLabels parts what Kubernetes takes as labels from what must ride in an annotation. Labels that isthmus keeps
// for itself are never a caller's.
func splitLabels(labels map[string]string) (legal, illegal map[string]string) {
	legal, illegal = map[string]string{}, map[string]string{}
	for key, value := range labels {
		if ownLabel(key) || len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
			illegal[key] = value
			continue
		}
		legal[key] = value
	}
	return legal, illegal
}

func (t *podTemplate) hostname() error {
	host, domain := t.in.Hostname, t.in.Domain
	if host == "" && domain == "" {
		return nil
	}
	if before, after, ok := strings.Cut(host, "."); ok {
		host = before
		if domain == "" {
			domain = after
		}
	}
	if domain != "" {
		t.lose("Domainname", "dropped", "a Pod's domain is the cluster's")
	}
	if host == "" {
		return nil
	}
	if len(validation.IsDNS1123Label(host)) > 0 {
		legal := strings.Trim(strings.Map(legalRune, host), "-")
		if legal = legal[:min(len(legal), validation.DNS1123LabelMaxLength)]; len(validation.IsDNS1123Label(legal)) > 0 {
			return invalid("Hostname", "invalid hostname: %q", t.in.Hostname)
		}
		t.lose("Hostname", legal, "Kubernetes takes lower-case letters, digits and '-'")
		host = legal
	}
	t.out.Spec.Hostname = host
	return nil
}

func (t *podTemplate) resources() error {
	t.container.Resources = resourceRequirements(t.in.Resources)
	return nil
}

// resourceRequirements leaves a reservation that is not asked for to Kubernetes, which makes it the limit.
func resourceRequirements(r neutral.Resources) corev1.ResourceRequirements {
	var out corev1.ResourceRequirements
	if r.MilliCPU > 0 {
		setResource(&out.Limits, corev1.ResourceCPU, *resource.NewMilliQuantity(r.MilliCPU, resource.DecimalSI))
	}
	if r.Memory > 0 {
		setResource(&out.Limits, corev1.ResourceMemory, *resource.NewQuantity(r.Memory, resource.BinarySI))
	}
	if r.MilliCPUReserved > 0 {
		setResource(&out.Requests, corev1.ResourceCPU, *resource.NewMilliQuantity(r.MilliCPUReserved, resource.DecimalSI))
	}
	if r.MemoryReserved > 0 {
		setResource(&out.Requests, corev1.ResourceMemory, *resource.NewQuantity(r.MemoryReserved, resource.BinarySI))
	}
	return out
}

func setResource(list *corev1.ResourceList, name corev1.ResourceName, quantity resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = quantity
}

// The ports that a gateway chooses from when docker would have chosen one: below the usual range of NodePorts and of
// outgoing connections.
const (
	chosenPortFirst = 20000
	chosenPortCount = 10000
)

func (t *podTemplate) ports() error {
	for i, p := range t.in.Ports {
		port := corev1.ContainerPort{ContainerPort: int32(p.Container), Protocol: corev1.Protocol(strings.ToUpper(p.Protocol))}
		switch port.Protocol {
		case "":
			port.Protocol = corev1.ProtocolTCP
		case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			return invalid("ExposedPorts", "invalid proto: %s", p.Protocol)
		}
		if p.Container == 0 {
			return invalid("ExposedPorts", "invalid port 0")
		}
		switch {
		case !p.Publish && p.Published == 0:
		case t.out.Spec.HostNetwork:
			if p.Published != 0 && p.Published != p.Container {
				t.lose("HostConfig.PortBindings", "discarded", "published ports have no meaning on the host's network")
			}
			port.HostPort = port.ContainerPort
		default:
			port.HostPort, port.HostIP = int32(p.Published), p.HostIP
			if p.HostIP != "" {
				if _, err := netip.ParseAddr(p.HostIP); err != nil {
					return invalid("HostConfig.PortBindings", "invalid IP address: %s", p.HostIP)
				}
			}
			if p.Published == 0 {
				h := fnv.New32a()
				_, _ = fmt.Fprintf(h, "%s/%d/%d/%s", t.nonce, i, p.Container, p.Protocol) // a hash never fails to be written
				port.HostPort = int32(chosenPortFirst + h.Sum32()%chosenPortCount)
			}
		}
		if port.HostPort != 0 && onUserNetwork(t.out.Labels) {
			t.publish(port.Protocol, port.ContainerPort)
		}
		t.container.Ports = append(t.container.Ports, port)
	}
	return nil
}

// publish marks a port that is reached from outside the networks that the container is on.
func (t *podTemplate) publish(protocol corev1.Protocol, port int32) {
	metav1.SetMetaDataLabel(&t.out.ObjectMeta, publishedLabel(string(protocol), int(port)), "true")
}

func publishedLabel(protocol string, port int) string {
	return fmt.Sprintf("%s%s-%d", portLabel, strings.ToLower(cmp.Or(protocol, "tcp")), port)
}

func restartToPod(policy neutral.RestartPolicy, annotations map[string]string) (corev1.RestartPolicy, []neutral.Loss) {
	switch policy.Mode {
	case neutral.RestartAlways:
		return corev1.RestartPolicyAlways, nil
	case neutral.RestartUnlessStopped:
		annotations[annotationRestart] = string(policy.Mode)
		return corev1.RestartPolicyAlways, nil
	case neutral.RestartOnFailure:
		if policy.Max == 0 {
			return corev1.RestartPolicyOnFailure, nil
		}
		annotations[annotationRestart] = string(policy.Mode) + ":" + strconv.Itoa(policy.Max)
		return corev1.RestartPolicyOnFailure, []neutral.Loss{{Field: "HostConfig.RestartPolicy.MaximumRetryCount",
			Change: "no limit", Reason: "Kubernetes does not count a Pod's restarts"}}
	}
	return corev1.RestartPolicyNever, nil
}

func (t *podTemplate) health() error {
	check := t.in.Health
	if check == nil || len(check.Test) == 0 {
		return nil
	}
	probe := &corev1.Probe{}
	switch check.Test[0] {
	case "NONE":
		return nil
	case "CMD":
		probe.Exec = &corev1.ExecAction{Command: check.Test[1:]}
	case "CMD-SHELL":
		probe.Exec = &corev1.ExecAction{Command: append([]string{"/bin/sh", "-c"}, strings.Join(check.Test[1:], " "))}
	default:
		return invalid("Healthcheck.Test", "unknown type %q in healthcheck", check.Test[0])
	}
	if len(probe.Exec.Command) == 0 {
		return invalid("Healthcheck.Test", "a healthcheck without a command")
	}
	probe.PeriodSeconds = t.seconds("Healthcheck.Interval", check.Interval, 30)
	probe.TimeoutSeconds = t.seconds("Healthcheck.Timeout", check.Timeout, 30)
	probe.FailureThreshold, probe.SuccessThreshold = 3, 1
	if check.Retries > 0 {
		probe.FailureThreshold = int32(min(check.Retries, 1<<20))
	}
	t.container.ReadinessProbe = probe
	text, err := json.Marshal(check)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a health check cannot be written")
	}
	t.out.Annotations[annotationHealth] = string(text)
	return nil
}

// seconds rounds up to what probes can say.
func (t *podTemplate) seconds(field string, d time.Duration, standard int32) int32 {
	if d <= 0 {
		return standard
	}
	whole := (d + time.Second - 1) / time.Second
	if whole*time.Second != d {
		t.lose(field, fmt.Sprintf("%d s", whole), "probes count whole seconds")
	}
	return int32(min(whole, 1<<20))
}

// stopSignal is sent by a hook, which waits for the process to end: a Pod's own stopSignal field is not there in most
// clusters. The kubelet sends SIGTERM after the hook.
func (t *podTemplate) stopSignal() error {
	if t.in.StopSignal == "" {
		return nil
	}
	signal, ok := signalName(t.in.StopSignal)
	if !ok {
		return invalid("StopSignal", "Invalid signal: %s", t.in.StopSignal)
	}
	if signal == "TERM" {
		return nil
	}
	t.out.Annotations[annotationStopSignal] = t.in.StopSignal
	t.container.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{"/bin/sh", "-c", "kill -s " + signal + " 1; while kill -0 1; do sleep 0.1 || sleep 1; done"}}}}
	t.lose("StopSignal", "sent by a hook that needs a shell in the image",
		"the kubelet itself sends the image's own signal, or SIGTERM")
	return nil
}
