package parity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// Cause is why a row is not equal.
type Cause string

// The causes.
const (
	Physics Cause = "physics"      // the other orchestrator has no such thing, or nobody there can know it
	Safety  Cause = "safety"       // it could be told or done, and must not
	Testbed Cause = "testbed"      // the machine of the tests, or the age of its programs
	Undone  Cause = "not done yet" // it could be equal
)

var causes = []Cause{Physics, Safety, Testbed, Undone}

// Acceptance is a difference that was looked at and is taken as it is.
type Acceptance struct {
	Row     string  `yaml:"row"`
	Verdict Verdict `yaml:"verdict"`
	Cause   Cause   `yaml:"cause"`
	Reason  string  `yaml:"reason"`
	// Pattern is a regular expression of the whole difference, where that is not the same each time.
	Pattern    string     `yaml:"pattern,omitempty"`
	Difference Difference `yaml:"difference,omitempty"`
}

// Accepted are all acceptances by their rows.
type Accepted map[string]Acceptance

const head = `# The differences between a command's direct answer and the one through Isthmus that are accepted, each with its cause
# (physics, safety, testbed, not done yet) and its reason. docs/parity.md is made of this file and the scenarios beside it.
# ` + "`go test ./e2e -run TestParity -update`" + ` writes verdicts and differences, causes and reasons are written
# by hand, and ` + "`go test ./e2e/parity -update`" + ` writes the page.
`

// ReadAccepted reads the file; one that is not there accepts nothing.
func ReadAccepted(path string) (Accepted, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Accepted{}, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Acceptance
	decoder := yamlv3.NewDecoder(strings.NewReader(string(data)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	all := Accepted{}
	for _, a := range list {
		if _, twice := all[a.Row]; twice {
			return nil, fmt.Errorf("%s: row %s is there twice", path, a.Row)
		}
		all[a.Row] = a
	}
	return all, nil
}

// Write writes the file, in the order of the rows' names.
func (all Accepted) Write(path string) error {
	list := make([]Acceptance, 0, len(all))
	for _, a := range all {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Acceptance) int { return strings.Compare(a.Row, b.Row) })
	var out strings.Builder
	out.WriteString(head)
	encoder := yamlv3.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(list); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(out.String()), 0o644) //nolint:gosec // a file of the repository
}

// Check says what is wrong with the acceptances themselves: rows that are not there, and what nobody gave a reason for.
func (all Accepted) Check(scenarios []Scenario) error {
	rows := rowsOf(scenarios)
	var errs []error
	for _, a := range all {
		switch {
		case !rows[a.Row]:
			errs = append(errs, fmt.Errorf("%s: no scenario has this row", a.Row))
		case a.Verdict != Approximated && a.Verdict != Refused:
			errs = append(errs, fmt.Errorf("%s: verdict %q is neither approximated nor refused", a.Row, a.Verdict))
		case !slices.Contains(causes, a.Cause):
			errs = append(errs, fmt.Errorf("%s: its cause %q is none of %q", a.Row, a.Cause, causes))
		case strings.TrimSpace(a.Reason) == "":
			errs = append(errs, fmt.Errorf("%s: no reason is given", a.Row))
		case a.Pattern == "" && a.Difference == "":
			errs = append(errs, fmt.Errorf("%s: neither a difference nor a pattern of it is given", a.Row))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// Forget drops the acceptances of rows that are not there any more.
func (all Accepted) Forget(scenarios []Scenario) {
	rows := rowsOf(scenarios)
	for row := range all {
		if !rows[row] {
			delete(all, row)
		}
	}
}

func rowsOf(scenarios []Scenario) map[string]bool {
	rows := map[string]bool{}
	for _, s := range scenarios {
		for _, step := range s.Rows() {
			rows[s.Row(step)] = true
		}
	}
	return rows
}

// Judge says what is wrong with what a row gave.
func (all Accepted) Judge(row string, verdict Verdict, difference Difference) error {
	a, accepted := all[row]
	switch {
	case !accepted && verdict == Equal:
		return nil
	case !accepted:
		return fmt.Errorf("%s, which nobody accepted:\n%s", verdict, difference)
	case verdict == Equal:
		return errors.New("equal, and its difference is still accepted")
	case verdict != a.Verdict:
		return fmt.Errorf("%s, accepted is that it is %s:\n%s", verdict, a.Verdict, difference)
	case a.Pattern != "":
		pattern, err := regexp.Compile(`^(?s:` + a.Pattern + `)$`)
		if err != nil {
			return err
		}
		if !pattern.MatchString(strings.TrimSpace(string(difference))) {
			return fmt.Errorf("differs otherwise than accepted, which is %q:\n%s", a.Pattern, difference)
		}
	case a.Difference != difference:
		return fmt.Errorf("differs otherwise than accepted:\n%s\naccepted:\n%s", difference, a.Difference)
	}
	return nil
}

// Take writes down what a row gave; cause and reason stay as they are.
func (all Accepted) Take(row string, verdict Verdict, difference Difference) {
	if all.Judge(row, verdict, difference) == nil {
		return
	}
	if verdict == Equal {
		delete(all, row)
		return
	}
	a := all[row]
	a.Row, a.Verdict, a.Difference, a.Pattern = row, verdict, difference, ""
	all[row] = a
}
