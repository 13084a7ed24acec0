package mask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Suspect tells whether something that a peer writes may hold what stands for something else, also in JSON's escapes.
func (m *Mask) Suspect(written []byte) bool {
	s := &spotter{}
	rewrite(written, s, false)
	if s.found || bytes.Contains(written, []byte(Hidden)) || bytes.Contains(written, []byte(hiddenNames)) {
		return true
	}
	spelled := spelledOut(written)
	return len(spelled) != len(written) && m.Suspect(spelled)
}

// spelledOut is a text with the characters in the place of their escapes in JSON (\u0068), however often the text is quoted
// in another. What has none is given back as it is.
func spelledOut(text []byte) []byte {
	next := bytes.Index(text, []byte(`\u`))
	if next < 0 {
		return text
	}
	text = bytes.Clone(text)
	out := text[:next] // never longer than what has been read
	for i := next; i < len(text); {
		after := i // the backslashes
		for after < len(text) && text[after] == '\\' {
			after++
		}
		if after == i || after+5 > len(text) || text[after] != 'u' {
			after = max(after, i+1)
			out = append(out, text[i:after]...)
			i = after
			continue
		}
		code, err := strconv.ParseUint(string(text[after+1:after+5]), 16, 16)
		switch {
		case err != nil || code < ' ' || code > '~':
			out = append(out, text[i:after+1]...)
			i = after + 1
		case code == '\\': // may begin the next
			i = after + 4
			text[i] = '\\'
		default:
			out = append(out, byte(code))
			i = after + 5
		}
	}
	return out
}

// spotter looks for stand-ins.
type spotter struct{ found bool }

func (s *spotter) Address(a netip.Addr) (netip.Addr, bool) {
	s.found = s.found || standIns4.Contains(a.Unmap()) || standIns6.Contains(a)
	return a, false
}

func (s *spotter) mac(raw [6]byte) ([6]byte, bool) {
	s.found = s.found || raw[0] == 0x06 && raw[1] == 0
	return raw, false
}

// originals are what the stand-ins of one object stand for.
type originals struct {
	mask      *Mask
	addresses map[netip.Addr]netip.Addr
	macs      map[[6]byte][6]byte
	unknown   string // a stand-in for something else
}

// learn takes in what an object holds; it replaces nothing.
type learn struct{ *originals }

func (l learn) Address(a netip.Addr) (netip.Addr, bool) {
	if standIn, hidden := l.mask.Address(a); hidden {
		l.addresses[standIn] = a
	}
	return a, false
}

func (l learn) mac(raw [6]byte) ([6]byte, bool) {
	if standIn, hidden := l.mask.mac(raw); hidden {
		l.macs[standIn] = raw
	}
	return raw, false
}

func (o *originals) Address(a netip.Addr) (netip.Addr, bool) {
	original, ok := o.addresses[a]
	if !ok && standIns4.Contains(a.Unmap()) && a.Unmap().As4()[0] != 255 {
		o.unknown = a.String()
	}
	return original, ok
}

func (o *originals) mac(raw [6]byte) ([6]byte, bool) {
	original, ok := o.macs[raw]
	return original, ok
}

// UnknownError is a stand-in in what a peer writes, for which nothing of the object as it is stands.
type UnknownError struct{ Path, StandIn string }

func (e *UnknownError) Error() string {
	if e.StandIn == Hidden {
		return fmt.Sprintf("%s: %q stands for a value that is hidden, and the object has none in this place; give the value", e.Path, Hidden)
	}
	return fmt.Sprintf("%s: %s stands for an address that is hidden, and the object has no such address; it leads nowhere", e.Path, e.StandIn)
}

// Restore puts the originals in the place of stand-ins that a peer writes back, by the object as it is. An object that is
// not there yet, nil, has none.
func (m *Mask) Restore(rules *Rules, written, object []byte) ([]byte, error) {
	if len(object) == 0 {
		object = []byte("null")
	}
	var submitted, live, shown any
	for _, v := range []struct {
		raw  []byte
		into *any
	}{{written, &submitted}, {object, &live}, {m.Value(rules, object), &shown}} {
		if err := decodeExact(v.raw, v.into); err != nil {
			return nil, err
		}
	}
	r := &restorer{mask: m, rules: rules, originals: &originals{mask: m, addresses: map[netip.Addr]netip.Addr{}, macs: map[[6]byte][6]byte{}}}
	r.learn(live)
	restored, err := r.value(place{}, submitted, shown, live)
	if err != nil {
		return nil, err
	}
	return json.Marshal(restored)
}

