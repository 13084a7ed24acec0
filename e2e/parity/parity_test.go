package parity

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const scenario = `# A thing's life.
setup: make $ID
one: say one
until: asked
two: say \
	two
end: remove $ID
-- folder/file --
content
`

func TestParse(t *testing.T) {
	t.Parallel()
	s, err := Parse("docker", "thing", []byte(scenario))
	if err != nil {
		t.Fatal(err)
	}
	if s.Title != "A thing's life." || s.ID() != "d-thing" || len(s.Steps) != 5 || s.Files[0].Name != "folder/file" {
		t.Errorf("read as %+v", s)
	}
	rows := s.Rows()
	if len(rows) != 2 || s.Row(rows[0]) != "docker/thing/one" || rows[1].Command != "say \\\ntwo" {
		t.Errorf("rows: %+v", rows)
	}
	for what, text := range map[string]string{
		"no title":      "one: say\n",
		"no row":        "# A.\nsetup: make\n",
		"a row twice":   "# A.\none: say\none: say\n",
		"no step":       "# A.\nsay one\n",
		"an odd name":   "# A.\nOne: say\n",
		"a lonely line": "# A.\n\tsay\n",
	} {
		if _, err := Parse("docker", "thing", []byte(text)); err == nil {
			t.Errorf("%s is read", what)
		}
	}
}

