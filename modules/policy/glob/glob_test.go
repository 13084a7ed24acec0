package glob_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/modules/policy/glob"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"*", []string{"", "a", "a/b", "ü"}, nil},
		{"**", []string{"", "a"}, nil},
		{"web", []string{"web"}, []string{"", "we", "webb", "Web"}},
		{"ci-*", []string{"ci-", "ci-1", "ci-a*b"}, []string{"ci", "xci-1", ""}},
		{"*-ci", []string{"-ci", "a-ci"}, []string{"ci", "a-cix"}},
		{"?", []string{"a", "ü", "*"}, []string{"", "ab"}},
		{"web-?", []string{"web-1"}, []string{"web-", "web-10"}},
		{"a*b*c", []string{"abc", "axxbxxc", "abbcbc"}, []string{"ab", "acb", "abcx"}},
		{"*a?c*", []string{"abc", "xxaacc", "aabcd"}, []string{"ac", "aXXc"}},
		{"apps/*", []string{"apps/", "apps/x/scale"}, []string{"apps", "batch/jobs"}},
		{"?*", []string{"a", "ab"}, []string{""}},
		{"*?ü", []string{"aü", "üü"}, []string{"ü", "u"}},
		{"system:serviceaccount:*:ci", []string{"system:serviceaccount:a:ci"}, []string{"system:serviceaccount:ci"}},
	} {
		p, err := glob.Compile(c.pattern)
		if err != nil {
			t.Fatalf("%s: %v", c.pattern, err)
		}
		if p.String() != c.pattern {
			t.Errorf("%s reads %s", c.pattern, &p)
		}
		for _, s := range c.yes {
			if !p.Match(s) {
				t.Errorf("%s does not match %q", c.pattern, s)
			}
		}
		for _, s := range c.no {
			if p.Match(s) {
				t.Errorf("%s matches %q", c.pattern, s)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[a]", "a]", "{a,b}", `a\*`, "\xff", strings.Repeat("a", 513)} {
		if _, err := glob.Compile(text); err == nil {
			t.Errorf("%q compiles", text)
		}
	}
}

func TestZeroAndExact(t *testing.T) {
	t.Parallel()
	var zero glob.Pattern
	if !zero.Any() || !zero.Match("") || !zero.Match("x") || zero.String() != "*" {
		t.Error("the zero pattern is not everything")
	}
	for _, name := range []string{"", "a*", "[x]"} {
		p := glob.Exact(name)
		if literal, ok := p.Literal(); !ok || literal != name || !p.Match(name) || p.Match(name+"y") || p.Any() || p.String() != name {
			t.Errorf("Exact(%q) is %q", name, &p)
		}
	}
	p, _ := glob.Compile("a*")
	if _, ok := p.Literal(); ok {
		t.Error("a* is a literal")
	}
}

// The worst case of a matcher that goes back to every star would not end.
func TestMatchIsBounded(t *testing.T) {
	t.Parallel()
	p, err := glob.Compile(strings.Repeat("a*", 200) + "b")
	if err != nil {
		t.Fatal(err)
	}
	if p.Match(strings.Repeat("a", 5000)) {
		t.Error("matches")
	}
}

func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"a*b?c", "axxbyc"}, {"*", ""}, {"?ü*", "aüx"}, {"a**b", "ab"}, {"*??", "\xc3\xa9"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := glob.Compile(pattern)
		if err != nil || !utf8.ValidString(name) {
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for _, r := range pattern {
			switch r {
			case '*':
				re.WriteString(`.*`)
			case '?':
				re.WriteString(`.`)
			default:
				re.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
		re.WriteString(`\z`)
		if got, want := p.Match(name), regexp.MustCompile(re.String()).MatchString(name); got != want {
			t.Fatalf("%q on %q: %v, a regular expression says %v", pattern, name, got, want)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, text := range []string{"ci-*", "a*b?c*"} {
		p, err := glob.Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				p.Match("ci-runner-12-axbycz")
			}
		})
	}
}
