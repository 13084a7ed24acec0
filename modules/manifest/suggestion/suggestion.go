// Package suggestion finds the word that a mistyped one was meant to be.
package suggestion

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Closest is the candidate nearest to word, when one is near enough to be what was meant.
func Closest(word string, candidates []string) (string, bool) {
	best, distance := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return c, true
		}
		if max(len(word), len(c))-min(len(word), len(c)) >= distance {
			continue // at least that far, without the work
		}
		d := distanceOf(strings.ToLower(word), strings.ToLower(c))
		if d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	return best, best != ""
}

// distanceOf is the edit distance, in which two letters that changed places are one mistake.
func distanceOf(a, b string) int {
	if len(a) == len(b) {
		for i := range len(a) - 1 {
			if a[i] != b[i] {
				if a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:] {
					return 1
				}
				break
			}
		}
	}
	return levenshtein.ComputeDistance(a, b)
}

// DidYouMean is `; did you mean "x"?`, or nothing when no candidate is near.
func DidYouMean(word string, candidates []string) string {
	if c, ok := Closest(word, candidates); ok {
		return fmt.Sprintf("; did you mean %q?", c)
	}
	return ""
}
