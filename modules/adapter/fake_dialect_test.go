package adapter_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeDialect is an API whose every path is /<action>/<reference>: POST /container.stop/web. It serves callers of
// Docker's name.
type fakeDialect struct{}

var _ dialect.Inbound = fakeDialect{}

func (fakeDialect) Orchestrator() neutral.Orchestrator { return neutral.Docker }

func (fakeDialect) Classify(head dialect.Request) (neutral.Operation, error) {
	path, _, _ := strings.Cut(head.Path, "?")
	word, ref, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	action := neutral.Action(word)
	if !ok || (action.Kind() == neutral.KindOther && action != neutral.ObjectRaw) {
		return neutral.Operation{}, fault.New(fault.NotFound, "page not found")
	}
	return neutral.Operation{Action: action, Verb: action.Verb(), Ref: ref,
		Object: neutral.Object{Kind: action.Kind(), Name: ref}}, nil
}

func (fakeDialect) Refuse(_ dialect.Request, err error) dialect.Response {
	f := fault.Of(err)
	return dialect.Response{Status: f.Kind.Status(), Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte(f.Message)}
}

func (fakeDialect) Decode(op neutral.Operation, req dialect.Request) (neutral.Operation, []neutral.Loss, error) {
	switch op.Action {
	case neutral.ExecCreate:
		op.Exec = &neutral.ExecSpec{Command: strings.Fields(string(req.Body)), TTY: true}
	case neutral.ExecStart:
		op.Attach = &neutral.AttachOptions{Detach: string(req.Body) == "detach"}
	case neutral.ExecResize, neutral.ContainerResize:
		op.Size = &neutral.Size{Rows: 24, Columns: 80}
	case neutral.ContainerCreate:
		op.Container = &neutral.Container{Name: op.Ref}
		return op, []neutral.Loss{{Field: "Fake", Change: "dropped"}}, nil
	}
	return op, nil, nil
}

// fakeAnswer is what an answer of fakeDialect says.
type fakeAnswer struct {
	ID         string             `json:",omitempty"`
	Containers []string           `json:",omitempty"`
	Exec       *neutral.ExecState `json:",omitempty"`
	Losses     []neutral.Loss     `json:",omitempty"`
}

func (fakeDialect) Encode(op neutral.Operation, _ dialect.Request, result neutral.Result) (dialect.Response, error) {
	if op.Action == neutral.ContainerStop {
		return dialect.Response{Status: http.StatusNoContent, Header: http.Header{}}, nil
	}
	answer := fakeAnswer{ID: result.ID, Exec: result.Exec, Losses: result.Losses}
	for _, c := range result.Containers {
		answer.Containers = append(answer.Containers, c.Name)
	}
	body, err := json.Marshal(answer)
	return dialect.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, err
}

func (fakeDialect) Local(op neutral.Operation, _ dialect.Request, target dialect.Target) (dialect.Response, bool) {
	if op.Action != neutral.SystemPing {
		return dialect.Response{}, false
	}
	return dialect.Response{Status: http.StatusOK, Header: http.Header{}, Body: []byte(target.Cluster + " " + target.APIVersion)}, true
}

// Session is output as it comes; an error after its begin cuts it.
func (d fakeDialect) Session(_ neutral.Operation, w http.ResponseWriter, r *http.Request) dialect.Session {
	return &fakeSession{dialect: d, w: w, r: r}
}

type fakeSession struct {
	dialect fakeDialect
	w       http.ResponseWriter
	r       *http.Request

	mu       sync.Mutex
	accepted bool
}

func (s *fakeSession) Accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accept()
}

func (s *fakeSession) accept() error {
	if s.accepted {
		return nil
	}
	s.accepted = true
	s.w.WriteHeader(http.StatusOK)
	return http.NewResponseController(s.w).Flush()
}

func (s *fakeSession) Output(chunk neutral.Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.accept(); err != nil {
		return err
	}
	if _, err := s.w.Write(chunk.Data); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

func (s *fakeSession) Event(neutral.Event) error     { return s.Accept() }
func (s *fakeSession) Progress(string, string) error { return s.Accept() }
func (s *fakeSession) Stdin() io.Reader              { return s.r.Body }
func (s *fakeSession) Resizes() <-chan neutral.Size  { return nil }

func (s *fakeSession) Close(_ neutral.Result, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		return s.accept()
	case s.accepted:
		panic(http.ErrAbortHandler)
	}
	answer := s.dialect.Refuse(dialect.Request{}, err)
	s.w.WriteHeader(answer.Status)
	_, writeErr := s.w.Write(answer.Body)
	return writeErr
}

// mute is a dialect that no caller is served by.
type mute struct{ dialect.Dialect }

func (mute) Orchestrator() neutral.Orchestrator { return neutral.Rancher }

// fakeCluster is a Kubernetes cluster by name whose plans are the test's.
type fakeCluster struct {
	plan   func(neutral.Operation, dialect.Guard) (dialect.Plan, error)
	lookup func(neutral.Operation) (neutral.Object, error)
}

var _ dialect.Cluster = fakeCluster{}

func (c fakeCluster) Plan(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
	return c.plan(op, guard)
}

func (c fakeCluster) Lookup(_ context.Context, op neutral.Operation) (neutral.Object, error) {
	if c.lookup == nil {
		return op.Object, nil
	}
	return c.lookup(op)
}

func (fakeCluster) Upstream() neutral.Upstream {
	return neutral.Upstream{Address: "192.0.2.1:6443", Host: "the-api", Token: fakeToken}
}

func (fakeCluster) System(context.Context) (neutral.System, error) { return neutral.System{}, nil }

func (fakeCluster) Services(ctx context.Context, _ func([]neutral.Service)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (fakeCluster) Locate(context.Context, neutral.TargetRef) (neutral.Target, error) {
	return neutral.Target{}, fault.New(fault.NotFound, "nothing is here")
}

func (fakeCluster) Transport() http.RoundTripper {
	return http.NewFileTransport(http.Dir("/nonexistent"))
}
func (fakeCluster) Close() error { return nil }

// program and stream make plans of one function.
func program(run func(context.Context) (neutral.Result, error)) (dialect.Plan, error) {
	return dialect.Plan{Program: run}, nil
}

func stream(run func(context.Context, neutral.Session) (neutral.Result, error)) (dialect.Plan, error) {
	return dialect.Plan{Stream: run}, nil
}
