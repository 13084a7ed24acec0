package mask

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
)

// Text replaces the addresses and the passwords of URLs that stand in free text. What has nothing to hide is given back
// as it is.
func (m *Mask) Text(text []byte) []byte { return rewrite(text, m, true) }

// substitution is what takes the place of addresses that a text holds; false leaves one as it is.
type substitution interface {
	Address(netip.Addr) (netip.Addr, bool)
	mac([6]byte) ([6]byte, bool)
}

// rewrite replaces what is found in text. passwords says that those of URLs are hidden.
func rewrite(text []byte, by substitution, passwords bool) []byte {
	if !suspicious(text) {
		return text
	}
	m := finder{by, passwords}
	var out []byte
	done := 0 // of text, in out
	for i := 0; i < len(text); {
		length, replacement := m.at(text, i)
		if length == 0 {
			i++
			continue
		}
		if replacement != nil {
			out = append(append(out, text[done:i]...), replacement...)
			done = i + length
		}
		i += length
	}
	if done == 0 {
		return text
	}
	return append(out, text[done:]...)
}

// String is Text of a string.
func (m *Mask) String(text string) string { return string(m.Text([]byte(text))) }

// MayHide tells, at little cost, whether any of some texts can have an address or a password in a URL to hide.
func MayHide(texts ...[]string) bool {
	for _, list := range texts {
		for _, text := range list {
			if suspicious([]byte(text)) {
				return true
			}
		}
	}
	return false
}

// Hides tells whether anything is hidden of a member of an object.
func Hides(rules *Rules, key, value string) bool {
	member := slices.Concat([]byte("{"), quoted(key), []byte(":"), quoted(value), []byte("}"))
	return !bytes.Equal(New(nil).Value(rules, member), member)
}

// IsAddress tells whether a name as a whole is an address that is hidden.
func IsAddress(name string) bool {
	address, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	_, hidden := New(nil).Address(address)
	return hidden
}

// suspicious tells whether text can have something to hide at all: most does not.
func suspicious(text []byte) bool {
	dots, colons := 0, 0
	for _, c := range text {
		switch c {
		case '.':
			dots++
		case ':':
			colons++
		}
	}
	return dots >= 3 || colons >= 2 || colons >= 1 && bytes.Contains(text, scheme)
}

var scheme = []byte("://")

// finder finds addresses in text.
type finder struct {
	by        substitution
	passwords bool
}

// at looks what begins at i. A length without a replacement is passed over as a whole.
func (m finder) at(text []byte, i int) (length int, replacement []byte) {
	c := text[i]
	switch {
	case c == ':' && bytes.HasPrefix(text[i:], scheme):
		if m.passwords {
			return userinfo(text, i)
		}
		return len(scheme), nil
	case c == '%' || c == '\\':
		return escaped(text[i:]), nil
	case !isHex(c) && c != ':':
		return 0, nil
	}
	if i > 0 && isWord(text[i-1]) && !afterEscape(text[:i]) {
		return 0, nil
	}
	if c >= '0' && c <= '9' && !continues(text[:i]) {
		if n := dotted(text[i:]); n > 0 {
			return m.address(text[i:i+n], n)
		}
	}
	// The longest run of an IPv6 address' or a hardware address' characters.
	n := 0
	for i+n < len(text) && (isHex(text[i+n]) || text[i+n] == ':') {
		n++
	}
	if i+n < len(text) && isWord(text[i+n]) {
		return 0, nil
	}
	if i+n < len(text) && text[i+n] == '.' { // the tail may be an IPv4 address, which is looked at by itself
		last := bytes.LastIndexByte(text[i:i+n], ':')
		if last >= 0 && dotted(text[i+last+1:]) > 0 {
			return 0, nil
		}
	}
	run := text[i : i+n]
	if n > 1 && run[n-1] == ':' && run[n-2] != ':' { // "fd00::1: no route"
		run = run[:n-1]
	}
	if len(run) > 1 && run[0] == ':' && run[1] != ':' { // "address:fd00::1"
		return 1, nil
	}
	switch colons := bytes.Count(run, []byte(":")); {
	case colons == 5 && len(run) == 17:
		return m.hardware(run)
	case colons >= 2 && len(run) <= 39:
		if n, replacement := m.address(run, len(run)); replacement != nil {
			return n, replacement
		}
	}
	if colon := bytes.IndexByte(run, ':'); colon > 0 && !isFingerprint(run) {
		return colon + 1, nil // a word before the address: "deadbeef:fd00::1"
	}
	return len(run), nil
}

