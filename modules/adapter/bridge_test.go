package adapter_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// ending is what an observer heard of one request.
type ending struct {
	peer   string
	record modules.Record
	err    error
}

// fakeObserver keeps what the bridge tells.
type fakeObserver struct {
	begin error
	ended chan ending
}

func (o *fakeObserver) Begin(ctx context.Context, _ *modules.Request) (context.Context, error) {
	if o.begin != nil {
		return nil, o.begin
	}
	return ctx, nil
}

func (o *fakeObserver) Ended(_ context.Context, req *modules.Request, record modules.Record, err error) {
	o.ended <- ending{req.Peer.Name, record, err}
}

// rig is a bridge behind HTTP/2 on a Unix socket's kind of listener, as Envoy sees it.
type rig struct {
	t        *testing.T
	module   *adapter.Module
	bridge   *adapter.Bridge
	observer *fakeObserver
	limited  chan string // peers and limits that refused
	client   *http.Client
	url      string
}

// peers are who asks in these tests, by the identity that Envoy gives.
var peers = map[string]modules.Peer{
	"west":    {Name: "west", Orchestrator: neutral.Docker, Ready: true},
	"north":   {Name: "north", Orchestrator: neutral.Docker, Ready: true},
	"shy":     {Name: "shy"},
	"foreign": {Name: "foreign", Orchestrator: "nomad", Ready: true},
	"mute":    {Name: "mute", Orchestrator: neutral.Rancher, Ready: true},
}

func newRig(t *testing.T, policy modules.Policy, plan func(neutral.Operation, dialect.Guard) (dialect.Plan, error)) *rig {
	t.Helper()
	return newLimitedRig(t, policy, plan, load.Limits{})
}

func newLimitedRig(t *testing.T, policy modules.Policy, plan func(neutral.Operation, dialect.Guard) (dialect.Plan, error),
	limits load.Limits) *rig {
	t.Helper()
	r := &rig{t: t, observer: &fakeObserver{ended: make(chan ending, 64)}, limited: make(chan string, 64)}
	r.module = adapter.New(adapter.Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "team-a",
		Dialects: []dialect.Dialect{fakeDialect{}, mute{fakeDialect{}}}, Target: fakeCluster{plan: plan},
		APIVersion: func() string { return "1.34" }, Policy: func() modules.Policy { return policy }, Log: slog.New(slog.DiscardHandler),
		Load: load.New(load.Config{Limits: func(string) load.Limits { return limits }, Limited: func(peer, limit string) { r.limited <- peer + " " + limit }})})
	r.bridge = adapter.NewBridge(adapter.BridgeConfig{Module: r.module, Observer: r.observer, BodyLimit: 1 << 10,
		Peer: func(id string) modules.Peer { return peers[id] }})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: r.bridge, Protocols: protocols, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended: %v", err)
		}
	}()
	transport := &http.Transport{Protocols: protocols}
	r.client, r.url = &http.Client{Transport: transport}, "http://"+listener.Addr().String()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-ended
		r.bridge.Close()
	})
	return r
}

// send makes a request of a peer.
func (r *rig) send(ctx context.Context, peer, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set(names.HeaderPeer, peer)
	request.Header.Set(names.HeaderCaller, "ci-1")
	return r.client.Do(request)
}

// ask makes a request and reads the whole answer.
func (r *rig) ask(peer, path, body string) (int, string) {
	r.t.Helper()
	response, err := r.send(r.t.Context(), peer, path, strings.NewReader(body))
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatalf("%s: %v after %q", path, err, text)
	}
	return response.StatusCode, string(text)
}

// heard is what the observer heard of the request that was just answered.
func (r *rig) heard() ending {
	r.t.Helper()
	select {
	case e := <-r.observer.ended:
		return e
	case <-time.After(10 * time.Second):
		r.t.Fatal("the observer did not hear of the request's end")
		return ending{}
	}
}

// unplanned fails a test whose request should not have come so far.
func unplanned(t *testing.T) func(neutral.Operation, dialect.Guard) (dialect.Plan, error) {
	return func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		t.Errorf("%s was planned", op.Action)
		return dialect.Plan{}, fault.New(fault.Internal, "unplanned")
	}
}

func TestBridgeRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, peer, path, body string
		policy                 fakePolicy
		status                 int
		message                string
		kind                   fault.Kind
	}{
		{"policy is asked again", "west", "/container.stop/web", "", fakePolicy{foresee: always(denied)}, 403, "no permission", fault.Denied},
		{"an unknown peer", "nobody", "/container.stop/web", "", fakePolicy{}, 403, "is not a peer of east", fault.Denied},
		{"no peer at all", "", "/container.stop/web", "", fakePolicy{}, 403, "is not a peer of east", fault.Denied},
		{"before the handshake", "shy", "/container.stop/web", "", fakePolicy{}, 503, "have not shaken hands", fault.Unavailable},
		{"an orchestrator that nobody speaks", "foreign", "/container.stop/web", "", fakePolicy{}, 501, "does not speak the API", fault.Unsupported},
		{"a dialect without callers", "mute", "/container.stop/web", "", fakePolicy{}, 501, "cannot operate", fault.Unsupported},
		{"no such path", "west", "/nothing", "", fakePolicy{}, 404, "page not found", fault.NotFound},
		{"what only its own kind has", "west", "/object.raw/x", "", fakePolicy{}, 501, "not supported", fault.Unsupported},
		{"a body past the limit", "west", "/container.create/web", strings.Repeat("x", 1<<10+1), fakePolicy{}, 413, "passes 1024 bytes", fault.TooLarge},
		{"a body that nobody wants, past the limit", "west", "/container.stop/web", strings.Repeat("x", 1<<10+1), fakePolicy{}, 413, "passes 1024 bytes", fault.TooLarge},
		{"a spec that policy denies", "west", "/container.create/web", "", fakePolicy{foresee: always(open), judge: always(denied)}, 403, "no permission", fault.Denied},
		{"what is in no other object", "west", "/system.info/", "", fakePolicy{foresee: always(open), judge: always(denied)}, 403, "no permission", fault.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.policy, unplanned(t))
			status, text := r.ask(c.peer, c.path, c.body)
			if status != c.status || !strings.Contains(text, c.message) {
				t.Errorf("%d %q, want %d with %q", status, text, c.status, c.message)
			}
			if e := r.heard(); !fault.Is(e.err, c.kind) || e.peer != peers[c.peer].Name {
				t.Errorf("the observer heard %v of %q", e.err, e.peer)
			}
		})
	}
}

// TestBridgeUnrecorded holds that a request that cannot be observed is refused.
func TestBridgeUnrecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, fakePolicy{}, unplanned(t))
	r.observer.begin = fault.New(fault.Unavailable, "the audit log is full")
	if status, text := r.ask("west", "/container.stop/web", ""); status != 503 || text != "the audit log is full" {
		t.Errorf("%d %q", status, text)
	}
	if e := r.heard(); !fault.Is(e.err, fault.Unavailable) {
		t.Errorf("the observer heard %v", e.err)
	}
}

