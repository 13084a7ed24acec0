package openapi

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// merging tells how lists and maps of the API are merged by server-side apply. The types do not tell; the schema that
// apply itself goes by does.
type merging struct{ types *smd.Schema }

func mergingOf() merging {
	one := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}} // each brings the schema of all
	typed, err := applyconfigurations.NewTypeConverter(scheme.Scheme).ObjectToTyped(one)
	if err != nil {
		panic("openapi: the schema of apply: " + err.Error())
	}
	return merging{typed.Schema()}
}

// atomic tells whether a struct is replaced as a whole.
func (m merging) atomic(name string) bool {
	t, ok := m.types.FindNamedType(name)
	return ok && t.Map != nil && t.Map.ElementRelationship == smd.Atomic
}

// add tells of a field how it is merged, and what it is where nothing is said.
func (m merging) add(to map[string]any, name, field string) {
	t, ok := m.types.FindNamedType(name)
	if !ok || t.Map == nil {
		return
	}
	f, ok := t.Map.FindField(field)
	if !ok {
		return
	}
	switch value := f.Default.(type) { // structs have theirs by their type
	case string, bool, int, int64, float64:
		to["default"] = value
	}
	switch inline := f.Type.Inlined; {
	case inline.List != nil && inline.List.ElementRelationship == smd.Atomic:
		to["x-kubernetes-list-type"] = "atomic"
	case inline.List != nil && len(inline.List.Keys) > 0:
		to["x-kubernetes-list-type"], to["x-kubernetes-list-map-keys"] = "map", inline.List.Keys
	case inline.List != nil:
		to["x-kubernetes-list-type"] = "set"
	case inline.Map != nil && inline.Map.ElementRelationship == smd.Atomic,
		f.Type.ElementRelationship != nil && *f.Type.ElementRelationship == smd.Atomic:
		to["x-kubernetes-map-type"] = "atomic"
	}
}
