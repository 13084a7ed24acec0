package parity

import (
	"fmt"
	"strings"
)

// intro is what the page says of each direction.
var intro = map[string]string{
	"docker":  "directly: a Docker engine that is a Swarm; through Isthmus: Kubernetes",
	"kubectl": "directly: Kubernetes; through Isthmus: a Docker engine that is a Swarm",
}

// Page is docs/parity.md.
func Page(scenarios []Scenario, accepted Accepted) string {
	var b strings.Builder
	b.WriteString(`# The same command, directly and through Isthmus

Each row is a command of an unmodified client. A test (` + "`TestParity` in `e2e`" + `) runs it twice: against a real
orchestrator of the client's own kind, and through two gateways against the other kind. It compares exit codes and what
is printed, after it has replaced what differs from run to run: ids, times, ages, addresses. ` + "`$ID`" + ` is
what the objects of a scenario are named by.

| verdict | the answer through Isthmus |
|---|---|
| equal | is the same |
| approximated | differs from the direct one, as the reason says |
| refused | is an error, where the direct one is none |

This page is made of the scenarios in ` + "`e2e/testdata/parity`" + ` and of ` + "`accepted.yaml`" + ` there, which has every accepted
difference line by line, and the test fails where a run's verdicts are others.

| client | rows | equal | approximated | refused |
|---|---|---|---|---|
`)
	for _, direction := range Directions {
		count, total := map[Verdict]int{}, 0
		for _, s := range scenarios {
			if s.Direction != direction {
				continue
			}
			for _, step := range s.Rows() {
				count[accepted.verdict(s.Row(step))]++
				total++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", direction, total, count[Equal], count[Approximated], count[Refused])
	}
	b.WriteString("\nCauses of what is not equal:\n\n| cause | rows | |\n|---|---|---|\n")
	for _, cause := range causes {
		n := 0
		for _, a := range accepted {
			if a.Cause == cause {
				n++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %s |\n", cause, n, meaning[cause])
	}
	for _, direction := range Directions {
		fmt.Fprintf(&b, "\n## %s\n\nThe arms are, %s.\n", direction, intro[direction])
		for _, s := range scenarios {
			if s.Direction != direction {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n\n| row | command | verdict | reason |\n|---|---|---|---|\n", strings.TrimSuffix(s.Title, "."))
			for _, step := range s.Rows() {
				a, told := accepted[s.Row(step)]
				reason := ""
				if told {
					reason = fmt.Sprintf("%s: %s", a.Cause, a.Reason)
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", step.Name, code(step.Command), accepted.verdict(s.Row(step)), cell(reason))
			}
		}
	}
	return b.String()
}

var meaning = map[Cause]string{
	Physics: "the other orchestrator has no such thing, or nobody there can know it",
	Safety:  "it could be told or done, and must not: addresses, secrets, what a policy forbids",
	Testbed: "the machine of the tests, or the age of its programs",
	Undone:  "it could be equal",
}

func (all Accepted) verdict(row string) Verdict {
	if a, told := all[row]; told {
		return a.Verdict
	}
	return Equal
}

// code is a command as a cell of a table.
func code(command string) string {
	command = strings.Join(strings.Fields(command), " ")
	if strings.Contains(command, "`") {
		return "`` " + cell(command) + " ``"
	}
	return "`" + cell(command) + "`"
}

func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
