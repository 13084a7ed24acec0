package condition_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

func compile(t testing.TB, source string) *condition.Condition {
	t.Helper()
	c, err := condition.Compile(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return c
}

func input() condition.Input {
	return condition.Input{
		Peer: "west", Caller: "ci-1", Verb: neutral.Create, Known: condition.Everything,
		Object: neutral.Object{
			Kind: neutral.KindContainer, Namespace: "team-a", Name: "web-1", Labels: map[string]string{"team": "a", "empty": ""},
			Container: &neutral.Container{
				Image: "registry.corp/web:1", User: "1000", Env: []string{"A=secret", "B", "C=x=y"},
				Network:   neutral.NetworkHost,
				Resources: neutral.Resources{Memory: 1 << 20, MilliCPU: 500},
				Security: neutral.Security{CapAdd: []string{"cap_net_admin", "SYS_TIME", " ALL"}, PIDMode: "host", Seccomp: neutral.ProfileUnconfined,
					AppArmor: neutral.Local("web"), UnmaskedPaths: true, Sysctls: map[string]string{"net.core.somaxconn": "9"}, Devices: []string{"/dev/kvm"}},
				Mounts: []neutral.Mount{{Type: "bind", Source: "/var/run/../run/docker.sock"}, {Type: "volume", Source: "data"},
					{Type: "bind", Source: "/srv/"}},
				Ports: []neutral.Port{{Container: 80, Published: 8080}, {Container: 81}, {Container: 82, Publish: true}},
			},
		},
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]condition.Outcome{
		"true": condition.True,
		"peer == 'west' && caller.startsWith('ci-') && verb == 'create'":               condition.True,
		"object.kind == 'container' && object.namespace == 'team-a'":                   condition.True,
		"object.name.matches('^web-[0-9]+$') && object.resource == ''":                 condition.True,
		"object.labels.team == 'a' && 'team' in object.labels":                         condition.True,
		"has(object.labels.team) && !has(object.labels.other)":                         condition.True,
		"object.labels[?'other'].orValue('none') == 'none'":                            condition.True,
		"'other' in object.labels && object.labels.other == 'x'":                       condition.False,
		"object.image.startsWith('registry.corp/') && object.user == '1000'":           condition.True,
		"object.privileged || object.readOnlyRoot || object.hostIPC":                   condition.False,
		"object.hostNetwork && object.networkMode == 'host' && object.hostPID":         condition.True,
		"object.hostMounts == ['/var/run/docker.sock', '/srv']":                        condition.True,
		"object.hostMounts.all(p, p.startsWith('/srv'))":                               condition.False,
		"object.capAdd == ['NET_ADMIN', 'SYS_TIME', 'ALL']":                            condition.True,
		"sets.contains(['NET_ADMIN', 'SYS_TIME', 'ALL', 'X'], object.capAdd)":          condition.True,
		"object.seccomp == 'unconfined' && object.appArmor == 'localhost/web'":         condition.True,
		"object.unmaskedPaths && object.devices == ['/dev/kvm']":                       condition.True,
		"object.sysctls.all(name, name.startsWith('net.'))":                            condition.True,
		"object.sysctls[?'kernel.x'].orValue('') == ''":                                condition.True,
		"size(object.sysctls) == 0 || object.devices.all(d, d.startsWith('/dev/snd'))": condition.False,
		"object.env == ['A', 'B', 'C']":                                                condition.True,
		"object.memory == 1048576 && object.milliCPU <= 500.5":                         condition.True,
		"object.hostPorts == [8080, 0]":                                                condition.True,
		"object.image.split('/')[0].lowerAscii() == 'registry.corp'":                   condition.True,
		"[1, 2].exists(object, object == 2)":                                           condition.True,
		"verb in ['get', 'list']":                                                      condition.False,
		"caller == 'x' ? object.privileged : object.memory > 0 && object.memory < 2e6": condition.True,
	} {
		if got, err := compile(t, source).Eval(input()); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", source, got, err, want)
		}
	}
}

