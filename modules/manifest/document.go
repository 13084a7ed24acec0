package manifest

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

// origin remembers where a document and its fields were written.
type origin struct {
	document Position
	fields   map[string]Position
}

// Position is where the document begins.
func (o origin) Position() Position { return o.document }

// At is where a field was written, or else the nearest field around it.
func (o origin) At(path string) Position {
	for {
		if at, ok := o.fields[path]; ok {
			return at
		}
		if path == "" {
			return o.document
		}
		path = parent(path)
	}
}

func parent(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}

func (o *origin) place() *origin { return o }

// document is what the kinds have in common.
type document interface{ place() *origin }

// kinds are the kinds of document, in the order of the reference.
var kinds = []struct {
	name string
	doc  string
	make func() document
	keep func(*Set, document)
}{
	{"Gateway", "What this gateway is. Exactly one.",
		func() document { return &Gateway{} },
		func(s *Set, d document) { s.gateways = append(s.gateways, *d.(*Gateway)) }},
	{"Peer", "Another cluster's gateway. One document each.",
		func() document { return &Peer{} },
		func(s *Set, d document) { s.Peers = append(s.Peers, *d.(*Peer)) }},
	{"AccessPolicy", "Who may do what in this cluster. Nothing is allowed that no policy allows.",
		func() document { return &AccessPolicy{} },
		func(s *Set, d document) { s.Policies = append(s.Policies, *d.(*AccessPolicy)) }},
}

func kindNames() []string {
	names := make([]string, len(kinds))
	for i := range kinds {
		names[i] = kinds[i].name
	}
	return names
}

// header is what tells a document's kind. It is read before the rest.
var header = []string{"apiVersion", "kind"}

// decodeDocument reads one YAML document into the set.
func (d *decoder) decodeDocument(root *yaml.Node, set *Set) {
	if root.Kind == yaml.DocumentNode {
		if len(root.Content) == 0 {
			return
		}
		root = root.Content[0]
	}
	if isNull(root) {
		return // an empty document between two ---
	}
	at := d.at(root)
	if root.Kind != yaml.MappingNode {
		d.issues.add(at, "", "a document is a mapping with apiVersion, kind, metadata and spec, not %s", describe(root))
		return
	}
	words := map[string]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		for _, h := range header {
			if key.Value != h {
				continue
			}
			if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" {
				d.issues.add(d.at(value), h, "must be a string, not %s", describe(value))
				return
			}
			words[h] = value.Value
			d.positions[h] = d.at(value)
		}
	}
	version, kind := words["apiVersion"], words["kind"]
	if version == "" {
		d.issues.add(at, "apiVersion", "is required: %s", APIVersion)
	} else if version != APIVersion {
		d.issues.add(d.positions["apiVersion"], "apiVersion", "unknown version %q; this isthmus knows %s", version, APIVersion)
	}
	if kind == "" {
		d.issues.add(at, "kind", "is required: %s", oneOf(kindNames()))
		return
	}
	for _, k := range kinds {
		if k.name != kind {
			continue
		}
		doc := k.make()
		d.decodeStruct(root, reflect.ValueOf(doc).Elem(), "", header, 0)
		doc.place().document, doc.place().fields = at, d.positions
		k.keep(set, doc)
		return
	}
	at = d.positions["kind"]
	d.issues.add(at, "kind", "unknown kind %q%s", kind, orOneOf(kind, kindNames()))
}
