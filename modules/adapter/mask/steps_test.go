package mask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

func TestSteps(t *testing.T) {
	t.Parallel()
	m := New(key)
	const object = `{"n":12345678901234567890,"a":{"x":"y","list":["1","2"]},"last":"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"s3cret\"}]}",` +
		`"env":[{"name":"TOKEN","value":"s3cret"},{"name":"PLAIN","value":"p"},{"name":"URL","value":"http://10.0.0.2/"}],"ip":"10.0.0.1","Env":["A_KEY=k1"],` +
		`"note":"` + Hidden + `","url":"http://u:pw@shop/"}`
	for steps, refused := range map[string]bool{
		`[]`: false,
		`[{"op":"test","path":"/a/x","value":"z"}]`:                                                                    false, // the API says so
		`[{"op":"test","path":"/env/0/value","value":"` + Hidden + `"}]`:                                               false,
		`[{"op":"test","path":"/env/0/value","value":"s3cret"}]`:                                                       true,
		`[{"op":"test","path":"/env/0/value","value":"wrong"}]`:                                                        true,
		`[{"op":"test","path":"/env/-3/value","value":"wrong"}]`:                                                       true,
		`[{"op":"test","path":"/env","value":[]}]`:                                                                     true,
		`[{"op":"test","path":"","value":{}}]`:                                                                         true,
		`[{"op":"test","path":"/ip","value":"10.0.0.1"}]`:                                                              true,
		`[{"op":"test","path":"/ip","value":"` + m.String("10.0.0.1") + `"}]`:                                          false,
		`[{"op":"test","path":"/ip"}]`:                                                                                 true,
		`[{"op":"test","path":"/none","value":"x"}]`:                                                                   false,
		`[{"op":"test","path":"/n","value":12345678901234567890}]`:                                                     false,
		`[{"op":"copy","from":"/env/0/value","path":"/a/z"}]`:                                                          true,
		`[{"op":"move","from":"/env/0","path":"/a/z"}]`:                                                                true,
		`[{"op":"copy","from":"/env/1/value","path":"/a/z"}]`:                                                          false,
		`[{"op":"copy","from":"/ip","path":"/version"}]`:                                                               true,
		`[{"op":"copy","from":"/last","path":"/a/z"}]`:                                                                 true,
		`[{"op":"copy","from":"/Env/0","path":"/a/z"}]`:                                                                true,
		`[{"op":"replace","path":"/env/0/name","value":"OTHER"}]`:                                                      true,
		`[{"op":"remove","path":"/env/0/name"}]`:                                                                       true,
		`[{"op":"copy","from":"/env/1/name","path":"/env/0/name"}]`:                                                    true,
		`[{"op":"replace","path":"/env/0/value","value":"new"},{"op":"replace","path":"/env/0/name","value":"OTHER"}]`: false,
		`[{"op":"replace","path":"/env/1/name","value":"B_TOKEN"}]`:                                                    false,
		// What the peer wrote itself, or the password of a URL, does not stand for what is shown in its place.
		`[{"op":"remove","path":"/note"},{"op":"replace","path":"/env/0/name","value":"PLAIN"}]`: true,
		`[{"op":"remove","path":"/url"},{"op":"replace","path":"/env/0/name","value":"PLAIN"}]`:  true,
		`[{"op":"remove","path":"/note"}]`:                                                                                                    false,
		`[{"op":"add","path":"/more","value":"` + Hidden + `"}]`:                                                                              false,
		`[{"op":"test","path":"/env/0","value":{"name":"TOKEN","value":"` + Hidden + `"}}]`:                                                   false,
		`[{"op":"test","path":"/url","value":"http://u:` + Hidden + `@shop/"}]`:                                                               false,
		`[{"op":"remove","path":"/env/0"}]`:                                                                                                   false,
		`[{"op":"add","path":"/env/0","value":{"name":"PLAIN2","value":"q"}},{"op":"copy","from":"/env/1/value","path":"/a/z"}]`:              true,
		`[{"op":"add","path":"/a/b","value":{}},{"op":"copy","from":"/a/list/-1","path":"/a/b/c"},{"op":"copy","from":"/a/b","path":"/a/d"}]`: false,
	} {
		err := m.Steps(rules, []byte(steps), []byte(object))
		var reveals *RevealError
		if errors.As(err, &reveals) != refused || !refused && err != nil {
			t.Errorf("%s: %v", steps, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "10.0.0")) {
			t.Errorf("%s: %v", steps, err)
		}
	}
	for _, steps := range []string{`{}`, `[{"op":"remove","path":"/none"}]`, `[{"op":"copy","path":"/a"}]`, `[{"op":"odd","path":"/a"}]`} {
		if err := m.Steps(rules, []byte(steps), []byte(object)); err == nil {
			t.Errorf("%s passes", steps)
		}
	}
	many := `[` + strings.Repeat(`{"op":"add","path":"/a/x","value":"y"},{"op":"test","path":"/a/x","value":"y"},`, states+1) + `{"op":"remove","path":"/a"}]`
	if err := m.Steps(rules, []byte(many), []byte(object)); err == nil {
		t.Error("a patch that takes long passes")
	}
}

