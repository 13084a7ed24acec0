package mask

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
)

// Rules say what the fields of an API hold where their values do not tell it by themselves. A field is known by its key.
type Rules struct {
	// Kept fields only look as if they held addresses: versions.
	Kept map[string]bool
	// Images are fields that refer to an image: beyond its registry a reference has no address.
	Images map[string]bool
	// Environments are lists of NAME=value, or of objects with name and value.
	Environments map[string]bool
	// Commands are fields with the commands of an image's history, in which NAME=value sets a variable.
	Commands map[string]bool
	// Credentials are fields whose texts are credentials.
	Credentials map[string]bool
	// Names are fields that hold names of hosts which are addresses, by the key of the object's list.
	Names map[string]string
}

// Value is a JSON value without what is to be hidden. The value must be valid; what has nothing to hide is given back as
// it is.
func (m *Mask) Value(rules *Rules, value []byte) []byte { return m.Member(rules, "", value) }

// Member is Value of a value that stands under a key.
func (m *Mask) Member(rules *Rules, key string, value []byte) []byte {
	return (&walk{mask: m, rules: rules, source: value, hidden: Hidden}).all(key)
}

// all goes over the whole of a value that stands under a key, and gives what is shown of it.
func (w *walk) all(key string) []byte {
	w.value(field{key: []byte(key), credential: w.rules.Credentials[key]})
	if w.copied == 0 {
		return w.source
	}
	return append(w.out, w.source[w.copied:]...)
}

// walk goes once over a valid JSON value, and notes what is replaced.
type walk struct {
	mask   *Mask
	rules  *Rules
	source []byte
	at     int
	out    []byte
	copied int    // of source, in out
	hidden string // what stands for a credential
}

// field is where a value stands.
type field struct {
	key, list  []byte
	credential bool
}

func (w *walk) space() {
	for w.at < len(w.source) {
		switch w.source[w.at] {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return
		}
	}
}

func (w *walk) replace(from int, by []byte) {
	w.out = append(append(w.out, w.source[w.copied:from]...), by...)
	w.copied = w.at
}

func (w *walk) value(f field) {
	w.space()
	if w.at >= len(w.source) {
		return
	}
	switch w.source[w.at] {
	case '{':
		w.object(f)
	case '[':
		w.list(f)
	case '"':
		w.text(f)
	default:
		for w.at < len(w.source) && !strings.ContainsRune(",]} \t\r\n", rune(w.source[w.at])) {
			w.at++
		}
	}
}

func (w *walk) list(f field) {
	w.at++
	for w.next(']') {
		inner := field{list: f.key, credential: f.credential}
		if len(f.key) == 0 {
			inner.list = f.list
		}
		w.value(inner)
	}
}

// next steps to the next member, or over the end.
func (w *walk) next(end byte) bool {
	w.space()
	if w.at < len(w.source) && w.source[w.at] == ',' {
		w.at++
		w.space()
	}
	if w.at >= len(w.source) || w.source[w.at] == end {
		w.at++
		return false
	}
	return true
}

func (w *walk) object(f field) {
	secret := len(f.key) == 0 && w.rules.Environments[string(f.list)] && IsCredential(w.member("name"))
	w.at++
	for w.next('}') {
		from := w.at
		key := w.literal()
		if bytes.IndexByte(key, '\\') >= 0 {
			key = []byte(unescaped(key))
		}
		if suspicious(key) {
			if hidden := w.mask.Text(key); !bytes.Equal(hidden, key) {
				w.replace(from, quoted(string(hidden)))
			}
		}
		w.space()
		w.at++ // the colon
		w.value(field{key: key, list: f.list, credential: f.credential || w.rules.Credentials[string(key)] || secret && string(key) == "value"})
	}
}

// member reads a text member of the object that begins here, and goes nowhere.
func (w *walk) member(name string) string {
	back := w.at
	defer func() { w.at = back }()
	w.at++
	for w.next('}') {
		key := w.string()
		w.space()
		w.at++
		w.space()
		if key == name && w.at < len(w.source) && w.source[w.at] == '"' {
			return w.string()
		}
		w.skip()
	}
	return ""
}

// skip goes over a value.
func (w *walk) skip() {
	depth := 0
	for w.at < len(w.source) {
		switch w.source[w.at] {
		case '"':
			w.literal()
			if depth == 0 {
				return
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return // the end of what a number or a word is in
			}
			depth--
			if depth == 0 {
				w.at++
				return
			}
		case ',':
			if depth == 0 {
				return
			}
		}
		w.at++
	}
}

