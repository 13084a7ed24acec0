// Package replicatest holds dialects to what every copy owes: each leaf of a source is in the copy, or is told to be left
// behind, or is one of those that are the source's own by nature.
package replicatest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// Grow adds things to a tree that no dialect has heard of, in its objects and lists, and changes texts and numbers. free
// tells objects that take any key.
func Grow(random *rand.Rand, path string, value any, free func(path string) bool) any {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			v[key] = Grow(random, join(path, key), v[key], free)
		}
		if free(path) && random.IntN(3) == 0 {
			v[fmt.Sprintf("new%d", random.IntN(1000))] = fmt.Sprintf("value%d", random.IntN(1000))
		}
	case []any:
		for i := range v {
			v[i] = Grow(random, path, v[i], free)
		}
	case json.Number:
		if random.IntN(4) == 0 {
			return json.Number(fmt.Sprint(random.IntN(1 << 20)))
		}
	}
	return value
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

// Leaves are the values of a tree, each as path=value, without the places in lists. Nulls and empty lists are none.
func Leaves(path string, value any, into map[string]int) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			into[path+"={}"]++
		}
		for key, inner := range v {
			Leaves(join(path, key), inner, into)
		}
	case []any:
		for _, inner := range v {
			Leaves(path, inner, into)
		}
	case nil:
	default:
		into[fmt.Sprintf("%s=%v", path, v)]++
	}
}

var place = regexp.MustCompile(`\[([^\]]*)\]`)

// Vanished are the leaves of a source that are neither in the draft, nor left behind, nor own. at maps a path of the source
// to the draft's, and own tells leaves that are the source's alone.
func Vanished(source map[string]any, draft dialect.Draft, at func(path string) string, own func(path, value string) bool) []string {
	from, to := map[string]int{}, map[string]int{}
	Leaves("", source, from)
	Leaves("", draft.Body, to)
	var gone []string
	for leaf := range from {
		path, value, _ := strings.Cut(leaf, "=")
		if own(path, value) || to[at(path)+"="+value] >= from[leaf] {
			continue
		}
		if !slices.ContainsFunc(draft.Left, func(l dialect.Left) bool {
			bare := place.ReplaceAllString(l.Field, "")
			keyed := place.ReplaceAllString(l.Field, ".$1")
			return under(path, bare) || under(path, keyed) || under(at(path), bare)
		}) {
			gone = append(gone, leaf)
		}
	}
	slices.Sort(gone)
	return gone
}

func under(path, field string) bool { return path == field || strings.HasPrefix(path, field+".") }
