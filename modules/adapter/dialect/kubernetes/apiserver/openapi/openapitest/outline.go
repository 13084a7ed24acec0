// Package openapitest outlines OpenAPI documents, so that those of two servers can be compared.
package openapitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Outline is what clients go by in a document: of each schema the fields with their types, whether they are needed, and
// how they are merged; of each operation its action, kind and parameters. Both are in lines.
type Outline struct {
	Schemas    map[string]map[string]string // by the name of the schema and that of the field
	Operations map[string]Operation         // by method and path
}

// Operation is one.
type Operation struct {
	Does       string   `json:"does"`
	Parameters []string `json:"parameters"`
}

// Of outlines a document of version 3.
func Of(text []byte) (Outline, error) {
	o := Outline{Schemas: map[string]map[string]string{}, Operations: map[string]Operation{}}
	var document spec3.OpenAPI
	if err := json.Unmarshal(text, &document); err != nil {
		return o, err
	}
	for name, s := range document.Components.Schemas {
		fields := map[string]string{"": join(typeOf(*s), extensions(s.Extensions))}
		for field, f := range s.Properties {
			needed := ""
			if slices.Contains(s.Required, field) {
				needed = "required"
			}
			fields[field] = join(typeOf(f), needed, extensions(f.Extensions))
		}
		o.Schemas[name] = fields
	}
	for path, item := range document.Paths.Paths {
		for method, operation := range map[string]*spec3.Operation{"get": item.Get, "put": item.Put, "post": item.Post, "patch": item.Patch, "delete": item.Delete} {
			if operation == nil {
				continue
			}
			one := Operation{Does: join(operation.OperationId, fmt.Sprint(operation.Extensions["x-kubernetes-action"]), kind(operation.Extensions))}
			for _, p := range slices.Concat(item.Parameters, operation.Parameters) {
				one.Parameters = append(one.Parameters, p.In+":"+p.Name)
			}
			slices.Sort(one.Parameters)
			o.Operations[method+" "+path] = one
		}
	}
	return o, nil
}

func join(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// typeOf is a type in a word.
func typeOf(s spec.Schema) string {
	switch {
	case s.Ref.String() != "":
		return strings.TrimPrefix(s.Ref.String(), "#/components/schemas/")
	case len(s.AllOf) == 1:
		return typeOf(s.AllOf[0])
	case len(s.OneOf) > 0:
		var ways []string
		for _, way := range s.OneOf {
			ways = append(ways, typeOf(way))
		}
		return strings.Join(s.Type, "|") + "one of " + strings.Join(ways, ", ") + format(s)
	case s.Items != nil:
		return "[]" + typeOf(*s.Items.Schema)
	case s.AdditionalProperties != nil:
		return "map:" + typeOf(*s.AdditionalProperties.Schema)
	default:
		return strings.Join(s.Type, "|") + format(s)
	}
}

func format(s spec.Schema) string {
	if s.Format == "" {
		return ""
	}
	return "/" + s.Format
}

// extensions are those that tell how a field is merged.
func extensions(all spec.Extensions) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if short, ok := strings.CutPrefix(name, "x-kubernetes-"); ok && (strings.HasPrefix(short, "list-") || strings.HasPrefix(short, "map-") || strings.HasPrefix(short, "patch-")) {
			words = append(words, short+"="+strings.Join(strings.Fields(fmt.Sprint(all[name])), ","))
		}
	}
	return strings.Join(words, " ")
}

func kind(extensions spec.Extensions) string {
	var k struct{ Group, Version, Kind string }
	if extensions.GetObject("x-kubernetes-group-version-kind", &k) != nil || k.Kind == "" {
		return ""
	}
	return k.Group + "/" + k.Version + "/" + k.Kind
}

// Difference is one that matters between what two servers tell.
type Difference struct{ Where, Ours, Theirs string }

// Compare finds what of ours is otherwise than theirs. That there is more in theirs of operations and parameters, and
// that ours has fields and schemas of a newer release, is no difference.
func Compare(ours, theirs Outline) []Difference {
	var all []Difference
	for _, name := range slices.Sorted(maps.Keys(theirs.Schemas)) {
		fields, ok := ours.Schemas[name]
		if !ok {
			continue
		}
		for _, field := range slices.Sorted(maps.Keys(theirs.Schemas[name])) {
			if a, b := fields[field], theirs.Schemas[name][field]; a != b {
				all = append(all, Difference{name + "." + field, a, b})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours.Operations)) {
		a, b := ours.Operations[name], theirs.Operations[name]
		if a.Does != b.Does {
			all = append(all, Difference{name, a.Does, b.Does})
		}
		for _, p := range a.Parameters {
			if !slices.Contains(b.Parameters, p) {
				all = append(all, Difference{Where: name, Ours: p})
			}
		}
	}
	return all
}

// Limit leaves of an outline what another has too.
func (o Outline) Limit(to Outline) {
	maps.DeleteFunc(o.Schemas, func(name string, _ map[string]string) bool { _, ok := to.Schemas[name]; return !ok })
	maps.DeleteFunc(o.Operations, func(name string, _ Operation) bool { _, ok := to.Operations[name]; return !ok })
}