// TestStepsLarge holds that a short patch makes nothing large of an object: each copy of a thing into itself doubles it.
func TestStepsLarge(t *testing.T) {
	t.Parallel()
	steps := `[{"op":"add","path":"/a","value":{"text":"` + strings.Repeat("y", 1000) + `"}}`
	for i := range states {
		steps += fmt.Sprintf(`,{"op":"copy","from":"/a","path":"/a/%d"}`, i)
	}
	if err := New(key).Steps(rules, []byte(steps+`]`), []byte(`{}`)); err == nil {
		t.Error("a patch that makes a large object passes")
	}
}

// FuzzSteps applies patches that are let through, and looks for what was hidden in what would be shown.
func FuzzSteps(f *testing.F) {
	for _, seed := range []string{`[{"op":"copy","from":"/env/0/value","path":"/a"}]`, `[{"op":"replace","path":"/env/0/name","value":"A"}]`,
		`[{"op":"move","from":"/env/0","path":"/env/1"},{"op":"add","path":"/env/0/value","value":1}]`, `[{"op":"add","path":"/env/-1/name","value":"x"}]`} {
		f.Add(seed)
	}
	m := New(key)
	const secret = "s3cretOfTheFuzz"
	object := []byte(fmt.Sprintf(`{"a":1,"list":[1,"2"],"env":[{"name":"TOKEN","value":"%s"},{"name":"B","value":"b"}],"image":"x","version":"1"}`, secret))
	f.Fuzz(func(t *testing.T, steps string) {
		if strings.Contains(steps, secret) || m.Steps(rules, []byte(steps), object) != nil {
			return
		}
		patch, err := jsonpatch.DecodePatch([]byte(steps))
		if err != nil {
			t.Fatal(err)
		}
		after, err := apply(patch, object)
		if err == nil && json.Valid(after) && bytes.Contains(m.Value(rules, after), []byte(secret)) {
			t.Errorf("%s shows %s", steps, m.Value(rules, after))
		}
	})
}

// TestStepsAreBounded refuses patches that would keep the gateway busy.
func TestStepsAreBounded(t *testing.T) {
	t.Parallel()
	m := New(make([]byte, KeySize))
	object := `{"list":[` + strings.Repeat(`0,`, 20_000) + `0]}`
	for says, step := range map[string]string{
		"more than 10000":  `{"op":"add","path":"/list/0","value":0}`,
		"too much":         `{"op":"test","path":"","value":0}`,
		"too much of the ": `{"op":"test","path":"/list","value":0}`,
	} {
		n := longest
		if strings.HasPrefix(says, "more") {
			n++
		}
		err := m.Steps(&Rules{}, []byte("["+strings.Repeat(step+",", n-1)+step+"]"), []byte(object))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", step, err)
		}
	}
}
