package podspec

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// words are what a field can say, by its path without indexes; other texts are made up.
var words = map[string][]string{
	"restartPolicy": {"Always", "OnFailure", "Never"}, "dnsPolicy": {"ClusterFirst", "Default", "None", "ClusterFirstWithHostNet"},
	"preemptionPolicy": {"PreemptLowerPriority", "Never"}, "os.name": {"linux", "windows"}, "schedulerName": {"default-scheduler", "mine"},
	"serviceAccountName": {"default", "web"}, "serviceAccount": {"default", "web"},
	"securityContext.seccompProfile.type":                         {"RuntimeDefault", "Unconfined", "Localhost"},
	"containers[].securityContext.seccompProfile.type":            {"RuntimeDefault", "Unconfined", "Localhost"},
	"securityContext.appArmorProfile.type":                        {"RuntimeDefault", "Unconfined", "Localhost"},
	"containers[].securityContext.appArmorProfile.type":           {"RuntimeDefault", "Unconfined", "Localhost"},
	"securityContext.supplementalGroupsPolicy":                    {"Merge", "Strict"},
	"containers[].securityContext.procMount":                      {"Default", "Unmasked"},
	"containers[].imagePullPolicy":                                {"Always", "IfNotPresent", "Never"},
	"containers[].terminationMessagePath":                         {"/dev/termination-log", "/elsewhere"},
	"containers[].terminationMessagePolicy":                       {"File", "FallbackToLogsOnError"},
	"containers[].ports[].protocol":                               {"TCP", "UDP", "SCTP"},
	"containers[].ports[].hostIP":                                 {"0.0.0.0", "127.0.0.1"},
	"containers[].image":                                          {"nginx", "nginx:1", "busybox:1"},
	"containers[].workingDir":                                     {"/a", "/b"},
	"containers[].env[].valueFrom.fieldRef.apiVersion":            {"v1", "v2"},
	"containers[].env[].valueFrom.fieldRef.fieldPath":             {"metadata.name", "metadata.namespace", "metadata.uid", "status.podIP", "metadata.labels['a']", "metadata.labels['b']"},
	"containers[].env[].valueFrom.resourceFieldRef.resource":      {"limits.cpu", "limits.memory", "requests.cpu", "limits.disk"},
	"containers[].env[].valueFrom.resourceFieldRef.containerName": {"web", "other"},
	"containers[].lifecycle.stopSignal":                           {"SIGINT", "SIGTERM"},
	"containers[].lifecycle.preStop.exec.command[]":               {"sleep 5", "save"},
	"containers[].volumeMounts[].name":                            {"v0", "v1", "v2"},
	"containers[].volumeMounts[].mountPropagation":                {"None", "HostToContainer", "Bidirectional"},
	"containers[].volumeMounts[].recursiveReadOnly":               {"Disabled", "IfPossible", "Enabled"},
	"volumes[].emptyDir.medium":                                   {"", "Memory", "HugePages"},
	"volumes[].hostPath.type":                                     {"", "Directory", "File"},
	"topologySpreadConstraints[].whenUnsatisfiable":               {"DoNotSchedule", "ScheduleAnyway"},
	"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].operator": {"In", "NotIn", "Exists", "Gt"},
	"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].key": {"disk", "kubernetes.io/os", "kubernetes.io/arch",
		"node-role.kubernetes.io/control-plane", "example.com/zone"},
	"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchFields[].operator": {"In", "NotIn"},
	"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchFields[].key":      {"metadata.name", "metadata.uid"},
}

// keys are those of maps.
var keys = map[string][]string{
	"nodeSelector": {"disk", "kubernetes.io/hostname", "example.com/zone"}, "containers[].resources.limits": {"cpu", "memory", "example.com/gpu"},
	"containers[].resources.requests": {"cpu", "memory", "ephemeral-storage"},
}

// alternatives are structures of which one field is said.
var alternatives = map[reflect.Type]bool{reflect.TypeFor[corev1.VolumeSource](): true, reflect.TypeFor[corev1.ProbeHandler](): true,
	reflect.TypeFor[corev1.LifecycleHandler](): true, reflect.TypeFor[corev1.EnvVarSource](): true, reflect.TypeFor[corev1.VolumeProjection](): true}

// generator fills specs.
type generator struct {
	*rand.Rand
	count int
}

// likely are kinds of volumes that are said more often, since most of the others are only refused.
var likely = []string{"EmptyDir", "HostPath", "ConfigMap", "Secret", "PersistentVolumeClaim", "Projected"}

func (g *generator) spec() *corev1.PodSpec {
	spec := &corev1.PodSpec{}
	g.fill(reflect.ValueOf(spec).Elem(), "", 0)
	spec.InitContainers, spec.EphemeralContainers = nil, nil
	for len(spec.Containers) != 1 {
		spec.Containers = make([]corev1.Container, 1)
		g.fill(reflect.ValueOf(spec).Elem().FieldByName("Containers"), "containers", 0)
	}
	spec.Containers[0].Name = "web"
	if spec.Containers[0].Image == "" {
		spec.Containers[0].Image = "nginx"
	}
	for i := range spec.Volumes {
		spec.Volumes[i].Name = fmt.Sprintf("v%d", i)
	}
	for i := range spec.Containers[0].Env {
		if from := spec.Containers[0].Env[i].ValueFrom; from != nil {
			spec.Containers[0].Env[i].Value = ""
		}
	}
	if spec.ServiceAccountName != "" && spec.DeprecatedServiceAccount != "" {
		spec.DeprecatedServiceAccount = spec.ServiceAccountName
	}
	return spec
}

