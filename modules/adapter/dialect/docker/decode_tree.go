package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// depthLimit bounds how deep a document may nest; the deepest real one has about eight levels.
const depthLimit = 64

// tree is one value of a JSON document that remembers whether it was understood. Reading is by field name as an engine
// does it, exact or in another case; what nobody read is found by leftover. A nil tree is a field that is absent.
// The first error of a document is kept at its root.
type tree struct {
	root   *document
	parent *tree
	name   string // within an object; "" in an array and at the root
	index  int    // within an array

	kind   treeKind
	text   string // of a string or number
	fields []*tree
	read   bool // a leaf that was used, or an object or array whose children are looked at one by one
	keyed  bool // an object whose keys are data
}

type treeKind uint8

const (
	treeNull treeKind = iota
	treeBool
	treeNumber
	treeString
	treeArray
	treeObject
)

var treeKindNames = [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}

type document struct {
	err    error
	losses []neutral.Loss // of fields that were read, but not to the letter
	// native says that an engine does as the document says, and what it asks of its host is read; else it is translated.
	native  bool
	volumes []madeVolume // that the document itself makes
}

func (t *tree) native() bool { return t != nil && t.root.native }

// note reports that a field was read, but not to the letter.
func (t *tree) note(change, reason string) {
	t.root.losses = append(t.root.losses, neutral.Loss{Field: t.path(), Change: change, Reason: reason})
}

// parseTree reads a document of one value. Duplicate keys and anything after the value are errors: the gateway and the
// orchestrator behind it must never read the same bytes differently.
func parseTree(body []byte) (*tree, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	root, err := parseValue(decoder, &document{}, nil, "", 0, 0)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "unexpected content after JSON")
	}
	return root, nil
}

func parseValue(decoder *json.Decoder, root *document, parent *tree, name string, index, depth int) (*tree, error) {
	t := &tree{root: root, parent: parent, name: name, index: index}
	if depth > depthLimit {
		return nil, fault.New(fault.Invalid, "invalid JSON: nested deeper than %d levels", depthLimit)
	}
	token, err := decoder.Token()
	if err != nil {
		return nil, invalidJSON(err)
	}
	switch v := token.(type) {
	case nil:
		t.kind = treeNull
	case bool:
		t.kind, t.text = treeBool, strconv.FormatBool(v)
	case json.Number:
		t.kind, t.text = treeNumber, v.String()
	case string:
		t.kind, t.text = treeString, v
	case json.Delim:
		if v == '[' {
			t.kind = treeArray
			return t, parseArray(decoder, t, depth)
		}
		t.kind = treeObject
		return t, parseObject(decoder, t, depth)
	}
	return t, nil
}

func parseArray(decoder *json.Decoder, t *tree, depth int) error {
	for decoder.More() {
		item, err := parseValue(decoder, t.root, t, "", len(t.fields), depth+1)
		if err != nil {
			return err
		}
		t.fields = append(t.fields, item)
	}
	if _, err := decoder.Token(); err != nil {
		return invalidJSON(err)
	}
	return nil
}

func parseObject(decoder *json.Decoder, t *tree, depth int) error {
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return invalidJSON(err)
		}
		key, ok := token.(string)
		if !ok {
			return fault.New(fault.Invalid, "invalid JSON: a key of %s is not a string", t.path())
		}
		if seen[key] {
			return &fault.Error{Kind: fault.Invalid, Field: t.pathOf(key), Message: "invalid JSON: key " + t.pathOf(key) + " is there twice"}
		}
		seen[key] = true
		field, err := parseValue(decoder, t.root, t, key, 0, depth+1)
		if err != nil {
			return err
		}
		t.fields = append(t.fields, field)
	}
	if _, err := decoder.Token(); err != nil {
		return invalidJSON(err)
	}
	return nil
}

func invalidJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
	}
	return fault.New(fault.Invalid, "invalid JSON: %v", err)
}

// path is where the value stands, "HostConfig.Mounts[1].Target".
func (t *tree) path() string {
	if t == nil || t.parent == nil {
		return ""
	}
	if t.parent.kind == treeArray {
		return t.parent.path() + "[" + strconv.Itoa(t.index) + "]"
	}
	return t.parent.pathOf(t.name)
}

// pathOf is where a child of that name stands.
func (t *tree) pathOf(name string) string {
	if p := t.path(); p != "" {
		return p + "." + name
	}
	return name
}

// pattern is the path with array positions and keys that are data left out: "HostConfig.Mounts[].Target".
func (t *tree) pattern() string {
	if t.parent == nil {
		return ""
	}
	above := t.parent.pattern()
	if t.parent.kind == treeArray {
		return above + "[]"
	}
	if t.parent.keyed {
		return above + "{}"
	}
	if above == "" {
		return t.name
	}
	return above + "." + t.name
}

// fail keeps the first error of the document.
func (t *tree) fail(kind fault.Kind, format string, args ...any) {
	if t.root.err != nil {
		return
	}
	err := fault.New(kind, format, args...)
	err.Field = t.path()
	t.root.err = err
}

