// Package page keeps parts of the documentation that tests make: a section stands between two marks.
package page

import (
	"fmt"
	"os"
	"strings"
)

// cut splits a text at a section's marks.
func cut(path, text, name string) (before, content, after string, err error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, begun := strings.Cut(text, begin)
	content, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return "", "", "", fmt.Errorf("%s has no section %s", path, name)
	}
	return before + begin, content, end + after, nil
}

// Section reads a section of the file at path.
func Section(path, name string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, content, _, err := cut(path, string(text), name)
	return content, err
}

// Write replaces a section of the file at path.
func Write(path, name, content string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, _, after, err := cut(path, string(text), name)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+content+after), 0o644)
}

// Columns are the first n columns of a table, without what was measured.
func Columns(table string, n int) string {
	var b strings.Builder
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		b.WriteString(strings.Join(cells[:min(n, len(cells))], "|") + "\n")
	}
	return b.String()
}
