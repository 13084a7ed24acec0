package mask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

var key = bytes.Repeat([]byte{7}, KeySize)

var rules = &Rules{
	Kept: map[string]bool{"chart": true}, Images: map[string]bool{"image": true},
	Environments: map[string]bool{"env": true, "Env": true}, Credentials: map[string]bool{"JoinTokens": true},
	Names: map[string]string{"hostname": "ingress"}, Commands: map[string]bool{"CreatedBy": true},
}

func TestText(t *testing.T) {
	t.Parallel()
	m := New(key)
	hidden := func(a string) string {
		standIn, ok := m.Address(netip.MustParseAddr(a))
		if !ok {
			t.Fatal(a)
		}
		return standIn.String()
	}
	a, b, six := hidden("10.0.0.1"), hidden("10.0.0.2"), hidden("fd00::1")
	for text, want := range map[string]string{
		"":                                   "",
		"10.0.0.1":                           a,
		"10.0.0.1:8080":                      a + ":8080",
		"10.0.0.1/24":                        a + "/24",
		"from 10.0.0.1 to 10.0.0.2.":         "from " + a + " to " + b + ".",
		"10.0.0.1-10.0.0.2":                  a + "-" + b,
		"10.0.0.1,10.0.0.2":                  a + "," + b,
		"node:10.0.0.1":                      "node:" + a,
		"node:fd00::1":                       "node:" + six,
		"dead:fd00::1":                       "",
		"tcp://10.0.0.1:80/x":                "tcp://" + a + ":80/x",
		"[fd00::1]:443":                      "[" + six + "]:443",
		"fd00::1%eth0":                       six + "%eth0",
		"dial fd00::1: refused":              "dial " + six + ": refused",
		"FD00::1":                            six,
		"::ffff:10.0.0.1":                    "::ffff:" + a,
		"app.10.0.0.1.nip.io":                "app." + a + ".nip.io",
		"app1.10.0.0.1.nip.io":               "app1." + a + ".nip.io",
		"a_10.0.0.1":                         "a_" + a,
		`k:{"ip":"10.0.0.1"}`:                `k:{"ip":"` + a + `"}`,
		"to=http%3A%2F%2f10.0.0.1%3A80%2F":   "to=http%3A%2F%2f" + a + "%3A80%2F",
		`"a\n10.0.0.1\t10.0.0.2\x00fd00::1"`: `"a\n` + a + `\t` + b + `\x00` + six + `"`,
		`\u003c10.0.0.1\u003e \f10.0.0.2`:    `\u003c` + a + `\u003e \f` + b,
		"5%10.0.0.1 %fd00::1 100%":           "5%" + a + " %" + six + " 100%",
		"02:42:ac:11:00:02":                  "06:00:",
		"http://u:p@h/":                      "http://u:" + Hidden + "@h/",
		"postgres://u:a:b@10.0.0.1/db?x":     "postgres://u:" + Hidden + "@" + a + "/db?x",
		"no 0.0.0.0, 127.0.0.1, ::1, ::":     "=",
		"255.255.255.0 224.0.0.1":            "=",
		"v1.2.3.4 1.2.3.4.5 1.2.3 x1.2.3":    "=",
		"1.2.3.256 01.2.3.4 1.2.3.4x":        "=",
		"12:34:56 2026-11-30T10:00:00Z":      "=",
		"http://user@host/ a::b g::1":        "",
		"SHA1 00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33": "=",
		"ff:ff:ff:ff:ff:ff 00:00:00:00:00:00":                              "=",
	} {
		got := m.String(text)
		switch want {
		case "=":
			want = text
		case "":
			continue // that it neither panics nor hangs is enough
		case "06:00:":
			if !regexp.MustCompile(`^06:00(:[0-9a-f]{2}){4}$`).MatchString(got) {
				t.Errorf("%q: %q", text, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if New(bytes.Repeat([]byte{8}, KeySize)).String("10.0.0.1") == a {
		t.Error("another gateway's stand-in is the same")
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	m := New(key)
	a := m.String("10.0.0.1")
	for value, want := range map[string]string{
		`{"ip":"10.0.0.1", "n" : 1.5}`:                  `{"ip":"` + a + `", "n" : 1.5}`,
		`{"a":["10.0.0.1",null,true,-1e3,{"b":[]},{}]}`: `{"a":["` + a + `",null,true,-1e3,{"b":[]},{}]}`,
		`{"image":"10.0.0.1:5000/a:1.2.3.4"}`:           `{"image":"` + a + `:5000/a:1.2.3.4"}`,
		`{"image":"nginx:1.2.3.4"}`:                     `=`,
		`{"image":"10.0.0.1"}`:                          `{"image":"` + a + `"}`,
		`{"image":"10.0.0.1:80"}`:                       `{"image":"` + a + `:80"}`,
		`{"image":"http://10.0.0.1/x"}`:                 `{"image":"http://` + a + `/x"}`,
		`{"image":"see a/b 10.0.0.1"}`:                  `{"image":"see a/b ` + a + `"}`,
		`{"appVersion":"1.2.3.4","chart":"1.2.3.4"}`:    `=`,
		`{"k:{\"ip\":\"10.0.0.1\"}":{}}`:                `{"k:{\"ip\":\"` + a + `\"}":{}}`,
		`"\n10.0.0.1"`:                                  `"\n` + a + `"`,
		`{"Env":["DB_PASSWORD=x","DB_PASSWORD_FILE=/x","E=","HOST=10.0.0.1","API_KEY"]}`: `{"Env":["DB_PASSWORD=` + Hidden +
			`","DB_PASSWORD_FILE=/x","E=","HOST=` + a + `","API_KEY"]}`,
		`{"env":[{"value":"x","name":"TOKEN"},{"name":"A","value":"x"}, {"name":"SECRET","valueFrom":{"value":"x"}}]}`: `{"env":[{"value":"` +
			Hidden + `","name":"TOKEN"},{"name":"A","value":"x"}, {"name":"SECRET","valueFrom":{"value":"x"}}]}`,
		`{"JoinTokens":{"Worker":"SWMTKN-1","Manager":""}}`: `{"JoinTokens":{"Worker":"` + Hidden + `","Manager":""}}`,
		`{"ingress":[{"hostname":"lb.example.com","ip":"10.0.0.1"}],"hostname":"lb.example.com"}`: `{"ingress":[{"hostname":"` +
			m.Name("lb.example.com") + `","ip":"` + a + `"}],"hostname":"lb.example.com"}`,
		`{"last":"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"x\"}]}\n"}`: `{"last":"{\"env\":[{\"name\":\"TOKEN\",\"value\":\"` + Hidden + `\"}]}\n"}`,
		`[]`: `=`, `null`: `=`, ` 1 `: `=`, `""`: `=`,
	} {
		if want == "=" {
			want = value
		}
		if !json.Valid([]byte(value)) || !json.Valid([]byte(want)) {
			t.Fatalf("the case is wrong: %s", value)
		}
		if got := string(m.Value(rules, []byte(value))); got != want {
			t.Errorf("%s\n got %s\nwant %s", value, got, want)
		}
	}
}

// reader masks everything.
func reader(m *Mask, most int) *Reader {
	return &Reader{
		Lists: map[string]bool{"items": true}, Most: most,
		Element: func(raw []byte) ([]byte, error) {
			if bytes.Contains(raw, []byte("unseen")) {
				return nil, nil
			}
			return m.Value(rules, raw), nil
		},
		Member: func(key string, raw []byte) ([]byte, error) { return m.Member(rules, key, raw), nil },
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	m := New(key)
	a := m.String("10.0.0.1")
	for document, want := range map[string]string{
		`{"kind":"List","items":[{"ip":"10.0.0.1"},"unseen",{"b":1}],"m":"10.0.0.1"}`: `{"kind":"List","items":[{"ip":"` + a + `"},{"b":1}],"m":"` + a + `"}`,
		`{"items":null}`:        `{"items":null}`,
		`{"items":["unseen"]}`:  `{"items":[]}`,
		`["10.0.0.1","unseen"]`: `["` + a + `","unseen"]`,
		`"10.0.0.1"`:            `"` + a + `"`,
		`{"items":{}}`:          ``, `{"a":1,}`: ``, `{"a":1}{}`: ``, `{"a":`: ``, `{"items":[1`: ``, ``: ``, `{"a" 1}`: ``, `{"items":[1,]}`: ``,
	} {
		var out bytes.Buffer
		err := reader(m, 1<<20).Document(&out, strings.NewReader(document))
		if (err != nil) != (want == "") || err == nil && out.String() != want {
			t.Errorf("%s: %s, %v", document, out.String(), err)
		}
	}
	var out bytes.Buffer
	if err := reader(m, 64).Document(&out, strings.NewReader(`{"items":["`+strings.Repeat("x", 200)+`"]}`)); err == nil {
		t.Error("a large element passes")
	}
}

// TestMemory reads an answer that is larger than anything that may be held.
func TestMemory(t *testing.T) {
	t.Parallel()
	m := New(key)
	item := `{"ip":"10.0.0.1","pad":"` + strings.Repeat("x", 1000) + `"}`
	r, w := io.Pipe()
	go func() {
		_, err := io.WriteString(w, `{"items":[`+item)
		for range 5000 {
			if err == nil {
				_, err = io.WriteString(w, ","+item)
			}
		}
		if err == nil {
			_, err = io.WriteString(w, "]}")
		}
		w.CloseWithError(err)
	}()
	var n counter
	if err := reader(m, 64<<10).Document(&n, r); err != nil {
		t.Fatal(err)
	}
	if n < 5_000_000 {
		t.Errorf("%d bytes only", n)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestSequence(t *testing.T) {
	t.Parallel()
	m := New(key)
	var out bytes.Buffer
	flushed := 0
	err := reader(m, 1<<20).Sequence(&out, strings.NewReader(`{"ip":"10.0.0.1"}`+"\n\n"+`"unseen" {"b":2}`), func() error { flushed++; return nil })
	if want := fmt.Sprintf("{\"ip\":%q}\n{\"b\":2}\n", m.String("10.0.0.1")); err != nil || out.String() != want || flushed != 2 {
		t.Errorf("%s, %d, %v", out.String(), flushed, err)
	}
	if err := reader(m, 1<<20).Sequence(&out, strings.NewReader(`{"b":`), func() error { return nil }); err == nil {
		t.Error("a value without an end passes")
	}
}

func FuzzDocument(f *testing.F) {
	for _, seed := range []string{`{"items":[{"ip":"10.0.0.1"}],"m":"fd00::1"}`, `["10.0.0.1:80"]`, `{"env":[{"name":"TOKEN","value":"x"}]}`,
		`{"a":"{\"ip\":\"10.0.0.1\"}"}`, `{"items":[1,]}`, `"\ud800 10.0.0.1"`, "\"\xff10.0.0.1\"", `{"a":1}{}`} {
		f.Add(seed)
	}
	m := New(key)
	f.Fuzz(func(t *testing.T, document string) {
		var whole, bytewise bytes.Buffer
		r := reader(m, 1<<20)
		r.Element = func(raw []byte) ([]byte, error) { return m.Value(rules, raw), nil }
		err := r.Document(&whole, strings.NewReader(document))
		if valid := json.Valid([]byte(document)); valid && err != nil && !strings.Contains(err.Error(), "is no list") || !valid && err == nil {
			t.Fatalf("valid %v, then %v", valid, err)
		}
		if other := r.Document(&bytewise, iotest.OneByteReader(strings.NewReader(document))); (other == nil) != (err == nil) {
			t.Fatalf("%v, and byte by byte %v", err, other)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(whole.Bytes(), bytewise.Bytes()) {
			t.Fatalf("%q, and byte by byte %q", whole.Bytes(), bytewise.Bytes())
		}
		var before, after any
		if err := decode(document, &before); err != nil {
			t.Fatal(err)
		}
		if err := decode(whole.String(), &after); err != nil {
			t.Fatalf("%q is no JSON: %v", whole.String(), err)
		}
		same(t, m, before, after)
	})
}

func decode(text string, v any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

// same holds that two values differ in texts alone, and where a text differs it held something to hide.
func same(t *testing.T, m *Mask, before, after any) {
	t.Helper()
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok || len(a) > len(b) {
			t.Fatalf("%v became %v", before, after)
		}
		for key, value := range b {
			if next, ok := a[key]; ok && m.String(key) == key {
				same(t, m, value, next)
			}
		}
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			t.Fatalf("%v became %v", before, after)
		}
		for i := range b {
			same(t, m, b[i], a[i])
		}
	case string:
		a, ok := after.(string)
		if !ok {
			t.Fatalf("%v became %v", before, after)
		}
		if a != b && m.String(b) == b && !strings.Contains(a, Hidden) && !strings.Contains(a, hiddenNames) && !embeds(b) {
			t.Fatalf("%q became %q", b, a)
		}
	default:
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%v became %v", before, after)
		}
	}
}

// FuzzText holds that no address is left that a reader of the text would find, and that nothing but addresses changes.
func FuzzText(f *testing.F) {
	f.Add("from 10.0.0.1:80 to", "10.9.8.7")
	f.Add("a:b::c [", "fd00::1")
	m := New(key)
	f.Fuzz(func(t *testing.T, text, address string) {
		m.Text([]byte(text))
		parsed, err := netip.ParseAddr(address)
		if err != nil || parsed.Zone() != "" {
			return
		}
		standIn, hidden := m.Address(parsed)
		if hidden && standIn == parsed {
			t.Fatal(address)
		}
		if got := m.String(" " + parsed.String() + " "); hidden && strings.Contains(got, parsed.String()) {
			t.Fatalf("%s stays: %s", address, got)
		}
	})
}

func BenchmarkValue(b *testing.B) {
	m := New(key)
	pod := []byte(`{"metadata":{"name":"web-5d4f8c7b6-abcde","namespace":"default","uid":"2c7e1a4e-3f0f-4c3b-9c0e-1a2b3c4d5e6f",` +
		`"managedFields":[{"manager":"kubelet","time":"2026-11-30T10:00:00Z","fieldsV1":{"f:status":{"f:podIPs":{"k:{\"ip\":\"10.244.0.12\"}":{".":{},"f:ip":{}}}}}}]},` +
		`"spec":{"containers":[{"name":"web","image":"nginx:1.27","env":[{"name":"A","value":"b"}]}],"nodeName":"node-a"},` +
		`"status":{"hostIP":"172.18.0.2","podIP":"10.244.0.12","podIPs":[{"ip":"10.244.0.12"}]}}`)
	b.SetBytes(int64(len(pod)))
	b.ReportAllocs()
	for b.Loop() {
		m.Value(rules, pod)
	}
}

// The history of an image tells what set its environment.
func TestCommand(t *testing.T) {
	t.Parallel()
	m := New(key)
	for command, want := range map[string]string{
		"/bin/sh -c #(nop)  ENV A=1 DB_PASSWORD=s3cret":      "/bin/sh -c #(nop)  ENV A=1 DB_PASSWORD=" + Hidden,
		`ENV API_TOKEN=\"two words \\\" more\" B=2`:          "ENV API_TOKEN=" + Hidden + " B=2",
		"|2 TOKEN=abc X=1 /bin/sh -c wget -O- 10.0.0.1":      "|2 TOKEN=" + Hidden + " X=1 /bin/sh -c wget -O- " + m.String("10.0.0.1"),
		`CMD [\"sleep\" \"600\"]`:                            `CMD [\"sleep\" \"600\"]`,
		"RUN make PASSWORD='a b' install SECRET_FILE=/run/x": "RUN make PASSWORD=" + Hidden + " install SECRET_FILE=/run/x",
	} {
		got := string(m.Value(rules, []byte(`[{"CreatedBy":"`+command+`","Comment":"TOKEN=x"}]`)))
		if got != `[{"CreatedBy":"`+want+`","Comment":"TOKEN=x"}]` {
			t.Errorf("%s\n got %s\nwant %s", command, got, want)
		}
	}
}
