package adapter

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// BridgeConfig is what a Bridge needs. All fields are required.
type BridgeConfig struct {
	Module *Module
	// Peer finds the peer behind a SPIFFE identity, as the external-processing server does.
	Peer func(spiffe string) modules.Peer
	// Observer is told how each request ended.
	Observer BridgeObserver
	// BodyLimit bounds a request that is read whole, in bytes.
	BodyLimit int64
}

// BridgeObserver is told of the bridge's requests, for metrics, traces and the audit's second line. An error from
// Begin refuses the request.
type BridgeObserver interface {
	Begin(ctx context.Context, req *modules.Request) (context.Context, error)
	Ended(ctx context.Context, req *modules.Request, record modules.Record, err error)
}

// Bridge runs what Envoy cannot do by itself: plans of several native calls, streams that are framed differently on
// each side, and docker's hijacked connections. It is an HTTP/2 handler behind Envoy.
type Bridge struct {
	config   BridgeConfig
	module   *Module
	execs    *execs
	detached sync.WaitGroup
	panics   atomic.Uint64
	base     context.Context
	cancel   context.CancelFunc
}

// NewBridge makes the bridge; Close ends what runs detached.
func NewBridge(config BridgeConfig) *Bridge {
	base, cancel := context.WithCancel(context.Background())
	return &Bridge{config: config, module: config.Module, execs: newExecs(time.Now), base: base, cancel: cancel}
}

// Close cancels detached execs and waits for them.
func (b *Bridge) Close() {
	b.cancel()
	b.detached.Wait()
}

// Panics counts the panics that operations ended with.
func (b *Bridge) Panics() uint64 { return b.panics.Load() }

// ServeHTTP serves one request that Envoy routed here.
func (b *Bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &modules.Request{
		ID: r.Header.Get(names.HeaderRequestID), Class: modules.ContainerOperation,
		Peer:   b.config.Peer(r.Header.Get(names.HeaderPeer)),
		Method: r.Method, Authority: r.Host, Path: r.URL.RequestURI(), Header: r.Header, Start: time.Now(),
	}
	answer := &begun{ResponseWriter: w}
	var misnamed error
	if req.Caller, misnamed = modules.CallerOf(r.Header.Values(names.HeaderCaller)); misnamed == nil {
		req.Groups, misnamed = modules.GroupsOf(r.Header.Values(names.HeaderGroups), req.Caller)
	}
	ctx, err := b.config.Observer.Begin(r.Context(), req)
	if err != nil {
		ctx = r.Context()
	}
	ctx = dialect.WithActor(ctx, actor(req))
	if err == nil {
		err = misnamed
	}
	record := modules.Record{Upstream: names.Bridge}
	defer func() { b.ended(ctx, answer, req, record, err, recover()) }()
	if err != nil {
		err = b.refuse(answer, req, err)
		return
	}
	err = b.serve(ctx, answer, r, req, &record)
}

// ended tells the observer how a request ended, also when its handler panicked: on purpose, because a stream must end
// with an error (http.ErrAbortHandler), or because of a bug, which the caller hears of and the process survives.
func (b *Bridge) ended(ctx context.Context, w *begun, req *modules.Request, record modules.Record, err error, panicked any) {
	switch panicked {
	case nil:
		b.config.Observer.Ended(ctx, req, record, err)
		return
	case http.ErrAbortHandler:
		b.config.Observer.Ended(ctx, req, record, fault.New(fault.Unavailable, "the stream was cut"))
		panic(panicked)
	}
	b.panics.Add(1)
	b.module.config.Log.Error("an operation panicked", "id", req.ID, "panic", panicked, "stack", string(debug.Stack()))
	err = errPanic
	if w.began.Load() {
		b.config.Observer.Ended(ctx, req, record, err)
		panic(http.ErrAbortHandler)
	}
	b.config.Observer.Ended(ctx, req, record, b.refuse(w, req, err))
}

var errPanic = fault.New(fault.Internal, "internal error of the gateway")

// begun knows whether an answer has begun.
type begun struct {
	http.ResponseWriter
	began atomic.Bool
}

