package podspec

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var specs = flag.Int("specs", 120, "how many pod specs are generated")

// decoder is Decode, or a broken one.
type decoder func(spec *corev1.PodSpec, path *field.Path, target Target) (Result, field.ErrorList)

// outcome is all that came of a spec, as a text that can be compared.
func outcome(t *testing.T, result Result, errs field.ErrorList) string {
	t.Helper()
	text, err := json.Marshal(struct{ Result }{result})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(string(text), result.command, result.args, errs)
}

// dropped gives the leaves of a spec that no error or loss is about, and that could say something else without anything
// coming of it.
func dropped(t *testing.T, decode decoder, g *generator, spec *corev1.PodSpec, target Target, seen map[string]bool) []string {
	t.Helper()
	at := field.NewPath("spec")
	result, errs := decode(spec, at, target)
	was := outcome(t, result, errs)
	var about []string
	for _, loss := range result.Losses {
		about = append(about, loss.Field)
	}
	for _, err := range errs {
		about = append(about, err.Field)
	}
	var silent []string
	leaves(reflect.ValueOf(spec).Elem(), at, "", func(root reflect.Value) reflect.Value { return root }, func(p place) {
		seen[p.pattern] = true
		path := p.path.String()
		covered := slices.ContainsFunc(about, func(f string) bool {
			return path == f || strings.HasPrefix(path, f+".") || strings.HasPrefix(path, f+"[")
		})
		if covered || without(spec, p, errs) {
			return
		}
		changed := spec.DeepCopy()
		g.change(reflect.ValueOf(changed).Elem(), p)
		is, isErrs := decode(changed, at, target)
		if outcome(t, is, isErrs) == was {
			silent = append(silent, path)
		}
	})
	return silent
}

// without tells the leaves that have no effect in Kubernetes either, since another one stands over them, and those of
// something that is refused by another of its leaves.
func without(spec *corev1.PodSpec, p place, errs field.ErrorList) bool {
	p.pattern = strings.Replace(p.pattern, "initContainers[]", "containers[]", 1)
	all := map[string]*corev1.Container{}
	for i := range spec.InitContainers {
		all[fmt.Sprintf("spec.initContainers[%d]", i)] = &spec.InitContainers[i]
	}
	for i := range spec.Containers {
		all[fmt.Sprintf("spec.containers[%d]", i)] = &spec.Containers[i]
	}
	of, inOne := "", strings.HasPrefix(p.pattern, "containers[]")
	if inOne {
		of, _, _ = strings.Cut(p.path.String(), "].")
		of += "]"
	}
	for at, c := range all { // what is the Pod's has no effect where it has none on any container
		if (!inOne || at == of) && !withoutIn(spec, c, at, p, errs) {
			return false
		}
	}
	return true
}

// withoutIn is without for one container.
func withoutIn(spec *corev1.PodSpec, c *corev1.Container, at string, p place, errs field.ErrorList) bool {
	path := p.path.String()
	own := c.SecurityContext
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	pod := spec.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	// One element of a list, refused for one of its fields.
	for _, list := range []string{at + ".env[", at + ".envFrom[", at + ".volumeMounts[", "spec.volumes["} {
		if rest, ok := strings.CutPrefix(path, list); ok {
			element := list + rest[:strings.Index(rest, "]")+1]
			if slices.ContainsFunc(errs, func(e *field.Error) bool { return strings.HasPrefix(e.Field, element) }) {
				return true
			}
		}
	}
	switch p.pattern {
	case "enableServiceLinks": // there are no links, and true is the default
		return true
	case "dnsPolicy": // on the host's network it has none, and off it two of them are the same
		return spec.HostNetwork || strings.HasPrefix(string(spec.DNSPolicy), string(corev1.DNSClusterFirst))
	case "serviceAccount":
		return spec.ServiceAccountName != ""
	case "hostname":
		return spec.HostnameOverride != nil
	case "securityContext.runAsUser":
		return own.RunAsUser != nil
	case "securityContext.runAsGroup":
		return own.RunAsGroup != nil
	case "securityContext.runAsNonRoot": // it is known to hold
		return own.RunAsNonRoot != nil || own.RunAsUser != nil || pod.RunAsUser != nil
	case "containers[].securityContext.runAsNonRoot":
		return own.RunAsUser != nil || pod.RunAsUser != nil
	case "containers[].ports[].hostPort": // it is the container's port
		return spec.HostNetwork
	case "containers[].env[].valueFrom.resourceFieldRef.divisor", "containers[].env[].valueFrom.resourceFieldRef.resource",
		"containers[].env[].valueFrom.fieldRef.fieldPath": // another one may have the same value
		return true
	}
	if strings.HasPrefix(p.pattern, "securityContext.seccompProfile.") && own.SeccompProfile != nil ||
		strings.HasPrefix(p.pattern, "securityContext.appArmorProfile.") && own.AppArmorProfile != nil {
		return true
	}
	if strings.Contains(p.pattern, "localhostProfile") { // of a profile of another type, which Validate refuses
		return true
	}
	return withoutMount(spec, c, at, p)
}

