package policy

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

// refusal is the first condition that kept a rule from allowing a request.
type refusal struct {
	rule    *rule
	problem error // nil when the condition is plainly false
}

func (r *refusal) note(rule *rule, problem error) {
	if r.rule == nil {
		r.rule, r.problem = rule, problem
	}
}

// denial says why nothing allows a request: what the rule that came nearest lacks. It looks at all rules once more, so
// that a permission need not keep account.
func (e *Engine) denial(r Request, known condition.Known, refused refusal) string {
	if refused.rule != nil {
		if refused.problem != nil {
			return fmt.Sprintf("the condition of %s does not hold: %v", refused.rule.name, refused.problem)
		}
		return fmt.Sprintf("the condition of %s is false", refused.rule.name)
	}
	q := query{Request: &r, verb: verbBits[r.Verb], kind: kindBits[r.Object.Kind], known: known}
	furthest := none
	for _, rule := range e.rules {
		furthest = max(furthest, rule.lacks(&q))
	}
	switch furthest {
	case peer:
		return "no policy is for peer " + word(r.Peer)
	case caller:
		return fmt.Sprintf("no policy is for caller %s of peer %s%s", word(r.Caller), word(r.Peer), r.inGroups())
	case verb:
		return fmt.Sprintf("no rule for this caller allows %s", word(string(r.Verb)))
	case object:
		return fmt.Sprintf("no rule that allows %s is for %s", word(string(r.Verb)), subject(r.Object))
	case none:
	}
	return "there is no policy"
}