// wrong says that the value is of another kind than its field.
func (t *tree) wrong(want string) {
	where := t.path()
	if where == "" {
		where = "the request body"
	}
	t.fail(fault.Invalid, "invalid JSON: %s is %s where %s is wanted", where, treeKindNames[t.kind], want)
}

// get gives an object's field, nil where it is absent or null. Names are matched exactly, else in any case, as
// encoding/json does for an engine; two spellings of one name are an error.
func (t *tree) get(name string) *tree {
	if t == nil {
		return nil
	}
	if t.kind != treeObject {
		t.wrong("an object")
		return nil
	}
	t.read = true
	var found *tree
	for _, f := range t.fields {
		if !strings.EqualFold(f.name, name) {
			continue
		}
		if found != nil {
			t.fail(fault.Invalid, "invalid JSON: key %s is there twice, as %s too", found.path(), f.name)
			return nil
		}
		found = f
	}
	if found == nil || found.kind == treeNull {
		return nil
	}
	return found
}

// items gives an array's values.
func (t *tree) items() []*tree {
	if t == nil {
		return nil
	}
	if t.kind != treeArray {
		t.wrong("an array")
		return nil
	}
	t.read = true
	return t.fields
}

// entries gives the fields of an object whose keys are data, in the order of the document.
func (t *tree) entries() []*tree {
	if t == nil {
		return nil
	}
	if t.kind != treeObject {
		t.wrong("an object")
		return nil
	}
	t.read, t.keyed = true, true
	return t.fields
}

// str reads a string.
func (t *tree) str() string {
	if t == nil || t.kind == treeNull {
		return ""
	}
	if t.kind != treeString {
		t.wrong("a string")
		return ""
	}
	t.read = true
	return t.text
}

// boolean reads a boolean.
func (t *tree) boolean() bool {
	if t == nil || t.kind == treeNull {
		return false
	}
	if t.kind != treeBool {
		t.wrong("a boolean")
		return false
	}
	t.read = true
	return t.text == "true"
}

// integer reads a whole number.
func (t *tree) integer() int64 {
	if t == nil || t.kind == treeNull {
		return 0
	}
	if t.kind != treeNumber {
		t.wrong("a whole number")
		return 0
	}
	n, err := strconv.ParseInt(t.text, 10, 64)
	if err != nil {
		t.fail(fault.Invalid, "invalid JSON: %s is %s where a whole number of 64 bits is wanted", t.path(), shorten(t.text))
		return 0
	}
	t.read = true
	return n
}

// count reads a whole number that is not negative and fits an int.
func (t *tree) count() int {
	n := t.integer()
	if n < 0 || n > 1<<31-1 {
		t.fail(fault.Invalid, "%s is out of range: %d", t.path(), n)
		return 0
	}
	return int(n)
}

// strs reads an array of strings; null and absent are nil.
func (t *tree) strs() []string {
	if t == nil || t.kind == treeNull {
		return nil
	}
	items := t.items()
	list := make([]string, 0, len(items))
	for _, item := range items {
		list = append(list, item.str())
	}
	return list
}

// words reads an array of strings or one string, as commands may be given.
func (t *tree) words() []string {
	if t != nil && t.kind == treeString {
		return []string{t.str()}
	}
	return t.strs()
}

// strMap reads an object of strings; null, absent and empty are nil.
func (t *tree) strMap() map[string]string {
	entries := t.entries()
	if len(entries) == 0 {
		return nil
	}
	m := make(map[string]string, len(entries))
	for _, e := range entries {
		m[e.name] = e.str()
	}
	return m
}

// understood marks the value and all below it as read: it says the same as something that was read, or has no effect.
func (t *tree) understood() {
	if t == nil {
		return
	}
	t.read = true
	for _, f := range t.fields {
		f.understood()
	}
}

// unread takes back that the value was read: it is settled as a whole.
func (t *tree) unread() {
	if t != nil {
		t.read = false
	}
}

// zero tells whether nothing is said: null, false, 0, "", or only that.
func (t *tree) zero() bool {
	switch t.kind {
	case treeBool:
		return t.text == "false"
	case treeNumber:
		f, err := strconv.ParseFloat(t.text, 64)
		return err == nil && f == 0
	case treeString:
		return t.text == ""
	case treeArray, treeObject:
		for _, f := range t.fields {
			if !f.zero() {
				return false
			}
		}
	case treeNull:
	}
	return true
}

// leftover visits what was not read and says something, at the highest place that says it all.
func (t *tree) leftover(visit func(*tree)) {
	if t.zero() {
		return
	}
	leaf := t.kind != treeArray && t.kind != treeObject
	switch {
	case !t.read:
		visit(t)
	case !leaf:
		for _, f := range t.fields {
			f.leftover(visit)
		}
	}
}

func shorten(s string) string {
	const limit = 40
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
