package suggestion_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest/suggestion"
)

func TestClosest(t *testing.T) {
	t.Parallel()
	words := []string{"list", "get", "logs", "orchestrator", "trustDomain", "raw", "*"}
	for word, want := range map[string]string{
		"lits":         "list", // two letters that changed places
		"lists":        "list",
		"lgos":         "logs",
		"LOGS":         "logs",
		"orchestrater": "orchestrator",
		"orkestrater":  "orchestrator",
		"trustdomain":  "trustDomain",
		"trust_domain": "trustDomain",
		"gte":          "get",
		"run":          "",
		"x":            "",
		"":             "",
		"nothing":      "",
	} {
		if got, ok := suggestion.Closest(word, words); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	if got, ok := suggestion.Closest("x", nil); ok {
		t.Errorf("of nothing: %q", got)
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	if got := suggestion.DidYouMean("lits", []string{"list"}); got != `; did you mean "list"?` {
		t.Error(got)
	}
	if got := suggestion.DidYouMean("zzzz", []string{"list"}); got != "" {
		t.Error(got)
	}
}