func (w *begun) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.began.Store(true)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *begun) Write(p []byte) (int, error) {
	w.began.Store(true)
	return w.ResponseWriter.Write(p)
}

// Unwrap gives http.ResponseController what it flushes.
func (w *begun) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve writes the whole answer; the error is for the observer alone.
func (b *Bridge) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request,
	record *modules.Record) error {
	a, err := b.module.admit(ctx, req)
	*record = a.record()
	record.Upstream = names.Bridge
	if err != nil {
		return b.refuse(w, req, err)
	}
	session := r.Header.Get(names.HeaderSession) != ""
	if session && a.read() {
		return b.refuse(w, req, fault.New(fault.Invalid, "this request is no session"))
	}
	share := &share{enter: func() (func(), error) {
		return b.module.config.Load.Enter(req.Peer.Name, req.Caller, a.streams(session))
	}}
	if err := share.take(); err != nil {
		return b.refuse(w, req, err)
	}
	defer share.free()
	var left []dialect.Left
	if a.copies() && !session {
		if left, err = b.completed(ctx, w, r, req, a, share); err != nil {
			return b.refuse(w, req, err)
		}
	}
	if reviewer := b.module.reviewer(req, a.op); reviewer != nil {
		return b.review(w, r, req, reviewer, a)
	}
	if a.same && !session && a.reading != nil {
		return b.relay(ctx, w, r, req, a, left, record)
	}
	if a.same {
		b.module.impersonate(req, r.Header)
		return b.hijack(ctx, w, r, req, a.show)
	}
	inbound, ok := a.dialect.(dialect.Inbound)
	if !ok {
		return b.refuse(w, req, fault.New(fault.Unsupported, "%s callers cannot operate this cluster yet", req.Peer.Orchestrator))
	}
	request := a.head
	if request.Body, err = b.body(w, r, a.op.Action); err == nil {
		err = b.module.config.Load.TooLarge(req.Peer.Name, int64(len(request.Body)))
	}
	if err != nil {
		return b.refuse(w, req, err)
	}
	op, losses, err := b.module.complete(req, inbound, &a, request, record)
	if err != nil {
		return b.refuse(w, req, err)
	}
	losses = append(losses, leftBehind(left)...)
	guard := b.module.guard(req, op, record)
	if op.Action == neutral.ExecStart || op.Action == neutral.ContainerAttach {
		return b.session(ctx, w, r, req, inbound, op, guard, record)
	}
	if remembered[op.Action] {
		result, err := b.remember(ctx, req, op, guard)
		return b.answer(w, req, inbound, op, a.head, result, losses, record, err)
	}
	plan, err := b.module.config.Target.Plan(op, guard)
	if err != nil {
		return b.refuse(w, req, err)
	}
	if plan.Stream != nil {
		tty, err := b.terminal(ctx, op, guard)
		if err != nil {
			return b.refuse(w, req, unavailable(err))
		}
		session := inbound.Session(op, w, r.WithContext(ctx))
		if tty {
			neutral.Terminal(session)
		}
		result, err := plan.Stream(ctx, session)
		record.Losses = append(record.Losses, result.Losses...)
		return errors.Join(err, session.Close(result, unavailable(err)))
	}
	ctx, cancel := context.WithTimeout(ctx, planDeadline)
	defer cancel()
	result, err := run(ctx, b.module.config.Target, plan)
	return b.answer(w, req, inbound, op, a.head, result, losses, record, err)
}

// body reads what the operation's plan needs, and leaves in r.Body what belongs to the stream.
func (b *Bridge) body(w http.ResponseWriter, r *http.Request, action neutral.Action) ([]byte, error) {
	if r.Header.Get(names.HeaderSession) != "" {
		body, stdin, err := hijack.ReadSession(r)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(stdin)
		return body, nil
	}
	if action.Stream() && !action.Body() && action != neutral.ExecStart {
		return nil, nil
	}
	return b.whole(w, r)
}

