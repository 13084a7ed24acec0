package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/policy"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Test access policies"}
	c.AddCommand(policyTestCommand())
	return c
}

func policyTestCommand() *cobra.Command {
	options := policyTest{}
	c := &cobra.Command{
		Use:   "test FILE...",
		Short: "Hold access policies against files of expected decisions",
		Long: "Reads PolicyTest documents: requests, each with the decision that is expected and why. The policies are those\n" +
			"that each document names (spec.policies, relative to its file), or those of --config. No gateway is needed and\n" +
			"nothing is asked of a cluster. Exit status 0 when every decision is as expected, 1 otherwise.",
		Example: "  isthmus policy test policy_test.yaml\n  isthmus policy test policy_test.yaml --config east.yaml --verbose",
		Args:    cobra.MinimumNArgs(1),
	}
	c.Flags().StringSliceVar(&options.config, "config", nil, "file or folder with the policies; may be given several times (default: what each document names)")
	c.Flags().BoolVarP(&options.verbose, "verbose", "v", false, "print the cases that pass, and for those that fail what each rule says")
	c.Flags().StringVar(&options.output, "output", "text", "text or json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(options.output); err != nil {
			return err
		}
		return options.run(cmd.OutOrStdout(), args)
	}
	return c
}

// checkOutput is what --output may be.
func checkOutput(format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("--output %q is neither text nor json", format)
	}
	return nil
}

// policyTest is one run of isthmus policy test.
type policyTest struct {
	config  []string
	verbose bool
	output  string
}

// PolicyTestReport is what isthmus policy test prints as JSON.
type PolicyTestReport struct {
	Passed int              `json:"passed"`
	Failed int              `json:"failed"`
	Cases  []PolicyTestCase `json:"cases"`
}

// PolicyTestCase is one case of a report.
type PolicyTestCase struct {
	At       string              `json:"at"` // file:line
	Test     string              `json:"test"`
	Case     string              `json:"case"`
	Passed   bool                `json:"passed"`
	Failures []PolicyTestFailure `json:"failures,omitempty"`
}

// PolicyTestFailure is one request of a case that was not decided as expected.
type PolicyTestFailure struct {
	Request  string            `json:"request"`
	Problem  string            `json:"problem"`
	Policies []ExplainedPolicy `json:"policies"`
}

func (t policyTest) run(w io.Writer, files []string) error {
	var report PolicyTestReport
	for _, file := range files {
		documents, err := manifest.Documents[policy.Expectations](policy.ExpectationKind, file)
		if err != nil {
			return err
		}
		if len(documents) == 0 {
			return fmt.Errorf("%s holds no %s document", file, policy.ExpectationKind)
		}
		for _, d := range documents {
			if err := t.hold(d, &report); err != nil {
				return err
			}
		}
	}
	if err := t.print(w, report); err != nil {
		return err
	}
	if report.Failed > 0 {
		return fmt.Errorf("%d of %s not decided as expected", report.Failed, plural(report.Passed+report.Failed, "case"))
	}
	return nil
}

// hold asks the policies of one document.
func (t policyTest) hold(d manifest.Document[policy.Expectations], report *PolicyTestReport) error {
	paths := t.config
	if len(paths) == 0 {
		for _, p := range d.Value.Spec.Policies {
			if !filepath.IsAbs(p) {
				p = filepath.Join(filepath.Dir(d.Position().File), p)
			}
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s: no policies to test: name them in spec.policies, or with --config", d.Position())
	}
	policies, err := manifest.Policies(paths...)
	if err != nil {
		return err
	}
	engine, err := policy.Compile(policies)
	if err != nil {
		return err
	}
	var wrong []error
	for i, x := range d.Value.Spec.Cases {
		at := d.At(fmt.Sprintf("spec.cases[%d]", i))
		if what := x.Validate(); what != "" {
			wrong = append(wrong, fmt.Errorf("%s: spec.cases[%d]: %s", at, i, what))
			continue
		}
		failures := x.Check(engine)
		result := PolicyTestCase{At: at.String(), Test: d.Value.Metadata.Name, Case: x.Name, Passed: len(failures) == 0}
		for _, f := range failures {
			result.Failures = append(result.Failures, PolicyTestFailure{Request: f.Request.String(), Problem: f.Problem,
				Policies: explainedPolicies(f.Found)})
		}
		if result.Passed {
			report.Passed++
		} else {
			report.Failed++
		}
		report.Cases = append(report.Cases, result)
	}
	return errors.Join(wrong...)
}

func (t policyTest) print(w io.Writer, report PolicyTestReport) error {
	if t.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	for _, c := range report.Cases {
		if c.Passed {
			if t.verbose {
				fmt.Fprintf(w, "ok    %s: %s\n", c.At, c.Case)
			}
			continue
		}
		for _, f := range c.Failures {
			fmt.Fprintf(w, "FAIL  %s: %s: %s: %s\n", c.At, c.Case, f.Request, f.Problem)
			if t.verbose {
				printPolicies(w, "      ", f.Policies)
			}
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", report.Passed, report.Failed)
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
