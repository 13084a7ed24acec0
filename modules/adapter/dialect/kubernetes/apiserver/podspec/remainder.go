package podspec

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// disposal says what becomes of a field that a container has no place for: it is refused, or lost.
type disposal struct {
	lost   bool
	reason string
}

// rest settles what nobody took, of the container first.
func (d *decoding) rest(c *corev1.Container, at *field.Path) {
	d.settle(reflect.ValueOf(c).Elem(), at, "containers[]")
	d.spec.Containers = nil
	d.settle(reflect.ValueOf(d.spec).Elem(), d.path, "")
}

// settle walks what is written in v, down to the fields that the table knows. pattern is the path without indexes.
func (d *decoding) settle(v reflect.Value, at *field.Path, pattern string) {
	if !writtenValue(v) {
		return
	}
	if known, ok := disposals[pattern]; ok {
		if known.lost {
			d.lose(at, "dropped", known.reason)
		} else {
			d.refuse(at, known.reason)
		}
		return
	}
	if leaf(v.Type()) {
		d.refuse(at, "no container of an engine has this")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if leaf(v.Type().Elem()) {
			d.refuse(at, "no container of an engine has this")
			return
		}
		d.settle(v.Elem(), at, pattern)
	case reflect.Struct:
		for i := range v.NumField() {
			name, inline := jsonName(v.Type().Field(i))
			if inline {
				d.settle(v.Field(i), at, pattern)
				continue
			}
			d.settle(v.Field(i), at.Child(name), strings.TrimPrefix(pattern+"."+name, "."))
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.settle(v.Index(i), at.Index(i), pattern+"[]")
		}
	case reflect.Map:
		for _, key := range sortedKeys(v) {
			d.settleEntry(v.MapIndex(reflect.ValueOf(key).Convert(v.Type().Key())), at.Key(key), pattern+"[]")
		}
	}
}

// settleEntry settles an entry of a map, which says something also where it is empty.
func (d *decoding) settleEntry(v reflect.Value, at *field.Path, pattern string) {
	known, ok := disposals[pattern]
	switch {
	case ok && known.lost:
		d.lose(at, "dropped", known.reason)
	case ok:
		d.refuse(at, known.reason)
	case leaf(v.Type()):
		d.refuse(at, "no container of an engine has this")
	default:
		d.settle(v, at, pattern)
	}
}

func sortedKeys(v reflect.Value) []string {
	keys := make([]string, 0, v.Len())
	for _, key := range v.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	return keys
}

// leaf tells whether values of a type have no parts.
func leaf(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[intstr.IntOrString]():
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Pointer, reflect.Slice, reflect.Map:
		return false
	}
	return true
}

// jsonName is how a field is written; inline is true for one whose fields stand in its place.
func jsonName(f reflect.StructField) (name string, inline bool) {
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	return name, f.Anonymous && name == ""
}

func written(v any) bool { return writtenValue(reflect.ValueOf(v)) }

// writtenValue tells whether anything is said in v. A pointer to a plain value says something whatever the value is.
func writtenValue(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Invalid:
		return false
	case reflect.Pointer:
		return !v.IsNil() && (leaf(v.Type().Elem()) || writtenValue(v.Elem()))
	case reflect.Slice:
		for i := range v.Len() {
			if leaf(v.Type().Elem()) || writtenValue(v.Index(i)) {
				return true
			}
		}
		return false
	case reflect.Map:
		return v.Len() > 0
	case reflect.Struct:
		if leaf(v.Type()) {
			return !v.IsZero()
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && writtenValue(v.Field(i)) {
				return true
			}
		}
		return false
	}
	return !v.IsZero()
}
