package manifest_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file, or rewrites the file.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (rewrite with -update; -want +got):\n%s", file, diff)
	}
}

func cases(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", pattern, err)
	}
	return files
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	for _, file := range cases(t, "testdata/invalid/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			set, err := manifest.Load(file)
			if err == nil || set != nil {
				t.Fatalf("no error; set %v", set)
			}
			var issues manifest.Issues
			if !errors.As(err, &issues) || len(issues) == 0 {
				t.Fatalf("the error is %T", err)
			}
			for _, i := range issues {
				if i.File != "" && i.File != file {
					t.Errorf("issue of another file: %v", i)
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

func TestValid(t *testing.T) {
	t.Parallel()
	for _, file := range cases(t, "testdata/valid/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			set, err := manifest.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			text := marshal(t, set)
			golden(t, strings.TrimSuffix(file, ".yaml")+".effective", text+warnings(set))
			again, err := manifest.Parse(manifest.Source{Name: "effective", Data: []byte(text)})
			if err != nil {
				t.Fatalf("the effective documents are not valid: %v\n%s", err, text)
			}
			if set.Hash() != again.Hash() {
				t.Errorf("not the same when read back:\n%s", cmp.Diff(set, again, cmpopts.IgnoreUnexported(manifest.Set{},
					manifest.Gateway{}, manifest.Peer{}, manifest.AccessPolicy{}), cmpopts.EquateComparable(netip.AddrPort{})))
			}
		})
	}
}

func marshal(t testing.TB, set *manifest.Set) string {
	t.Helper()
	text, err := set.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func warnings(set *manifest.Set) string {
	if len(set.Warnings) == 0 {
		return ""
	}
	return "# warnings\n# " + strings.ReplaceAll(set.Warnings.Error(), "\n", "\n# ") + "\n"
}

const gateway = `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: west}
spec: {orchestrator: {type: docker}}
`

func peer(name string) string {
	return "apiVersion: isthmus.io/v1alpha1\nkind: Peer\nmetadata: {name: " + name + "}\n"
}

func policyFor(name, peer string) string {
	return "apiVersion: isthmus.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: " + name + "}\n" +
		"spec: {from: [{peer: \"" + peer + "\"}], allow: [{verbs: [get], objects: [{}]}]}\n"
}

// write makes files in a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadFolder(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"gateway.yaml":       gateway,
		"peers.yml":          peer("north") + "---\n" + peer("east"),
		".hidden.yaml":       "not: valid",
		"..data/peer.yaml":   peer("hidden"),
		"sub.yaml/peer.yaml": peer("sub"),
		"readme.txt":         "not yaml: [",
		"peer.yaml~":         "an editor's",
	})
	set, err := manifest.Load(dir, filepath.Join(dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := set.PeerNames(); !reflect.DeepEqual(got, []string{"east", "north"}) {
		t.Errorf("peers %v", got)
	}
	if p, ok := set.Peer("east"); !ok || p.Spec.TrustDomain != "east.isthmus.internal" {
		t.Errorf("peer east: %v %v", p, ok)
	}
	if _, ok := set.Peer("sub"); ok {
		t.Error("a folder's folder was read")
	}
}

func TestLoadFaults(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"a.yaml":      "kind: [",
		"b.yaml":      gateway + "---\nspec: 1",
		"empty/x.txt": "",
		"large.yaml":  strings.Repeat("# a comment that fills the file\n", 200_000),
	})
	if err := os.Symlink("nowhere", filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := manifest.Load(filepath.Join(dir, "absent.yaml"), dir, filepath.Join(dir, "empty"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"absent.yaml: no such file or directory", "a.yaml:1: no valid YAML: ", "b.yaml:6: apiVersion: is required",
		"c.yaml: no such file or directory", "large.yaml: is larger than 4 MiB", "empty: the folder has no *.yaml file",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	text := strings.Replace(gateway, "docker}", "docker}, listeners: {admin: 0.0.0.0:1}", 1)
	for _, doc := range []string{peer("north"), policyFor("a", "nort"), policyFor("b", "north"), policyFor("c", "x*"), policyFor("d", "*")} {
		text += "---\n" + doc
	}
	set, err := manifest.Parse(manifest.Source{Name: "f", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	want := `f:4: spec.listeners.admin: 0.0.0.0:1 is no loopback address: whoever reaches it reads metrics and state
f:13: spec.from[0].peer: there is no Peer "nort"; did you mean "north"?
f:23: spec.from[0].peer: no Peer matches "x*"`
	if got := set.Warnings.Error(); got != want {
		t.Errorf("warnings:\n%s\nwant:\n%s", got, want)
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	parse := func(docs ...string) string {
		set, err := manifest.Parse(manifest.Source{Name: "f", Data: []byte(strings.Join(docs, "---\n"))})
		if err != nil {
			t.Fatal(err)
		}
		return set.Hash()
	}
	base := parse(gateway, peer("east"), peer("north"))
	if base != parse("# a comment\n"+peer("north"), gateway+"  \n", peer("east")) {
		t.Error("order and comments change the hash")
	}
	for _, other := range []string{
		parse(gateway, peer("east")),
		parse(gateway, peer("east"), peer("north")+"spec: {suspended: true}\n"),
		parse(gateway, peer("east"), peer("north"), policyFor("a", "east")),
		parse(strings.Replace(gateway, "docker}", "docker}, listeners: {http: 127.0.0.1:1}", 1), peer("east"), peer("north")),
	} {
		if other == base {
			t.Error("a change does not change the hash")
		}
	}
}

func TestAtNearest(t *testing.T) {
	t.Parallel()
	set, err := manifest.Load("testdata/valid/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, line := range map[string]int{"spec.allow[0].verbs[2]": 40, "spec.allow[0].nothing.here": 40, "spec": 38, "": 34, "zzz": 34} {
		if at := set.Policies[0].At(path); at.Line != line {
			t.Errorf("%q is at %v, want line %d", path, at, line)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.yaml", "testdata/invalid/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && len(data) < 8192 {
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := manifest.Parse(manifest.Source{Name: "f", Data: data})
		if (set == nil) == (err == nil) {
			t.Fatalf("set %v, error %v", set, err)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		text := marshal(t, set)
		again, err := manifest.Parse(manifest.Source{Name: "f", Data: []byte(text)})
		if err != nil {
			t.Fatalf("effective documents are refused: %v\n%s", err, text)
		}
		if again.Hash() != set.Hash() {
			t.Fatalf("effective documents differ:\n%s\n%s", text, marshal(t, again))
		}
	})
}
