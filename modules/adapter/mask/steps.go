package mask

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// longest bounds the steps of a patch: the API server takes no more.
const longest = 10_000

// states bounds how often a patch may look at what it has made so far.
const states = 64

// largest bounds what a patch may make of an object, and all that it may copy, in bytes: the API server takes no more.
const largest = 3 << 20

// mostRead bounds how much of an object a patch may copy, move and compare in all, in bytes.
const mostRead = 8 * largest

func init() { jsonpatch.AccumulatedCopySizeLimit = largest }

// RevealError is a patch by which one could read what is hidden.
type RevealError struct{ Path, Why string }

func (e *RevealError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Why) }

// Steps refuses a JSON patch (RFC 6902) of an object as it is that would show of it what is hidden: one that copies or moves
// it to where it is not, compares it, or changes what it is hidden by, as the name of an environment variable is. The patch
// is the peer's, with stand-ins where it was shown such.
func (m *Mask) Steps(rules *Rules, steps, object []byte) error {
	patch, err := jsonpatch.DecodePatch(steps)
	if err != nil {
		return fmt.Errorf("the patch could not be read: %w", err)
	}
	if len(patch) > longest {
		return fmt.Errorf("the patch has %d steps, more than %d", len(patch), longest)
	}
	// A mark that the peer cannot know stands for what is hidden of this object, so whatever the peer has written itself, what
	// shows the mark in the end would show what is hidden.
	mark := Hidden + rand.Text()
	document := (&walk{mask: m, rules: rules, source: object, hidden: mark}).all("")
	var at any
	pending, read, seen := jsonpatch.Patch{}, 0, 0
	for _, step := range patch {
		path, look := "", false
		switch step.Kind() {
		case "copy", "move":
			path, err = step.From()
			look = true
		case "test":
			path, err = step.Path()
			look = true
		}
		if err != nil {
			return fmt.Errorf("the patch could not be read: %w", err)
		}
		if look && (len(pending) > 0 || read == 0) {
			if read++; read > states {
				return &RevealError{path, "the patch copies, moves or compares what it has changed itself too often"}
			}
			if document, err = apply(pending, document); err != nil {
				return fmt.Errorf("the patch could not be tried: %w", err)
			}
			pending = nil
			if err := decodeExact(document, &at); err != nil {
				return err
			}
		}
		if look {
			n, err := m.look(step, path, mark, at)
			if err != nil {
				return err
			}
			if seen += n; seen > mostRead {
				return &RevealError{path, "the patch copies, moves or compares too much of the object"}
			}
		}
		if step.Kind() != "test" {
			pending = append(pending, step)
		}
	}
	if document, err = apply(pending, document); err != nil {
		return fmt.Errorf("the patch could not be tried: %w", err)
	}
	if bytes.Contains(m.Value(rules, document), []byte(mark)) {
		return &RevealError{"/", "what is hidden would be shown by another name"}
	}
	return nil
}

// apply carries out steps. The library falls over some that are none.
func apply(patch jsonpatch.Patch, document []byte) (after []byte, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it has a step without what the step needs")
		}
	}()
	if after, err = patch.Apply(document); err == nil && len(after) > largest {
		err = fmt.Errorf("it makes more than %d bytes of the object", largest)
	}
	return after, err
}

// look refuses a step that reads what is hidden, and tells how much it reads. In the document that is marked.
func (m *Mask) look(step jsonpatch.Operation, path, mark string, document any) (read int, err error) {
	value, ok := pointed(document, path)
	if !ok {
		return 0, nil // nothing is there
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return 0, err
	}
	if !m.Suspect(raw) {
		return len(raw), nil
	}
	return len(raw), m.compares(step, path, mark, raw)
}

// compares refuses a step that reads what is hidden but to compare it with what was shown.
func (m *Mask) compares(step jsonpatch.Operation, path, mark string, raw []byte) error {
	if step.Kind() != "test" {
		return &RevealError{path, "it is hidden, or has hidden parts, and cannot be copied or moved"}
	}
	var value any
	if err := decodeExact(bytes.ReplaceAll(raw, []byte(mark), []byte(Hidden)), &value); err != nil {
		return err
	}
	var asked any
	if written, err := step.ValueInterface(); err == nil {
		raw, err := json.Marshal(written)
		if err != nil || decodeExact(raw, &asked) != nil {
			return &RevealError{path, "it could not be read"}
		}
	}
	if !reflect.DeepEqual(asked, value) {
		return &RevealError{path, "it is hidden, or has hidden parts, and can be compared with what was shown alone"}
	}
	return nil
}

// pointed is what a JSON pointer leads to (RFC 6901). Like the API, it counts from the end of a list with negative numbers.
func pointed(document any, pointer string) (any, bool) {
	if pointer == "" {
		return document, true
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch within := document.(type) {
		case map[string]any:
			member, ok := within[part]
			if !ok {
				return nil, false
			}
			document = member
		case []any:
			i, err := strconv.Atoi(part)
			if i < 0 {
				i += len(within)
			}
			if err != nil || i < 0 || i >= len(within) {
				return nil, false
			}
			document = within[i]
		default:
			return nil, false
		}
	}
	return document, true
}