// TestBridgePrograms runs plans of several calls to their ends.
func TestBridgePrograms(t *testing.T) {
	t.Parallel()
	policy := fakePolicy{foresee: always(open), judge: func(s modules.Subject, _ neutral.Verb, object neutral.Object) modules.Judgement {
		if s != (modules.Subject{Peer: "west", Caller: "ci-1"}) {
			t.Errorf("policy is asked about %+v", s)
		}
		if strings.HasPrefix(object.Name, "secret") {
			return denied
		}
		return modules.Judgement{Allowed: true, Rule: "rule-of-" + object.Name}
	}}
	var undone sync.Map
	r := newRig(t, policy, func(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
		if op.Object.Namespace != "team-a" {
			t.Errorf("%s is placed in %q", op.Action, op.Object.Namespace)
		}
		switch op.Action {
		case neutral.ContainerList:
			return program(func(context.Context) (neutral.Result, error) {
				var kept []neutral.Container
				for _, name := range []string{"web", "secret-1", "db"} {
					if _, err := guard(neutral.Object{Kind: neutral.KindContainer, Name: name}); err == nil {
						kept = append(kept, neutral.Container{Name: name})
					}
				}
				return neutral.Result{Containers: kept}, nil
			})
		case neutral.WorkloadRemove:
			return program(func(context.Context) (neutral.Result, error) {
				for _, name := range []string{"web", "secret-1", "db"} {
					if _, err := guard(neutral.Object{Kind: neutral.KindWorkload, Name: name}); err != nil {
						undone.Store("at", name)
						return neutral.Result{}, err
					}
				}
				t.Error("the program went past a denial")
				return neutral.Result{}, nil
			})
		case neutral.ContainerStop:
			return program(func(context.Context) (neutral.Result, error) {
				_, err := guard(neutral.Object{Kind: neutral.KindContainer, Namespace: "team-a", Name: "web"})
				return neutral.Result{Losses: []neutral.Loss{{Field: "t", Change: "10 s"}}}, err
			})
		case neutral.ContainerRestart:
			return program(func(context.Context) (neutral.Result, error) {
				return neutral.Result{}, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9)}, Err: errors.New("refused")}
			})
		case neutral.ContainerKill:
			return dialect.Plan{}, nil
		case neutral.ContainerCreate:
			return dialect.Plan{Answer: &neutral.Result{ID: op.Container.Name + "-id", Losses: []neutral.Loss{{Field: "Other", Change: "dropped"}}}}, nil
		}
		return unplanned(t)(op, guard)
	})

	if status, text := r.ask("west", "/container.list/", ""); status != 200 || text != `{"Containers":["web","db"]}` {
		t.Errorf("a list: %d %s", status, text)
	}
	if e := r.heard(); e.err != nil || e.record.Rule != "rule-of-db" || e.record.Object.Name != "" {
		t.Errorf("a list is recorded as %+v, %v", e.record, e.err)
	}
	if status, text := r.ask("west", "/workload.remove/shop", ""); status != 403 || !strings.Contains(text, "no permission") {
		t.Errorf("a denial in the middle: %d %s", status, text)
	}
	if at, _ := undone.Load("at"); at != "secret-1" {
		t.Errorf("the program heard of the denial at %v", at)
	}
	if e := r.heard(); !fault.Is(e.err, fault.Denied) || e.record.Verb != neutral.Destroy {
		t.Errorf("a denial in the middle is recorded as %+v, %v", e.record, e.err)
	}
	if status, text := r.ask("west", "/container.stop/web", ""); status != 204 || text != "" {
		t.Errorf("a stop: %d %q", status, text)
	}
	if e := r.heard(); e.err != nil || e.record.Rule != "rule-of-web" || e.record.Object.Name != "web" || len(e.record.Losses) != 1 || e.record.Upstream != names.Bridge {
		t.Errorf("a stop is recorded as %+v, %v", e.record, e.err)
	}
	if status, text := r.ask("west", "/container.restart/web", ""); status != 503 || strings.Contains(text, "192.0.2.9") || text != "the orchestrator cannot be reached" {
		t.Errorf("no way to the orchestrator: %d %q", status, text)
	}
	if e := r.heard(); e.err == nil || !strings.Contains(e.err.Error(), "192.0.2.9") {
		t.Errorf("the log learns nothing of the cause: %v", e.err)
	}
	if status, text := r.ask("west", "/container.kill/web", ""); status != 500 || !strings.Contains(text, "no plan") {
		t.Errorf("no plan: %d %q", status, text)
	}
	r.heard()
	if status, text := r.ask("west", "/container.create/web", "{}"); status != 200 ||
		text != `{"ID":"web-id","Losses":[{"Field":"Fake","Change":"dropped","Reason":""},{"Field":"Other","Change":"dropped","Reason":""}]}` {
		t.Errorf("a create: %d %s", status, text)
	}
	if e := r.heard(); len(e.record.Losses) != 2 {
		t.Errorf("a create is recorded as %+v", e.record)
	}
}

