// Package parity compares what the same client commands answer when they ask a real orchestrator and when they ask,
// through Isthmus, a foreign one. It reads the scenarios, carries them out on both arms, normalises and compares the
// answers, keeps the differences that are accepted, and makes the page that tells of them.
package parity

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

// Directions are the clients whose commands are compared; each has a folder of scenarios.
var Directions = []string{"docker", "kubectl"}

// Scenario is a run of commands on one arm, some of which are rows.
type Scenario struct {
	Direction string
	Name      string
	Title     string // what its first comment says
	Steps     []Step
	Files     []txtar.File // they are in the folder in which the steps run
}

// Kind is what a step is for.
type Kind int

// The kinds of steps.
const (
	Compared Kind = iota // a row
	Setup                // must succeed on both arms
	Until                // is tried until it succeeds on both arms
	End                  // is run at the end whatever came before
)

// words are how a scenario says what a step is for; any other word is the name of a row.
var words = map[string]Kind{"setup": Setup, "until": Until, "end": End}

// Step is one line for a shell.
type Step struct {
	Kind    Kind
	Name    string // of a row, within its scenario
	Command string
	Line    int
}

// ID is the name of the objects that the scenario makes.
func (s Scenario) ID() string { return s.Direction[:1] + "-" + s.Name }

// Row is the name of a step among all rows.
func (s Scenario) Row(step Step) string { return s.Direction + "/" + s.Name + "/" + step.Name }

// Rows are the steps that are compared.
func (s Scenario) Rows() []Step {
	var rows []Step
	for _, step := range s.Steps {
		if step.Kind == Compared {
			rows = append(rows, step)
		}
	}
	return rows
}

var lineForm = regexp.MustCompile(`^([a-z0-9][a-z0-9-]*): (.*)$`)

// Parse reads a scenario: lines `word: command`, continued by lines that begin with a tab, comments, and files in the
// form of txtar.
func Parse(direction, name string, data []byte) (Scenario, error) {
	archive := txtar.Parse(data)
	s := Scenario{Direction: direction, Name: name, Files: archive.Files}
	named := map[string]bool{}
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		at := fmt.Sprintf("%s/%s:%d", direction, name, i+1)
		match := lineForm.FindStringSubmatch(line)
		switch {
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "#"):
			if s.Title == "" {
				s.Title = strings.TrimSpace(strings.TrimPrefix(line, "#"))
			}
		case strings.HasPrefix(line, "\t") && len(s.Steps) > 0:
			s.Steps[len(s.Steps)-1].Command += "\n" + strings.TrimPrefix(line, "\t")
		case match == nil:
			return s, fmt.Errorf("%s: %q is no step, which is `word: command`", at, line)
		default:
			step := Step{Command: match[2], Line: i + 1}
			if kind, known := words[match[1]]; known {
				step.Kind = kind
			} else if step.Name = match[1]; named[step.Name] {
				return s, fmt.Errorf("%s: row %s is there twice", at, step.Name)
			}
			named[step.Name] = true
			s.Steps = append(s.Steps, step)
		}
	}
	if s.Title == "" {
		return s, fmt.Errorf("%s/%s: its first line is a comment that says what it is about", direction, name)
	}
	if len(s.Rows()) == 0 {
		return s, fmt.Errorf("%s/%s compares nothing", direction, name)
	}
	return s, nil
}

// Scenarios reads all scenarios of a folder that has a folder for each direction, in the order of their names.
func Scenarios(folder string) ([]Scenario, error) {
	var all []Scenario
	for _, direction := range Directions {
		paths, err := filepath.Glob(filepath.Join(folder, direction, "*.txtar"))
		if err != nil {
			return nil, err
		}
		slices.Sort(paths)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			s, err := Parse(direction, strings.TrimSuffix(filepath.Base(path), ".txtar"), data)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no scenarios", folder)
	}
	return all, nil
}
