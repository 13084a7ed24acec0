package adapter_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// The gateway looks for these by assertion, so a method of another form would be missed in silence.
var (
	_ dialect.Connector = docker.Dialect{}
	_ dialect.Connector = kubernetes.Dialect{}
	_ dialect.Reaper    = (*kubernetes.Cluster)(nil)

	_ dialect.Impersonator = (*kubernetes.Cluster)(nil)
	_ dialect.Rights       = (*kubernetes.Cluster)(nil)
)

// pairNow is the clock of the goldens.
var pairNow = time.Date(2026, 11, 24, 10, 5, 0, 0, time.UTC)

// recordingCluster writes down what it is asked to plan.
type recordingCluster struct {
	dialect.Cluster
	mu  sync.Mutex
	ops []neutral.Operation
}

func (c *recordingCluster) Plan(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
	c.mu.Lock()
	c.ops = append(c.ops, op)
	c.mu.Unlock()
	return c.Cluster.Plan(op, guard)
}

func (c *recordingCluster) Impersonation(actor dialect.Actor) http.Header {
	return c.Cluster.(dialect.Impersonator).Impersonation(actor)
}

// lastRecord is an observer that keeps the bridge's word of how a request ended.
type lastRecord struct {
	record modules.Record
	err    error
}

func (*lastRecord) Begin(ctx context.Context, _ *modules.Request) (context.Context, error) {
	return ctx, nil
}

func (l *lastRecord) Ended(_ context.Context, _ *modules.Request, record modules.Record, err error) {
	l.record, l.err = record, err
}

