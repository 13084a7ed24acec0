package adapter_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// bodyAbuse is a row of docs/abuse.md: a body that a gateway reads, from a peer that may create and change what has no
// privileges.
type bodyAbuse struct {
	name, sent string
	of         neutral.Orchestrator
	method     string
	path, kind string
	body       string
	status     int    // that the sender gets
	says       string // in words
}

const (
	createPath = "/v1.44/containers/create"
	podPath    = "/api/v1/namespaces/x/configmaps/c"
)

func bodyAbuses() []bodyAbuse {
	standIn := standIn("10.0.0.5")
	dockers := func(name, sent, body string, status int, says string) bodyAbuse {
		return bodyAbuse{name, sent, neutral.Docker, http.MethodPost, createPath, "application/json", body, status, says}
	}
	puts := func(name, sent, body string, status int, says string) bodyAbuse {
		return bodyAbuse{name, sent, neutral.Kubernetes, http.MethodPut, podPath, "application/json", body, status, says}
	}
	patches := func(name, sent, body string, status int, says string) bodyAbuse {
		return bodyAbuse{name, sent, neutral.Kubernetes, http.MethodPatch, podPath, "application/json-patch+json", body, status, says}
	}
	const million = 1_000_000
	return []bodyAbuse{
		dockers("deep lists", "`Cmd` of a million `[`", `{"Image":"a","Cmd":`+strings.Repeat("[", million), 400, "deeper"),
		dockers("deep objects", "`HostConfig` of 100,000 objects in each other", `{"Image":"a","HostConfig":`+strings.Repeat(`{"a":`, million/10), 400, "deeper"),
		dockers("key twice", "`Privileged` false, then true", `{"Image":"a","HostConfig":{"Privileged":false,"Privileged":true}}`, 400, "twice"),
		dockers("key twice, other case", "`Privileged` false, `privileged` true", `{"Image":"a","HostConfig":{"Privileged":false,"privileged":true}}`, 400, "twice"),
		dockers("key twice, an escape", "`Privileged` false, `\\u0050rivileged` true", `{"Image":"a","HostConfig":{"Privileged":false,"\u0050rivileged":true}}`, 400, "twice"),
		dockers("key twice, a letter that folds", "`Sysctls` empty, `\\u017fysctls` not", `{"Image":"a","HostConfig":{"Sysctls":{},"\u017fysctls":{"a":"b"}}}`, 400, "twice"),
		dockers("object twice", "`HostConfig` twice", `{"Image":"a","HostConfig":{},"HostConfig":{"Privileged":true}}`, 400, "twice"),
		dockers("huge number", "`Memory` of `1e400`", `{"Image":"a","HostConfig":{"Memory":1e400}}`, 400, "Memory"),
		dockers("long number", "`Memory` of a million digits", `{"Image":"a","HostConfig":{"Memory":1`+strings.Repeat("0", million)+`}}`, 400, "Memory"),
		dockers("two documents", "a second object behind the first", `{"Image":"a"}{"HostConfig":{"Privileged":true}}`, 400, ""),
		dockers("unfinished", "an object without an end", `{"Image":"a"`, 400, ""),
		dockers("many keys", "50,000 labels", `{"Image":"a","Labels":{`+many(million/20, func(i int) string { return fmt.Sprintf(`"l%d":""`, i) })+`}}`, 201, ""),
		puts("deep lists, with a stand-in", "an address that stands for a hidden one, and a million `[`", `{"data":{"at":"`+standIn+`","x":`+strings.Repeat("[", million), 400, ""),
		puts("long lists, with a stand-in", "the same and 120,000 elements, where the object has 100,000", `{"at":"`+standIn+`","list":[`+many(120_000, func(i int) string { return fmt.Sprint(120_000 - i) })+`]}`, 200, ""),
		patches("many steps", "10,001 steps of a JSON patch", `[`+many(10_001, func(int) string { return `{"op":"test","path":"/metadata/name","value":"c"}` })+`]`, 400, "steps"),
		patches("copies of copies", "30 steps, each of which copies a list of 600 KB", `[`+many(30, func(i int) string { return fmt.Sprintf(`{"op":"copy","from":"/list","path":"/data/d%d"}`, i) })+`]`, 400, ""),
	}
}

func many(n int, element func(i int) string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = element(i)
	}
	return strings.Join(all, ",")
}

// TestAbuseBodies sends bodies as nobody should to what reads them.
func TestAbuseBodies(t *testing.T) {
	t.Parallel()
	object := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"x","resourceVersion":"7"},"data":{"at":"10.0.0.5"},"at":"10.0.0.5","list":[` +
		many(100_000, func(i int) string { return fmt.Sprint(i) }) + `]}`
	var rows strings.Builder
	for _, a := range bodyAbuses() {
		var wrote atomic.Int32
		policy := modest
		if a.of == neutral.Kubernetes {
			policy = fakePolicy{}
		}
		s := newSameType(t, a.of, policy, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			switch {
			case r.Method == http.MethodGet:
				_, _ = io.WriteString(w, object)
			case a.of == neutral.Docker:
				wrote.Add(1)
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"Id":"a"}`)
			default:
				wrote.Add(1)
				_, _ = io.WriteString(w, `{}`)
			}
		})
		began := time.Now()
		code, answer := s.ask(a.method, a.path, a.body, http.Header{"Content-Type": {a.kind}})
		if code != a.status || !strings.Contains(answer, a.says) {
			t.Errorf("%s: %d %.300s", a.name, code, answer)
		}
		t.Logf("%s took %v", a.name, time.Since(began)) // one that never ends is the test's time limit's to find
		reached := "nothing"
		if n := wrote.Load(); n > 0 {
			reached = "the request"
		}
		if (reached == "nothing") != (a.status >= 400) {
			t.Errorf("%s: the orchestrator got %s", a.name, reached)
		}
		fmt.Fprintf(&rows, "| %s | %s | %d | %s |\n", a.name, a.sent, code, reached)
	}
	const page, begin, end = "../../docs/abuse.md", "<!-- bodies -->\n", "<!-- end of bodies -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no such table", page)
	}
	now := before + begin + "\n| case | sent | the sender saw | the orchestrator got |\n|---|---|---|---|\n" + rows.String() + "\n" + end + after
	if *update && !t.Failed() {
		err = os.WriteFile(page, []byte(now), 0o644)
	}
	if err != nil || !*update && now != string(text) {
		t.Errorf("%s differs from this table (rewrite with -update): %v\n%s", page, err, rows.String())
	}
}