// TestBridgeStreams ends streams before and after they began.
func TestBridgeStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t, fakePolicy{}, func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		if op.Action == neutral.ContainerInspect { // whether there is a terminal is asked before
			return dialect.Plan{Answer: &neutral.Result{Container: &neutral.Container{}}}, nil
		}
		return stream(func(_ context.Context, session neutral.Session) (neutral.Result, error) {
			switch op.Ref {
			case "early":
				return neutral.Result{}, fault.New(fault.NotFound, "No such container: early")
			case "late":
				err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("half")})
				return neutral.Result{}, errors.Join(err, fault.New(fault.Unavailable, "the log broke off"))
			case "panic-early":
				panic("a bug")
			case "panic-late":
				if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("half")}); err != nil {
					t.Error(err)
				}
				panic("a bug")
			case "stdin":
				data, err := io.ReadAll(session.Stdin())
				return neutral.Result{}, errors.Join(err, session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: data}))
			}
			return neutral.Result{}, session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("whole")})
		})
	})
	if status, text := r.ask("west", "/container.logs/web", ""); status != 200 || text != "whole" {
		t.Errorf("a good end: %d %q", status, text)
	}
	if e := r.heard(); e.err != nil {
		t.Errorf("a good end is heard as %v", e.err)
	}
	if status, text := r.ask("west", "/container.logs/early", ""); status != 404 || text != "No such container: early" {
		t.Errorf("an error before the begin: %d %q", status, text)
	}
	if e := r.heard(); !fault.Is(e.err, fault.NotFound) {
		t.Errorf("an error before the begin is heard as %v", e.err)
	}
	if status, text := r.ask("west", "/container.logs/panic-early", ""); status != 500 || text != "internal error of the gateway" {
		t.Errorf("a panic before the begin: %d %q", status, text)
	}
	if e := r.heard(); !fault.Is(e.err, fault.Internal) || e.record.Verb != neutral.Logs {
		t.Errorf("a panic before the begin is heard as %+v %v", e.record, e.err)
	}
	for ref, kind := range map[string]fault.Kind{"late": fault.Unavailable, "panic-late": fault.Internal} {
		response, err := r.send(t.Context(), "west", "/container.logs/"+ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || string(text) != "half" || err == nil {
			t.Errorf("%s: %d %q %v, want a cut stream", ref, response.StatusCode, text, err)
		}
		if e := r.heard(); !fault.Is(e.err, kind) {
			t.Errorf("%s is heard as %v", ref, e.err)
		}
	}
	// What the client sends is the stream's, and of any length.
	long := strings.Repeat("typed ", 4<<10)
	if status, text := r.ask("west", "/container.copy-in/stdin", long); status != 200 || text != long {
		t.Errorf("stdin: %d, %d of %d bytes", status, len(text), len(long))
	}
	r.heard()
}

// TestBridgePanics holds that a bug in a plan is an error for who asked and for who watches, and no end of the process.
func TestBridgePanics(t *testing.T) {
	t.Parallel()
	r := newRig(t, fakePolicy{}, func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		if op.Ref == "plan" {
			panic("a bug")
		}
		return program(func(context.Context) (neutral.Result, error) { panic("a bug") })
	})
	for _, ref := range []string{"plan", "program"} {
		if status, text := r.ask("west", "/container.stop/"+ref, ""); status != 500 || text != "internal error of the gateway" {
			t.Errorf("%s: %d %q", ref, status, text)
		}
		if e := r.heard(); !fault.Is(e.err, fault.Internal) || e.record.Action != neutral.ContainerStop {
			t.Errorf("%s is heard as %+v %v", ref, e.record, e.err)
		}
	}
}

// running plans the inspection that an exec begins with, and the exec as the test has it.
func running(run dialect.Stream) func(neutral.Operation, dialect.Guard) (dialect.Plan, error) {
	return func(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
		switch op.Action {
		case neutral.ContainerInspect, neutral.ExecCreate:
			return program(func(context.Context) (neutral.Result, error) {
				c := &neutral.Container{ID: "id-of-" + op.Ref, Name: op.Ref, State: neutral.State{Status: neutral.StatusRunning}}
				if op.Ref == "ended" {
					return neutral.Result{}, fault.New(fault.Conflict, "container %s is not running", op.Ref)
				}
				_, err := guard(neutral.Object{Kind: neutral.KindContainer, Name: op.Ref})
				return neutral.Result{Container: c}, err
			})
		case neutral.ExecStart, neutral.ContainerAttach:
			if op.Ref == "id-of-refused" {
				return dialect.Plan{}, fault.New(fault.Unsupported, "no exec here")
			}
			return dialect.Plan{Stream: run}, nil
		}
		return dialect.Plan{}, fault.New(fault.Internal, "%s was planned", op.Action)
	}
}

// exec makes an exec and gives its id.
func (r *rig) exec(container string) string {
	r.t.Helper()
	status, text := r.ask("west", "/exec.create/"+container, "sh -c true")
	var answer fakeAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 || len(answer.ID) != 64 {
		r.t.Fatalf("exec create: %d %s", status, text)
	}
	r.heard()
	return answer.ID
}

// state is an exec's state.
func (r *rig) state(id string) neutral.ExecState {
	r.t.Helper()
	_, text := r.ask("west", "/exec.inspect/"+id, "")
	r.heard()
	var answer fakeAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Exec == nil {
		r.t.Fatalf("exec inspect: %s", text)
	}
	return *answer.Exec
}

