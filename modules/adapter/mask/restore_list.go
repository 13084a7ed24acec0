package mask

import (
	"encoding/json"
	"reflect"
	"strings"
)

// counterparts finds, for the elements of a list that is written, those that they stand for in the list that was shown.
// Who writes chooses both, so neither is searched for each element of the other.
type counterparts struct {
	shown  []any
	length int // of the list that is written

	indexed bool
	whole   map[string]int // where the first one of a text is
	titled  map[string]int // and the first one of a title
}

// of is the place of the element that the one at i stands for: the same, the one of that name, or the one in its place;
// -1 for none.
func (c *counterparts) of(element any, i int) int {
	if i < len(c.shown) && reflect.DeepEqual(element, c.shown[i]) {
		return i
	}
	c.index()
	if j, ok := c.whole[asText(element)]; ok {
		return j
	}
	if title, ok := titleOf(element); ok {
		if j, ok := c.titled[title]; ok {
			return j
		}
	}
	if e, ok := element.(map[string]any); ok && e["name"] != nil || c.length != len(c.shown) {
		return -1
	}
	return i
}

func (c *counterparts) index() {
	if c.indexed {
		return
	}
	c.indexed, c.whole, c.titled = true, map[string]int{}, map[string]int{}
	first := func(of map[string]int, key string, j int) {
		if _, ok := of[key]; !ok {
			of[key] = j
		}
	}
	for j, element := range c.shown {
		first(c.whole, asText(element), j)
		if title, ok := titleOf(element); ok {
			first(c.titled, title, j)
		}
	}
}

// titleOf is what an element is known by: the name of an object, or the variable that a text sets.
func titleOf(element any) (title string, ok bool) {
	switch e := element.(type) {
	case map[string]any:
		title, ok = e["name"].(string)
		return "name " + title, ok
	case string:
		title, _, ok = strings.Cut(e, "=")
		return "variable " + title, ok
	}
	return "", false
}

// asText is the same for values that are the same.
func asText(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return "" // it was decoded, so it can be written
	}
	return string(text)
}
