package caller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
)

func TestParseTokens(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		secret:                                     "line 1: a line reads token,name",
		"\n# x\n" + secret + ",":                   "line 3: a caller's name is empty",
		secret + ",a,":                             "a group: a caller's name is empty",
		secret + ",a,system:serviceaccounts:x":     "known in another way",
		secret + ",a,system:authenticated":         "known in another way",
		secret + ",a" + tooMany():                  "too many groups",
		"short,a":                                  "at least 16 characters",
		"sixteen chars or more,a":                  "no header carries",
		"sha256:00,a":                              "64 hexadecimal digits",
		"sha256:" + strings.Repeat("g", 64) + ",a": "64 hexadecimal digits",
		secret + ",unix:root":                      "known in another way",
		secret + ",system:serviceaccount:a:b":      "known in another way",
		secret + ",ünix":                           "printable ASCII",
		secret + ",a\n" + secret + ",b":            "line 2: the token is there already, on line 1",
	} {
		_, err := parseTokens([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows a token: %v", err)
		}
	}
}

// tooMany are more groups than cross.
func tooMany() string {
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, ",g%d", i)
	}
	return text.String()
}

// FuzzTokens holds that a file that is taken names callers that can be named, by tokens that the file holds.
func FuzzTokens(f *testing.F) {
	f.Add(secret+",ci\n", secret)
	f.Add("# comment\r\nsha256:"+strings.Repeat("0", 64)+", a b ", "")
	f.Add(secret+",a\x00b", secret)
	f.Add(",\n,,\n", "")
	f.Add(secret+",ci,b,a,b\n", secret)
	f.Fuzz(func(t *testing.T, text, token string) {
		known, err := parseTokens([]byte(text))
		if err != nil {
			if len(token) >= minToken && strings.Contains(err.Error(), token) {
				t.Errorf("the error shows a token: %v", err)
			}
			return
		}
		for _, who := range known {
			if err := checkName(who.Name); err != nil {
				t.Errorf("%q: %v", who.Name, err)
			}
			if _, err := modules.GroupsOf([]string{string(who.Groups)}, who.Name); err != nil && who.Groups != "" {
				t.Errorf("groups %q: %v", who.Groups, err)
			}
		}
		if name := known.owner(token).Name; name != "" && !strings.Contains(text, token) && !strings.Contains(text, hashed) {
			t.Errorf("%q is of %q, and is not in the file", token, name)
		}
	})
}

// FuzzName holds that what may name a caller stands in a header as it is.
func FuzzName(f *testing.F) {
	for _, name := range []string{"", "ci", " ci", "a\r\nb", "spiffe://a/b", "é", strings.Repeat("x", 513), "\x7f"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if modules.CheckCaller(name) != nil {
			return
		}
		if name == "" || len(name) > 512 || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is taken", name)
		}
		if got, err := modules.CallerOf([]string{name}); got != name || err != nil {
			t.Errorf("%q becomes %q, %v", name, got, err)
		}
	})
}