// several is a spec of two containers and an init container, each of which mounts some of the volumes.
func (g *generator) several() *corev1.PodSpec {
	spec := g.spec()
	beside, first := g.spec().Containers[0], g.spec().Containers[0]
	beside.Name, first.Name = "beside", "first"
	if g.IntN(2) == 0 {
		always := corev1.ContainerRestartPolicyAlways
		first.RestartPolicy = &always
	}
	spec.Containers, spec.InitContainers = append(spec.Containers, beside), []corev1.Container{first}
	return spec
}

func (g *generator) number() int64 { g.count++; return int64(g.count) }

func (g *generator) fill(v reflect.Value, pattern string, depth int) {
	if depth > 12 {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[resource.Quantity]():
		v.Set(reflect.ValueOf(*resource.NewQuantity(g.number()+leastMemory, resource.DecimalSI)))
		return
	case reflect.TypeFor[intstr.IntOrString]():
		v.Set(reflect.ValueOf(intstr.FromInt32(int32(g.number()))))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		g.fill(v.Elem(), pattern, depth+1)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1+g.IntN(3), 3))
		for i := range v.Len() {
			g.fill(v.Index(i), pattern+"[]", depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		names := keys[pattern]
		if names == nil {
			names = []string{"key"}
		}
		for _, name := range names {
			if g.IntN(2) == 0 {
				value := reflect.New(v.Type().Elem()).Elem()
				g.fill(value, pattern+"[]", depth+1)
				v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), value)
			}
		}
	case reflect.Struct:
		g.structure(v, pattern, depth)
	case reflect.String:
		v.SetString(g.word(pattern, ""))
	case reflect.Bool:
		v.SetBool(g.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(g.number())
	}
}

func (g *generator) structure(v reflect.Value, pattern string, depth int) {
	t := v.Type()
	chosen := -1
	if alternatives[t] {
		chosen = g.IntN(t.NumField())
		if t == reflect.TypeFor[corev1.VolumeSource]() && g.IntN(5) > 0 {
			structure, _ := t.FieldByName(likely[g.IntN(len(likely))])
			chosen = structure.Index[0]
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline := jsonName(f)
		path := strings.TrimPrefix(pattern+"."+name, ".")
		if inline {
			path = pattern
		}
		switch {
		case !f.IsExported(), chosen >= 0 && i != chosen:
		case chosen >= 0, inline, g.IntN(10) < 3, !strings.Contains(f.Tag.Get("json"), "omitempty") && f.Type.Kind() != reflect.Struct,
			name == "volumes" && depth == 0, name == "volumeMounts":
			g.fill(v.Field(i), path, depth+1)
		}
	}
}

// word is one that a field can say, and not the one that it says.
func (g *generator) word(pattern, not string) string {
	list := words[pattern]
	if len(list) == 0 {
		text := fmt.Sprintf("s%d", g.number())
		if strings.HasSuffix(pattern, "mountPath") {
			text = "/" + text
		}
		return text
	}
	for {
		if text := list[g.IntN(len(list))]; text != not || len(list) == 1 {
			return text
		}
	}
}

// place is a leaf of a spec: how it is reached in any copy.
type place struct {
	path    *field.Path
	pattern string
	reach   func(root reflect.Value) reflect.Value
	entry   func(root reflect.Value, value reflect.Value) // of a map, whose values are set as a whole
}

// leaves are all that is said in v.
func leaves(v reflect.Value, at *field.Path, pattern string, reach func(reflect.Value) reflect.Value, visit func(place)) {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
	case v.Kind() == reflect.Pointer:
		leaves(v.Elem(), at, pattern, func(root reflect.Value) reflect.Value { return reach(root).Elem() }, visit)
	case leaf(v.Type()):
		if !v.IsZero() {
			visit(place{path: at, pattern: pattern, reach: reach})
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			name, inline := jsonName(v.Type().Field(i))
			child, path := at.Child(name), strings.TrimPrefix(pattern+"."+name, ".")
			if inline {
				child, path = at, pattern
			}
			leaves(v.Field(i), child, path, func(root reflect.Value) reflect.Value { return reach(root).Field(i) }, visit)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			leaves(v.Index(i), at.Index(i), pattern+"[]", func(root reflect.Value) reflect.Value { return reach(root).Index(i) }, visit)
		}
	case v.Kind() == reflect.Map:
		for _, key := range sortedKeys(v) {
			native := reflect.ValueOf(key).Convert(v.Type().Key())
			if !leaf(v.Type().Elem()) {
				continue // deep within what is refused as a whole
			}
			visit(place{path: at.Key(key), pattern: pattern + "[]",
				reach: func(root reflect.Value) reflect.Value { return reach(root).MapIndex(native) },
				entry: func(root, value reflect.Value) { reach(root).SetMapIndex(native, value) }})
		}
	}
}

// change says something else at a place.
func (g *generator) change(root reflect.Value, p place) {
	was := p.reach(root)
	is := reflect.New(was.Type()).Elem()
	is.Set(was)
	switch q := was.Interface().(type) {
	case resource.Quantity:
		q = q.DeepCopy()
		q.Add(resource.MustParse("1Gi"))
		is.Set(reflect.ValueOf(q))
	case intstr.IntOrString:
		is.Set(reflect.ValueOf(intstr.FromInt32(int32(g.number()))))
	default:
		switch was.Kind() {
		case reflect.String:
			is.SetString(g.word(p.pattern, was.String()))
		case reflect.Bool:
			is.SetBool(!was.Bool())
		default:
			is.SetInt(was.Int() + 1)
		}
	}
	if p.entry != nil {
		p.entry(root, is)
		return
	}
	was.Set(is)
}
