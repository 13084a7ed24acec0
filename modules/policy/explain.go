package policy

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

// Finding is what one rule says to a request.
type Finding struct {
	Rule    string
	Outcome Outcome
	Why     string
}

// Explain holds a request against every rule, in the order in which they are asked. known tells whether the object is
// known, as for Decide, or not yet, as for Check.
func (e *Engine) Explain(r Request, known bool) []Finding {
	parts := undecided(&r)
	if known {
		parts = decided(&r)
	}
	q := query{Request: &r, verb: verbBits[r.Verb], kind: kindBits[r.Object.Kind], known: parts}
	findings := make([]Finding, 0, len(e.rules))
	for _, rule := range e.rules {
		findings = append(findings, rule.explain(&q))
	}
	return findings
}

func (r *rule) explain(q *query) Finding {
	f := Finding{Rule: r.name, Outcome: Deny}
	outcome := r.match(q)
	if outcome == condition.False {
		switch r.lacks(q) {
		case peer:
			f.Why = fmt.Sprintf("it is not for peer %s", word(q.Peer))
		case caller:
			f.Why = fmt.Sprintf("it is not for caller %s%s", word(q.Caller), q.inGroups())
		case verb:
			f.Why = fmt.Sprintf("it does not allow %s", word(string(q.Verb)))
		default:
			f.Why = fmt.Sprintf("it is not for %s: %s", subject(q.Object), r.missed(q))
		}
		return f
	}
	if r.when != nil {
		holds, err := r.holds(q)
		switch {
		case err != nil && holds == condition.Undecided:
			f.Outcome, f.Why = NeedsObject, fmt.Sprintf("its condition is undecided: %v", err)
			return f
		case err != nil:
			f.Why = fmt.Sprintf("its condition does not hold: %v", err)
			return f
		case holds == condition.False:
			f.Why = "its condition is false: " + r.when.String()
			return f
		}
	}
	if outcome == condition.Undecided {
		f.Outcome, f.Why = NeedsObject, fmt.Sprintf("it is for some such objects only: it depends on the object's %s", r.open(q))
		return f
	}
	f.Outcome, f.Why = Allow, "it allows this"
	return f
}
