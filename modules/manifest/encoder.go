package manifest

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Marshal writes the documents in full, defaults included. Reading it back gives an equal set. A set without a Gateway is
// written without one, as a part of another set.
func (s *Set) Marshal() ([]byte, error) {
	if s.Gateway.Metadata.Name == "" && len(s.Peers)+len(s.Policies) == 0 {
		return nil, nil // to the YAML package, a stream of nothing is a mistake
	}
	var b bytes.Buffer
	stream := yaml.NewEncoder(&b)
	stream.SetIndent(2)
	write := func(kind string, document any) error {
		node, err := encode(reflect.ValueOf(document))
		if err != nil {
			return err
		}
		node.Content = append([]*yaml.Node{word("apiVersion"), word(APIVersion), word("kind"), word(kind)}, node.Content...)
		return stream.Encode(node)
	}
	if s.Gateway.Metadata.Name != "" {
		if err := write("Gateway", s.Gateway); err != nil {
			return nil, err
		}
	}
	for _, p := range s.Peers {
		if err := write("Peer", p); err != nil {
			return nil, err
		}
	}
	for _, p := range s.Policies {
		if err := write("AccessPolicy", p); err != nil {
			return nil, err
		}
	}
	if err := stream.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// encode leaves unset fields out, also those that the YAML package takes for set or the other way round: to it, an
// address is a struct without fields.
func encode(v reflect.Value) (*yaml.Node, error) {
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		t, err := text.MarshalText()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", v.Type(), err)
		}
		return word(string(t)), nil
	}
	node := &yaml.Node{}
	switch v.Kind() {
	case reflect.Struct:
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
		for i := range v.NumField() {
			name := fieldName(v.Type().Field(i))
			if name == "" || v.Field(i).IsZero() && !meant(v.Type().Field(i)) {
				continue
			}
			value, err := encode(v.Field(i))
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, word(name), value)
		}
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Slice:
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		for i := range v.Len() {
			value, err := encode(v.Index(i))
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, value)
		}
	case reflect.Map:
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
		for _, key := range keys {
			value, err := encode(v.MapIndex(key))
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, word(key.String()), value)
		}
	case reflect.String:
		return word(v.String()), nil
	default:
		if err := node.Encode(v.Interface()); err != nil {
			return nil, fmt.Errorf("encode %s: %w", v.Type(), err)
		}
	}
	return node, nil
}

// meant tells fields whose zero value somebody wrote, because it is not what they are when nobody does.
func meant(field reflect.StructField) bool {
	text, ok := field.Tag.Lookup("default")
	switch field.Type.Kind() {
	case reflect.Bool:
		return text == "true"
	case reflect.Int:
		return ok && text != "0"
	}
	return false
}

func word(text string) *yaml.Node {
	node := &yaml.Node{}
	node.SetString(text)
	return node
}