// hijack carries a same-type session.
func (b *Bridge) hijack(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request, show bool) error {
	upstream := b.module.upstream(req).Upstream()
	if show || b.module.config.Mask == nil {
		if err := hijack.Serve(w, r.WithContext(ctx), upstream); err != nil {
			return b.refuse(w, req, unavailable(err))
		}
		return nil
	}
	held := &failure{ResponseWriter: w, mask: b.module.config.Mask}
	if err := hijack.Serve(held, r.WithContext(ctx), upstream); err != nil {
		return b.refuse(w, req, unavailable(err))
	}
	return held.tell()
}

// whole reads a body to its end.
func (b *Bridge) whole(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, b.config.BodyLimit))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, fault.New(fault.TooLarge, "the request's body passes %d bytes", b.config.BodyLimit)
		}
		return nil, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
	}
	r.Body = http.NoBody
	return body, nil
}

// remember answers the parts of an exec that need no stream, and terminal sizes.
func (b *Bridge) remember(ctx context.Context, req *modules.Request, op neutral.Operation, guard dialect.Guard) (neutral.Result, error) {
	switch op.Action {
	case neutral.ExecInspect:
		state, err := b.execs.state(owner(req), op.Ref)
		return neutral.Result{Exec: &state}, err
	case neutral.ExecResize:
		return neutral.Result{}, b.execs.resize(owner(req), op.Ref, *op.Size)
	case neutral.ContainerResize:
		err := b.execs.resize(owner(req), attachID(owner(req), op.Ref), *op.Size)
		if fault.Is(err, fault.NotFound) { // nobody is attached: docker keeps the size for later, here nothing needs it
			err = nil
		}
		return neutral.Result{}, err
	}
	container, err := b.find(ctx, op, guard)
	if err != nil {
		return neutral.Result{}, err
	}
	op.Ref = container.ID
	id, err := b.execs.create(owner(req), op)
	return neutral.Result{ID: id}, err
}

// find plans and runs op for the container that it names: an inspect reads it, the making of an exec refuses what could
// not be carried out.
func (b *Bridge) find(ctx context.Context, op neutral.Operation, guard dialect.Guard) (*neutral.Container, error) {
	plan, err := b.module.config.Target.Plan(op, guard)
	if err != nil {
		return nil, err
	}
	result, err := run(ctx, b.module.config.Target, plan)
	if err != nil {
		return nil, err
	}
	if result.Container == nil {
		return nil, fault.New(fault.NotFound, "No such container: %s", op.Ref)
	}
	return result.Container, nil
}

// terminal tells whether a container whose output is asked for has a terminal: its stream is framed by it.
func (b *Bridge) terminal(ctx context.Context, op neutral.Operation, guard dialect.Guard) (bool, error) {
	if op.Action != neutral.ContainerAttach && op.Action != neutral.ContainerLogs {
		return false, nil
	}
	op.Action = neutral.ContainerInspect
	container, err := b.find(ctx, op, guard)
	return err == nil && container.TTY, err
}

// attachID is the key of an attach's terminal among the execs.
func attachID(owner modules.Subject, ref string) string {
	return "attach:" + owner.Peer + ":" + strconv.Quote(owner.Caller) + ":" + ref
}

// session runs an interactive stream: an exec that was made before, or an attach.
func (b *Bridge) session(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request,
	inbound dialect.Inbound, op neutral.Operation, guard dialect.Guard, record *modules.Record) error {
	id := op.Ref
	if op.Action == neutral.ContainerAttach {
		id = attachID(owner(req), op.Ref)
		forget := b.execs.attach(owner(req), id, op)
		defer forget()
	}
	made, resizes, err := b.execs.start(owner(req), id)
	if err != nil {
		return b.refuse(w, req, err)
	}
	over := false // it is, whatever comes in between
	defer func() {
		if !over {
			b.execs.end(id, exitUnknown)
		}
	}()
	run := made
	run.Action, run.Attach, run.Verb = op.Action, op.Attach, op.Verb
	plan, err := b.module.config.Target.Plan(run, guard)
	if err != nil {
		return b.refuse(w, req, err)
	}
	if plan.Stream == nil {
		return b.refuse(w, req, errNoPlan)
	}
	if op.Action == neutral.ExecStart && op.Attach != nil && op.Attach.Detach {
		leave, err := b.module.config.Load.Enter(req.Peer.Name, req.Caller, true) // it goes on after this request
		if err != nil {
			return b.refuse(w, req, err)
		}
		over = true
		b.detach(dialect.WithActor(b.base, actor(req)), id, plan.Stream, resizes, leave)
		response, err := inbound.Encode(op, dialect.Request{Method: r.Method, Path: req.Path, Header: r.Header}, neutral.Result{})
		if err != nil {
			return b.refuse(w, req, err)
		}
		return write(w, *answer(response))
	}
	tty, err := b.terminal(ctx, run, guard)
	if err != nil {
		return b.refuse(w, req, unavailable(err))
	}
	session := inbound.Session(run, w, r.WithContext(ctx))
	if tty {
		neutral.Terminal(session)
	}
	result, err := plan.Stream(ctx, resizable{Session: session, resizes: resizes})
	code := result.ExitCode
	if err != nil {
		code = exitUnknown
	}
	over = true
	b.execs.end(id, code) // before the stream ends: clients ask for the exit code then
	record.Losses = append(record.Losses, result.Losses...)
	return errors.Join(err, session.Close(result, unavailable(err)))
}