// literal goes over a string and gives it as it stands there, without its quotes.
func (w *walk) literal() []byte {
	w.at++
	from := w.at
	for w.at < len(w.source) && w.source[w.at] != '"' {
		if w.source[w.at] == '\\' {
			w.at++
		}
		w.at++
	}
	end := min(w.at, len(w.source))
	w.at = end + 1
	return w.source[from:end]
}

func (w *walk) string() string { return unescaped(w.literal()) }

func unescaped(literal []byte) string {
	if bytes.IndexByte(literal, '\\') < 0 {
		return string(literal)
	}
	var s string
	if err := json.Unmarshal(append(append([]byte{'"'}, literal...), '"'), &s); err != nil {
		return string(literal)
	}
	return s
}

func quoted(s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return []byte(`""`)
	}
	return raw
}

func (w *walk) text(f field) {
	from := w.at
	literal := w.literal()
	if !f.credential && !w.rules.Environments[string(f.list)] && !w.rules.Commands[string(f.key)] && w.rules.Names[string(f.key)] == "" && !suspicious(literal) &&
		(len(literal) == 0 || strings.IndexByte("{[ \\", literal[0]) < 0) {
		return
	}
	text := unescaped(literal)
	if hidden := w.hide(f, text); hidden != text {
		w.replace(from, quoted(hidden))
	}
}

// hide is a text without what is to be hidden.
func (w *walk) hide(f field, text string) string {
	element := len(f.key) == 0 // of a list itself
	switch {
	case f.credential && text != "":
		return w.hidden
	case w.rules.Kept[string(f.key)], isVersion(f.key):
		return text
	case w.rules.Images[string(f.key)], element && w.rules.Images[string(f.list)]:
		read, unread := imageParts(text)
		return w.mask.String(read) + unread
	case element && w.rules.Environments[string(f.list)]:
		if name, value, ok := strings.Cut(text, "="); ok && value != "" && IsCredential(name) {
			return name + "=" + w.hidden
		}
	case w.rules.Commands[string(f.key)]:
		text = w.command(text)
	case strings.Contains(text, ".") && len(f.list) > 0 && w.rules.Names[string(f.key)] == string(f.list):
		if _, err := netip.ParseAddr(text); err != nil {
			return w.mask.Name(text)
		}
	}
	if embeds(text) {
		return string((&walk{mask: w.mask, rules: w.rules, source: []byte(text), hidden: w.hidden}).all(""))
	}
	return w.mask.String(text)
}

var assignment = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*)=("(?:[^"\\]|\\.)*"|'[^']*'|[^ \t]+)`)

// command hides the credentials that a command sets.
func (w *walk) command(text string) string {
	return assignment.ReplaceAllStringFunc(text, func(set string) string {
		name, _, _ := strings.Cut(set, "=")
		if !IsCredential(name) {
			return set
		}
		return name + "=" + w.hidden
	})
}

// imageParts are what of a reference to an image may hold an address, its registry, and the rest, where what looks like one
// is a tag or a part of a name. What is no reference, in a field of somebody else's of that name, is read whole.
func imageParts(text string) (read, unread string) {
	_, err := netip.ParseAddr(text)
	_, errPort := netip.ParseAddrPort(text)
	if err == nil || errPort == nil || strings.Contains(text, "://") || strings.ContainsAny(text, " \t\r\n,") {
		return text, ""
	}
	if i := strings.IndexByte(text, '/'); i >= 0 {
		return text[:i], text[i:]
	}
	return "", text
}

// isVersion tells whether a field holds a version, which may have four parts.
func isVersion(key []byte) bool {
	const version = "version"
	return len(key) >= len(version) && strings.EqualFold(string(key[len(key)-len(version):]), version)
}

// embeds tells whether a text is a JSON document itself, as what kubectl last applied is.
func embeds(text string) bool {
	trimmed := strings.TrimSpace(text)
	return len(trimmed) > 1 && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid([]byte(trimmed))
}

// credentialWords are in the names of environment variables that hold credentials.
var credentialWords = []string{"PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE_KEY",
	"PRIVATEKEY", "APIKEY", "ACCESSKEY"}

// IsCredential tells whether an environment variable of that name holds a credential. One that names a file does not.
func IsCredential(name string) bool {
	name = strings.ToUpper(name)
	for _, tail := range []string{"_FILE", "_PATH", "_DIR"} {
		if strings.HasSuffix(name, tail) {
			return false
		}
	}
	for _, word := range credentialWords {
		if strings.Contains(name, word) {
			return true
		}
	}
	for _, tail := range []string{"_KEY", "_PASS", "_PWD", "_AUTH"} {
		if strings.HasSuffix(name, tail) {
			return true
		}
	}
	return false
}
