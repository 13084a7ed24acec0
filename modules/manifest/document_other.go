package manifest

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is a document of a kind that is none of a gateway's own.
type Document[T any] struct {
	Value T

	origin
}

// Documents reads files that hold documents of one other kind, as strictly as a gateway's own: T is a struct with the
// tags that this package's documents have. Its error is Issues, all that were found.
func Documents[T any](kind string, paths ...string) ([]Document[T], error) {
	sources, issues := read(paths)
	var documents []Document[T]
	for _, s := range sources {
		eachDocument(s, &issues, func(d *decoder, root *yaml.Node) {
			if found, ok := decodeOther[T](d, kind, root); ok {
				documents = append(documents, found)
			}
		})
	}
	if err := issues.err(); err != nil {
		return nil, err
	}
	return documents, nil
}

func decodeOther[T any](d *decoder, kind string, root *yaml.Node) (Document[T], bool) {
	var document Document[T]
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		root = root.Content[0]
	}
	if root.Kind == yaml.DocumentNode || isNull(root) {
		return document, false
	}
	at := d.at(root)
	if root.Kind != yaml.MappingNode {
		d.issues.add(at, "", "a document is a mapping with apiVersion, kind, metadata and spec, not %s", describe(root))
		return document, false
	}
	words := map[string]string{"apiVersion": APIVersion, "kind": kind}
	for _, h := range header {
		node := valueOf(root, h)
		switch {
		case node == nil:
			d.issues.add(at, h, "is required: %s", words[h])
		case node.Kind != yaml.ScalarNode || node.Value != words[h]:
			d.issues.add(d.at(node), h, "must be %s here, not %q", words[h], node.Value)
			if h == "kind" {
				return document, false // its fields are another kind's
			}
		}
	}
	d.decodeStruct(root, reflect.ValueOf(&document.Value).Elem(), "", header, 0)
	document.document, document.fields = at, d.positions
	return document, true
}

func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// eachDocument gives each document of a file with a decoder for it.
func eachDocument(s Source, issues *Issues, each func(*decoder, *yaml.Node)) {
	stream := yaml.NewDecoder(bytes.NewReader(s.Data))
	for {
		var root yaml.Node
		err := stream.Decode(&root)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			line, message := syntaxError(err)
			line = min(line, 1+bytes.Count(s.Data, []byte{'\n'}))
			issues.add(Position{File: s.Name, Line: line}, "", "no valid YAML: %s", message)
			return
		}
		each(&decoder{file: s.Name, issues: issues, positions: map[string]Position{}}, &root)
	}
}

// Policies reads only the AccessPolicy documents of files and folders, sorted by name. Unlike Load it needs no Gateway
// document, yet what is wrong with any document is an error all the same.
func Policies(paths ...string) ([]AccessPolicy, error) {
	sources, issues := read(paths)
	set := &Set{}
	for _, s := range sources {
		decodeFile(s, set, &issues)
	}
	seen := map[string]Position{}
	for _, p := range set.Policies {
		unique(seen, "AccessPolicy", p.Metadata.Name, p.origin, &issues)
	}
	if err := issues.err(); err != nil {
		return nil, err
	}
	slices.SortFunc(set.Policies, func(a, b AccessPolicy) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	return set.Policies, nil
}

// ParsePeers reads the Peer documents of a source that holds no other ones. They are not held against a Gateway.
func ParsePeers(s Source) ([]Peer, error) {
	var set Set
	var issues Issues
	decodeFile(s, &set, &issues)
	if len(set.gateways)+len(set.Policies) > 0 {
		issues.add(Position{File: s.Name}, "", "holds other documents than Peers")
	}
	return set.Peers, issues.err()
}