// TestBridgeExec takes an exec through its requests, and keeps others from it.
func TestBridgeExec(t *testing.T) {
	t.Parallel()
	sizes := make(chan neutral.Size, 8)
	goOn := make(chan struct{})
	r := newRig(t, fakePolicy{}, running(func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("hi")}); err != nil {
			return neutral.Result{}, err
		}
		for {
			select {
			case size := <-session.Resizes():
				sizes <- size
			case <-goOn:
				return neutral.Result{ExitCode: 3}, nil
			case <-ctx.Done():
				return neutral.Result{}, ctx.Err()
			}
		}
	}))
	if status, text := r.ask("west", "/exec.create/ended", "true"); status != 409 || !strings.Contains(text, "is not running") {
		t.Errorf("exec in what has ended: %d %s", status, text)
	}
	r.heard()
	id := r.exec("web")
	if s := r.state(id); s.Container != "id-of-web" || s.Running || s.ExitCode != nil || strings.Join(s.Spec.Command, " ") != "sh -c true" {
		t.Errorf("before its start: %+v", s)
	}
	for _, verb := range []string{"start", "inspect", "resize"} {
		if status, text := r.ask("north", "/exec."+verb+"/"+id, ""); status != 404 || !strings.Contains(text, "No such exec") {
			t.Errorf("%s by another peer: %d %s", verb, status, text)
		}
		if e := r.heard(); !fault.Is(e.err, fault.NotFound) || e.peer != "north" {
			t.Errorf("%s by another peer is heard as %+v", verb, e)
		}
	}
	response, err := r.send(t.Context(), "west", "/exec.start/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if s := r.state(id); !s.Running || s.ExitCode != nil {
		t.Errorf("while it runs: %+v", s)
	}
	if status, _ := r.ask("west", "/exec.start/"+id, ""); status != 409 {
		t.Errorf("a second start: %d", status)
	}
	r.heard()
	if status, text := r.ask("west", "/exec.resize/"+id, ""); status != 200 {
		t.Errorf("a size: %d %s", status, text)
	}
	r.heard()
	select {
	case size := <-sizes:
		if size != (neutral.Size{Rows: 24, Columns: 80}) {
			t.Errorf("the size came as %+v", size)
		}
	case <-time.After(10 * time.Second):
		t.Error("the size did not come")
	}
	close(goOn)
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "hi" {
		t.Errorf("its output: %q %v", text, err)
	}
	// A client asks for the exit code as soon as the stream has ended.
	if s := r.state(id); s.Running || s.ExitCode == nil || *s.ExitCode != 3 {
		t.Errorf("after its end: %+v", s)
	}
}

// TestBridgeAttach holds that the sizes of a terminal reach the attach of the peer that sent them.
func TestBridgeAttach(t *testing.T) {
	t.Parallel()
	sizes := make(chan neutral.Size, 8)
	r := newRig(t, fakePolicy{}, running(func(_ context.Context, session neutral.Session) (neutral.Result, error) {
		if err := session.Accept(); err != nil {
			return neutral.Result{}, err
		}
		size := <-session.Resizes()
		sizes <- size
		typed, err := io.ReadAll(session.Stdin())
		return neutral.Result{}, errors.Join(err, session.Output(neutral.Chunk{Data: typed}))
	}))
	keys, keyboard := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/container.attach/web", keys)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(names.HeaderPeer, "west")
	request.Header.Set(names.HeaderCaller, "ci-1")
	request.Header.Set(names.HeaderSession, "tcp") // a docker connection on its way, whose request has no body
	request.Header.Set(names.HeaderSessionBody, "0")
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if status, _ := r.ask("north", "/container.resize/web", ""); status != http.StatusOK {
		t.Errorf("a size of another peer, who is not attached: %d", status)
	}
	r.heard()
	select {
	case <-sizes:
		t.Error("the size of another peer came through")
	case <-time.After(20 * time.Millisecond):
	}
	if status, text := r.ask("west", "/container.resize/web", ""); status != http.StatusOK {
		t.Errorf("a size: %d %s", status, text)
	}
	r.heard()
	if size := <-sizes; size.Rows != 24 {
		t.Errorf("the size came as %+v", size)
	}
	if _, err := keyboard.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	keyboard.Close()
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "typed" {
		t.Errorf("%q, %v", text, err)
	}
	if e := r.heard(); e.err != nil || e.record.Verb != neutral.Attach {
		t.Errorf("it is heard as %+v", e)
	}
}

// TestBridgeExecFails holds that an exec whose stream fails is over, whatever failed.
func TestBridgeExecFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, fakePolicy{}, running(func(context.Context, neutral.Session) (neutral.Result, error) { panic("a bug") }))
	for container, want := range map[string]int{"web": 500, "refused": 501} {
		id := r.exec(container)
		if status, text := r.ask("west", "/exec.start/"+id, ""); status != want {
			t.Errorf("%s: %d %s", container, status, text)
		}
		r.heard()
		if s := r.state(id); s.Running || s.ExitCode == nil || *s.ExitCode == 0 {
			t.Errorf("%s, afterwards: %+v", container, s)
		}
	}
	if status, text := r.ask("west", "/container.resize/web", ""); status != 200 {
		t.Errorf("a size for an attach that nobody has: %d %s", status, text)
	}
}

