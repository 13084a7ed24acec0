package replica

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Parse reads one JSON object; its numbers stay as they are written.
func Parse(body []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "what should be a JSON object cannot be read")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fault.New(fault.Invalid, "something follows the JSON object")
	}
	if object == nil {
		return nil, fault.New(fault.Invalid, "null is no object")
	}
	return object, nil
}

// Object is the object at a path; nil where there is none.
func Object(of map[string]any, path ...string) map[string]any {
	for _, key := range path {
		of, _ = of[key].(map[string]any)
	}
	return of
}

// List is the list at a key of the object at a path.
func List(of map[string]any, path ...string) []any {
	list, _ := Object(of, path[:len(path)-1]...)[path[len(path)-1]].([]any)
	return list
}

// Text is the text at a path.
func Text(of map[string]any, path ...string) string {
	text, _ := Object(of, path[:len(path)-1]...)[path[len(path)-1]].(string)
	return text
}

// Empty tells whether a value says nothing: it is absent, null, or has no content. False and 0 say something.
func Empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// Prune takes out nulls and empty lists, at every depth. Empty objects and texts say something: a volume that is an empty
// directory, a member of a set, a label without a value.
func Prune(of map[string]any) {
	for key, value := range of {
		switch v := value.(type) {
		case nil:
			delete(of, key)
		case map[string]any:
			Prune(v)
		case []any:
			for _, element := range v {
				if inner, ok := element.(map[string]any); ok {
					Prune(inner)
				}
			}
			if len(v) == 0 {
				delete(of, key)
			}
		}
	}
}

// Clone is a deep copy.
func Clone(value any) any {
	switch v := value.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, inner := range v {
			c[key] = Clone(inner)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, inner := range v {
			c[i] = Clone(inner)
		}
		return c
	}
	return value
}

// Hidden takes out of a tree each text that stands for something which its reader was not shown, and tells of it. A
// stand-in that were copied would be a wrong value that looks like a right one.
func Hidden(of map[string]any, cluster string) []dialect.Left {
	h := hiding{mask: mask.New(nil), cluster: cluster}
	h.object("", of)
	return h.left
}

type hiding struct {
	mask    *mask.Mask
	cluster string
	left    []dialect.Left
}

// positional are lists whose elements mean something by their places: without one of them, the others are another command.
var positional = []string{"Cmd", "Entrypoint", "Command", "Args", "Test", "Shell", "command", "args"}

func (h *hiding) object(path string, of map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		at := Join(path, key)
		value, keep := h.value(at, of[key])
		if !keep || h.suspect(key) {
			if keep {
				h.tell(at)
			}
			delete(of, key)
			continue
		}
		of[key] = value
	}
}

func (h *hiding) value(path string, value any) (any, bool) {
	switch v := value.(type) {
	case string:
		if h.suspect(v) {
			h.tell(path)
			return nil, false
		}
	case map[string]any:
		if _, named := v["name"].(string); named { // of Kubernetes' lists: a variable without its value is another one
			if text, ok := v["value"].(string); ok && h.suspect(text) {
				h.tell(path)
				return nil, false
			}
		}
		h.object(path, v)
	case []any:
		key := path[strings.LastIndexByte(path, '.')+1:]
		if slices.Contains(positional, key) && slices.ContainsFunc(v, func(element any) bool {
			text, ok := element.(string)
			return ok && h.suspect(text)
		}) {
			h.tell(path)
			return nil, false
		}
		kept := make([]any, 0, len(v))
		for i, element := range v {
			at := path + "[" + strconv.Itoa(i) + "]"
			switch e := element.(type) {
			case string:
				if name, _, ok := strings.Cut(e, "="); ok && !h.suspect(name) {
					at = path + "[" + name + "]"
				}
			case map[string]any:
				if name, ok := e["name"].(string); ok && !h.suspect(name) {
					at = path + "[" + name + "]"
				}
			}
			if element, keep := h.value(at, element); keep {
				kept = append(kept, element)
			}
		}
		return kept, true
	}
	return value, true
}

func (h *hiding) suspect(text string) bool { return h.mask.Suspect([]byte(text)) }

func (h *hiding) tell(path string) {
	h.left = append(h.left, dialect.Left{Field: path, Needed: true,
		Reason: "the policy of " + h.cluster + " hides the value; give it on the copy"})
}

// Join is a path with one more key.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Merge fills what is empty in written from drafted. Objects are merged key by key; keyed says of the lists whose
// elements are merged too what an element is known by, and "" is a list that is taken whole. zero says which values at a
// path are as good as none.
type Merge struct {
	Key  func(path string, element any) string
	Zero func(path string, value any) bool
}

// Fill merges. The path is without the indexes of lists.
func (m Merge) Fill(path string, written, drafted any) any {
	if Empty(written) || m.Zero != nil && m.Zero(path, written) {
		if drafted == nil || Empty(drafted) && written != nil {
			return written
		}
		return Clone(drafted)
	}
	switch w := written.(type) {
	case map[string]any:
		d, ok := drafted.(map[string]any)
		if !ok {
			return written
		}
		for key, value := range d {
			if filled := m.Fill(Join(path, key), w[key], value); filled != nil {
				w[key] = filled
			}
		}
	case []any:
		d, ok := drafted.([]any)
		if !ok || m.Key == nil {
			return written
		}
		return m.list(path, w, d)
	}
	return written
}

func (m Merge) list(path string, written, drafted []any) []any {
	at := map[string]int{}
	for i, element := range written {
		key := m.Key(path, element)
		if key == "" {
			return written
		}
		at[key] = i
	}
	for _, element := range drafted {
		key := m.Key(path, element)
		if key == "" {
			return written
		}
		if i, ok := at[key]; ok {
			written[i] = m.Fill(path, written[i], element)
			continue
		}
		written = append(written, Clone(element))
	}
	return written
}
