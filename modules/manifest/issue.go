package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a file. Lines and columns start at 1; 0 is unknown.
type Position struct {
	File         string
	Line, Column int
}

// String is the place as compilers write it.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Issue is one thing that is wrong or doubtful in the documents.
type Issue struct {
	Position
	Path    string // the field, "spec.listeners.peer"; "" for the document or file
	Message string
}

// Error is `file.yaml:12: spec.orchestrater: unknown field; did you mean "orchestrator"?`.
func (i Issue) Error() string {
	parts := make([]string, 0, 3)
	if at := i.Position.String(); at != "" {
		parts = append(parts, at)
	}
	if i.Path != "" {
		parts = append(parts, i.Path)
	}
	return strings.Join(append(parts, i.Message), ": ")
}

// Issues are all that was found, in the order of files and lines. As an error it is never empty.
type Issues []Issue

// Error is one issue a line.
func (is Issues) Error() string {
	lines := make([]string, len(is))
	for i := range is {
		lines[i] = is[i].Error()
	}
	return strings.Join(lines, "\n")
}

func (is *Issues) add(at Position, path, format string, args ...any) {
	*is = append(*is, Issue{Position: at, Path: path, Message: fmt.Sprintf(format, args...)})
}

// sorted orders issues by line within each file and leaves out repetitions; files keep their order.
func (is Issues) sorted() Issues {
	order := map[string]int{}
	for _, i := range is {
		if _, ok := order[i.File]; !ok {
			order[i.File] = len(order)
		}
	}
	slices.SortStableFunc(is, func(a, b Issue) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		return a.Line - b.Line
	})
	return slices.Compact(is)
}

// err keeps an empty list from becoming a non-nil error.
func (is Issues) err() error {
	if len(is) == 0 {
		return nil
	}
	return is.sorted()
}
