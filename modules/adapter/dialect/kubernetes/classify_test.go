package kubernetes

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const classifyGolden = "testdata/classify.txt"

// TestClassify reads testdata/classify.txt: a request's line ("METHOD PATH [| Header: value]"), and indented below it
// what it is classified as. Comments begin with #.
func TestClassify(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile(classifyGolden)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cases := 0
	for line := range strings.Lines(string(written)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "\t"):
			continue // an answer, made anew
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
			continue
		}
		cases++
		op, err := Dialect{}.Classify(parseHead(t, line))
		fmt.Fprintf(&out, "%s\n\t%s\n", line, describe(op, err))
	}
	if cases < 100 {
		t.Errorf("only %d requests are classified", cases)
	}
	if *update {
		if err := os.WriteFile(classifyGolden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(written), out.String()); diff != "" {
		t.Errorf("classification differs (-want +got; -update rewrites):\n%s", diff)
	}
}

func parseHead(t *testing.T, line string) dialect.Request {
	t.Helper()
	line, header, hasHeader := strings.Cut(line, " | ")
	method, path, ok := strings.Cut(line, " ")
	if !ok {
		t.Fatalf("not a request: %q", line)
	}
	head := dialect.Request{Method: method, Path: path, Header: http.Header{}}
	if hasHeader {
		key, value, _ := strings.Cut(header, ": ")
		head.Header.Set(key, value)
	}
	return head
}

func describe(op neutral.Operation, err error) string {
	if err != nil {
		f := fault.Of(err)
		return fmt.Sprintf("! %s: %s", f.Kind, f.Message)
	}
	s := fmt.Sprintf("%s %s %s", op.Verb, op.Object.Kind, op.Object.Resource)
	if op.Object.Namespace != "" {
		s += " namespace=" + op.Object.Namespace
	}
	if op.Object.Name != "" {
		s += " name=" + op.Object.Name
	}
	if len(op.Also) > 0 {
		s += fmt.Sprintf(" also=%v", op.Also)
	}
	return s + " action=" + string(op.Action) + " api=" + op.Extra[extraVerb]
}

// TestKindOtherIsNeverChangedBelowRaw holds the promise that a policy on containers opens no door beside them.
func TestKindOtherIsNeverChangedBelowRaw(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{
		"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "/apis/example.com/v1/namespaces/a/widgets",
		"/api/v1/namespaces/a/serviceaccounts", "/apis/multicluster.x-k8s.io/v1alpha1/namespaces/a/serviceexports",
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			for _, path := range []string{resource, resource + "/x", resource + "/x/status", resource + "/x/token"} {
				op, err := Dialect{}.Classify(dialect.Request{Method: method, Path: path})
				if err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				if op.Verb != neutral.Raw || op.Object.Kind != neutral.KindOther {
					t.Errorf("%s %s is %s of %s", method, path, op.Verb, op.Object.Kind)
				}
			}
		}
	}
}

// FuzzClassify holds that whatever comes is refused or named in full, and that no accepted path could be read
// otherwise by a server that normalizes it.
func FuzzClassify(f *testing.F) {
	written, err := os.ReadFile(classifyGolden)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(written)) {
		if line = strings.TrimRight(line, "\n"); line == "" || line[0] == '\t' || line[0] == '#' {
			continue
		}
		request, _, _ := strings.Cut(line, " | ")
		method, path, _ := strings.Cut(request, " ")
		f.Add(method, path)
	}
	f.Fuzz(func(t *testing.T, method, raw string) {
		head := dialect.Request{Method: method, Path: raw}
		op, err := Dialect{}.Classify(head)
		if err != nil {
			if resp := (Dialect{}).Refuse(head, err); resp.Status < 400 {
				t.Errorf("refused with status %d", resp.Status)
			}
			return
		}
		if op.Verb == "" || op.Action == "" || op.Object.Kind == "" || op.Object.Resource == "" {
			t.Errorf("%q %q is not named in full: %+v", method, raw, op)
		}
		plain, _, _ := strings.Cut(raw, "?")
		again, err := Dialect{}.Classify(dialect.Request{Method: method, Path: normalize(raw)})
		if op.Extra[extraSubresource] == "proxy" {
			plain = "" // the rest is somebody else's path
		}
		if strings.Contains(plain, "//") || err != nil || describe(op, nil) != describe(again, err) {
			t.Errorf("%q reads %s, normalized %s", raw, describe(op, nil), describe(again, err))
		}
	})
}

// normalize reads a path as a proxy on the way might: decoded once, slashes merged, dot segments resolved.
func normalize(raw string) string {
	p, query, hasQuery := strings.Cut(raw, "?")
	decoded, err := url.PathUnescape(p)
	if err != nil {
		return raw
	}
	p = (&url.URL{Path: path.Clean(decoded)}).EscapedPath()
	if hasQuery {
		p += "?" + query
	}
	return p
}

func BenchmarkClassify(b *testing.B) {
	head := dialect.Request{Method: http.MethodGet, Path: "/api/v1/namespaces/team-a/pods/web/log?container=main&follow=true", Header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Dialect{}).Classify(head); err != nil {
			b.Fatal(err)
		}
	}
}
