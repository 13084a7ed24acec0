package docker

import "testing"

// TestTemplated writes what would begin a template, and reads it again.
func TestTemplated(t *testing.T) {
	for text, want := range map[string]string{"A=b": "A=b", "A={{.Node.ID}}": `A={{"{{"}}.Node.ID}}`, "{{{{": `{{"{{"}}{{"{{"}}`} {
		if got := templated(text); got != want || untemplated(got) != text {
			t.Errorf("%q became %q, which reads %q", text, got, untemplated(got))
		}
	}
}
