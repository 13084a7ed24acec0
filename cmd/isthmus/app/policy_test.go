package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPolicyTestExample runs the example as its comment says.
func TestPolicyTestExample(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := run(t, "policy", "test", filepath.Join(examples, "policy_test.yaml"))
	if code != 0 || stdout != "8 passed, 0 failed\n" || stderr != "" {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
}

const policyTestHead = "apiVersion: isthmus.io/v1alpha1\nkind: PolicyTest\nmetadata: {name: east}\nspec:\n  policies: [policies.yaml]\n  cases:\n"

// TestPolicyTestFails wants each failing case on one line with its place, and exit status 1.
func TestPolicyTestFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "policies.yaml", policyEast)
	for name, c := range map[string]struct{ text, says string }{
		"not allowed": {"  - {name: a, peer: east, verbs: [list, create], object: {kind: container}, expect: allow}",
			"FAIL  DIR/t.yaml:7: a: peer east: create container: expected allow, got deny: no rule for this caller allows create\n0 passed, 1 failed\n"},
		"not denied": {"  - {name: a, peer: east, verbs: [query], object: {kind: service, namespace: shop, name: web}, expect: deny}",
			"FAIL  DIR/t.yaml:7: a: peer east: query service shop/web: expected deny, got allow by east/0\n"},
		"another rule": {"  - {name: a, peer: east, verbs: [list], object: {kind: container}, expect: allow, rule: east/0}",
			"expected allow by east/0, got allow by east/1\n"},
		"another reason": {"  - {name: a, peer: north, verbs: [list], object: {kind: container}, expect: deny, why: caller}",
			"FAIL  DIR/t.yaml:7: a: peer north: list container: expected deny with \"caller\" in its reason, got deny: no policy is for peer north\n"},
		"every verb": {"  - {name: a, peer: east, verbs: [\"*\"], object: {kind: service, namespace: shop, name: web}, expect: allow}",
			"peer east: raw service shop/web: expected allow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := t.TempDir()
			write(t, own, "policies.yaml", policyEast)
			code, stdout, stderr := run(t, "policy", "test", write(t, own, "t.yaml", policyTestHead+c.text))
			if got := strings.ReplaceAll(stdout, own, "DIR"); code != 1 || !strings.Contains(got, c.says) {
				t.Errorf("exit status %d: %s%s", code, got, stderr)
			}
			if stderr != "isthmus: 1 of 1 case not decided as expected\n" {
				t.Errorf("standard error: %s", stderr)
			}
		})
	}
}

// TestPolicyTestRefuses wants what is wrong with a file said with its place.
func TestPolicyTestRefuses(t *testing.T) {
	t.Parallel()
	good := "  - {name: a, peer: east, verbs: [list], object: {kind: container}, expect: allow}\n"
	for name, c := range map[string]struct{ text, says string }{
		"unknown field":   {policyTestHead + strings.Replace(good, "expect", "expct", 1), `t.yaml:7: spec.cases[0].expct: unknown field; did you mean "expect"?`},
		"unknown verb":    {policyTestHead + strings.Replace(good, "list", "lsit", 1), `t.yaml:7: spec.cases[0].verbs[0]: unknown verb "lsit"; did you mean "list"?`},
		"no object":       {policyTestHead + "  - {name: a, peer: east, verbs: [list], expect: allow}", "t.yaml:7: spec.cases[0].object: is required"},
		"another word":    {policyTestHead + strings.Replace(good, "expect: allow", "expect: maybe", 1), `unknown value "maybe"`},
		"another kind":    {strings.Replace(policyTestHead, "PolicyTest", "AccessPolicy", 1) + good, "t.yaml:2: kind: must be PolicyTest here"},
		"another version": {strings.Replace(policyTestHead, "v1alpha1", "v9", 1) + good, "t.yaml:1: apiVersion: must be isthmus.io/v1alpha1 here"},
		"no document":     {"---\n", "holds no PolicyTest document"},
		"no cases":        {policyTestHead, "spec.cases: is required"},
		"no policies":     {strings.Replace(policyTestHead, "  policies: [policies.yaml]\n", "", 1) + good, "name them in spec.policies, or with --config"},
		"policies away":   {strings.Replace(policyTestHead, "policies.yaml", "away.yaml", 1) + good, "away.yaml: no such file"},
		"a denial's rule": {policyTestHead + strings.Replace(good, "expect: allow", "expect: deny, rule: east/0", 1), "spec.cases[0]: rule is the rule that allows"},
		"any kind":        {policyTestHead + strings.Replace(good, "kind: container", `kind: "*"`, 1), "the object's kind is written out"},
		"a wrong port": {policyTestHead + strings.Replace(good, "kind: container", "kind: container, container: {hostPorts: [70000]}", 1),
			"spec.cases[0].object.container.hostPorts[0]: must be from 0 to 65535"},
		"no YAML": {"a: [", "t.yaml:1: no valid YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "policies.yaml", policyEast)
			code, stdout, stderr := run(t, "policy", "test", write(t, dir, "t.yaml", c.text))
			if code != 1 || !strings.Contains(stderr, c.says) || stdout != "" {
				t.Errorf("exit status %d: %s%s", code, stdout, stderr)
			}
		})
	}
	if code, _, stderr := run(t, "policy", "test"); code != 2 || !strings.Contains(stderr, "at least 1 arg") {
		t.Errorf("without a file: %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, "policy", "test", "x.yaml", "--output", "xml"); code != 1 || !strings.Contains(stderr, "neither text nor json") {
		t.Errorf("another output: %d, %s", code, stderr)
	}
}

// TestPolicyTestJSON wants the whole story where machines read it.
func TestPolicyTestJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policies := write(t, dir, "other.yaml", policyEast)
	file := write(t, dir, "t.yaml", policyTestHead+"  - {name: a, peer: east, verbs: [create], object: {kind: container}, expect: allow}\n"+
		"  - {name: b, peer: east, verbs: [get], object: {kind: container}, expect: allow}\n")
	code, stdout, _ := run(t, "policy", "test", file, "--config", policies, "--output", "json")
	var report PolicyTestReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 1 {
		t.Fatalf("exit status %d, %v: %s", code, err, stdout)
	}
	if report.Passed != 1 || report.Failed != 1 || len(report.Cases) != 2 || report.Cases[0].Passed || !report.Cases[1].Passed {
		t.Fatalf("%+v", report)
	}
	rules := report.Cases[0].Failures[0].Policies[0].Rules
	if len(rules) != 2 || rules[1].Rule != "east/1" || rules[1].Why != "it does not allow create" {
		t.Errorf("%+v", rules)
	}
}
