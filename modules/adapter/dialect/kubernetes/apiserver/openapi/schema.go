package openapi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// node is an object of a document.
type node = map[string]any

// builder makes a document of one version of OpenAPI. What is referred to gathers in its definitions.
type builder struct {
	version     int
	definitions node
	kinds       map[string][]schema.GroupVersionKind // by name of the definition
	merging     merging
}

func newBuilder(version int) *builder {
	return &builder{version: version, definitions: node{}, kinds: kinds(), merging: mergingOf()}
}

// What types of the API tell of themselves.
type (
	named      interface{ OpenAPIModelName() string }
	documented interface{ SwaggerDoc() map[string]string }
	written    interface { // as something else than their fields
		OpenAPISchemaType() []string
		OpenAPISchemaFormat() string
	}
	writtenInWays interface{ OpenAPIV3OneOfTypes() []string }
)

// opaque are types that hold any object.
var opaque = []reflect.Type{reflect.TypeFor[metav1.FieldsV1](), reflect.TypeFor[runtime.RawExtension](), reflect.TypeFor[metav1.Patch]()}

// zero is a value of a type, to ask what the type tells.
func zero(t reflect.Type) any { return reflect.Zero(t).Interface() }

// schemaOf is the schema of values of a type. Structs are referred to.
func (b *builder) schemaOf(t reflect.Type) node {
	switch t.Kind() {
	case reflect.Pointer:
		return b.schemaOf(t.Elem())
	case reflect.Struct:
		return b.refer(t)
	case reflect.String:
		return node{"type": "string"}
	case reflect.Bool:
		return node{"type": "boolean"}
	case reflect.Int, reflect.Int32:
		return node{"type": "integer", "format": "int32"}
	case reflect.Int64:
		return node{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return node{"type": "number", "format": "double"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return node{"type": "string", "format": "byte"}
		}
		return node{"type": "array", "items": b.element(t.Elem())}
	case reflect.Map:
		return node{"type": "object", "additionalProperties": b.element(t.Elem())}
	default:
		panic(fmt.Sprintf("openapi: no schema for %s", t))
	}
}

// element is the schema of what a list or a map holds.
func (b *builder) element(t reflect.Type) node {
	more := node{}
	if value, ok := defaultOf(t, true); ok {
		more["default"] = value
	}
	return b.with(b.schemaOf(t), more)
}

// defaultOf is what stands where an object has nothing, as the API server tells it: for structs always, for what is
// simple where it must be there.
func defaultOf(t reflect.Type, required bool) (any, bool) {
	switch t.Kind() {
	case reflect.Struct:
		_, other := zero(t).(written)
		return node{}, !other && !slices.Contains(opaque, t)
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
		return zero(t), required
	default:
		return nil, false
	}
}

// with adds to a schema. In version 3 nothing may stand beside a reference.
func (b *builder) with(s, more node) node {
	if len(more) == 0 {
		return s
	}
	if _, reference := s["$ref"]; reference && b.version > 2 {
		s = node{"allOf": []any{s}}
	}
	for key, value := range more {
		s[key] = value
	}
	return s
}

// refer refers to the definition of a struct, and makes it.
func (b *builder) refer(t reflect.Type) node {
	model, ok := zero(t).(named)
	if !ok {
		panic(fmt.Sprintf("openapi: %s has no name", t))
	}
	name := model.OpenAPIModelName()
	if _, known := b.definitions[name]; !known {
		b.definitions[name] = nil // types may refer to themselves
		b.definitions[name] = b.define(name, t)
	}
	if b.version == 2 {
		return node{"$ref": "#/definitions/" + name}
	}
	return node{"$ref": "#/components/schemas/" + name}
}

func (b *builder) define(name string, t reflect.Type) node {
	definition := node{"type": "object"}
	if doc := docOf(t)[""]; doc != "" {
		definition["description"] = doc
	}
	if slices.Contains(opaque, t) {
		return definition
	}
	if w, ok := zero(t).(written); ok {
		return b.defineWritten(definition, w)
	}
	fields, required := node{}, []string{}
	b.addFields(name, t, fields, &required)
	definition["properties"] = fields
	if len(required) > 0 {
		definition["required"] = required
	}
	if b.merging.atomic(name) {
		definition["x-kubernetes-map-type"] = "atomic"
	}
	if kinds := b.kinds[name]; len(kinds) > 0 {
		var list []any
		for _, k := range kinds {
			list = append(list, kindNode(k))
		}
		definition["x-kubernetes-group-version-kind"] = list
	}
	return definition
}

// defineWritten defines a type that is written as a string, or as one of several simple things.
func (b *builder) defineWritten(definition node, w written) node {
	if format := w.OpenAPISchemaFormat(); format != "" {
		definition["format"] = format
	}
	if ways, ok := w.(writtenInWays); ok && b.version > 2 {
		delete(definition, "type")
		var list []any
		for _, way := range ways.OpenAPIV3OneOfTypes() {
			list = append(list, node{"type": way})
		}
		definition["oneOf"] = list
		return definition
	}
	definition["type"] = w.OpenAPISchemaType()[0]
	return definition
}

func kindNode(k schema.GroupVersionKind) node {
	return node{"group": k.Group, "version": k.Version, "kind": k.Kind}
}

func docOf(t reflect.Type) map[string]string {
	if d, ok := zero(t).(documented); ok {
		return d.SwaggerDoc()
	}
	return nil
}

// addFields adds the fields of a struct, and those of structs in it that have no name, to the definition of a name.
func (b *builder) addFields(name string, t reflect.Type, fields node, required *[]string) {
	doc := docOf(t)
	for i := range t.NumField() {
		f := t.Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case key == "-" || !f.IsExported():
			continue
		case key == "" && f.Anonymous:
			b.addFields(name, f.Type, fields, required)
			continue
		}
		needed := options == ""
		if is, told := presence[name][key]; told {
			needed = is
		}
		more := node{}
		if text := doc[key]; text != "" {
			more["description"] = text
		}
		if value, ok := defaultOf(f.Type, options == ""); ok {
			more["default"] = value
		}
		b.merging.add(more, name, key)
		for tag, extension := range map[string]string{"patchStrategy": "x-kubernetes-patch-strategy", "patchMergeKey": "x-kubernetes-patch-merge-key"} {
			if value := f.Tag.Get(tag); value != "" {
				more[extension] = value
			}
		}
		fields[key] = b.with(b.schemaOf(f.Type), more)
		if needed {
			*required = append(*required, key)
		}
	}
}

// presence tells of fields whether a manifest must have them, where their types say otherwise than by being left away when
// empty: in comments, which cannot be read here.
var presence = map[string]map[string]bool{
	"io.k8s.api.core.v1.ContainerImage":                  {"names": false},
	"io.k8s.api.core.v1.ContainerRestartRule":            {"action": true},
	"io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes": {"operator": true},
	"io.k8s.api.core.v1.Event":                           {"reportingComponent": false, "reportingInstance": false},
	"io.k8s.api.core.v1.GRPCAction":                      {"service": false},
	"io.k8s.api.core.v1.NodeRuntimeHandler":              {"name": false},
	"io.k8s.api.core.v1.PodCertificateProjection":        {"keyType": true, "signerName": true},
	"io.k8s.api.core.v1.ProjectedVolumeSource":           {"sources": false},
	"io.k8s.api.core.v1.TypedLocalObjectReference":       {"apiGroup": false},
	"io.k8s.api.core.v1.TypedObjectReference":            {"apiGroup": false},
	"io.k8s.api.discovery.v1.EndpointSlice":              {"ports": false},
}