// TestBridgeDetached holds that a detached exec outlives its request, and not the bridge.
func TestBridgeDetached(t *testing.T) {
	t.Parallel()
	var began sync.WaitGroup
	goOn, ended := make(chan string), make(chan error, 1)
	r := newRig(t, fakePolicy{}, running(func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
		defer began.Done()
		select {
		case word := <-goOn:
			if word == "panic" {
				panic("a bug")
			}
			if err := session.Output(neutral.Chunk{Data: []byte("to nobody")}); err != nil {
				return neutral.Result{}, err
			}
			return neutral.Result{ExitCode: 5}, nil
		case <-ctx.Done():
			ended <- ctx.Err()
			return neutral.Result{}, ctx.Err()
		}
	}))
	detach := func() string {
		began.Add(1)
		id := r.exec("web")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // the caller goes as soon as it is answered
		response, err := r.send(ctx, "west", "/exec.start/"+id, strings.NewReader("detach"))
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("a detached start: %v %v", response, err)
		}
		response.Body.Close()
		r.heard()
		if s := r.state(id); !s.Running {
			t.Errorf("detached: %+v", s)
		}
		return id
	}
	await := func(id string, code int) {
		for range 1000 {
			if s := r.state(id); !s.Running {
				if s.ExitCode == nil || *s.ExitCode != code {
					t.Errorf("it ended with %+v, want %d", s, code)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Error("it does not end")
	}
	id := detach()
	goOn <- "end"
	await(id, 5)
	id = detach()
	goOn <- "panic"
	await(id, 126)
	detach()
	r.bridge.Close() // waits for what runs
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	default:
		t.Error("the bridge closed before its execs ended")
	}
	began.Wait()
}

// TestBridgeClientGone holds that a plan ends with its client.
func TestBridgeClientGone(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 1)
	wait := func(ctx context.Context) error {
		began <- struct{}{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Second):
			return errors.New("the plan went on without its client")
		}
	}
	r := newRig(t, fakePolicy{}, func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		if op.Action == neutral.ContainerLogs {
			return stream(func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
				return neutral.Result{}, errors.Join(session.Accept(), wait(ctx))
			})
		}
		return program(func(ctx context.Context) (neutral.Result, error) { return neutral.Result{}, wait(ctx) })
	})
	for _, path := range []string{"/container.logs/web", "/container.stop/web"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := r.send(ctx, "west", path, nil); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		}()
		<-began
		cancel()
		<-done
		e := r.heard()
		if e.err == nil || strings.Contains(e.err.Error(), "went on") || fault.Of(e.err).Kind == fault.Internal {
			t.Errorf("%s is heard as %v", path, e.err)
		}
	}
}

// TestBridgeGoroutines holds that nothing is left of requests that ended, in any of the ways that they end. It counts the
// process's goroutines, so it does not run beside others.
func TestBridgeGoroutines(t *testing.T) {
	r := newRig(t, fakePolicy{}, func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		return stream(func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
			err := session.Output(neutral.Chunk{Data: []byte("x")})
			if op.Ref == "wait" {
				<-ctx.Done()
				return neutral.Result{}, ctx.Err()
			}
			return neutral.Result{}, err
		})
	})
	round := func() {
		for _, ref := range []string{"end", "wait"} {
			ctx, cancel := context.WithCancel(t.Context())
			response, err := r.send(ctx, "west", "/container.logs/"+ref, nil)
			if err != nil {
				t.Fatal(err)
			}
			if ref == "end" {
				_, _ = io.Copy(io.Discard, response.Body)
			}
			cancel()
			response.Body.Close()
			r.heard()
		}
	}
	round()
	before := settled(0)
	for range 20 {
		round()
	}
	if after := settled(before); after > before+2 {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

// settled counts goroutines once they are no more than wanted, or no fewer any longer.
func settled(wanted int) int {
	n := runtime.NumGoroutine()
	for range 100 {
		if n <= wanted {
			break
		}
		time.Sleep(10 * time.Millisecond)
		if now := runtime.NumGoroutine(); wanted > 0 || now < n {
			n = now
		}
	}
	return n
}
