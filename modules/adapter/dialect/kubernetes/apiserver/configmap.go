package apiserver

import (
	"bytes"
	"context"
	"maps"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// configMapKind is records of what was written here, and the orchestrator's own configs, each a map of one value.
type configMapKind struct{ *Server }

func (configMapKind) project(w *world) []entry {
	var all []entry
	for _, f := range w.configs {
		switch kind := f.Labels[labelRecord]; kind {
		case recordConfigMap:
			if e, ok := recorded(w, f, configMapResource.Resource, &corev1.ConfigMap{}); ok {
				all = append(all, e)
			}
		case "":
			o := &corev1.ConfigMap{}
			immutable := true
			o.Immutable = &immutable
			if utf8.Valid(f.Data) {
				o.Data = map[string]string{f.Name: string(f.Data)}
			} else {
				o.BinaryData = map[string][]byte{f.Name: f.Data}
			}
			o.Labels = visible(f.Labels)
			placed(o, w, configMapResource.Resource, f.ID, f.Namespace, f.Name, f.Created)
			all = append(all, entry{object: o, native: native{id: f.ID, version: f.Version, own: true}})
		}
	}
	return all
}

func (configMapKind) complete(_, _ object) {}

func (configMapKind) validate(next, old object) field.ErrorList {
	o := next.(*corev1.ConfigMap)
	var problems field.ErrorList
	total := 0
	for key, value := range o.Data {
		problems = append(problems, validKey(field.NewPath("data"), key)...)
		if _, double := o.BinaryData[key]; double {
			problems = append(problems, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range o.BinaryData {
		problems = append(problems, validKey(field.NewPath("binaryData"), key)...)
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		problems = append(problems, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	if old, ok := old.(*corev1.ConfigMap); ok && old != nil && fixed(old.Immutable) {
		problems = append(problems, staysFixed(o.Immutable)...)
		if !apiequality.Semantic.DeepEqual(old.Data, o.Data) || !apiequality.Semantic.DeepEqual(old.BinaryData, o.BinaryData) {
			problems = append(problems, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
		}
	}
	return problems
}

func fixed(immutable *bool) bool { return immutable != nil && *immutable }

// staysFixed refuses to make an object mutable again.
func staysFixed(immutable *bool) field.ErrorList {
	if fixed(immutable) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set")}
}

func validKey(path *field.Path, key string) field.ErrorList {
	var problems field.ErrorList
	for _, message := range validation.IsConfigMapKey(key) {
		problems = append(problems, field.Invalid(path.Key(key), key, message))
	}
	return problems
}

func (k configMapKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.update(ctx, d)
}

func (k configMapKind) update(ctx context.Context, d deed) ([]neutral.Loss, error) {
	if err := notOwn(d, "config"); err != nil {
		return nil, err
	}
	origin, err := originOf(d.next, nil)
	if err != nil {
		return nil, err
	}
	if err := k.keep(ctx, d, recordConfigMap, d.next.GetNamespace(), d.next.GetName(), origin); err != nil {
		return nil, err
	}
	losses, err := k.awaken(ctx, d)
	return append(k.stale(d), losses...), err
}

// stale tells that containers which run keep the content that they were started with.
func (s *Server) stale(d deed) []neutral.Loss {
	if d.old == nil || sameContent(d.old.object, d.next) {
		return nil
	}
	_, isSecret := d.next.(*corev1.Secret)
	pods, _ := s.store.list(podResource, d.next.GetNamespace())
	for _, e := range pods {
		if refers(&e.object.(*corev1.Pod).Spec, d.next.GetName(), isSecret) {
			return []neutral.Loss{{Field: "data", Change: "containers that run keep what they were started with",
				Reason: "Swarm does not change the files of running containers; kubectl rollout restart starts them anew"}}
		}
	}
	return nil
}

// sameContent tells whether two ConfigMaps or Secrets hold the same.
func sameContent(a, b object) bool {
	switch a := a.(type) {
	case *corev1.ConfigMap:
		b, ok := b.(*corev1.ConfigMap)
		return ok && maps.Equal(a.Data, b.Data) && maps.EqualFunc(a.BinaryData, b.BinaryData, bytes.Equal)
	case *corev1.Secret:
		b, ok := b.(*corev1.Secret)
		return ok && maps.EqualFunc(a.Data, b.Data, bytes.Equal)
	}
	return false
}

// refers tells whether a Pod has something of a ConfigMap or a Secret.
func refers(spec *corev1.PodSpec, name string, secret bool) bool {
	for _, v := range spec.Volumes {
		if secret && v.Secret != nil && v.Secret.SecretName == name || !secret && v.ConfigMap != nil && v.ConfigMap.Name == name {
			return true
		}
	}
	for i := range spec.Containers {
		for _, from := range spec.Containers[i].EnvFrom {
			if secret && from.SecretRef != nil && from.SecretRef.Name == name || !secret && from.ConfigMapRef != nil && from.ConfigMapRef.Name == name {
				return true
			}
		}
		for _, v := range spec.Containers[i].Env {
			from := v.ValueFrom
			if from == nil {
				continue
			}
			if secret && from.SecretKeyRef != nil && from.SecretKeyRef.Name == name ||
				!secret && from.ConfigMapKeyRef != nil && from.ConfigMapKeyRef.Name == name {
				return true
			}
		}
	}
	return false
}

// notOwn refuses to change what was made as the orchestrator's own.
func notOwn(d deed, kind string) error {
	if d.old == nil || !d.old.native.own {
		return nil
	}
	return fault.New(fault.Unprocessable, "%s was made as a %s of the orchestrator itself, which is not changed once it is made; create "+
		"another one", d.old.object.GetName(), kind)
}

func (k configMapKind) remove(ctx context.Context, d deed) error {
	return k.forget(ctx, d, d.old.object.GetNamespace())
}

// visible are labels without the orchestrator's mark of a stack.
func visible(labels map[string]string) map[string]string {
	shown := map[string]string{}
	for key, value := range labels {
		if key != labelRecord && key != labelClaim && key != labelWaiting && key != labelAdopted {
			shown[key] = value
		}
	}
	if len(shown) == 0 {
		return nil
	}
	return shown
}
