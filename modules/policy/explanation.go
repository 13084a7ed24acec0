package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

// Explanation is one question to the engine with everything that was looked at for its answer.
type Explanation struct {
	Request  Request
	Outcome  Outcome
	Rule     string // the rule that allows, "" when none does for certain
	Reason   string
	Policies []Section // every policy, in the order in which they are asked
}

// Section is what one policy's rules say.
type Section struct {
	Policy   string
	Findings []Finding
}

// Explanation holds a request against every rule. known tells whether the object is known, as for Decide, or not yet,
// as for Check.
func (e *Engine) Explanation(r Request, known bool) Explanation {
	x := Explanation{Request: r}
	if known {
		d := e.Decide(r)
		x.Rule, x.Reason = d.Rule, d.Reason
		if d.Allow {
			x.Outcome = Allow
		}
	} else {
		var d Decision
		x.Outcome, d = e.Check(r)
		x.Rule, x.Reason = d.Rule, d.Reason
	}
	for _, f := range e.Explain(r, known) {
		name, _, _ := strings.Cut(f.Rule, "/")
		if n := len(x.Policies); n == 0 || x.Policies[n-1].Policy != name {
			x.Policies = append(x.Policies, Section{Policy: name})
		}
		last := &x.Policies[len(x.Policies)-1]
		last.Findings = append(last.Findings, f)
	}
	return x
}

// missed says what of a rule's objects a request does not meet, entry by entry: what an admin must change.
func (r *rule) missed(q *query) string {
	if r.kinds&q.kind == 0 {
		return "its objects are of other kinds"
	}
	var entries []string
	for i := range r.objects {
		if r.objects[i].kinds&q.kind == 0 {
			continue
		}
		entries = append(entries, fmt.Sprintf("objects[%d] %s", i, r.objects[i].missed(q)))
	}
	return strings.Join(entries, ", ")
}

// missed is the first thing of an entry that the object is not, in the order of match.
func (m *matcher) missed(q *query) string {
	switch {
	case !m.resource.Match(q.Object.Resource):
		return fmt.Sprintf("is for resource %s, not %s", m.resource.String(), word(q.Object.Resource))
	case !m.namespace.Any() && q.known.Has(condition.Namespace) && !m.namespace.Match(q.Object.Namespace):
		if q.Object.Namespace == "" {
			return fmt.Sprintf("is for namespace %s, and the object is in none or in all", m.namespace.String())
		}
		return fmt.Sprintf("is for namespace %s, not %s", m.namespace.String(), q.Object.Namespace)
	case !m.name.Any() && q.known.Has(condition.Name) && !m.name.Match(q.Object.Name):
		return fmt.Sprintf("is for name %s, not %s", m.name.String(), word(q.Object.Name))
	}
	for i := range m.labels {
		l := &m.labels[i]
		switch value, ok := q.Object.Labels[l.key]; {
		case !ok:
			return fmt.Sprintf("wants label %s, which the object has not", l.key)
		case !l.value.Match(value):
			return fmt.Sprintf("wants label %s=%s, not %s", l.key, l.value.String(), word(value))
		}
	}
	return "fits"
}

// open says what of a rule's objects is not known yet.
func (r *rule) open(q *query) string {
	var parts []string
	add := func(part string) {
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	for i := range r.objects {
		m := &r.objects[i]
		if m.match(q) != condition.Undecided {
			continue
		}
		if !m.namespace.Any() && !q.known.Has(condition.Namespace) {
			add("namespace")
		}
		if !m.name.Any() && !q.known.Has(condition.Name) {
			add("name")
		}
		if len(m.labels) > 0 && !q.known.Has(condition.Labels) {
			add("labels")
		}
	}
	return strings.Join(parts, " and ")
}
