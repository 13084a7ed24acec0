package podspec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var update = flag.Bool("update", false, "write goldens anew")

func files(t testing.TB, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no goldens in %s: %v", folder, err)
	}
	return names
}

// goldens runs every archive of a folder: its first file is the input, the rest is what run makes of it.
func goldens(t *testing.T, folder string, run func(t *testing.T, in []byte) []txtar.File) {
	t.Helper()
	for _, file := range files(t, folder) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil || len(archive.Files) == 0 {
				t.Fatalf("%s: %v", file, err)
			}
			made := &txtar.Archive{Comment: archive.Comment, Files: append(archive.Files[:1:1], run(t, archive.Files[0].Data)...)}
			got := txtar.Format(made)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := txtar.Format(archive); !bytes.Equal(got, want) {
				t.Errorf("%s differs (rewrite with -update):\n%s", file, got)
			}
		})
	}
}

func unmarshal(t *testing.T, in []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(in, into); err != nil {
		t.Fatal(err)
	}
}

// shown is a value as YAML without what is not said in it.
func shown(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	out, err := yaml.Marshal(pruned(tree))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func pruned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value = pruned(value); value == nil || reflect.ValueOf(value).IsZero() || value == "0001-01-01T00:00:00Z" {
				delete(v, key)
			} else {
				v[key] = value
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// decodeCase is the input of a golden of Decode.
type decodeCase struct {
	Target Target
	Spec   corev1.PodSpec
	Source objects // resolves what is referred to, where it is given
}

// objects are config maps and secrets of a test.
type objects map[neutral.Kind]map[string]map[string]string

func (o objects) Keys(kind neutral.Kind, name string) ([]string, bool) {
	object, ok := o[kind][name]
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	return keys, ok
}

func (o objects) Value(kind neutral.Kind, name, key string) ([]byte, error) {
	return []byte(o[kind][name][key]), nil
}

func (o objects) Stored(_ neutral.Kind, name, key string) string { return name + "_" + key }

func TestDecodeGoldens(t *testing.T) {
	t.Parallel()
	goldens(t, "decode", func(t *testing.T, in []byte) []txtar.File {
		var c decodeCase
		unmarshal(t, in, &c)
		before := c.Spec.DeepCopy()
		result, errs := Decode(&c.Spec, field.NewPath("spec"), c.Target)
		if !reflect.DeepEqual(before, &c.Spec) {
			t.Error("the caller's spec was changed")
		}
		out := []txtar.File{}
		if c.Source != nil {
			errs = append(errs, result.Resolve(c.Source)...)
		}
		var text strings.Builder
		for _, err := range errs {
			text.WriteString(err.Error() + "\n")
		}
		if text.Len() > 0 {
			out = append(out, txtar.File{Name: "errors", Data: []byte(text.String())})
			text.Reset()
		}
		for _, loss := range result.Losses {
			text.WriteString(loss.String() + "\n")
		}
		if text.Len() > 0 {
			out = append(out, txtar.File{Name: "losses", Data: []byte(text.String())})
		}
		result.Losses = nil
		return append(out, txtar.File{Name: "result.yaml", Data: shown(t, result)})
	})
}

func TestEncodeGoldens(t *testing.T) {
	t.Parallel()
	goldens(t, "encode", func(t *testing.T, in []byte) []txtar.File {
		var c neutral.Container
		unmarshal(t, in, &c)
		spec := Encode(c)
		return []txtar.File{{Name: "spec.yaml", Data: yamlOf(t, spec)}}
	})
}