func TestPlay(t *testing.T) {
	t.Parallel()
	s, err := Parse("docker", "thing", []byte(`# Steps.
setup: echo made > made
until: echo x >> tries; test "$(wc -l < tries)" -ge 3
one: cat made folder/file; echo to $NAME; echo bad >&2; exit 3
two: false | cat
end: touch ended
-- folder/file --
content
`))
	if err != nil {
		t.Fatal(err)
	}
	arm := Arm{Name: "direct", Dir: t.TempDir(), Env: append(os.Environ(), "NAME=world")}
	answers, err := arm.Play(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Answer{Code: 3, Stdout: "made\ncontent\nto world\n", Stderr: "bad\n"}); answers["one"] != want {
		t.Errorf("one: %+v", answers["one"])
	}
	if answers["two"].Code != 1 {
		t.Errorf("two: %+v", answers["two"])
	}
	if _, err := os.Stat(filepath.Join(arm.Dir, "ended")); err != nil {
		t.Error(err)
	}
	s.Steps[0].Command = "echo broken; exit 9"
	if _, err := arm.Play(t.Context(), s); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a setup that fails: %v", err)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	n := NewNormaliser("/tmp/run1", "<dir>", "vm", "<node>")
	for _, c := range []struct{ from, want string }{
		{"CONTAINER ID   IMAGE\n0123456789ab   busybox   Up 2 seconds   web\n", "CONTAINER ID  IMAGE|<id>  busybox  Up <age>  web"},
		{"Up Less than a second\nAbout a minute ago\n", "Up <age>|<age>"},
		{"jx1zq3qq9x0r  web  replicated\njx1zq3qq9x0r *\n", "<id>  web  replicated|<id> *"},
		{"successfully  done\nit ran successfully\n", "<id>  done|it ran successfully"}, // twelve letters that begin a column
		{"web-7d4b9c6f5d-x2k4z   1/1   Running   0   2m3s\n", "web-<hash>-<suffix>  1/1  Running  0  <age>"},
		{"pod/job-x2k4z\ndeployment.apps/web\n", "pod/job-<suffix>|deployment.apps/web"},
		{"replicaset.apps/web-7d4b9c6f5d\n", "replicaset.apps/web-<hash>"},
		{"in /tmp/run1/file at 2026-01-02T03:04:05.678Z from 10.0.0.1:80\n", "in <dir>/file at <time> from <address>:80"},
		{`{"b": [1, {"c": null}], "a": {}, "resourceVersion": "12"}`, `.a = {}|.b[0] = 1|.b[1].c = null|.resourceVersion = <version>`},
		{"apiVersion: v1\nkind: Pod\n", `.apiVersion = "v1"|.kind = "Pod"`},
		{"Node: vm/10.0.0.1 vmlinux my-vm\nCreated pod: agent-g5cg4\n", "Node: <node>/<address> vmlinux my-<node>|Created pod: agent-<suffix>"},
		{"app=web,pod-template-hash=7c8dcb568b\n", "app=web,pod-template-hash=<hash>"},
		{"[not a document\n", "[not a document"},
	} {
		got := n.Lines(Answer{Stdout: c.from})
		if got[0] != "exit 0" || strings.Join(got[1:], "|") != c.want {
			t.Errorf("%q gives\n%s, want\n%s", c.from, strings.Join(got[1:], "|"), c.want)
		}
	}
	if got := n.Lines(Answer{Code: 2, Stderr: "no\n"}); !slices.Equal(got, []string{"exit 2", "2> no"}) {
		t.Errorf("an error: %q", got)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		direct, through []string
		verdict         Verdict
		difference      Difference
	}{
		{[]string{"exit 0", "a"}, []string{"exit 0", "a"}, Equal, ""},
		{[]string{"exit 0", "a", "b"}, []string{"exit 0", "b", "c"}, Approximated, "- a\n+ c\n"},
		{[]string{"exit 0", "a"}, []string{"exit 1", "2> no"}, Refused, "- exit 0\n- a\n+ exit 1\n+ 2> no\n"},
		{[]string{"exit 1"}, []string{"exit 0"}, Approximated, "- exit 1\n+ exit 0\n"},
	} {
		verdict, difference := Compare(c.direct, c.through)
		if verdict != c.verdict || difference != c.difference {
			t.Errorf("%q and %q: %s\n%s", c.direct, c.through, verdict, difference)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	all := Accepted{
		"told":    {Row: "told", Verdict: Approximated, Cause: Safety, Reason: "hidden", Difference: "- a\n"},
		"pattern": {Row: "pattern", Verdict: Refused, Cause: Physics, Reason: "none", Pattern: `- exit 0\n\+ exit \d`},
	}
	for _, c := range []struct {
		row        string
		verdict    Verdict
		difference Difference
		fine       bool
	}{
		{"other", Equal, "", true},
		{"other", Approximated, "- a\n", false},
		{"told", Approximated, "- a\n", true},
		{"told", Approximated, "- b\n", false},
		{"told", Refused, "- a\n", false},
		{"told", Equal, "", false}, // it does not occur any more
		{"pattern", Refused, "- exit 0\n+ exit 7\n", true},
		{"pattern", Refused, "- exit 0\n+ exit 7\n+ more\n", false},
	} {
		if err := all.Judge(c.row, c.verdict, c.difference); (err == nil) != c.fine {
			t.Errorf("%s %s %q: %v", c.row, c.verdict, c.difference, err)
		}
	}
	all.Take("told", Refused, "- b\n")
	if a := all["told"]; a.Reason != "hidden" || a.Verdict != Refused || a.Difference != "- b\n" {
		t.Errorf("taken: %+v", a)
	}
	all.Take("told", Equal, "")
	if _, still := all["told"]; still {
		t.Error("what is equal is still accepted")
	}
	path := filepath.Join(t.TempDir(), "accepted.yaml")
	all.Take("new", Approximated, "- x: \"y\"\n+ #z\n")
	if err := all.Write(path); err != nil {
		t.Fatal(err)
	}
	if read, err := ReadAccepted(path); err != nil || len(read) != 2 || read["new"] != all["new"] {
		t.Errorf("read again: %+v, %v", read, err)
	}
	{
		left := Accepted{"a": {}, "docker/thing/one": {}}
		s, err := Parse("docker", "thing", []byte(scenario))
		if err != nil {
			t.Fatal(err)
		}
		if left.Forget([]Scenario{s}); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
	}
	if err := all.Check(nil); err == nil || !strings.Contains(err.Error(), "new: no scenario") {
		t.Errorf("checked: %v", err)
	}
}

const (
	testdata = "../testdata/parity"
	page     = "../../docs/parity.md"
)

var update = flag.Bool("update", false, "write docs/parity.md")

// TestPage holds that each accepted difference has its reason, and that the page says what the file does.
func TestPage(t *testing.T) {
	t.Parallel()
	scenarios, err := Scenarios(testdata)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ReadAccepted(filepath.Join(testdata, "accepted.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := accepted.Check(scenarios); err != nil {
		t.Error(err)
	}
	if *update {
		if err := os.WriteFile(page, []byte(Page(scenarios, accepted)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(said) != Page(scenarios, accepted) {
		t.Error("docs/parity.md is not what scenarios and accepted.yaml make; -update writes it")
	}
}
