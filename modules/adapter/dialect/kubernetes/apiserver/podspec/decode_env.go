package podspec

import (
	"math"
	"reflect"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// environment reads the variables. Those of whole objects come first, as a kubelet has it.
func (d *decoding) environment(c *corev1.Container, at *field.Path) {
	for i := range c.EnvFrom {
		from, path := &c.EnvFrom[i], at.Child("envFrom").Index(i)
		switch {
		case from.ConfigMapRef != nil && from.SecretRef == nil:
			ref := take(&from.ConfigMapRef)
			d.variable(take(&from.Prefix), Reference{Kind: neutral.KindConfig, Name: ref.Name, Optional: said(ref.Optional),
				Path: path.Child("configMapRef")})
		case from.SecretRef != nil && from.ConfigMapRef == nil:
			d.refuse(path.Child("secretRef"), reasonSecret)
			*from = corev1.EnvFromSource{}
		default:
			d.refuse(path, "it names no object, or two")
			*from = corev1.EnvFromSource{}
		}
	}
	for i := range c.Env {
		v, path := &c.Env[i], at.Child("env").Index(i)
		if v.ValueFrom == nil {
			d.out.Variables = append(d.out.Variables, Variable{Name: take(&v.Name), Value: take(&v.Value)})
			continue
		}
		d.valueFrom(c, v, path.Child("valueFrom"))
	}
}

// valueFrom reads a variable whose value is elsewhere.
func (d *decoding) valueFrom(c *corev1.Container, v *corev1.EnvVar, at *field.Path) {
	from, name := v.ValueFrom, v.Name
	if v.Value != "" || sources(from) != 1 {
		d.refuse(at, "it has no source, or two")
		*v = corev1.EnvVar{}
		return
	}
	*v = corev1.EnvVar{}
	switch {
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		d.variable(name, Reference{Kind: neutral.KindConfig, Name: ref.Name, Key: ref.Key, Optional: said(ref.Optional), Path: at.Child("configMapKeyRef")})
	case from.SecretKeyRef != nil:
		d.refuse(at.Child("secretKeyRef"), reasonSecret)
	case from.FieldRef != nil:
		value, ok := d.fieldValue(from.FieldRef.FieldPath)
		if !ok || from.FieldRef.APIVersion != "v1" {
			d.refuse(at.Child("fieldRef"), reasonDownward)
			return
		}
		d.out.Variables = append(d.out.Variables, Variable{Name: name, Value: expansion.Escape(value)})
	case from.ResourceFieldRef != nil:
		value, ok := d.resourceValue(c, from.ResourceFieldRef)
		if !ok {
			d.refuse(at.Child("resourceFieldRef"), "without a limit or request of its own it is what a node has, which is not known before there is a Pod")
			return
		}
		d.out.Variables = append(d.out.Variables, Variable{Name: name, Value: expansion.Escape(value)})
	default:
		d.refuse(at, "no other container could have written the file")
	}
}

// sources counts where a value is to come from.
func sources(from *corev1.EnvVarSource) int {
	count := 0
	for v, i := reflect.ValueOf(from).Elem(), 0; i < v.NumField(); i++ {
		if !v.Field(i).IsNil() {
			count++
		}
	}
	return count
}

func (d *decoding) variable(name string, from Reference) {
	d.out.Variables = append(d.out.Variables, Variable{Name: name, From: &from})
}

func said(flag *bool) bool { return flag != nil && *flag }

// fieldValue reads a field of the Pod itself, as far as it is known before there is a Pod.
func (d *decoding) fieldValue(fieldPath string) (string, bool) {
	object := &d.target.Object
	switch fieldPath {
	case "metadata.name":
		return object.Name, object.Name != ""
	case "metadata.namespace":
		return object.Namespace, object.Namespace != ""
	case "spec.serviceAccountName":
		return "default", d.written.ServiceAccountName == "" && d.written.DeprecatedServiceAccount == "" || d.written.ServiceAccountName == "default"
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels['": object.Labels, "metadata.annotations['": object.Annotations} {
		if key, ok := strings.CutPrefix(fieldPath, prefix); ok {
			key, ok = strings.CutSuffix(key, "']")
			return values[key], ok
		}
	}
	return "", false
}

// resourceValue reads a limit or a request of the container itself. Without one it would be what its node has.
func (d *decoding) resourceValue(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, bool) {
	list, name, _ := strings.Cut(ref.Resource, ".")
	quantity, ok := c.Resources.Limits[corev1.ResourceName(name)]
	if request, asked := c.Resources.Requests[corev1.ResourceName(name)]; list == "requests" && asked {
		quantity, ok = request, true
	}
	if !ok || list != "limits" && list != "requests" || ref.ContainerName != "" && ref.ContainerName != d.out.Name {
		return "", false
	}
	divisor := ref.Divisor
	if corev1.ResourceName(name) == corev1.ResourceCPU {
		thousandths := divisor.MilliValue()
		if divisor.IsZero() {
			thousandths = 1000
		}
		return divided(quantity.MilliValue(), thousandths)
	}
	whole := divisor.Value()
	if divisor.IsZero() {
		whole = 1
	}
	return divided(quantity.Value(), whole)
}

// divided rounds up.
func divided(value, by int64) (string, bool) {
	if by <= 0 {
		return "", false
	}
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(by))), 10), true
}