type restorer struct {
	mask  *Mask
	rules *Rules
	*originals
}

// learn takes in every text of a value.
func (r *restorer) learn(value any) {
	switch v := value.(type) {
	case string:
		rewrite([]byte(v), learn{r.originals}, false)
	case []any:
		for _, element := range v {
			r.learn(element)
		}
	case map[string]any:
		for key, member := range v {
			rewrite([]byte(key), learn{r.originals}, false)
			r.learn(member)
		}
	}
}

// place is where a value stands: its path, its key and, as an element of a list, the list's key.
type place struct {
	path      string
	key, list string
}

func (p place) member(key string) place {
	return place{path: strings.TrimPrefix(p.path+"."+key, "."), key: key, list: p.list}
}

func (p place) element(i int) place {
	list := p.key
	if list == "" {
		list = p.list
	}
	return place{path: p.path + "[" + strconv.Itoa(i) + "]", list: list}
}

// value restores what was written in a place; shown is what the peer was shown there, and live what is there.
func (r *restorer) value(at place, written, shown, live any) (any, error) {
	switch w := written.(type) {
	case string:
		return r.text(at, w, shown, live)
	case map[string]any:
		s, _ := shown.(map[string]any)
		l, _ := live.(map[string]any)
		return r.object(at, w, s, l)
	case []any:
		s, _ := shown.([]any)
		l, _ := live.([]any)
		if len(s) != len(l) {
			s, l = nil, nil
		}
		out, counterparts := make([]any, len(w)), counterparts{shown: s, length: len(w)}
		for i, element := range w {
			var err error
			inner := at.element(i)
			if j := counterparts.of(element, i); j >= 0 {
				out[i], err = r.value(inner, element, s[j], l[j])
			} else {
				out[i], err = r.value(inner, element, nil, nil)
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return written, nil
}

// object restores an object; its keys can hold addresses, in what the API keeps of who set which field.
func (r *restorer) object(at place, written, shown, live map[string]any) (any, error) {
	originalKeys := map[string]string{}
	for key := range live {
		if hidden := r.mask.String(key); hidden != key {
			originalKeys[hidden] = key
		}
	}
	out := make(map[string]any, len(written))
	for key, value := range written {
		was, ok := originalKeys[key]
		if !ok {
			was = key
			if r.mask.Suspect([]byte(key)) {
				was = string(rewrite([]byte(key), r.originals, false))
			}
		}
		restored, err := r.value(at.member(key), value, shown[key], live[was])
		if err != nil {
			return nil, err
		}
		out[was] = restored
	}
	return out, nil
}

func (r *restorer) text(at place, written string, shown, live any) (any, error) {
	if !r.mask.Suspect([]byte(written)) {
		return written, nil
	}
	if original, ok := live.(string); ok {
		if shown == written {
			return original, nil
		}
		if text, ok := shown.(string); ok && embeds(written) && embeds(text) && embeds(original) {
			return r.embedded(at, written, text, original)
		}
	}
	// Where addresses are not looked for, nothing is restored: a peer would read the original there.
	read, unread := written, ""
	switch element := at.key == ""; {
	case r.rules.Kept[at.key], isVersion([]byte(at.key)):
		read, unread = "", written
	case r.rules.Images[at.key], element && r.rules.Images[at.list]:
		read, unread = imageParts(written)
	}
	r.unknown = ""
	restored := string(rewrite([]byte(read), r.originals, false)) + unread
	spelled := string(spelledOut([]byte(restored)))
	switch {
	case r.unknown != "":
		return nil, &UnknownError{at.path, r.unknown}
	case strings.Contains(spelled, Hidden):
		return nil, &UnknownError{at.path, Hidden}
	case strings.Contains(spelled, hiddenNames):
		return nil, &UnknownError{at.path, restored}
	}
	return restored, nil
}

// embedded restores a text that is a JSON document itself.
func (r *restorer) embedded(at place, texts ...string) (any, error) {
	var values [3]any // written, shown and live
	for i, text := range texts {
		if err := decodeExact([]byte(text), &values[i]); err != nil {
			return nil, err
		}
	}
	restored, err := r.value(place{path: at.path}, values[0], values[1], values[2])
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(restored)
	return string(raw), err
}

// decodeExact keeps numbers as they are written.
func decodeExact(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(into)
}
