package mask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestRestore(t *testing.T) {
	t.Parallel()
	m := New(key)
	const object = `{"metadata":{"managedFields":[{"f:podIPs":{"k:{\"ip\":\"10.0.0.7\"}":{}}}],"annotations":{"last":` +
		`"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"s3cret\"}],\"n\":1}\n"}},"n":12345678901234567890,"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],` +
		`"env":[{"name":"TOKEN","value":"s3cret"},{"name":"URL","value":"http://u:pw@10.0.0.2/"}],"mac":"02:42:ac:11:00:02","image":"10.0.0.3:5000/a:1"},` +
		`"Env":["A_KEY=k1","B_KEY=k2"],"status":{"ingress":[{"hostname":"lb.example.com"}]},"text":"\n10.0.0.5"}`
	shown := string(m.Value(rules, []byte(object)))
	for name, c := range map[string]struct{ written, want string }{
		"as it was":            {shown, object},
		"a value is new":       {strings.Replace(shown, `"value":"`+Hidden+`"`, `"value":"new"`, 1), strings.Replace(object, `"value":"s3cret"`, `"value":"new"`, 1)},
		"parts of it":          {`{"spec":{"env":[{"name":"TOKEN","value":"` + Hidden + `"}]}}`, `{"spec":{"env":[{"name":"TOKEN","value":"s3cret"}]}}`},
		"in another order":     {`{"Env":["B_KEY=` + Hidden + `","C=1","A_KEY=` + Hidden + `"]}`, `{"Env":["B_KEY=k2","C=1","A_KEY=k1"]}`},
		"elsewhere":            {`{"spec":{"externalIPs":["` + m.String("10.0.0.2") + `"]}}`, `{"spec":{"externalIPs":["10.0.0.2"]}}`},
		"in a text":            {`{"text":"from ` + m.String("10.0.0.1") + ` on"}`, `{"text":"from 10.0.0.1 on"}`},
		"in an embedded one":   {`{"metadata":{"annotations":{"last":"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"` + Hidden + `\"}],\"n\":2}"}}}`, `{"metadata":{"annotations":{"last":"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"s3cret\"}],\"n\":2}"}}}`},
		"nothing of ours":      {`{"a":"2001:db8::5"}`, `{"a":"2001:db8::5"}`},
		"another object's":     {`{"spec":{"clusterIP":"` + m.String("10.9.9.9") + `"}}`, ""},
		"a credential's place": {`{"spec":{"env":[{"name":"OTHER","value":"` + Hidden + `"}]}}`, ""},
		"an escaped mark":      {`{"a":"\u0068idden-by-isthmus"}`, ""},
		"within a quoted one":  {`{"a":"{\"b\":\"\\u0068idden-by-isthmus\"}"}`, ""},
		"a host's name":        {`{"a":"` + m.Name("other.example.com") + `"}`, ""},
	} {
		got, err := m.Restore(rules, []byte(c.written), []byte(object))
		var unknown *UnknownError
		if c.want == "" {
			if !errors.As(err, &unknown) || unknown.Path == "" {
				t.Errorf("%s: %s, %v", name, got, err)
			}
			continue
		}
		if err != nil || !equal(t, string(got), c.want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, c.want)
		}
	}
	if _, err := m.Restore(rules, []byte(`{"a":"`+m.String("10.0.0.1")+`"}`), nil); err == nil {
		t.Error("an object that is not there gives an address")
	}
	for text, want := range map[string]bool{
		`{"a":"\u0068idden-by-isthmus"}`: true, `{"hidden-by\u002Disthmus":1}`: true, `{"a":"{\"b\":\"\\u0068idden-by-isthmus\"}"}`: true,
		`{"a":"\u005cu0068idden-by-isthmus"}`: true, `{"a":"\u0032` + m.String("10.0.0.1")[1:] + `"}`: true, `{"a":"x\u002ehidden.invalid"}`: true,
		`{"a":"\u003cb\u003e \u00e9 \u12 \\ \u"}`: false, `\u005c`: false, `\u005cu005cu005c`: false,
		"10.0.0.1 nginx:1.27": false, m.String("10.0.0.1"): true, `"x` + Hidden + `"`: true, "a 2001:db8::1": true} {
		if m.Suspect([]byte(text)) != want {
			t.Error(text)
		}
	}
}

func equal(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := decodeExact([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := decodeExact([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

// FuzzRestore holds that what a peer was shown, written back, is what was there.
func FuzzRestore(f *testing.F) {
	f.Add(`{"env":[{"name":"TOKEN","value":"x"},{"value":"10.0.0.1"}],"k:10.0.0.2":["fd00::1"]}`)
	f.Add(`{"Env":["A_KEY=1","A_KEY=2"],"a":"{\"ip\":\"10.0.0.1\"}"}`)
	m := New(key)
	f.Fuzz(func(t *testing.T, object string) {
		var tree any
		if !json.Valid([]byte(object)) || decodeExact([]byte(object), &tree) != nil || m.Suspect([]byte(object)) || strings.Contains(object, `\u`) {
			return
		}
		plain, err := json.Marshal(tree) // without keys that are there twice
		if err != nil {
			t.Fatal(err)
		}
		shown := m.Value(rules, plain)
		restored, err := m.Restore(rules, shown, plain)
		if err != nil || !equal(t, string(restored), string(plain)) {
			t.Fatalf("%v\n got %s\nfrom %s\n was %s", err, restored, shown, plain)
		}
	})
}

// A stand-in that is written where addresses are not looked for must not come back as what it stands for.
func TestRestoreWhereNothingIsHidden(t *testing.T) {
	t.Parallel()
	m := New(key)
	const object = `{"spec":{"clusterIP":"10.0.0.1"},"annotations":{"a":"b"}}`
	for _, written := range []string{
		`{"annotations":{"my-version":"` + m.String("10.0.0.1") + `"}}`,
		`{"annotations":{"chart":"` + m.String("10.0.0.1") + `"}}`,
		`{"annotations":{"image":"x/` + m.String("10.0.0.1") + `"}}`,
		`{"annotations":{"image":"` + m.String("10.0.0.1") + `"}}`,
		`{"annotations":{"image":["x/` + m.String("10.0.0.1") + `"]}}`,
	} {
		restored, err := m.Restore(rules, []byte(written), []byte(object))
		if err != nil {
			continue
		}
		if shown := m.Value(rules, restored); bytes.Contains(shown, []byte("10.0.0.1")) {
			t.Errorf("%s is written as %s and shown as %s", written, restored, shown)
		}
	}
}

// TestRestoreOfLongLists restores long lists against long ones: who writes chooses both. Every element with every other one
// would take longer than tests may.
func TestRestoreOfLongLists(t *testing.T) {
	t.Parallel()
	m := New(make([]byte, KeySize))
	list := func(n int, element func(i int) string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = element(i)
		}
		return `{"list":[` + strings.Join(all, ",") + `],"at":"` + m.String("10.0.0.1") + `"}`
	}
	for name, element := range map[string]func(i int) string{
		"numbers":   strconv.Itoa,
		"names":     func(i int) string { return fmt.Sprintf(`{"name":"%d"}`, i) },
		"variables": func(i int) string { return fmt.Sprintf(`"V%d=x"`, i) },
	} {
		const shown, written = 20_000, 40_000
		object := strings.Replace(list(shown, element), m.String("10.0.0.1"), "10.0.0.1", 1)
		restored, err := m.Restore(&Rules{}, []byte(list(written, func(i int) string { return element(written - i) })), []byte(object))
		if err != nil || !bytes.Contains(restored, []byte(`"at":"10.0.0.1"`)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