// escaped is the length of the escape of one character that text begins with, in a URL or a quoted text; 0 for none. Its
// letters and digits are no part of what follows.
func escaped(text []byte) int {
	hex := func(from, to int) bool {
		return len(text) >= to && !bytes.ContainsFunc(text[from:to], func(r rune) bool { return r > 'f' || !isHex(byte(r)) })
	}
	switch {
	case text[0] == '%' && hex(1, 3) && !beginsAddress(text[1:]):
		return 3
	case text[0] != '\\' || len(text) < 2:
		return 0
	case text[1] == 'u' && hex(2, 6):
		return 6
	case text[1] == 'x' && hex(2, 4):
		return 4
	case bytes.IndexByte([]byte(`nrtfbv`), text[1]) >= 0:
		return 2
	}
	return 0
}

// beginsAddress tells whether text begins with an address as it stands.
func beginsAddress(text []byte) bool {
	n := 0
	for n < len(text) && (isHex(text[n]) || text[n] == ':') {
		n++
	}
	_, err := netip.ParseAddr(string(text[:min(n, 40)]))
	return err == nil || dotted(text) > 0
}

// afterEscape tells whether text ends with an escape.
func afterEscape(text []byte) bool {
	for _, length := range []int{2, 3, 4, 6} {
		if from := len(text) - length; from >= 0 && escaped(text[from:]) == length {
			return true
		}
	}
	return false
}

// isFingerprint tells whether a run of hexadecimal digits is a digest in pairs.
func isFingerprint(run []byte) bool {
	if len(run) < 3*9-1 || len(run)%3 != 2 {
		return false
	}
	for i := 2; i < len(run); i += 3 {
		if run[i] != ':' {
			return false
		}
	}
	return bytes.Count(run, []byte(":")) == len(run)/3
}

// continues tells whether text ends with a number and a dot: what follows is no address' first part.
func continues(text []byte) bool {
	n := len(text) - 1
	if n < 1 || text[n] != '.' {
		return false
	}
	i := n
	for i > 0 && text[i-1] >= '0' && text[i-1] <= '9' {
		i--
	}
	return i < n && (i == 0 || text[i-1] == '.' || !isWord(text[i-1]) || text[i-1] == 'v')
}

func (m finder) address(text []byte, n int) (int, []byte) {
	parsed, err := netip.ParseAddr(string(text))
	if err != nil {
		return n, nil
	}
	standIn, hidden := m.by.Address(parsed)
	if !hidden {
		return n, nil
	}
	return n, standIn.AppendTo(nil)
}

func (m finder) hardware(text []byte) (int, []byte) {
	var raw [6]byte
	for i := range raw {
		if _, err := hex.Decode(raw[i:i+1], text[3*i:3*i+2]); err != nil {
			return len(text), nil
		}
	}
	standIn, hidden := m.by.mac(raw)
	if !hidden {
		return len(text), nil
	}
	out := make([]byte, 0, 17)
	for i, b := range standIn {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hexDigits[b>>4], hexDigits[b&15])
	}
	return len(text), out
}

// dotted is the length of the dotted IPv4 address at the beginning of text; 0 where there is none.
func dotted(text []byte) int {
	n := 0
	for part := range 4 {
		if part > 0 {
			if n == len(text) || text[n] != '.' {
				return 0
			}
			n++
		}
		digits, value := 0, 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' && digits < 4 {
			value, digits, n = 10*value+int(text[n]-'0'), digits+1, n+1
		}
		if digits == 0 || digits > 3 || value > 255 {
			return 0
		}
	}
	switch {
	case n == len(text):
	case isWord(text[n]):
		return 0
	case text[n] == '.' && n+1 < len(text) && text[n+1] >= '0' && text[n+1] <= '9':
		return 0 // a version with more parts
	}
	return n
}

// userinfo hides the password of a URL whose "://" is at i.
func userinfo(text []byte, i int) (int, []byte) {
	rest := text[i+len(scheme):]
	end := bytes.IndexAny(rest, "/?# \t\r\n\"'<>")
	if end < 0 {
		end = len(rest)
	}
	at := bytes.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return len(scheme), nil
	}
	colon := bytes.IndexByte(rest[:at], ':')
	if colon < 0 || colon+1 == at {
		return len(scheme), nil
	}
	out := append([]byte(nil), text[i:i+len(scheme)+colon+1]...)
	return len(scheme) + at, append(out, Hidden...)
}

const hexDigits = "0123456789abcdef"

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
