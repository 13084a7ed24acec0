package tap

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Forbidden is something that must not cross.
type Forbidden struct {
	What    string
	pattern *regexp.Regexp // begins with a literal, which makes the search fast
	number  bool           // a digit right before or after makes it something else
}

// Network forbids every address of an IPv4 network of whole bytes, such as 10.102.0.0/16.
func Network(what string, network netip.Prefix) Forbidden {
	bytes := network.Addr().As4()
	pattern := ""
	for i := range 4 {
		if i > 0 {
			pattern += `\.`
		}
		if i < network.Bits()/8 {
			pattern += fmt.Sprint(bytes[i])
		} else {
			pattern += `[0-9]{1,3}`
		}
	}
	return Forbidden{What: what, pattern: regexp.MustCompile(pattern), number: true}
}

// Secret forbids a text, as it is and in base64 wherever it stands in what was encoded.
func Secret(what, text string) Forbidden {
	forms := []string{regexp.QuoteMeta(text)}
	for before := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
		// The first and last characters hold bits of the neighbours as well.
		first, last := (before*8+5)/6, (before+len(text))*8/6
		forms = append(forms, regexp.QuoteMeta(encoded[first:last]))
	}
	return Forbidden{What: what, pattern: regexp.MustCompile(strings.Join(forms, "|"))}
}

// in gives what of the text is forbidden, each place with a little of what stands around it.
func (f Forbidden) in(text []byte) []string {
	var all []string
	for _, at := range f.pattern.FindAllIndex(text, -1) {
		if f.number && (isPart(text, at[0]-1) || isPart(text, at[1])) {
			continue
		}
		all = append(all, string(bytes.ToValidUTF8(text[max(0, at[0]-around):min(len(text), at[1]+around)], []byte("?"))))
	}
	return all
}

const around = 40

// isPart tells whether the byte there makes another number of what stands beside it.
func isPart(text []byte, at int) bool {
	return at >= 0 && at < len(text) && text[at] >= '0' && text[at] <= '9'
}