// What is not known makes a condition undecided only where it matters.
func TestEvalUndecided(t *testing.T) {
	t.Parallel()
	const head = condition.Caller | condition.Namespace
	for _, c := range []struct {
		source  string
		known   condition.Known
		want    condition.Outcome
		missing string
	}{
		{"!object.privileged", head, condition.Undecided, "object.privileged"},
		{"!object.privileged && object.namespace == 'other'", head, condition.False, ""},
		{"object.privileged || object.namespace == 'team-a'", head, condition.True, ""},
		{"object.privileged && verb == 'create' && object.name != 'x'", head, condition.Undecided, "object.name, object.privileged"},
		{"object.labels.team == 'a'", head, condition.Undecided, "object.labels"},
		{"'team' in object.labels", head | condition.Labels, condition.True, ""},
		{"object.labels[?'team'].orValue('') == 'a'", head, condition.Undecided, "object.labels"},
		{"has(object.labels.team)", head, condition.Undecided, "object.labels"},
		{"object.hostMounts.all(p, p == '/srv')", head, condition.Undecided, "object.hostMounts"},
		{"object.capAdd.size() == 0", head, condition.Undecided, "object.capAdd"},
		{"object.image in ['a', 'b']", head, condition.Undecided, "object.image"},
		{"object.image.matches('^a')", head, condition.Undecided, "object.image"},
		{"sets.contains(['A'], object.capAdd)", head, condition.Undecided, "object.capAdd"},
		{"object.image.split('/')[0] == 'a'", head, condition.Undecided, "object.image"},
		{"caller == 'ci-1'", condition.Namespace, condition.Undecided, "caller"},
		{"object.namespace == 'team-a'", condition.Caller, condition.Undecided, "object.namespace"},
		{"object.kind == 'node' || object.resource != ''", 0, condition.False, ""},
	} {
		in := input()
		in.Known = c.known
		got, err := compile(t, c.source).Eval(in)
		var missing *condition.Missing
		switch {
		case got != c.want:
			t.Errorf("%s: %v, %v; want %v", c.source, got, err, c.want)
		case c.want == condition.Undecided && !errors.As(err, &missing):
			t.Errorf("%s: error %v", c.source, err)
		case c.want == condition.Undecided && !strings.Contains(err.Error(), "it needs "+c.missing+", which"):
			t.Errorf("%s: %v; want %s", c.source, err, c.missing)
		case c.want != condition.Undecided && err != nil:
			t.Errorf("%s: %v", c.source, err)
		}
	}
	in := input()
	in.Object.Container = nil
	if got, _ := compile(t, "!object.privileged").Eval(in); got != condition.Undecided {
		t.Errorf("without a container: %v", got)
	}
}

func TestEvalFails(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"object.labels.other == 'x'":  "no such key: other",
		"object.hostMounts[7] == 'x'": "index out of bounds: 7",
		"object.memory / 0 == 1":      "division by zero",
		"int(object.image) == 1":      "type conversion error",
	} {
		got, err := compile(t, source).Eval(input())
		if got != condition.False || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", source, got, err, want)
		}
	}
}

// A caller chooses how long its lists are, so the work on them is bounded.
func TestEvalIsBounded(t *testing.T) {
	t.Parallel()
	in := input()
	for i := range 3000 {
		in.Object.Container.Env = append(in.Object.Container.Env, fmt.Sprintf("V%d=x", i))
	}
	got, err := compile(t, "object.env.all(a, object.env.exists(b, b == a))").Eval(in)
	if got != condition.False || err == nil || err.Error() != "the condition is too costly for this object" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := compile(t, "object.env.all(a, a != 'X')").Eval(in); got != condition.True || err != nil {
		t.Errorf("one pass: %v, %v", got, err)
	}
}

func TestCompileProblems(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"":                           "column 1: the condition is empty",
		"object.image":               "column 1: the condition gives string, not bool",
		"object.imge == 'x'":         `column 1: unknown attribute object.imge; did you mean "image"?`,
		"true &&\n  object.x.y == 1": "line 2, column 3: unknown attribute object.x",
		"has(object.image)":          "column 5: has(object.image) says nothing: every attribute is always there, empty when unset",
		"object == 1":                "column 1: undeclared reference to 'object'",
		"foo(peer)":                  "column 4: undeclared reference to 'foo'",
		"peer == 1":                  "column 6: found no matching overload for '_==_' applied to '(string, int)'",
		"peer.matches('(')":          "invalid matches argument",
		"[1].all(a, [1].all(b, [1].all(c, true)))": "comprehension exceeds nesting limit",
		"peer ==": "column 8: Syntax error",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "recursion",
		"'" + strings.Repeat("a", 4100) + "' == ''":                  "a condition has at most 4096 bytes",
	} {
		_, err := condition.Compile(source)
		var problems condition.Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v; want %s", source, err, want)
			continue
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Errorf("%.60s: problem %+v", source, p)
			}
		}
	}
}

