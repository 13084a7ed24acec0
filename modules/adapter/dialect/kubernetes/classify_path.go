package kubernetes

import (
	"net/url"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// maxPath bounds what is parsed; the API server's own limits on names keep real paths far below it.
const maxPath = 8 << 10

func invalidPath(why string) error { return fault.New(fault.Invalid, "the path is not valid: %s", why) }

// splitPath splits a path as sent into decoded segments. Envoy, this gateway and the API server must read a path the
// same way whatever of normalizing, merging of slashes and decoding each of them does; so what those could change is
// refused: empty and dot segments, encoded slashes, double encoding. Behind a proxy subresource the path belongs to
// somebody else's server and only dot segments are refused, which could lead out of it; those segments are not
// decoded.
func splitPath(path string) ([]string, error) {
	switch {
	case path == "" || path[0] != '/':
		return nil, invalidPath("it does not begin with a slash")
	case len(path) > maxPath:
		return nil, invalidPath("it is too long")
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c == '\\' || c == '#' || c >= 0x7f {
			return nil, invalidPath("it has a character that must be encoded")
		}
	}
	if path == "/" {
		return nil, nil
	}
	segments := strings.Split(path[1:], "/")
	if n := len(segments); n == 2 && segments[1] == "" && (segments[0] == "api" || segments[0] == "apis") {
		segments = segments[:1] // both forms are in use for discovery
	}
	proxied := false
	for i, segment := range segments {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return nil, invalidPath("its encoding is malformed")
		}
		if isDots(decoded) {
			return nil, invalidPath("it has a dot segment")
		}
		if proxied {
			if hasHiddenDots(decoded) {
				return nil, invalidPath("it has a dot segment")
			}
			continue
		}
		if decoded == "" {
			return nil, invalidPath("it has an empty segment")
		}
		if !isSegment(decoded) {
			return nil, invalidPath("a segment holds a slash, a backslash, a percent sign or a control character")
		}
		segments[i] = decoded
		proxied = isProxySegment(segments, i)
	}
	return segments, nil
}

// isProxySegment tells whether segment i is the proxy subresource: of /api/v1/{resource}/{name} (nodes) or of
// /api/v1/namespaces/{namespace}/{resource}/{name}.
func isProxySegment(segments []string, i int) bool {
	if segments[i] != "proxy" || segments[0] != "api" {
		return false
	}
	return i == 4 && segments[2] != "namespaces" || i == 6 && segments[2] == "namespaces"
}

// isSegment tells whether s can be a name in a path.
func isSegment(s string) bool {
	if s == "" || isDots(s) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '/' || c == '\\' || c == '%' || c == 0x7f {
			return false
		}
	}
	return true
}

func isDots(s string) bool { return s == "." || s == ".." }

// hasHiddenDots tells whether a decoded segment, decoded or split once more, has a dot segment in it.
func hasHiddenDots(s string) bool {
	for range 4 {
		for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '/' || r == '\\' }) {
			if isDots(part) {
				return true
			}
		}
		next, err := url.PathUnescape(s)
		if err != nil || next == s {
			return false
		}
		s = next
	}
	return true // encoded more often than any honest client does
}

// isLabel tells whether s is a DNS label: what namespaces, resources and versions are.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isSubdomain tells whether s is a DNS name in lower case: what API groups are.
func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}
