package adapter_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestCopyFrom asks for copies by a label, under policies that let a caller do some of what a copy takes.
func TestCopyFrom(t *testing.T) {
	t.Parallel()
	const label = `"Labels":{"isthmus.io/copy-from":"east/team-a/container/web"}`
	all := func(neutral.Verb, neutral.Object) bool { return true }
	for _, c := range []struct {
		name, body string
		allows     func(neutral.Verb, neutral.Object) bool
		status     int
		says       string
		made       func(neutral.Container) bool // nil where nothing is
	}{
		{name: "filled", body: `{"Image":"scratch",` + label + `,"Env":["DB_PASSWORD=own","SHAPE=round"]}`, allows: all, status: http.StatusCreated,
			made: func(c neutral.Container) bool {
				return c.Image == "shop/web:3" && slices.Contains(c.Env, "COLOUR=blue") && slices.Contains(c.Env, "DB_PASSWORD=own") && c.Security.Privileged &&
					c.Resources.Memory == 1<<26 && c.Labels["tier"] == "front"
			}},
		{name: "a hidden value", body: `{"Image":"scratch",` + label + `}`, allows: all, status: http.StatusBadRequest,
			says: "Env[DB_PASSWORD]: the policy of east hides the value"},
		{name: "no copy", body: `{"Image":"scratch",` + label + `,"Env":["DB_PASSWORD=own"]}`, status: http.StatusForbidden, says: "no permission",
			allows: func(verb neutral.Verb, _ neutral.Object) bool { return verb != neutral.Copy }},
		{name: "no get", body: `{"Image":"scratch",` + label + `,"Env":["DB_PASSWORD=own"]}`, status: http.StatusForbidden, says: "no permission",
			allows: func(verb neutral.Verb, _ neutral.Object) bool { return verb != neutral.Get }},
		{name: "no get by its labels", body: `{"Image":"scratch",` + label + `,"Env":["DB_PASSWORD=own"]}`, status: http.StatusForbidden, says: "no permission",
			allows: func(verb neutral.Verb, o neutral.Object) bool {
				return verb != neutral.Get || o.Labels["tier"] != "front"
			}},
		{name: "conditions see what was filled in", body: `{"Image":"scratch",` + label + `,"Env":["DB_PASSWORD=own"]}`, status: http.StatusForbidden, says: "no permission",
			allows: func(verb neutral.Verb, o neutral.Object) bool {
				return verb != neutral.Create || o.Container != nil && !o.Container.Security.Privileged
			}},
		{name: "another cluster", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"west/default/container/web"}}`, allows: all,
			status: http.StatusNotImplemented, says: "names an object of west, and this creates one in east"},
		{name: "another namespace", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"east/kube-system/container/web"}}`, allows: all,
			status: http.StatusNotImplemented, says: "callers of another orchestrator act in team-a"},
		{name: "a path for a name", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"east/team-a/container/.."}}`, allows: all,
			status: http.StatusBadRequest, says: "each part is a name"},
		{name: "no such source", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"east/team-a/container/none"}}`, allows: all,
			status: http.StatusBadRequest, says: "No such container"},
		{name: "another kind", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"east/team-a/network/web"}}`, allows: all,
			status: http.StatusBadRequest, says: "names a network, and a container is created"},
		{name: "a kind that is none", body: `{"Image":"scratch","Labels":{"isthmus.io/copy-from":"east/team-a/nothing/web"}}`, allows: all,
			status: http.StatusNotImplemented, says: "a nothing cannot be copied"},
		{name: "no copy is asked for", body: `{"Image":"busybox","Env":["X=isthmus.io/copy-from"]}`, status: http.StatusCreated,
			allows: func(verb neutral.Verb, _ neutral.Object) bool { return verb != neutral.Copy && verb != neutral.Get },
			made:   func(c neutral.Container) bool { return c.Image == "busybox" && !c.Security.Privileged }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var made *neutral.Container
			source := neutral.Container{ID: strings.Repeat("ab", 32), Name: "web", Image: "shop/web:3", Env: []string{"COLOUR=blue", "DB_PASSWORD=the-secret-value"},
				Labels: map[string]string{"tier": "front"}, Security: neutral.Security{Privileged: true}, Resources: neutral.Resources{Memory: 1 << 26}}
			plan := func(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
				switch op.Action {
				case neutral.ContainerInspect:
					if op.Ref != source.Name {
						return dialect.Plan{}, fault.New(fault.NotFound, "No such container: %s", op.Ref)
					}
					_, err := guard(neutral.Object{Kind: neutral.KindContainer, Namespace: "team-a", Name: source.Name, Labels: source.Labels, Container: &source})
					return dialect.Plan{Answer: &neutral.Result{Container: &source}}, err
				case neutral.ContainerCreate:
					made = op.Container
					return dialect.Plan{Answer: &neutral.Result{ID: source.ID}}, nil
				}
				return dialect.Plan{}, fault.New(fault.NotFound, "no %s", op.Action)
			}
			judge := func(_ modules.Subject, verb neutral.Verb, o neutral.Object) modules.Judgement {
				return modules.Judgement{Allowed: c.allows(verb, o), Rule: "test", Reason: "by the test"}
			}
			open := func(s modules.Subject, verb neutral.Verb, o neutral.Object) modules.Judgement {
				j := judge(s, verb, o)
				j.Open = !j.Allowed
				return j
			}
			observer := &fakeObserver{ended: make(chan ending, 8)}
			module := adapter.New(adapter.Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "team-a", Dialects: []dialect.Dialect{docker.Dialect{}},
				Target: fakeCluster{plan: plan}, APIVersion: func() string { return "1.34" }, Policy: func() modules.Policy { return fakePolicy{judge: judge, foresee: open} },
				Log:  slog.New(slog.DiscardHandler),
				Load: load.New(load.Config{Limits: func(string) load.Limits { return load.Limits{Share: load.Share{Operations: 1}} }})})
			bridge := adapter.NewBridge(adapter.BridgeConfig{Module: module, Observer: observer, BodyLimit: 1 << 16, Peer: func(id string) modules.Peer { return peers[id] }})
			defer bridge.Close()
			request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1.49/containers/create?name=copy", strings.NewReader(c.body))
			request.Header.Set(names.HeaderPeer, "west")
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			bridge.ServeHTTP(recorder, request)
			answer, err := io.ReadAll(recorder.Result().Body)
			if err != nil {
				t.Fatal(err)
			}
			if recorder.Code != c.status || !strings.Contains(string(answer), c.says) {
				t.Errorf("answered with %d %s, and not with %d %s", recorder.Code, answer, c.status, c.says)
			}
			if strings.Contains(string(answer), "the-secret-value") {
				t.Errorf("a hidden value is told: %s", answer)
			}
			switch {
			case c.made == nil && made != nil:
				t.Errorf("something was made: %+v", made)
			case c.made != nil && (made == nil || !c.made(*made)):
				t.Errorf("what was made is %+v", made)
			case made != nil && slices.Contains(made.Env, "DB_PASSWORD=the-secret-value"):
				t.Error("a hidden value was copied")
			}
			close(observer.ended)
			var verbs []neutral.Verb
			for e := range observer.ended {
				verbs = append(verbs, e.record.Verb)
			}
			if (strings.Contains(c.says, "is created") || strings.Contains(c.says, "cannot be copied")) && (len(verbs) != 1 || verbs[0] != neutral.Create) {
				t.Errorf("something was read: %v", verbs)
			}
			if c.name == "filled" && !slices.Contains(verbs, neutral.Copy) {
				t.Errorf("the source's reading has no line of its own: %v", verbs)
			}
		})
	}
}

// reluctant is a body that does not end before it is let.
type reluctant struct {
	read chan<- struct{}
	end  <-chan struct{}
	once sync.Once
}

func (r *reluctant) Read([]byte) (int, error) {
	r.once.Do(func() { r.read <- struct{}{} })
	<-r.end
	return 0, io.EOF
}

// TestCopyLimits reads the body of a create only within its peer's limits.
func TestCopyLimits(t *testing.T) {
	t.Parallel()
	all := func(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
		return modules.Judgement{Allowed: true, Rule: "test"}
	}
	module := adapter.New(adapter.Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "team-a", Dialects: []dialect.Dialect{docker.Dialect{}},
		Target: fakeCluster{}, APIVersion: func() string { return "1.34" }, Policy: func() modules.Policy { return fakePolicy{judge: all, foresee: all} },
		Log:  slog.New(slog.DiscardHandler),
		Load: load.New(load.Config{Limits: func(string) load.Limits { return load.Limits{Share: load.Share{Operations: 1}, Body: 10} }})})
	bridge := adapter.NewBridge(adapter.BridgeConfig{Module: module, Observer: &fakeObserver{ended: make(chan ending, 8)}, BodyLimit: 1 << 16,
		Peer: func(id string) modules.Peer { return peers[id] }})
	defer bridge.Close()
	create := func(body io.Reader) int {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1.49/containers/create?name=copy", body)
		request.Header.Set(names.HeaderPeer, "west")
		request.Header.Set("Content-Type", "application/json")
		recorder := httptest.NewRecorder()
		bridge.ServeHTTP(recorder, request)
		return recorder.Code
	}
	read, end, first := make(chan struct{}, 8), make(chan struct{}), make(chan int)
	go func() {
		first <- create(io.MultiReader(strings.NewReader(strings.Repeat("x", 20)), &reluctant{read: read, end: end}))
	}()
	<-read
	if status := create(&reluctant{read: read, end: end}); status != http.StatusTooManyRequests {
		t.Errorf("one more create is answered with %d", status)
	}
	close(end)
	if status := <-first; status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that turns out to be too large is answered with %d", status)
	}
	untouched := &reluctant{read: read, end: end}
	long := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1.49/containers/create?name=copy", untouched)
	long.ContentLength = 20
	long.Header.Set(names.HeaderPeer, "west")
	recorder := httptest.NewRecorder()
	bridge.ServeHTTP(recorder, long)
	if recorder.Code != http.StatusRequestEntityTooLarge || len(read) != 0 {
		t.Errorf("a body that is said to be too large is answered with %d, and read %d times", recorder.Code, len(read))
	}
}