// withoutMount is without for volumes and their mounts.
func withoutMount(spec *corev1.PodSpec, c *corev1.Container, at string, p place) bool {
	path := p.path.String()
	source := func(name string) (int, *corev1.Volume) {
		for i := range spec.Volumes {
			if spec.Volumes[i].Name == name {
				return i, &spec.Volumes[i]
			}
		}
		return -1, &corev1.Volume{}
	}
	whole := map[string]bool{} // volumes that are mounted as a whole
	for i, m := range c.VolumeMounts {
		_, v := source(m.Name)
		if m.SubPath == "" {
			whole[m.Name] = true
		}
		if strings.HasPrefix(path, fmt.Sprintf("%s.volumeMounts[%d].", at, i)) {
			if v.ConfigMap != nil && v.ConfigMap.Name == "" || v.Secret != nil && v.Secret.SecretName == "" {
				return true // of no object, as another volume may be
			}
			files := v.ConfigMap != nil || v.Secret != nil || v.Projected != nil
			known := files || v.EmptyDir != nil || v.HostPath != nil || v.PersistentVolumeClaim != nil
			if !known || strings.HasSuffix(path, ".readOnly") && (files || v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly) {
				return true // the volume is refused; or it is read-only anyway
			}
			if v.Projected != nil && !slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ConfigMap != nil || s.Secret != nil }) {
				return true // all that it has is refused
			}
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if !strings.HasPrefix(path, fmt.Sprintf("spec.volumes[%d].", i)) {
			continue
		}
		switch {
		case strings.HasSuffix(path, "persistentVolumeClaim.readOnly"):
			return !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name && !m.ReadOnly })
		case v.ConfigMap != nil || v.Secret != nil || v.Projected != nil:
			if strings.HasSuffix(path, ".defaultMode") { // each file may have its own
				return true
			}
			return !whole[v.Name]
		}
	}
	return false
}

// targets are orchestrators of each sort.
func targets() []Target {
	object := metav1.ObjectMeta{Name: "web", Namespace: "shop", Labels: map[string]string{"a": "1"}}
	return []Target{{Object: object}, {Swarm: true, Object: metav1.ObjectMeta{Namespace: "shop"}}}
}

// TestNothingIsDroppedInSilence holds of each leaf of generated specs that a loss or an error names it, or that what comes
// of the spec depends on it.
func TestNothingIsDroppedInSilence(t *testing.T) {
	t.Parallel()
	g := &generator{Rand: rand.New(rand.NewPCG(1, 2))}
	seen, count, silent := map[string]bool{}, 0, map[string]string{}
	for i := range *specs {
		spec, run := g.spec(), targets()
		if i%3 == 0 {
			spec, run = g.several(), targets()[:1]
		}
		for _, target := range run {
			count++
			for _, path := range dropped(t, Decode, g, spec, target, seen) {
				text, _ := json.Marshal(spec)
				silent[fmt.Sprintf("%s (swarm %v)", path, target.Swarm)] = string(text)
			}
		}
	}
	for i, path := range slices.Sorted(maps.Keys(silent)) {
		if i > 40 {
			break
		}
		t.Errorf("%s is dropped in silence of %.3000s", path, silent[path])
	}
	t.Logf("%d specs, decoded %d times, %d different fields", *specs, count, len(seen))
	const fields = 300
	if len(seen) < fields {
		t.Errorf("only %d different fields were written", len(seen))
	}
}

// TestDroppedFieldsAreSeen holds that the property finds decoders that drop one field each.
func TestDroppedFieldsAreSeen(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(*corev1.PodSpec){
		"hostAliases":   func(s *corev1.PodSpec) { s.HostAliases = nil },
		"tolerations":   func(s *corev1.PodSpec) { s.Tolerations = nil },
		"dnsConfig":     func(s *corev1.PodSpec) { s.DNSConfig = nil },
		"workingDir":    func(s *corev1.PodSpec) { s.Containers[0].WorkingDir = "" },
		"livenessProbe": func(s *corev1.PodSpec) { s.Containers[0].LivenessProbe = nil },
		"readOnlyRootFilesystem": func(s *corev1.PodSpec) {
			if s.Containers[0].SecurityContext != nil {
				s.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil
			}
		},
		"mode": func(s *corev1.PodSpec) {
			for i := range s.Volumes {
				if s.Volumes[i].Secret != nil {
					for j := range s.Volumes[i].Secret.Items {
						s.Volumes[i].Secret.Items[j].Mode = nil
					}
				}
			}
		},
	} {
		broken := func(spec *corev1.PodSpec, path *field.Path, target Target) (Result, field.ErrorList) {
			spec = spec.DeepCopy()
			drop(spec)
			return Decode(spec, path, target)
		}
		g := &generator{Rand: rand.New(rand.NewPCG(3, 4))}
		found := false
		for i := 0; i < 3000 && !found; i++ {
			found = slices.ContainsFunc(dropped(t, broken, g, g.spec(), targets()[0], map[string]bool{}), func(path string) bool { return strings.Contains(path, name) })
		}
		if !found {
			t.Errorf("that %s was dropped went unseen", name)
		}
	}
}
