package tap

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
)

// Forbidden is something that must not cross.
type Forbidden struct {
	What  string
	forms [][]byte // in which it may cross
	// octets of an IPv4 address follow a form; 0 for a text.
	octets int
}

// Network forbids every address of an IPv4 network of whole bytes, such as 10.102.0.0/16.
func Network(what string, network netip.Prefix) Forbidden {
	form, whole := "", network.Bits()/8
	for _, b := range network.Addr().As4() {
		if whole--; whole >= 0 {
			form += strconv.Itoa(int(b)) + "."
		}
	}
	return Forbidden{What: what, forms: [][]byte{[]byte(form)}, octets: 4 - network.Bits()/8}
}

// Secret forbids a text, as it is and in base64 wherever it stands in what was encoded.
func Secret(what, text string) Forbidden {
	forms := [][]byte{[]byte(text)}
	for before := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
		// The first and last characters hold bits of the neighbours as well.
		first, last := (before*8+5)/6, (before+len(text))*8/6
		forms = append(forms, []byte(encoded[first:last]))
	}
	return Forbidden{What: what, forms: forms}
}

// in gives what of the text is forbidden, each place with a little of what stands around it.
func (f Forbidden) in(text []byte) []string {
	var all []string
	for _, form := range f.forms {
		for from := 0; ; {
			at := bytes.Index(text[from:], form)
			if at < 0 {
				break
			}
			start := from + at
			from = start + len(form)
			end, ok := f.end(text, start, from)
			if !ok {
				continue
			}
			all = append(all, string(bytes.ToValidUTF8(text[max(0, start-around):min(len(text), end+around)], []byte("?"))))
		}
	}
	return all
}

const around = 40

// end is where what begins with a form ends, and whether it is what is looked for.
func (f Forbidden) end(text []byte, start, next int) (int, bool) {
	if f.octets == 0 {
		return next, true
	}
	if start > 0 && isDigit(text[start-1]) {
		return 0, false // 110.102.0.1 is not of 10.102.0.0
	}
	for i := range f.octets {
		if i > 0 {
			if next == len(text) || text[next] != '.' {
				return 0, false
			}
			next++
		}
		first := next
		for next < len(text) && next < first+3 && isDigit(text[next]) {
			next++
		}
		if next == first {
			return 0, false
		}
	}
	return next, next == len(text) || !isDigit(text[next])
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