func TestEvalConcurrent(t *testing.T) {
	t.Parallel()
	c := compile(t, "object.capAdd.exists(c, c == 'NET_ADMIN') && object.labels.team == 'a' && caller == 'ci-1'")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got, err := c.Eval(input()); got != condition.True || err != nil {
					t.Errorf("%v, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"!object.privileged && object.image.startsWith('registry.corp/')", "object.labels.team == 'a'",
		"object.hostMounts.all(p, p.startsWith('/srv'))", "has(object.x)", "object.", "verb in ['a']", "object.memory < 1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		c, err := condition.Compile(source)
		if err != nil {
			return
		}
		if got, err := c.Eval(input()); got == condition.Undecided || err != nil && got == condition.True {
			t.Fatalf("%q: %v, %v with everything known", source, got, err)
		}
		in := input()
		in.Known, in.Object.Container, in.Object.Labels = 0, nil, nil
		if got, err := c.Eval(in); (got == condition.Undecided) != errors.As(err, new(*condition.Missing)) {
			t.Fatalf("%q: %v, %v", source, got, err)
		}
	})
}

func BenchmarkEvalTooCostly(b *testing.B) {
	c := compile(b, "object.env.all(a, object.env.exists(b, b == a))")
	in := input()
	for i := range 3000 {
		in.Object.Container.Env = append(in.Object.Container.Env, fmt.Sprintf("V%d=x", i))
	}
	for b.Loop() {
		if got, err := c.Eval(in); err == nil {
			b.Fatal(got)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	c := compile(b, "!object.privileged && object.image.startsWith('registry.corp/')")
	in := input()
	b.ReportAllocs()
	for b.Loop() {
		if got, err := c.Eval(in); got != condition.True {
			b.Fatal(got, err)
		}
	}
}

// What the container's orchestrator does not tell is not known, and allows nothing.
func TestEvalUnknownParts(t *testing.T) {
	t.Parallel()
	in := input()
	in.Object.Container.Security.Seccomp, in.Object.Container.Security.AppArmor = "", ""
	in.Known &^= condition.Mounts
	for _, source := range []string{"object.seccomp != 'unconfined'", "object.appArmor != 'unconfined'", "size(object.hostMounts) == 0",
		"!('/var/run/docker.sock' in object.hostMounts)"} {
		if got, _ := compile(t, source).Eval(in); got != condition.Undecided {
			t.Errorf("%s: %v", source, got)
		}
	}
	in.Object.Container.Security = neutral.Security{Privileged: true, Seccomp: neutral.ProfileDefault, AppArmor: neutral.ProfileDefault}
	for _, source := range []string{"object.seccomp == 'unconfined'", "object.appArmor == 'unconfined'", "object.unmaskedPaths"} {
		if got, err := compile(t, source).Eval(in); got != condition.True {
			t.Errorf("of a privileged one, %s: %v, %v", source, got, err)
		}
	}
	volume := condition.Input{Known: condition.Mounts, Object: neutral.Object{Kind: neutral.KindVolume, Volume: &neutral.VolumeSource{HostPaths: []string{"/srv/../etc"}}}}
	if got, err := compile(t, "object.hostMounts == ['/etc']").Eval(volume); got != condition.True {
		t.Errorf("of a volume: %v, %v", got, err)
	}
	if got, _ := compile(t, "!object.privileged").Eval(volume); got != condition.Undecided {
		t.Errorf("a volume's rights: %v", got)
	}
}

func TestMentions(t *testing.T) {
	t.Parallel()
	c := compile(t, "object.labels.team == 'a' && object.devices.all(d, d == object.name) || has(object.sysctls.x)")
	for _, word := range []string{"object.labels", "object.devices", "object.name", "object.sysctls"} {
		if !c.Mentions(word) {
			t.Error(word)
		}
	}
	for _, word := range []string{"object.hostMounts", "object", "d", "peer"} {
		if c.Mentions(word) {
			t.Error(word)
		}
	}
}
