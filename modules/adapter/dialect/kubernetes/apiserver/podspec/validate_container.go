package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) container(spec *corev1.PodSpec, c *corev1.Container, volumes map[string]bool, at *field.Path) {
	v.label(at.Child("name"), c.Name)
	switch {
	case c.Image == "":
		v.required(at.Child("image"), "")
	case strings.TrimSpace(c.Image) != c.Image:
		v.invalid(at.Child("image"), c.Image, "must not have leading or trailing whitespace")
	}
	oneOf(v, at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	oneOf(v, at.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	v.ports(spec, c.Ports, at.Child("ports"))
	v.env(c, at)
	v.mounts(c, volumes, at.Child("volumeMounts"))
	v.resources(&c.Resources, at.Child("resources"))
	v.security(c.SecurityContext, !said(negated(spec.HostUsers)), at.Child("securityContext"))
	if c.Lifecycle != nil {
		v.lifecycle(spec, c.Lifecycle, at.Child("lifecycle"))
	}
	v.probe(c.LivenessProbe, "livenessProbe", at)
	v.probe(c.ReadinessProbe, "readinessProbe", at)
	v.probe(c.StartupProbe, "startupProbe", at)
}

func negated(flag *bool) *bool {
	if flag == nil {
		return nil
	}
	not := !*flag
	return &not
}

// label wants a name that can be one word of a host's.
func (v *validator) label(at *field.Path, name string) {
	if name == "" {
		v.required(at, "")
		return
	}
	v.invalid(at, name, validation.IsDNS1123Label(name)...)
}

func (v *validator) ports(spec *corev1.PodSpec, ports []corev1.ContainerPort, at *field.Path) {
	names := map[string]bool{}
	for i, p := range ports {
		path := at.Index(i)
		if p.Name != "" {
			wrong := validation.IsValidPortName(p.Name)
			v.invalid(path.Child("name"), p.Name, wrong...)
			if len(wrong) == 0 && names[p.Name] {
				v.add(field.Duplicate(path.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		if p.ContainerPort == 0 {
			v.required(path.Child("containerPort"), "")
		} else {
			v.invalid(path.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort))...)
		}
		if p.HostPort != 0 {
			v.invalid(path.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort))...)
			if spec.HostNetwork && p.HostPort != p.ContainerPort {
				v.invalid(path.Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true")
			}
		}
		oneOf(v, path.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPorts wants each port of a host to be asked for once.
func (v *validator) hostPorts(spec *corev1.PodSpec, at *field.Path) {
	asked := map[string]bool{}
	for i := range spec.Containers {
		for j, p := range spec.Containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			text := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if asked[text] {
				v.add(field.Duplicate(at.Index(i).Child("ports").Index(j).Child("hostPort"), text))
			}
			asked[text] = true
		}
	}
}

func (v *validator) env(c *corev1.Container, at *field.Path) {
	for i := range c.Env {
		e, path := &c.Env[i], at.Child("env").Index(i)
		if e.Name == "" {
			v.required(path.Child("name"), "")
		} else {
			v.invalid(path.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name)...)
		}
		if e.ValueFrom != nil {
			v.valueFrom(e, path.Child("valueFrom"))
		}
	}
	path := at.Child("envFrom")
	for i, from := range c.EnvFrom {
		if from.Prefix != "" {
			v.invalid(path.Index(i).Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName(from.Prefix)...)
		}
		if from.ConfigMapRef != nil {
			v.object(path.Index(i).Child("configMapRef", "name"), from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			v.object(path.Index(i).Child("secretRef", "name"), from.SecretRef.Name)
		}
		switch {
		case from.ConfigMapRef == nil && from.SecretRef == nil:
			v.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
		case from.ConfigMapRef != nil && from.SecretRef != nil:
			v.invalid(path, "", "may not have more than one field specified at a time")
		}
	}
}

// object wants the name of a config map or a secret, which may also be one that a controller completes.
func (v *validator) object(at *field.Path, name string) {
	if name == "" {
		v.required(at, "")
		return
	}
	v.invalid(at, name, apivalidation.NameIsDNSSubdomain(name, true)...)
}

func (v *validator) valueFrom(e *corev1.EnvVar, at *field.Path) {
	from, sources := e.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		v.fieldRef(from.FieldRef, at.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		v.resourceRef(from.ResourceFieldRef, at.Child("resourceFieldRef"))
	}
	key := func(at *field.Path, name, key string) {
		sources++
		v.invalid(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false)...)
		if key == "" {
			v.required(at.Child("key"), "")
			return
		}
		v.invalid(at.Child("key"), key, validation.IsConfigMapKey(key)...)
	}
	if ref := from.ConfigMapKeyRef; ref != nil {
		key(at.Child("configMapKeyRef"), ref.Name, ref.Key)
	}
	if ref := from.SecretKeyRef; ref != nil {
		key(at.Child("secretKeyRef"), ref.Name, ref.Key)
	}
	if from.FileKeyRef != nil {
		sources++
	}
	switch {
	case sources == 0:
		v.invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`")
	case e.Value != "":
		v.invalid(at, "", "may not be specified when `value` is not empty")
	case sources > 1:
		v.invalid(at, "", "may not have more than one field specified at a time")
	}
}

// The fields of a Pod, and the resources of a container, that variables can be made of.
var (
	fieldPaths = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
		"status.hostIPs", "status.podIP", "status.podIPs"}
	resourcePaths = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"}
)

func (v *validator) fieldRef(ref *corev1.ObjectFieldSelector, at *field.Path) {
	path := at.Child("fieldPath")
	before, rest, subscripted := strings.Cut(ref.FieldPath, "['")
	subscript, closed := strings.CutSuffix(rest, "']")
	switch {
	case ref.FieldPath == "":
		v.required(path, "")
	case ref.APIVersion != "v1":
		v.invalid(path, ref.FieldPath, "error converting fieldPath: unsupported pod version: "+ref.APIVersion)
	case subscripted && closed && before == "metadata.annotations":
		v.invalid(at, strings.ToLower(subscript), validation.IsQualifiedName(strings.ToLower(subscript))...)
	case subscripted && closed && before == "metadata.labels":
		v.invalid(at, subscript, validation.IsQualifiedName(subscript)...)
	case subscripted && closed:
		v.invalid(path, ref.FieldPath, "error converting fieldPath: field label does not support subscript: "+ref.FieldPath)
	case ref.FieldPath == "metadata.labels", ref.FieldPath == "metadata.annotations": // of volumes
		v.add(field.NotSupported(path, ref.FieldPath, fieldPaths))
	case !slices.Contains(fieldPaths, ref.FieldPath):
		v.invalid(path, ref.FieldPath, "error converting fieldPath: field label not supported: "+ref.FieldPath)
	}
}

var divisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

func (v *validator) resourceRef(ref *corev1.ResourceFieldSelector, at *field.Path) {
	huge := strings.HasPrefix(ref.Resource, "limits.hugepages-") || strings.HasPrefix(ref.Resource, "requests.hugepages-")
	switch {
	case ref.Resource == "":
		v.required(at.Child("resource"), "")
	case !huge && !slices.Contains(resourcePaths, ref.Resource):
		v.add(field.NotSupported(at.Child("resource"), ref.Resource, resourcePaths))
	}
	if ref.Divisor.IsZero() {
		return
	}
	words := map[string]string{"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
	_, name, _ := strings.Cut(ref.Resource, ".")
	switch {
	case name == "cpu" && !slices.Contains([]string{"1m", "1"}, ref.Divisor.String()):
		v.invalid(at.Child("divisor"), ref.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
	case words[name] != "" && !slices.Contains(divisors, ref.Divisor.String()):
		v.invalid(at.Child("divisor"), ref.Resource, "only divisor's values "+strings.Join(divisors, ", ")+" are supported with the "+words[name]+" resource")
	}
}

func (v *validator) resources(r *corev1.ResourceRequirements, at *field.Path) {
	for list, quantities := range map[string]corev1.ResourceList{"limits": r.Limits, "requests": r.Requests} {
		for name, quantity := range quantities {
			path := at.Child(list).Key(string(name))
			v.resourceName(name, path)
			if quantity.Sign() < 0 {
				v.invalid(path, quantity.String(), apivalidation.IsNegativeErrorMsg)
			}
			if strings.Contains(string(name), "/") && quantity.MilliValue()%1000 != 0 {
				v.invalid(path, quantity, "must be an integer")
			}
			if list == "requests" {
				v.request(name, quantity, r.Limits, at)
			}
		}
	}
}

// request wants no more than the limit, and of what cannot be shared, the limit itself.
func (v *validator) request(name corev1.ResourceName, request resource.Quantity, limits corev1.ResourceList, at *field.Path) {
	limit, limited := limits[name]
	shared := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
	switch {
	case !limited && !shared:
		v.required(at.Child("limits"), "Limit must be set for non overcommitable resources")
	case !limited:
	case !shared && request.Cmp(limit) != 0:
		v.invalid(at.Child("requests"), request.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
	case request.Cmp(limit) > 0:
		v.invalid(at.Child("requests"), request.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
	}
}

// quotaNames are resources without a domain that a namespace can have, and a container cannot.
var quotaNames = strings.Fields("storage pods services replicationcontrollers resourcequotas secrets configmaps persistentvolumeclaims " +
	"requests.cpu requests.memory requests.storage requests.ephemeral-storage limits.cpu limits.memory limits.ephemeral-storage " +
	"services.nodeports services.loadbalancers")

func (v *validator) resourceName(name corev1.ResourceName, at *field.Path) {
	wrong := validation.IsQualifiedName(string(name))
	v.invalid(at, name, wrong...)
	if strings.Contains(string(name), "/") || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
		return
	}
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return
	}
	if len(wrong) == 0 && !slices.Contains(quotaNames, string(name)) {
		v.invalid(at, name, "must be a standard resource type or fully qualified")
	}
	v.invalid(at, name, "must be a standard resource for containers")
}

func (v *validator) probe(p *corev1.Probe, name string, at *field.Path) {
	if p == nil {
		return
	}
	at = at.Child(name)
	v.handler(at, p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil, 0)
	for name, value := range map[string]int32{"initialDelaySeconds": p.InitialDelaySeconds, "timeoutSeconds": p.TimeoutSeconds,
		"periodSeconds": p.PeriodSeconds, "successThreshold": p.SuccessThreshold, "failureThreshold": p.FailureThreshold} {
		v.nonNegative(at.Child(name), int64(value))
	}
	grace := p.TerminationGracePeriodSeconds
	if grace != nil && *grace <= 0 {
		v.invalid(at.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0")
	}
	switch {
	case name == "readinessProbe" && grace != nil:
		v.invalid(at.Child("terminationGracePeriodSeconds"), grace, "must not be set for readinessProbes")
	case name != "readinessProbe" && p.SuccessThreshold != 1:
		v.invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
}

// handler wants one thing to be done.
func (v *validator) handler(at *field.Path, exec *corev1.ExecAction, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction, grpc *corev1.GRPCAction,
	sleep *corev1.SleepAction, grace int64) {
	handlers := 0
	first := func(name string, is bool) bool {
		if is {
			if handlers++; handlers > 1 {
				v.add(field.Forbidden(at.Child(name), "may not specify more than 1 handler type"))
			}
		}
		return is && handlers == 1
	}
	if first("exec", exec != nil) && len(exec.Command) == 0 {
		v.required(at.Child("exec", "command"), "")
	}
	if first("httpGet", get != nil) {
		path := at.Child("httpGet")
		v.port(path.Child("port"), get.Port)
		oneOf(v, path.Child("scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
		for _, header := range get.HTTPHeaders {
			v.invalid(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name)...)
		}
	}
	if first("tcpSocket", tcp != nil) {
		v.port(at.Child("tcpSocket", "port"), tcp.Port)
	}
	if first("grpc", grpc != nil) {
		v.port(at.Child("grpc", "port"), intstr.FromInt32(grpc.Port))
	}
	if first("sleep", sleep != nil) && (sleep.Seconds < 0 || sleep.Seconds > grace) {
		v.invalid(at.Child("sleep"), sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", grace))
	}
	if handlers == 0 {
		v.required(at, "must specify a handler type")
	}
}

func (v *validator) port(at *field.Path, port intstr.IntOrString) {
	if port.Type == intstr.Int {
		v.invalid(at, port.IntValue(), validation.IsValidPortNum(port.IntValue())...)
		return
	}
	v.invalid(at, port.StrVal, validation.IsValidPortName(port.StrVal)...)
}

func (v *validator) lifecycle(spec *corev1.PodSpec, l *corev1.Lifecycle, at *field.Path) {
	for name, hook := range map[string]*corev1.LifecycleHandler{"postStart": l.PostStart, "preStop": l.PreStop} {
		if hook != nil {
			v.handler(at.Child(name), hook.Exec, hook.HTTPGet, hook.TCPSocket, nil, hook.Sleep, *spec.TerminationGracePeriodSeconds)
		}
	}
	if l.StopSignal == nil {
		return
	}
	switch path := at.Child("stopSignal"); {
	case spec.OS == nil:
		v.add(field.Forbidden(path, "may not be set for containers with empty `spec.os.name`"))
	case spec.OS.Name == corev1.Linux:
		oneOf(v, path, *l.StopSignal, signals...)
	}
}
