// Package expansion knows what Kubernetes makes of $(NAME) in commands, arguments and variables.
package expansion

import "strings"

// Kubernetes replaces $(NAME) in commands, arguments and variables, and reads $$ as one $. Docker does neither, so what
// crosses is escaped on the way in and expanded on the way out.

// Escape writes text so that Kubernetes leaves it as it is.
func Escape(text string) string {
	if !strings.Contains(text, "$(") && !strings.Contains(text, "$$") {
		return text
	}
	return strings.ReplaceAll(text, "$", "$$")
}

// EscapeAll escapes each of texts.
func EscapeAll(texts []string) []string {
	if texts == nil {
		return nil
	}
	escaped := make([]string, len(texts))
	for i, text := range texts {
		escaped[i] = Escape(text)
	}
	return escaped
}

// limit is what one text becomes at most, in bytes: Linux starts no program with a longer one. References that would make it
// longer stay as they are.
const limit = 128 << 10

// Budget is what the texts of one container become at most, all together: a few variables that refer to each other can
// stand for any length.
const Budget = 4 << 20

// Expand reads text as Kubernetes does. A reference to a variable that is not among values stays as it is.
func Expand(text string, values map[string]string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		rest := text[i+1:]
		switch {
		case rest[0] == '$':
			b.WriteByte('$')
			text = rest[1:]
		case rest[0] == '(' && strings.IndexByte(rest, ')') > 0:
			end := strings.IndexByte(rest, ')')
			if value, ok := values[rest[1:end]]; ok && b.Len()+len(value) <= limit {
				b.WriteString(value)
			} else {
				b.WriteString("$" + rest[:end+1])
			}
			text = rest[end+1:]
		default:
			b.WriteByte('$')
			text = rest
		}
	}
}

// ExpandAll expands each of texts.
func ExpandAll(texts []string, values map[string]string) []string {
	if texts == nil {
		return nil
	}
	expanded := make([]string, len(texts))
	for i, text := range texts {
		expanded[i] = Expand(text, values)
	}
	return expanded
}
