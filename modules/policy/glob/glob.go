// Package glob matches names against the patterns that policies are written in: * stands for any run of characters,
// ? for one character, and everything else for itself.
package glob

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// reserved are characters that other pattern languages give a meaning. They are refused, so that nobody takes a
// pattern for wider or narrower than it is.
const reserved = `[]{}\`

// maxLength bounds a pattern; no name of an orchestrator is longer.
const maxLength = 512

type shape uint8

const (
	everything shape = iota
	exact
	prefix
	suffix
	general
)

// Pattern is a compiled pattern. The zero Pattern matches everything.
type Pattern struct {
	text  string // as written; "" for the zero Pattern
	fixed string // the literal part of exact, prefix and suffix
	shape shape
}

// Compile reads a pattern.
func Compile(text string) (Pattern, error) {
	switch {
	case text == "":
		return Pattern{}, fmt.Errorf(`an empty pattern matches nothing; leave the field out, or write "*", for any`)
	case len(text) > maxLength:
		return Pattern{}, fmt.Errorf("a pattern has at most %d bytes", maxLength)
	case !utf8.ValidString(text):
		return Pattern{}, fmt.Errorf("a pattern is UTF-8")
	}
	if i := strings.IndexAny(text, reserved); i >= 0 {
		return Pattern{}, fmt.Errorf("%q has no meaning in a pattern; only * and ? are special", text[i])
	}
	p := Pattern{text: text, shape: general}
	switch wild := strings.Count(text, "*") + strings.Count(text, "?"); {
	case strings.Trim(text, "*") == "":
		p.shape = everything
	case wild == 0:
		p.shape, p.fixed = exact, text
	case wild == 1 && strings.HasSuffix(text, "*"):
		p.shape, p.fixed = prefix, text[:len(text)-1]
	case wild == 1 && strings.HasPrefix(text, "*"):
		p.shape, p.fixed = suffix, text[1:]
	}
	return p, nil
}

// Exact is the pattern of one name, which may be empty and is taken as it is.
func Exact(name string) Pattern { return Pattern{text: name, fixed: name, shape: exact} }

// Any tells whether the pattern matches everything.
func (p *Pattern) Any() bool { return p.shape == everything }

// Literal is the one name that the pattern matches; ok is false when it has wildcards.
func (p *Pattern) Literal() (name string, ok bool) { return p.fixed, p.shape == exact }

// String is the pattern as written.
func (p *Pattern) String() string {
	if p.shape == everything && p.text == "" {
		return "*"
	}
	return p.text
}

// Match tells whether name is one of the names that the pattern stands for.
func (p *Pattern) Match(name string) bool {
	switch p.shape {
	case everything:
		return true
	case exact:
		return name == p.fixed
	case prefix:
		return strings.HasPrefix(name, p.fixed)
	case suffix:
		return strings.HasSuffix(name, p.fixed)
	case general:
	}
	return match(p.text, name)
}

// match goes back to the last * only, which bounds the work by the product of both lengths.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, resume := -1, 0
	for n < len(name) {
		_, width := utf8.DecodeRuneInString(name[n:])
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, n
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			p++
			n += width
			continue
		case p < len(pattern) && strings.HasPrefix(pattern[p:], name[n:n+width]):
			p += width
			n += width
			continue
		case star < 0:
			return false
		}
		_, width = utf8.DecodeRuneInString(name[resume:])
		resume += width
		p, n = star+1, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
