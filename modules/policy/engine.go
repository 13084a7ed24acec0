package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

// Engine answers requests by a fixed set of policies. It is immutable; new policies are a new engine. The zero Engine
// denies everything.
type Engine struct {
	rules []*rule
}

// Compile makes an engine of valid policies. Policies are asked in the order of their names, rules in the order
// written; the first that allows decides.
func Compile(policies []manifest.AccessPolicy) (*Engine, error) {
	ordered := slices.Clone(policies)
	slices.SortStableFunc(ordered, func(a, b manifest.AccessPolicy) int {
		return cmp.Compare(a.Metadata.Name, b.Metadata.Name)
	})
	e := &Engine{}
	for _, p := range ordered {
		subjects, err := compileSubjects(p.Spec.From)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Metadata.Name, err)
		}
		for i, r := range p.Spec.Allow {
			name := fmt.Sprintf("%s/%d", p.Metadata.Name, i)
			c, err := compileRule(name, p.Spec, r, subjects)
			if err != nil {
				return nil, fmt.Errorf("policy rule %s: %w", name, err)
			}
			e.rules = append(e.rules, c)
		}
	}
	return e, nil
}

func compileSubjects(subjects []manifest.Subject) ([]from, error) {
	all := make([]from, len(subjects))
	for i, s := range subjects {
		var err error
		// An empty peer is no wildcard: whoever a policy is for is written.
		if s.Peer == "" {
			return nil, fmt.Errorf("from[%d]: peer is required", i)
		}
		if all[i].peer, err = pattern(s.Peer); err != nil {
			return nil, fmt.Errorf("from[%d]: peer: %w", i, err)
		}
		if all[i].group, err = pattern(s.Group); err != nil {
			return nil, fmt.Errorf("from[%d].group: %w", i, err)
		}
		if all[i].caller, err = pattern(s.Caller); err != nil {
			return nil, fmt.Errorf("from[%d]: caller: %w", i, err)
		}
	}
	return all, nil
}

// Decide answers a request whose object is known. Labels and a container that are nil are not there to match: a rule
// that needs them does not allow.
func (e *Engine) Decide(r Request) Decision {
	q := query{Request: &r, verb: verbBits[r.Verb], kind: kindBits[r.Object.Kind], known: decided(&r)}
	var refused refusal
	for _, rule := range e.rules {
		if rule.match(&q) != condition.True {
			continue
		}
		if rule.when != nil {
			if outcome, err := hold(rule, r, q.known); outcome != condition.True {
				refused.note(rule, err)
				continue
			}
		}
		return Decision{Allow: true, Rule: rule.name, Reason: rule.reason, Options: rule.options}
	}
	return Decision{Reason: e.denial(r, q.known, refused), Options: strictest}
}

// hold is apart from Decide, and has its own copy of the request, to keep Decide free of allocation.
//
//go:noinline
func hold(rule *rule, r Request, known condition.Known) (condition.Outcome, error) {
	return rule.holds(&query{Request: &r, known: known})
}

// decided is what is known of a request at its decision.
func decided(r *Request) condition.Known {
	known := condition.Caller | condition.Namespace | condition.Name
	if r.Object.Labels != nil {
		known |= condition.Labels
	}
	if r.Object.Container != nil {
		known |= condition.Container
	}
	if c, v := r.Object.Container, r.Object.Volume; c != nil && len(c.UnseenMounts) == 0 || v != nil && !v.Unseen {
		known |= condition.Mounts
	}
	return known
}

// undecided is what is known of a request at its head.
func undecided(r *Request) condition.Known {
	known := decided(r)
	if r.Object.Namespace == "" && !clusterWide(r.Object.Kind) {
		known &^= condition.Namespace
	}
	if r.Object.Name == "" {
		known &^= condition.Name
	}
	return known
}

// clusterWide tells whether objects of a kind are in no namespace on any orchestrator.
func clusterWide(kind neutral.Kind) bool {
	return kind == neutral.KindSystem || kind == neutral.KindNode
}

// Check answers a request before its object was looked up. See Request for what it takes as unknown.
func (e *Engine) Check(r Request) (Outcome, Decision) { return e.check(r, undecided(&r)) }

func (e *Engine) check(r Request, known condition.Known) (Outcome, Decision) {
	q := query{Request: &r, verb: verbBits[r.Verb], kind: kindBits[r.Object.Kind], known: known}
	var (
		refused  refusal
		possible *rule // the first that may allow it
		mixed    bool  // those that may differ in their options
	)
	for _, rule := range e.rules {
		outcome := rule.match(&q)
		if outcome != condition.False && rule.when != nil {
			holds, err := hold(rule, r, known)
			if holds == condition.False {
				refused.note(rule, err)
			}
			outcome = both(outcome, holds)
		}
		switch {
		case outcome == condition.False:
		case outcome == condition.True && (possible == nil || !mixed && possible.options == rule.options):
			return Allow, Decision{Allow: true, Rule: rule.name, Reason: rule.reason, Options: rule.options}
		case outcome == condition.True:
			// It is allowed either way, yet an earlier rule may set other options for some objects.
			return NeedsObject, Decision{Reason: "it depends on the object which of " + possible.name + " and " + rule.name +
				" allows it", Options: strictest}
		case possible == nil:
			possible = rule
		default:
			mixed = mixed || possible.options != rule.options
		}
	}
	if possible != nil {
		return NeedsObject, Decision{Reason: "it depends on the object whether " + possible.name + " allows it", Options: strictest}
	}
	return Deny, Decision{Reason: e.denial(r, known, refused), Options: strictest}
}
