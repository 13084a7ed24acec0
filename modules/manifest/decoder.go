package manifest

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/modules/manifest/suggestion"
)

// Limits of a document, against aliases that multiply and nesting that exhausts the stack.
const (
	maxDepth = 64
	maxNodes = 50_000
)

// decoder reads YAML into the structs of this package by their tags:
//
//	yaml      the field's name
//	required  "true": it must be written
//	default   what it is when it is not written
//	derived   how its default is made from other fields (the validation makes it)
//	values    the words it may be, separated by |
//	format    what its text must be, see formats
//	min, max  the bounds of a number
//	doc       what it means; the reference is made of it
//
// The decoder of the YAML package stops at the first error of a kind and knows no lines of missing fields; an admin
// wants all of them at once.
type decoder struct {
	file      string
	issues    *Issues
	positions map[string]Position // of one document
	nodes     int
}

func (d *decoder) at(node *yaml.Node) Position {
	return Position{File: d.file, Line: node.Line, Column: node.Column}
}

// enter resolves aliases, counts the node and records its place. ok is false when a limit is passed.
func (d *decoder) enter(node *yaml.Node, path string, depth int) (resolved *yaml.Node, ok bool) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.issues.add(d.at(node), path, "the document is too large once its aliases are resolved")
		}
		return nil, false
	}
	if depth > maxDepth {
		d.issues.add(d.at(node), path, "nested too deeply")
		return nil, false
	}
	d.positions[path] = d.at(node)
	for hops := 0; node.Kind == yaml.AliasNode; hops++ {
		if node.Alias == nil || hops > maxDepth {
			d.issues.add(d.at(node), path, "an alias without an anchor")
			return nil, false
		}
		node = node.Alias
	}
	return node, true
}

func (d *decoder) decode(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag, depth int) {
	node, ok := d.enter(node, path, depth)
	if !ok {
		return
	}
	if isNull(node) {
		if tag.Get("required") == "true" {
			d.issues.add(d.at(node), path, "is required%s", hint(tag))
		}
		setDefaults(v, tag)
		return
	}
	if unmarshaler, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		text, ok := d.scalar(node, path, "!!str", "a string")
		if ok && d.checkText(node, text, path, tag) {
			if err := unmarshaler.UnmarshalText([]byte(text)); err != nil {
				d.issues.add(d.at(node), path, "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(node, v, path, nil, depth)
	case reflect.Slice:
		d.decodeSlice(node, v, path, tag, depth)
	case reflect.Map:
		d.decodeMap(node, v, path, tag, depth)
	case reflect.Pointer: // written or not is told apart
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(node, v.Elem(), path, tag, depth+1)
	case reflect.String:
		if text, ok := d.scalar(node, path, "!!str", "a string"); ok && d.checkText(node, text, path, tag) {
			v.SetString(text)
		}
	case reflect.Bool:
		if text, ok := d.scalar(node, path, "!!bool", "true or false"); ok {
			v.SetBool(strings.EqualFold(text, "true"))
		}
	case reflect.Int:
		d.decodeInt(node, v, path, tag)
	default:
		panic(fmt.Sprintf("manifest: %s: no rule to decode %s", path, v.Type()))
	}
}

func (d *decoder) decodeInt(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) {
	text, ok := d.scalar(node, path, "!!int", "a whole number")
	if !ok {
		return
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		d.issues.add(d.at(node), path, "must be a whole number in decimal, not %q", text)
		return
	}
	low, lowErr := strconv.Atoi(tag.Get("min"))
	high, highErr := strconv.Atoi(tag.Get("max"))
	if (lowErr == nil && n < low) || (highErr == nil && n > high) {
		d.issues.add(d.at(node), path, "must be from %s to %s, not %d", tag.Get("min"), tag.Get("max"), n)
		return
	}
	v.SetInt(int64(n))
}

func (d *decoder) decodeSlice(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.issues.add(d.at(node), path, "must be a list, not %s", describe(node))
		return
	}
	if len(node.Content) == 0 && tag.Get("required") == "true" {
		d.issues.add(d.at(node), path, "must have at least one entry%s", hint(tag))
		return
	}
	for i, item := range node.Content {
		entry := reflect.New(v.Type().Elem()).Elem()
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		if isNull(item) {
			d.issues.add(d.at(item), itemPath, "must not be empty")
			continue
		}
		before := len(*d.issues)
		d.decode(item, entry, itemPath, tag, depth+1)
		if len(*d.issues) == before && entry.Kind() == reflect.String && contains(v, entry) {
			d.issues.add(d.at(item), itemPath, "%q is there already", entry.String())
		}
		v.Set(reflect.Append(v, entry))
	}
}

func contains(list, entry reflect.Value) bool {
	for i := range list.Len() {
		if list.Index(i).String() == entry.String() {
			return true
		}
	}
	return false
}

func (d *decoder) decodeMap(node *yaml.Node, v reflect.Value, path string, tag reflect.StructTag, depth int) {
	if node.Kind != yaml.MappingNode {
		d.issues.add(d.at(node), path, "must be a mapping, not %s", describe(node))
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(node.Content)/2))
	d.pairs(node, path, func(key string, _, value *yaml.Node) {
		entry := reflect.New(v.Type().Elem()).Elem()
		entryPath := path + "." + key
		if isNull(value) {
			d.issues.add(d.at(value), entryPath, "must be a string, not empty; write \"\" for an empty one")
			return
		}
		d.decode(value, entry, entryPath, tag, depth+1)
		v.SetMapIndex(reflect.ValueOf(key), entry)
	})
}

