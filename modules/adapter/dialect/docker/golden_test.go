package docker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// update rewrites the goldens instead of comparing with them.
var update = flag.Bool("update", false, "rewrite the goldens")

// golden is one archive under testdata: sections that are given, and sections that the code makes of them.
type golden struct {
	path    string
	archive *txtar.Archive
}

func goldens(t *testing.T, folder string) []golden {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens in %s: %v", folder, err)
	}
	var all []golden
	for _, p := range paths {
		archive, err := txtar.ParseFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, golden{p, archive})
	}
	return all
}

func (g golden) name() string { return strings.TrimSuffix(filepath.Base(g.path), ".txtar") }

func (g golden) section(name string) []byte {
	for _, f := range g.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// check compares what the code made with the archive's sections. A section that is empty is left out.
func (g golden) check(t *testing.T, given []string, made map[string]string) {
	t.Helper()
	want := &txtar.Archive{Comment: g.archive.Comment}
	for _, name := range given {
		if data := g.section(name); data != nil {
			want.Files = append(want.Files, txtar.File{Name: name, Data: data})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if made[name] != "" {
			want.Files = append(want.Files, txtar.File{Name: name, Data: []byte(made[name])})
		}
	}
	text := txtar.Format(want)
	if *update {
		if err := os.WriteFile(g.path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have := txtar.Format(g.archive); !bytes.Equal(have, text) {
		t.Errorf("%s differs; -update rewrites it.\nit has:\n%s\nthe code makes:\n%s", g.path, have, text)
	}
}

// request reads the section "request": a request line without its protocol, headers, an empty line, the body.
func (g golden) request(t *testing.T) dialect.Request {
	t.Helper()
	reader := bufio.NewReader(bytes.NewReader(g.section("request")))
	line, err := reader.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: no request", g.path)
	}
	method, target, _ := strings.Cut(strings.TrimSpace(line), " ")
	req := dialect.Request{Method: method, Path: target, Header: http.Header{}}
	for {
		line, err := reader.ReadString('\n')
		if line = strings.TrimSpace(line); line == "" || err != nil {
			break
		}
		key, value, _ := strings.Cut(line, ": ")
		req.Header.Set(key, value)
	}
	if req.Body, err = io.ReadAll(reader); err != nil {
		t.Fatal(err)
	}
	req.Body = bytes.TrimSpace(req.Body)
	return req
}

// TestDecode reads requests: what they are in neutral terms and what is lost, or the answer that refuses them.
func TestDecode(t *testing.T) {
	t.Parallel()
	for _, g := range goldens(t, "decode") {
		t.Run(g.name(), func(t *testing.T) {
			req := g.request(t)
			made := map[string]string{}
			op, err := Dialect{}.Classify(req)
			var losses []neutral.Loss
			if err == nil {
				op, losses, err = Dialect{}.Decode(op, req)
			}
			if err != nil {
				made["refusal"] = responseText(t, Dialect{}.Refuse(req, err))
			} else {
				made["operation.json"] = sparse(t, op)
				made["losses"] = strings.Join(append(warnings(losses), ""), "\n")
			}
			g.check(t, []string{"request"}, made)
		})
	}
}

// TestEncode renders results as answers.
func TestEncode(t *testing.T) {
	t.Parallel()
	d := Dialect{Now: func() time.Time { return epoch.Add(time.Minute) }}
	for _, g := range goldens(t, "encode") {
		t.Run(g.name(), func(t *testing.T) {
			req := g.request(t)
			var result neutral.Result
			decoder := json.NewDecoder(bytes.NewReader(g.section("result.json")))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&result); err != nil {
				t.Fatal(err)
			}
			if origin := bytes.TrimSpace(g.section("origin.json")); len(origin) > 0 {
				spec := &neutral.Origin{Dialect: neutral.Docker, Spec: origin}
				if result.Container != nil {
					result.Container.Origin = spec
				}
				if result.Workload != nil {
					result.Workload.Origin = spec
				}
			}
			op, err := d.Classify(req)
			if err != nil {
				t.Fatal(err)
			}
			res, err := d.Encode(op, req, result)
			if err != nil {
				t.Fatal(err)
			}
			g.check(t, []string{"request", "origin.json", "result.json"}, map[string]string{"response": responseText(t, res)})
		})
	}
}

// responseText is an answer for reading: status, headers but for those of every answer, an indented body.
func responseText(t *testing.T, res dialect.Response) string {
	t.Helper()
	for key := range engineHeader() {
		if res.Header.Get(key) == "" {
			t.Errorf("the answer has no header %s", key)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", res.Status)
	for _, key := range slices.Sorted(maps.Keys(res.Header)) {
		if _, always := engineHeader()[key]; !always {
			fmt.Fprintf(&b, "%s: %s\n", key, res.Header.Get(key))
		}
	}
	b.WriteByte('\n')
	if res.Header.Get("Content-Type") == jsonMediaType && len(res.Body) > 0 {
		var indented bytes.Buffer
		if err := json.Indent(&indented, bytes.TrimSpace(res.Body), "", " "); err != nil {
			t.Fatalf("the body is no JSON: %v: %q", err, res.Body)
		}
		indented.WriteByte('\n')
		b.Write(indented.Bytes())
	} else if len(res.Body) > 0 {
		fmt.Fprintf(&b, "%q\n", res.Body)
	}
	return b.String()
}

// sparse is an operation as JSON without what is empty.
func sparse(t *testing.T, op neutral.Operation) string {
	t.Helper()
	if op.Container != nil {
		copied := *op.Container
		copied.Origin = nil // the request itself
		op.Container = &copied
	}
	if op.Workload != nil {
		copied := *op.Workload
		copied.Origin = nil
		op.Workload = &copied
	}
	op.Object.Container = nil // the same as Container, or the workload's template
	raw, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(pruned(value), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// pruned leaves out zero values.
func pruned(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			if p := pruned(item); p != nil {
				out[key] = p
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		for i := range v {
			if p := pruned(v[i]); p != nil {
				v[i] = p
			}
		}
		if len(v) == 0 {
			return nil
		}
		return v
	case string:
		if v == "" || v == "0001-01-01T00:00:00Z" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return value
}