// exitUnknown is the exit code of a command that nobody saw the end of.
const exitUnknown = 126

// detach runs an exec whose caller does not wait for it.
func (b *Bridge) detach(ctx context.Context, id string, stream dialect.Stream, resizes <-chan neutral.Size, leave func()) {
	b.detached.Add(1)
	go func() {
		defer b.detached.Done()
		defer leave()
		code := exitUnknown
		defer func() {
			if p := recover(); p != nil { // nobody above this goroutine would catch it
				b.panics.Add(1)
				b.module.config.Log.Error("a detached exec panicked", "exec", id, "panic", p, "stack", string(debug.Stack()))
			}
			b.execs.end(id, code)
		}()
		result, err := stream(ctx, resizable{Session: discarded{}, resizes: resizes})
		if err != nil {
			b.module.config.Log.Warn("a detached exec failed", "exec", id, "err", err)
			return
		}
		code = result.ExitCode
	}()
}

func (b *Bridge) answer(w http.ResponseWriter, req *modules.Request, inbound dialect.Inbound, op neutral.Operation,
	head dialect.Request, result neutral.Result, losses []neutral.Loss, record *modules.Record, err error) error {
	if err != nil {
		return b.refuse(w, req, err)
	}
	result.Losses = append(append([]neutral.Loss(nil), losses...), result.Losses...)
	record.Losses = result.Losses
	if op.Action == neutral.VolumeCreate {
		result.Volumes = b.module.foundVolumes(req, op, result.Volumes)
	}
	response, err := inbound.Encode(op, head, b.module.conceal(result, req.Peer.Name))
	if err != nil {
		return b.refuse(w, req, err)
	}
	return write(w, *answer(response))
}

func (b *Bridge) refuse(w http.ResponseWriter, req *modules.Request, err error) error {
	return errors.Join(err, write(w, b.module.Refuse(req, unavailable(err))))
}

// run carries out a plan that is no stream.
func run(ctx context.Context, target dialect.Cluster, plan dialect.Plan) (neutral.Result, error) {
	switch {
	case plan.Answer != nil:
		return *plan.Answer, nil
	case plan.Program != nil:
		return plan.Program(ctx)
	case plan.Call != nil:
		native, err := call(ctx, target, plan.Call.Request)
		if err != nil {
			return neutral.Result{}, unavailable(err)
		}
		return plan.Call.Decode(native)
	}
	return neutral.Result{}, errNoPlan
}

func write(w http.ResponseWriter, answer modules.Answer) error {
	header := w.Header()
	for key, values := range answer.Header {
		header[http.CanonicalHeaderKey(key)] = values
	}
	if answer.Status != http.StatusNoContent && answer.Status != http.StatusNotModified {
		header.Set("Content-Length", strconv.Itoa(len(answer.Body)))
	}
	w.WriteHeader(answer.Status)
	if len(answer.Body) == 0 { // HTTP/2 takes even an empty write to a 204 as an error
		return nil
	}
	_, err := w.Write(answer.Body)
	return err
}