// decodeStruct reads a mapping into a struct; keys in known are read elsewhere.
func (d *decoder) decodeStruct(node *yaml.Node, v reflect.Value, path string, known []string, depth int) {
	if node.Kind != yaml.MappingNode {
		d.issues.add(d.at(node), path, "must be a mapping, not %s", describe(node))
		return
	}
	names := append([]string(nil), known...)
	fields := map[string]int{}
	for i := range v.NumField() {
		if name := fieldName(v.Type().Field(i)); name != "" {
			fields[name] = i
			names = append(names, name)
		}
	}
	written := map[string]bool{}
	d.pairs(node, path, func(key string, keyNode, value *yaml.Node) {
		written[key] = true
		i, ok := fields[key]
		switch {
		case ok:
			d.decode(value, v.Field(i), join(path, key), v.Type().Field(i).Tag, depth+1)
		case !has(known, key):
			d.issues.add(d.at(keyNode), join(path, key), "unknown field%s", orOneOf(key, names))
		}
	})
	for _, name := range names {
		i, ok := fields[name]
		if !ok || written[name] {
			continue
		}
		tag := v.Type().Field(i).Tag
		if tag.Get("required") == "true" {
			d.issues.add(d.at(node), join(path, name), "is required%s", hint(tag))
		}
		setDefaults(v.Field(i), tag)
	}
}

// pairs gives each key with its value once, and refuses what YAML allows and a reader of the file overlooks.
func (d *decoder) pairs(node *yaml.Node, path string, each func(key string, keyNode, value *yaml.Node)) {
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			d.issues.add(d.at(key), path, "merge keys (<<) are not supported; write the fields out")
			continue
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.issues.add(d.at(key), path, "a key must be a string, not %s", describe(key))
			continue
		}
		if line, ok := first[key.Value]; ok {
			d.issues.add(d.at(key), join(path, key.Value), "duplicate key; the first is on line %d", line)
			continue
		}
		first[key.Value] = key.Line
		each(key.Value, key, value)
	}
}

// scalar is the text of a scalar of the type that tag stands for.
func (d *decoder) scalar(node *yaml.Node, path, tag, what string) (string, bool) {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == tag {
		return node.Value, true
	}
	message := fmt.Sprintf("must be %s, not %s", what, describe(node))
	if node.Kind == yaml.ScalarNode && tag == "!!str" {
		message += fmt.Sprintf("; write %q in quotes", node.Value)
	}
	d.issues.add(d.at(node), path, "%s", message)
	return "", false
}

// checkText holds a text against its field's values and format.
func (d *decoder) checkText(node *yaml.Node, text, path string, tag reflect.StructTag) bool {
	if values := tag.Get("values"); values != "" {
		if words := strings.Split(values, "|"); !has(words, text) {
			d.issues.add(d.at(node), path, "unknown value %q%s", text, orOneOf(text, words))
			return false
		}
	}
	format := tag.Get("format")
	if format == "" {
		return true
	}
	problems := formats[format].check(text)
	for _, p := range problems {
		at := d.at(node)
		// A block's first line is the one below its indicator; where CEL counts lines, so can the file.
		if p.line > 0 && node.Style&yaml.LiteralStyle != 0 {
			at.Line, at.Column = at.Line+p.line, 0
		}
		d.issues.add(at, path, "%s", p.message)
	}
	return len(problems) == 0
}

// setDefaults gives a field that was not written its default, and those inside it theirs.
func setDefaults(v reflect.Value, tag reflect.StructTag) {
	text, ok := tag.Lookup("default")
	if unmarshaler, isText := v.Addr().Interface().(encoding.TextUnmarshaler); isText {
		if ok {
			must(unmarshaler.UnmarshalText([]byte(text)))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); fieldName(field) != "" {
				setDefaults(v.Field(i), field.Tag)
			}
		}
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(text == "true")
	case reflect.Int:
		if ok {
			n, err := strconv.Atoi(text)
			must(err)
			v.SetInt(int64(n))
		}
	default: // lists and mappings have no defaults
	}
}

// must is for the tags of this package, which the tests walk.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("manifest: a default is wrong: %v", err))
	}
}

// fieldName is the field's name in YAML; "" for fields that are not of the document.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func has(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func isNull(node *yaml.Node) bool {
	return node.Kind == 0 || (node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null")
}

func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
	}
	switch node.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!str":
		return "a string"
	case "!!null":
		return "nothing"
	}
	return "a value of type " + node.ShortTag()
}

// orOneOf suggests the nearest word, or lists all of them.
func orOneOf(word string, words []string) string {
	if s := suggestion.DidYouMean(word, words); s != "" {
		return s
	}
	return "; known are " + strings.Join(words, ", ")
}

func oneOf(words []string) string { return "one of " + strings.Join(words, ", ") }

func hint(tag reflect.StructTag) string {
	if values := tag.Get("values"); values != "" {
		return ": " + oneOf(strings.Split(values, "|"))
	}
	if example := formats[tag.Get("format")].example; example != "" {
		return ": " + example
	}
	return ""
}

func suggest(word string, words []string) string { return suggestion.DidYouMean(word, words) }
