package parity

import "strings"

// Verdict says how the answer through Isthmus compares with the direct one.
type Verdict string

// The verdicts.
const (
	Equal        Verdict = "equal"
	Approximated Verdict = "approximated" // answered, and told or done otherwise
	Refused      Verdict = "refused"      // the command succeeds directly, and through Isthmus is answered with an error
)

// Difference is what differs: lines of the direct answer behind `- `, of the one through Isthmus behind `+ `.
type Difference string

// Compare compares two answers in their normal form, as Lines gives it.
func Compare(direct, through []string) (Verdict, Difference) {
	difference := changes(direct, through)
	switch {
	case difference == "":
		return Equal, ""
	case direct[0] == "exit 0" && through[0] != "exit 0":
		return Refused, difference
	default:
		return Approximated, difference
	}
}

// changes are the lines that are not in both, by a longest common subsequence.
func changes(a, b []string) Difference {
	// same[i][j] is how many lines a[i:] and b[j:] have in common.
	same := make([][]int, len(a)+1)
	for i := range same {
		same[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				same[i][j] = same[i+1][j+1] + 1
			} else {
				same[i][j] = max(same[i+1][j], same[i][j+1])
			}
		}
	}
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && same[i+1][j] >= same[i][j+1]:
			out.WriteString("- " + a[i] + "\n")
			i++
		default:
			out.WriteString("+ " + b[j] + "\n")
			j++
		}
	}
	return Difference(out.String())
}
