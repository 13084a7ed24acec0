package openapi

import (
	"reflect"
	"strconv"
	"strings"
)

// Parameters of queries, by what they are understood for. What they mean, their types' documentation tells.
var (
	listParameters   = []string{"continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "timeoutSeconds"}
	watchParameters  = []string{"allowWatchBookmarks", "watch"}
	writeParameters  = []string{"dryRun", "fieldManager", "fieldValidation"}
	deleteParameters = []string{"dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"}
)

// query are parameters that a struct of options has as fields; all of them if none is named.
func (b *builder) query(options any, names ...string) []any {
	t := reflect.TypeOf(options)
	doc := docOf(t)
	fields := map[string]reflect.Type{}
	var all []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = t.Field(i).Type
			all = append(all, name)
		}
	}
	if len(names) == 0 {
		names = all
	}
	var list []any
	for _, name := range names {
		t, ok := fields[name]
		if !ok {
			panic("openapi: no parameter " + name)
		}
		list = append(list, b.parameter(name, "query", doc[name], simple(t)))
	}
	return list
}

// simple is the type of a parameter. Of a list, each element is a parameter.
func simple(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return simple(t.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.Int32, reflect.Int64:
		return "integer"
	default: // times too
		return "string"
	}
}

func (b *builder) parameter(name, in, description, kind string) node {
	p := node{"name": name, "in": in, "description": description}
	if in == "path" {
		p["required"] = true
	}
	if b.version == 2 {
		p["type"], p["uniqueItems"] = kind, true
	} else {
		p["schema"] = node{"type": kind, "uniqueItems": true}
	}
	return p
}

// pathParameters are what a path has in braces.
func (b *builder) pathParameters(path string) []any {
	var all []any
	if strings.Contains(path, "{name}") {
		all = append(all, b.parameter("name", "path", "The name of the object.", "string"))
	}
	if strings.Contains(path, "{namespace}") {
		all = append(all, b.parameter("namespace", "path", "The namespace of the object.", "string"))
	}
	return all
}

func codeText(code int) string { return strconv.Itoa(code) }
