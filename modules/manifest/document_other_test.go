package manifest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

// plan is a kind of document that is none of a gateway's.
type plan struct {
	Metadata manifest.Metadata `yaml:"metadata" required:"true"`
	Spec     struct {
		Steps []string `yaml:"steps" required:"true"`
		Inner *struct {
			Size int `yaml:"size" default:"3" min:"1" max:"9"`
		} `yaml:"inner"`
	} `yaml:"spec" required:"true"`
}

func planFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const planHead = "apiVersion: isthmus.io/v1alpha1\nkind: Plan\nmetadata: {name: a}\n"

func TestDocuments(t *testing.T) {
	t.Parallel()
	path := planFile(t, planHead+"spec:\n  steps: [x]\n---\n---\n"+planHead+"spec: {steps: [y], inner: {}}\n")
	documents, err := manifest.Documents[plan]("Plan", path)
	if err != nil || len(documents) != 2 {
		t.Fatalf("%+v, %v", documents, err)
	}
	first, second := documents[0], documents[1]
	if first.Value.Spec.Inner != nil || second.Value.Spec.Inner == nil || second.Value.Spec.Inner.Size != 3 {
		t.Errorf("what is not written is not told from what is: %+v, %+v", first.Value.Spec, second.Value.Spec)
	}
	if at := first.At("spec.steps[0]"); at.Line != 5 || at.File != path || second.Position().Line != 8 {
		t.Errorf("places: %s, %s", at, second.Position())
	}
}

func TestDocumentsRefuse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		planHead + "spec: {stps: [x]}\n":                                `plan.yaml:4: spec.stps: unknown field; did you mean "steps"?`,
		planHead + "spec: {steps: [x], inner: {size: 10}}\n":            "plan.yaml:4: spec.inner.size: must be from 1 to 9, not 10",
		planHead + "spec: {steps: [x], inner: 4}\n":                     "plan.yaml:4: spec.inner: must be a mapping, not a number",
		strings.Replace(planHead, "Plan", "Peer", 1) + "spec: {}\n":     `plan.yaml:2: kind: must be Plan here, not "Peer"`,
		strings.Replace(planHead, "kind: Plan\n", "", 1) + "spec: {}\n": "plan.yaml:1: kind: is required: Plan",
		strings.Replace(planHead, "v1alpha1", "v2", 1) + "spec: {}\n":   `plan.yaml:1: apiVersion: must be isthmus.io/v1alpha1 here, not "isthmus.io/v2"`,
		strings.Replace(planHead, "Plan", "[Plan]", 1) + "spec: {}\n":   "plan.yaml:2: kind: must be Plan here",
		"[]":      "plan.yaml:1: a document is a mapping with apiVersion, kind, metadata and spec, not a list",
		"a:\n\tb": "no valid YAML",
	} {
		documents, err := manifest.Documents[plan]("Plan", planFile(t, text))
		if err == nil || !strings.Contains(err.Error(), want) || documents != nil {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := manifest.Documents[plan]("Plan", "/away"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

// TestPolicies reads policies with and without a Gateway beside them.
func TestPolicies(t *testing.T) {
	t.Parallel()
	const one = "apiVersion: isthmus.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: NAME}\nspec:\n  from: [{peer: w}]\n  allow: [{verbs: [get], objects: [{}]}]\n"
	b, a := strings.Replace(one, "NAME", "b", 1), strings.Replace(one, "NAME", "a", 1)
	gateway := "apiVersion: isthmus.io/v1alpha1\nkind: Gateway\nmetadata: {name: e}\nspec: {orchestrator: {type: docker}}\n"
	for _, text := range []string{b + "---\n" + a, gateway + "---\n" + b + "---\n" + a} {
		policies, err := manifest.Policies(planFile(t, text))
		if err != nil || len(policies) != 2 || policies[0].Metadata.Name != "a" {
			t.Errorf("%+v, %v", policies, err)
		}
	}
	for text, want := range map[string]string{
		a + "---\n" + a:                                           `a second AccessPolicy "a"`,
		strings.Replace(a, "verbs", "vrbs", 1):                    "unknown field",
		a + "---\n" + strings.Replace(gateway, "type", "tpye", 1): "spec.orchestrator.tpye",
	} {
		if _, err := manifest.Policies(planFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// FuzzDocuments wants no panic, and errors with a place.
func FuzzDocuments(f *testing.F) {
	f.Add(planHead + "spec: {steps: [x], inner: {size: 2}}\n")
	f.Add("kind: {a: b}\n---\n[]\n")
	f.Add("&a {kind: *a}")
	f.Fuzz(func(t *testing.T, text string) {
		path := planFile(t, text)
		documents, err := manifest.Documents[plan]("Plan", path)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if documents != nil {
					t.Errorf("documents beside an error: %s", line)
				}
			}
			return
		}
		for _, d := range documents {
			if len(d.Value.Spec.Steps) == 0 || d.Value.Metadata.Name == "" {
				t.Errorf("what is required is not there: %+v", d.Value)
			}
		}
	})
}
