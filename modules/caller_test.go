package modules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Groups that were not all told cross as such.
func TestGroupsCross(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range maxGroups + 1 {
		many = append(many, fmt.Sprintf("g%03d", i))
	}
	for name, c := range map[string]struct {
		groups, told []string
		whole        bool
	}{
		"none":          {nil, nil, true},
		"some":          {[]string{"b", "a", "b"}, []string{"a", "b"}, true},
		"with a comma":  {[]string{"b", "x,y"}, []string{"b"}, false},
		"in letters":    {[]string{"Größe"}, nil, false},
		"too many":      {many, many[:maxGroups], false},
		"too long ones": {[]string{"a", strings.Repeat("b", maxCaller+1)}, []string{"a"}, false},
	} {
		joined, left := JoinGroups(c.groups)
		if joined.Whole() != c.whole || (left == 0) != c.whole || !slices.Equal(joined.List(), c.told) {
			t.Errorf("%s: %q, %d left", name, joined, left)
		}
		if joined == "" {
			continue
		}
		if crossed, err := GroupsOf([]string{string(joined)}, "x"); err != nil || crossed != joined {
			t.Errorf("%s: %q is read as %q, %v", name, joined, crossed, err)
		}
	}
	for _, header := range []string{"", "b,a", "a,a", "a,", ",,", ",,a", ",b,a", "a,,b", " a", "a, b"} {
		if groups, err := GroupsOf([]string{header}, "x"); err == nil {
			t.Errorf("%q is read as %q", header, groups)
		}
	}
}
