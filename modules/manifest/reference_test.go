package manifest_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

func TestReference(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Load("testdata/example.yaml"); err != nil {
		t.Fatalf("the example is not valid:\n%v", err)
	}
	page, err := template.ParseFiles("testdata/documents.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	kinds := manifest.Kinds()
	for _, k := range kinds {
		for i := range k.Fields {
			k.Fields[i].Meaning = markdown.Replace(k.Fields[i].Meaning)
		}
	}
	var text strings.Builder
	err = page.Execute(&text, map[string]any{
		"Errors":  strings.ReplaceAll(strings.ReplaceAll(errorText(t), "testdata/", ""), "example_errors", "isthmus"),
		"Example": string(example), "Kinds": kinds, "Verbs": neutral.Verbs, "ObjectKinds": neutral.Kinds,
		"Attributes": condition.Attributes,
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.FromSlash("../../docs/reference/documents.md"), text.String())
}

// markdown keeps a text from being read as markup; a bar would end the table's cell.
var markdown = strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;", "[", `\[`)

func errorText(t *testing.T) string {
	t.Helper()
	_, err := manifest.Load("testdata/example_errors.yaml")
	if err == nil {
		t.Fatal("the example of errors has none")
	}
	return err.Error()
}

// Every field says what it is; a default and a rule that nothing reads are mistakes of this package.
func TestFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	for _, k := range manifest.Kinds() {
		if k.Meaning == "" || len(k.Fields) < 4 {
			t.Errorf("%s: meaning %q, %d fields", k.Name, k.Meaning, len(k.Fields))
		}
		for _, f := range k.Fields {
			if !strings.HasSuffix(f.Meaning, ".") || len(f.Meaning) < 10 {
				t.Errorf("%s.%s: the meaning is no sentence: %q", k.Name, f.Path, f.Meaning)
			}
			if f.Type == "" {
				t.Errorf("%s.%s: no type", k.Name, f.Path)
			}
			if f.Required && f.Default != "" {
				t.Errorf("%s.%s: required, with a default", k.Name, f.Path)
			}
		}
	}
	for _, v := range []any{manifest.Gateway{}, manifest.Peer{}, manifest.AccessPolicy{}} {
		checkTags(t, reflect.TypeOf(v))
	}
}

var tagName = regexp.MustCompile(`(?:^|" )(\w+):"`)

func checkTags(t *testing.T, s reflect.Type) {
	t.Helper()
	known := map[string]bool{"yaml": true, "format": true, "required": true, "default": true, "derived": true, "values": true,
		"min": true, "max": true, "doc": true}
	for i := range s.NumField() {
		f := s.Field(i)
		if f.Anonymous {
			continue
		}
		for _, m := range tagName.FindAllStringSubmatch(string(f.Tag), -1) {
			if !known[m[1]] {
				t.Errorf("%s.%s: tag %q is read by nobody", s, f.Name, m[1])
			}
		}
		if f.Tag.Get("doc") == "" || f.Tag.Get("yaml") == "" {
			t.Errorf("%s.%s: no doc or no name", s, f.Name)
		}
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner.PkgPath() == s.PkgPath() {
			checkTags(t, inner)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"gateway":                     "Gateway (isthmus.io/v1alpha1)\n  What this gateway is. Exactly one.\n",
		"Gateway.spec.listeners":      "    spec.listeners.admin <ip:port> default 127.0.0.1:15000\n",
		"peer.spec.suspended":         "  spec.suspended <boolean> default false\n      Nothing of a suspended peer passes",
		"accesspolicy.spec.from.peer": "spec.from[].peer <pattern> required",
		"accesspolicy.spec.pause":     "<freeze, quiesce, refuse> default freeze",
	} {
		text, err := manifest.Explain(path)
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %v\n%s\nwant %q", path, err, text, want)
		}
	}
	for path, want := range map[string]string{
		"gatway":                `no kind "gatway"; did you mean "Gateway"?`,
		"gateway.spec.listener": `Gateway has no field spec.listener; did you mean "listeners"?`,
		"gateway.x.y.z":         "Gateway has no field x.y.z",
	} {
		if _, err := manifest.Explain(path); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	// Nothing beside what was asked for.
	if text, err := manifest.Explain("gateway.spec.listeners"); err != nil || strings.Contains(text, "suffix") {
		t.Errorf("too much: %v\n%s", err, text)
	}
}
