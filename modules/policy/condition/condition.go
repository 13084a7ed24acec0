// Package condition is the language of a policy's `when`: CEL over the neutral object. What is not known yet about an
// object makes a condition undecided rather than false, so that a request can be judged before its object is looked up.
package condition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Limits of a condition. The cost is CEL's own unit; a comparison is about one.
const (
	maxSource = 4096
	maxCost   = 100_000
)

// Known says which parts of an input are known. The other parts of an Input are always known.
type Known uint8

// The parts of an input that may not be known yet.
const (
	Caller Known = 1 << iota
	Namespace
	Name
	Labels
	Container
	Mounts // which of the host's paths

	Everything = Caller | Namespace | Name | Labels | Container | Mounts
)

// Has tells whether all of parts are known.
func (k Known) Has(parts Known) bool { return k&parts == parts }

// Input is what a condition is evaluated over.
type Input struct {
	Peer, Caller string
	Groups       modules.Groups // of the caller
	Verb         neutral.Verb
	Object       neutral.Object
	Known        Known
}

// Outcome is what a condition gives.
type Outcome uint8

// The outcomes.
const (
	False Outcome = iota
	True
	Undecided // it needs what is not known
)

// Condition is a compiled condition. It is safe for concurrent use.
type Condition struct {
	source   string
	program  cel.Program
	mentions map[string]bool
}

// Problem is one thing that is wrong with a condition's source. Line and Column start at 1.
type Problem struct {
	Line, Column int
	Message      string
}

// Error places the message in the source.
func (p Problem) Error() string {
	if p.Line <= 1 {
		return fmt.Sprintf("column %d: %s", p.Column, p.Message)
	}
	return fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, p.Message)
}

// Problems are all things that are wrong with a condition's source; there is at least one.
type Problems []Problem

// Error lists the problems.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "; ")
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ParserRecursionLimit(64),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(2)),
		cel.OptionalTypes(),
		ext.Strings(),
		ext.Sets(),
	}
	for _, a := range Attributes {
		options = append(options, cel.VariableWithDoc(a.Name, a.celType, a.Meaning))
	}
	return cel.NewEnv(options...)
})

// Compile reads a condition. Its error is Problems when the source is at fault.
func Compile(source string) (*Condition, error) {
	if strings.TrimSpace(source) == "" {
		return nil, Problems{{Line: 1, Column: 1, Message: "the condition is empty"}}
	}
	if len(source) > maxSource {
		return nil, Problems{{Line: 1, Column: 1, Message: fmt.Sprintf("a condition has at most %d bytes", maxSource)}}
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("CEL environment: %w", err)
	}
	parsed, issues := env.Parse(source)
	if issues.Err() != nil {
		return nil, problemsOf(issues)
	}
	if unknown := unknownAttributes(parsed); len(unknown) > 0 {
		return nil, unknown
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, problemsOf(issues)
	}
	if out := checked.OutputType(); !out.IsExactType(cel.BoolType) {
		return nil, Problems{{Line: 1, Column: 1, Message: fmt.Sprintf("the condition gives %s, not bool", out)}}
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, Problems{{Line: 1, Column: 1, Message: err.Error()}}
	}
	return &Condition{source: source, program: program, mentions: mentions(checked)}, nil
}

// Mentions tells whether the condition speaks of an attribute.
func (c *Condition) Mentions(attribute string) bool { return c.mentions[attribute] }

// mentions are the attributes that an expression refers to.
func mentions(checked *cel.Ast) map[string]bool {
	found := map[string]bool{}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		if _, ok := attributes[reference.Name]; ok {
			found[reference.Name] = true
		}
	}
	return found
}

func problemsOf(issues *cel.Issues) Problems {
	var problems Problems
	for _, e := range issues.Errors() {
		problems = append(problems, Problem{
			Line: max(1, e.Location.Line()), Column: max(1, e.Location.Column()+1),
			Message: strings.ReplaceAll(e.Message, " (in container '')", ""),
		})
	}
	if len(problems) == 0 {
		problems = Problems{{Line: 1, Column: 1, Message: issues.Err().Error()}}
	}
	return problems
}

// String is the condition's source.
func (c *Condition) String() string { return c.source }

// Missing says what an undecided condition needs.
type Missing struct{ unknown *types.Unknown }

// Error names the attributes that are not known.
func (m *Missing) Error() string {
	var names []string
	for _, id := range m.unknown.IDs() {
		trails, _ := m.unknown.GetAttributeTrails(id)
		for _, t := range trails {
			names = append(names, t.Variable())
		}
	}
	slices.Sort(names)
	return "it needs " + strings.Join(slices.Compact(names), ", ") + ", which this operation does not carry"
}

// Eval evaluates the condition. With an error the outcome is False when it could not be evaluated (no such key, too
// costly ...), and Undecided when it is Missing something.
func (c *Condition) Eval(in Input) (Outcome, error) {
	value, _, err := c.program.Eval(activation{&in})
	if err != nil {
		return False, clean(err)
	}
	switch v := value.(type) {
	case types.Bool:
		if v {
			return True, nil
		}
		return False, nil
	case *types.Unknown:
		return Undecided, &Missing{unknown: v}
	}
	return False, fmt.Errorf("the condition gave %s", typeName(value))
}

func typeName(value ref.Val) string {
	if value == nil {
		return "nothing"
	}
	return value.Type().TypeName()
}

func clean(err error) error {
	if strings.Contains(err.Error(), "actual cost limit exceeded") {
		return errors.New("the condition is too costly for this object")
	}
	return err
}
