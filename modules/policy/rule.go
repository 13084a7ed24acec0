package policy

import (
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
	"github.com/isthmus-mesh/isthmus/modules/policy/glob"
)

// rule is one entry of a policy's allow, compiled.
type rule struct {
	name    string // "west-ci/0"
	reason  string // of a permission
	from    []from
	verbs   set
	kinds   set // of all its objects
	objects []matcher
	when    *condition.Condition
	options Options
}

type from struct{ peer, caller, group glob.Pattern }

// matcher is one entry of a rule's objects, compiled.
type matcher struct {
	kinds     set
	namespace glob.Pattern
	name      glob.Pattern
	resource  glob.Pattern
	labels    []label
}

type label struct {
	key   string
	value glob.Pattern
}

// set is a set of verbs or of kinds, by their places in neutral's lists.
type set uint32

const all = ^set(0)

var (
	verbBits = bits(neutral.Verbs)
	kindBits = bits(neutral.Kinds)
)

func bits[W ~string](words []W) map[W]set {
	m := make(map[W]set, len(words))
	for i, w := range words {
		m[w] = 1 << i
	}
	return m
}

func setOf[W ~string](words []string, known map[W]set) (set, error) {
	var s set
	for _, w := range words {
		if w == "*" {
			return all, nil
		}
		bit, ok := known[W(w)]
		if !ok {
			return 0, fmt.Errorf("unknown word %q", w)
		}
		s |= bit
	}
	return s, nil
}

// pattern compiles an optional pattern; a field that is left out is any.
func pattern(text string) (glob.Pattern, error) {
	if text == "" {
		return glob.Pattern{}, nil
	}
	return glob.Compile(text)
}

func compileRule(name string, p manifest.AccessPolicySpec, r manifest.Rule, subjects []from) (*rule, error) {
	c := &rule{
		name: name, reason: "allowed by " + name, from: subjects,
		options: Options{Pause: p.Pause, NetworkMode: p.NetworkMode, NetworkSwitch: p.NetworkSwitch, Addresses: p.Addresses},
	}
	var err error
	if c.verbs, err = setOf(r.Verbs, verbBits); err != nil {
		return nil, fmt.Errorf("verbs: %w", err)
	}
	for i, o := range r.Objects {
		m, err := compileMatcher(o)
		if err != nil {
			return nil, fmt.Errorf("objects[%d]: %w", i, err)
		}
		c.objects = append(c.objects, m)
		c.kinds |= m.kinds
	}
	if r.When != "" {
		if c.when, err = condition.Compile(r.When); err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
	}
	return c, nil
}

func compileMatcher(o manifest.ObjectMatcher) (m matcher, err error) {
	m.kinds = all
	if o.Kind != "" {
		if m.kinds, err = setOf([]string{o.Kind}, kindBits); err != nil {
			return m, fmt.Errorf("kind: %w", err)
		}
	}
	if m.namespace, err = pattern(o.Namespace); err != nil {
		return m, fmt.Errorf("namespace: %w", err)
	}
	if m.name, err = pattern(o.Name); err != nil {
		return m, fmt.Errorf("name: %w", err)
	}
	if m.resource, err = pattern(o.Resource); err != nil {
		return m, fmt.Errorf("resource: %w", err)
	}
	for key, value := range o.Labels {
		// Labels without a value are common, so unlike the other patterns an empty one is exact.
		l := label{key: key, value: glob.Exact("")}
		if value != "" {
			if l.value, err = glob.Compile(value); err != nil {
				return m, fmt.Errorf("labels: %s: %w", key, err)
			}
		}
		m.labels = append(m.labels, l)
	}
	return m, nil
}

// query is a request with its verb and kind looked up once.
type query struct {
	*Request
	verb, kind set
	known      condition.Known
}

// failure is the first thing of a rule that a request does not meet.
type failure uint8

const (
	none failure = iota
	peer
	caller
	verb
	object
)

// match holds a request against everything of a rule but its condition, the cheapest first.
func (r *rule) match(q *query) condition.Outcome {
	if r.verbs&q.verb == 0 || r.kinds&q.kind == 0 {
		return condition.False
	}
	objects := r.matchObjects(q)
	if objects == condition.False {
		return condition.False
	}
	return both(objects, r.matchFrom(q))
}

func (r *rule) matchFrom(q *query) condition.Outcome {
	outcome := condition.False
	for i := range r.from {
		f := &r.from[i]
		if !f.peer.Match(q.Peer) {
			continue
		}
		switch {
		case f.caller.Any() && f.group.Any():
			return condition.True
		case !q.known.Has(condition.Caller):
			outcome = condition.Undecided
		case f.caller.Match(q.Caller) && f.inGroup(q.Groups):
			return condition.True
		}
	}
	return outcome
}

// inGroup tells whether one of the caller's groups is meant.
func (f *from) inGroup(groups modules.Groups) bool {
	if f.group.Any() {
		return true
	}
	for rest := groups.Told(); rest != ""; { // an iterator would be allocated
		var group string
		if group, rest, _ = strings.Cut(rest, ","); f.group.Match(group) {
			return true
		}
	}
	return false
}

func (r *rule) matchObjects(q *query) condition.Outcome {
	outcome := condition.False
	for i := range r.objects {
		switch r.objects[i].match(q) {
		case condition.True:
			return condition.True
		case condition.Undecided:
			outcome = condition.Undecided
		case condition.False:
		}
	}
	return outcome
}

// lacks tells what match failed by, in the order in which an admin reads a rule.
func (r *rule) lacks(q *query) failure {
	if r.matchFrom(q) == condition.False {
		for i := range r.from {
			if r.from[i].peer.Match(q.Peer) {
				return caller
			}
		}
		return peer
	}
	if r.verbs&q.verb == 0 {
		return verb
	}
	return object
}

func (m *matcher) match(q *query) condition.Outcome {
	if m.kinds&q.kind == 0 || !m.resource.Match(q.Object.Resource) {
		return condition.False
	}
	outcome := condition.True
	if !m.namespace.Any() {
		if !q.known.Has(condition.Namespace) {
			outcome = condition.Undecided
		} else if !m.namespace.Match(q.Object.Namespace) {
			return condition.False
		}
	}
	if !m.name.Any() {
		if !q.known.Has(condition.Name) {
			outcome = condition.Undecided
		} else if !m.name.Match(q.Object.Name) {
			return condition.False
		}
	}
	if len(m.labels) == 0 {
		return outcome
	}
	if !q.known.Has(condition.Labels) {
		return condition.Undecided
	}
	for i := range m.labels {
		value, ok := q.Object.Labels[m.labels[i].key]
		if !ok || !m.labels[i].value.Match(value) {
			return condition.False
		}
	}
	return outcome
}

// both is the conjunction of two outcomes.
func both(a, b condition.Outcome) condition.Outcome {
	switch {
	case a == condition.False || b == condition.False:
		return condition.False
	case a == condition.Undecided || b == condition.Undecided:
		return condition.Undecided
	}
	return condition.True
}

// holds evaluates the rule's condition.
func (r *rule) holds(q *query) (condition.Outcome, error) {
	outcome, err := r.when.Eval(condition.Input{
		Peer: q.Peer, Caller: q.Caller, Groups: q.Groups, Verb: q.Verb, Object: q.Object, Known: q.known,
	})
	if outcome != condition.True {
		return outcome, err
	}
	for _, word := range q.Object.Asks {
		if !r.when.Mentions(word) {
			return condition.False, fmt.Errorf("it is asked for %s, of which the condition says nothing", word)
		}
	}
	return outcome, nil
}
