package manifest

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// Field is one field of a kind of document.
type Field struct {
	Path     string // "spec.listeners.peer"; [] stands for an entry of a list
	Type     string
	Default  string
	Required bool
	Meaning  string
}

// Kind describes a kind of document.
type Kind struct {
	Name    string
	Meaning string
	Fields  []Field
}

// Kinds describes every kind of document.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds))
	for _, k := range kinds {
		fields := []Field{
			{Path: "apiVersion", Type: "`" + APIVersion + "`", Required: true, Meaning: "The version of the document."},
			{Path: "kind", Type: "`" + k.name + "`", Required: true, Meaning: "The kind of the document."},
		}
		t := reflect.TypeOf(k.make()).Elem()
		all = append(all, Kind{Name: k.name, Meaning: k.doc, Fields: fieldsOf(fields, t, "")})
	}
	return all
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func fieldsOf(fields []Field, t reflect.Type, path string) []Field {
	for i := range t.NumField() {
		f := t.Field(i)
		name := fieldName(f)
		if name == "" {
			continue
		}
		field := Field{
			Path: join(path, name), Type: typeName(f.Type, f.Tag), Required: f.Tag.Get("required") == "true",
			Default: f.Tag.Get("default"), Meaning: f.Tag.Get("doc"),
		}
		if d := f.Tag.Get("derived"); d != "" {
			field.Default = d
		}
		fields = append(fields, field)
		inner, suffix := f.Type, ""
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Slice {
			inner, suffix = inner.Elem(), "[]"
		}
		if inner.Kind() == reflect.Struct && !reflect.PointerTo(inner).Implements(textUnmarshaler) {
			fields = fieldsOf(fields, inner, join(path, name)+suffix)
		}
	}
	return fields
}

func typeName(t reflect.Type, tag reflect.StructTag) string {
	if values := tag.Get("values"); values != "" {
		words := "`" + strings.ReplaceAll(values, "|", "`, `") + "`"
		if t.Kind() == reflect.Slice {
			return "list of " + words
		}
		return words
	}
	text := "string"
	if f := tag.Get("format"); f != "" {
		text = formats[f].doc
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return text
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem(), tag)
	case reflect.Struct:
		return "mapping"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "list of mappings"
		}
		return "list of " + text
	case reflect.Map:
		return "mapping of string to " + text
	case reflect.Int:
		return fmt.Sprintf("number, %s to %s", tag.Get("min"), tag.Get("max"))
	case reflect.Bool:
		return "boolean"
	default:
		return text
	}
}

// Explain describes a kind or a field of it, "gateway.spec.listeners", with what is inside it.
func Explain(path string) (string, error) {
	name, rest, _ := strings.Cut(path, ".")
	rest = strings.ReplaceAll(rest, "[]", "")
	for _, k := range Kinds() {
		if !strings.EqualFold(k.Name, name) {
			continue
		}
		var b strings.Builder
		if rest == "" {
			fmt.Fprintf(&b, "%s (%s)\n  %s\n", k.Name, APIVersion, k.Meaning)
		}
		var siblings []string
		for _, f := range k.Fields {
			plain := strings.ReplaceAll(f.Path, "[]", "")
			if parent(plain) == parent(rest) {
				siblings = append(siblings, last(plain))
			}
			if rest != "" && plain != rest && !strings.HasPrefix(plain, rest+".") {
				continue
			}
			indent := strings.Repeat("  ", strings.Count(f.Path, "."))
			fmt.Fprintf(&b, "%s%s <%s>%s\n%s    %s\n", indent, f.Path, strings.ReplaceAll(f.Type, "`", ""), f.remark(), indent, f.Meaning)
		}
		if b.Len() == 0 {
			return "", fmt.Errorf("%s has no field %s%s", k.Name, rest, suggest(last(rest), siblings))
		}
		return b.String(), nil
	}
	return "", fmt.Errorf("no kind %q%s", name, orOneOf(name, kindNames()))
}

// last is a path's last name.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func (f Field) remark() string {
	switch {
	case f.Required:
		return " required"
	case f.Default != "":
		return " default " + f.Default
	}
	return ""
}
