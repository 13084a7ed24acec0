package docker

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// disposal says what becomes of a field that the neutral model does not carry.
type disposal struct {
	refuse bool     // dropping it would change safety or data
	reason string   // why, for the caller
	plain  []string // values that ask for what every container gets anyway
}

const reasonUnknown = "not a field of the Docker Engine API that is known here"

// disposalOf finds a field as an engine finds it: by its name, in any case.
func disposalOf(table map[string]disposal, pattern string) (disposal, bool) {
	if d, ok := table[pattern]; ok {
		return d, true
	}
	for name, d := range table {
		if strings.EqualFold(name, pattern) {
			return d, true
		}
	}
	return disposal{}, false
}

// settle reports or refuses what is left of a document.
func settle(t *tree, table map[string]disposal, op string) ([]neutral.Loss, error) {
	if t.root.err != nil {
		return nil, t.root.err
	}
	losses := t.root.losses
	var refused []string
	var reasons []string
	t.leftover(func(left *tree) {
		d, known := disposalOf(table, left.pattern())
		for parent := left.parent; !known && parent != nil; parent = parent.parent {
			d, known = disposalOf(table, parent.pattern())
			d.plain = nil
		}
		switch {
		case !known:
			losses = append(losses, neutral.Loss{Field: left.path(), Change: "dropped", Reason: reasonUnknown})
		case slices.Contains(d.plain, left.text) && left.kind != treeArray && left.kind != treeObject:
		case d.refuse:
			refused = append(refused, left.path())
			reasons = append(reasons, left.path()+": "+d.reason)
		default:
			losses = append(losses, neutral.Loss{Field: left.path(), Change: "dropped", Reason: d.reason})
		}
	})
	if len(refused) > 0 {
		return nil, &fault.Error{Kind: fault.Unsupported, Op: op, Field: refused[0],
			Message: "cannot be carried to another orchestrator without changing safety or data: " + strings.Join(reasons, "; ")}
	}
	return losses, nil
}