// TestPairs takes docker requests through both dialects as the gateway does: Decide, then Envoy's part (one native call
// whose answer is translated) or the bridge's (several). Each archive holds the request and the API server's answers,
// and what comes of them: who carries it out, the neutral operations, the native calls, docker's answer, the losses.
//
// A section "policy" has lines "deny VERB NAME"; what it does not name is allowed.
func TestPairs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/docker_kubernetes/*.txtar")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			given := &txtar.Archive{Comment: archive.Comment}
			contents, answers := map[string][]byte{}, map[string][]string{}
			for _, f := range archive.Files {
				if made[f.Name] {
					continue
				}
				given.Files = append(given.Files, f)
				if strings.Contains(f.Name, " /") {
					answers[f.Name] = append(answers[f.Name], string(f.Data))
				} else {
					contents[f.Name] = f.Data
				}
			}
			given.Files = append(given.Files, pair(t, contents, answers)...)
			got := txtar.Format(given)
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

// made are the sections that the code writes.
var made = map[string]bool{"verdict": true, "operation.json": true, "calls": true, "answer": true, "losses": true}

// pair runs one archive.
func pair(t *testing.T, contents map[string][]byte, answers map[string][]string) []txtar.File {
	api := newFakeAPI(t, contents, answers)
	cluster := &recordingCluster{Cluster: api.connect("team-a")}
	policy := readPolicy(t, contents["policy"])
	module := adapter.New(adapter.Config{
		Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "team-a", Target: cluster,
		Dialects:   []dialect.Dialect{docker.Dialect{Now: func() time.Time { return pairNow }}, kubernetes.Dialect{}},
		APIVersion: func() string { return "1.34" }, Policy: func() modules.Policy { return policy },
		Log: slog.New(slog.DiscardHandler),
	})
	west := modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true}
	req, body := readRequest(t, contents["request"])
	req.Peer = west

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	verdict, err := module.Decide(ctx, req)
	record, executor := verdict.Record, ""
	var answer modules.Answer
	if err == nil && verdict.Exchange != nil {
		executor = "Envoy"
		var rewrite modules.Rewrite
		var other *modules.Verdict
		rewrite, other, err = verdict.Exchange.Request(ctx, body)
		switch {
		case err == nil && other != nil:
			verdict = *other
			record = other.Record
		case err == nil:
			answer, err = verdict.Exchange.Response(ctx, api.send(ctx, rewrite))
			record = verdict.Exchange.Record()
		default:
			record = verdict.Exchange.Record()
		}
	}
	switch {
	case err != nil:
		if executor == "" {
			executor = "nobody"
		}
		answer = module.Refuse(req, err)
	case verdict.Answer != nil:
		executor, answer = "the gateway at once", *verdict.Answer
	case verdict.Route != nil:
		if verdict.Route.Upstream != names.Bridge {
			t.Fatalf("the verdict is a route to %s", verdict.Route.Upstream)
		}
		executor = "the bridge"
		answer, record = throughBridge(ctx, module, west, req, body)
	}
	text := fmt.Sprintf("by       %s\nverb     %s\naction   %s\nobject   %s %s/%s\nrule     %s\n", executor, record.Verb, record.Action,
		record.Object.Kind, record.Object.Namespace, record.Object.Name, record.Rule)
	var out []txtar.File
	add := func(name, text string) {
		if text != "" {
			out = append(out, txtar.File{Name: name, Data: freshName.ReplaceAll([]byte(text), []byte("RANDOM-NAME"))})
		}
	}
	add("verdict", text)
	var ops []string
	for _, op := range cluster.ops { // the bridge plans anew what Decide planned before it knew
		ops = append(ops, operationText(t, op))
	}
	add("operation.json", strings.Join(slices.Compact(ops), ""))
	add("calls", api.asked())
	add("answer", answerText(t, answer))
	var losses string
	for _, loss := range record.Losses {
		losses += loss.String() + "\n"
	}
	add("losses", losses)
	return out
}

// send carries a rewritten request to the API server as Envoy would, with the headers that the gateway set alone.
func (f *fakeAPI) send(ctx context.Context, rewrite modules.Rewrite) modules.Answer {
	f.t.Helper()
	request, err := http.NewRequestWithContext(ctx, rewrite.Route.Method, f.server.URL+rewrite.Route.Path, bytes.NewReader(rewrite.Body))
	if err != nil {
		f.t.Fatal(err)
	}
	for key, values := range rewrite.Route.Set {
		request.Header[http.CanonicalHeaderKey(key)] = values
	}
	if rewrite.NoBody != (len(rewrite.Body) == 0) {
		f.t.Errorf("NoBody is %v with a body of %d bytes", rewrite.NoBody, len(rewrite.Body))
	}
	response, err := f.server.Client().Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return modules.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
}

// throughBridge runs a request as Envoy hands it to the bridge.
func throughBridge(ctx context.Context, module *adapter.Module, peer modules.Peer, req *modules.Request, body []byte) (modules.Answer, modules.Record) {
	observer := &lastRecord{}
	bridge := adapter.NewBridge(adapter.BridgeConfig{Module: module, Observer: observer, BodyLimit: 1 << 20,
		Peer: func(string) modules.Peer { return peer }})
	defer bridge.Close()
	r := httptest.NewRequestWithContext(ctx, req.Method, req.Path, bytes.NewReader(body))
	r.Header = req.Header.Clone()
	r.Header.Set(names.HeaderPeer, "spiffe://west/cluster/west")
	r.Header.Set(names.HeaderCaller, req.Caller)
	w := httptest.NewRecorder()
	bridge.ServeHTTP(w, r)
	return modules.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}, observer.record
}

func readPolicy(t *testing.T, text []byte) fakePolicy {
	t.Helper()
	verbs, names := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "deny" {
			t.Fatalf("policy line %q", line)
		}
		verbs[words[1]], names[words[1]+" "+words[2]] = true, true
	}
	return fakePolicy{
		foresee: func(_ modules.Subject, verb neutral.Verb, _ neutral.Object) modules.Judgement {
			switch {
			case names[string(verb)+" *"]:
				return denied
			case verbs[string(verb)]:
				return open
			}
			return allowed
		},
		judge: func(_ modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
			if names[string(verb)+" *"] || names[string(verb)+" "+object.Name] {
				return denied
			}
			return allowed
		},
	}
}

// readRequest reads a request line without its protocol, headers, an empty line, the body.
func readRequest(t *testing.T, text []byte) (*modules.Request, []byte) {
	t.Helper()
	reader := bufio.NewReader(bytes.NewReader(text))
	line, err := reader.ReadString('\n')
	if err != nil {
		t.Fatalf("no request in %q", text)
	}
	method, target, _ := strings.Cut(strings.TrimSpace(line), " ")
	req := &modules.Request{Class: modules.ContainerOperation, Method: method, Path: target, Header: http.Header{}, Caller: "ci-1"}
	for {
		line, err := reader.ReadString('\n')
		if line = strings.TrimSpace(line); line == "" || err != nil {
			break
		}
		key, value, _ := strings.Cut(line, ": ")
		req.Header.Set(key, value)
	}
	// Whatever the caller presents is the caller's; the API server must never see it.
	req.Header.Set("Authorization", "Bearer the-callers-own")
	req.Header.Set("X-Isthmus-Link-Caller", "somebody")
	body, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	body = bytes.TrimSpace(body)
	req.EndOfBody = len(body) == 0
	return req, body
}

// operationText is an operation without what is empty in it. The caller's document, kept with it, is the request again.
func operationText(t *testing.T, op neutral.Operation) string {
	t.Helper()
	if op.Container != nil {
		copied := *op.Container
		copied.Origin = nil
		op.Container = &copied
	}
	if op.Workload != nil {
		copied := *op.Workload
		copied.Origin = nil
		op.Workload = &copied
	}
	op.Object.Container = nil
	raw, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(sparse(tree), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// sparse leaves out zero values.
func sparse(tree any) any {
	switch v := tree.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			if p := sparse(value); p != nil {
				out[key] = p
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		for i := range v {
			if p := sparse(v[i]); p != nil {
				v[i] = p
			}
		}
		if len(v) == 0 {
			return nil
		}
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
	return tree
}

// answerText is an answer for reading: its status, the headers that not every answer of an engine has, its body.
func answerText(t *testing.T, answer modules.Answer) string {
	t.Helper()
	if answer.Header.Get("Api-Version") == "" {
		t.Error("the answer names no API version")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", answer.Status)
	for _, key := range slices.Sorted(maps.Keys(answer.Header)) {
		switch key {
		case "Api-Version", "Docker-Experimental", "Ostype", "Server", "Content-Length", "Date":
		default:
			fmt.Fprintf(&b, "%s: %s\n", key, answer.Header.Get(key))
		}
	}
	body := bytes.TrimSpace(answer.Body)
	if len(body) == 0 {
		return b.String()
	}
	b.WriteByte('\n')
	var indented bytes.Buffer
	if err := json.Indent(&indented, body, "", " "); err == nil {
		b.Write(indented.Bytes())
		b.WriteByte('\n')
	} else {
		for line := range bytes.Lines(body) { // a stream, or lines of progress
			fmt.Fprintf(&b, "%q\n", line)
		}
	}
	return b.String()
}
