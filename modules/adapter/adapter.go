// Package adapter serves container operations. When the caller's orchestrator is of this cluster's type it hands the
// request on, and reads the answer where policy hides or leaves out some of it; else it translates: the caller's dialect
// reads the request, this cluster plans it, and the answer goes back in the caller's words. Which executor runs a plan
// follows from its shape: one native call is rewritten in place in Envoy, several calls and streams run in the Bridge.
package adapter

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Config is what a Module needs. All fields but the last three are required.
type Config struct {
	Cluster      string
	Orchestrator neutral.Orchestrator
	Namespace    string // where a caller of another orchestrator acts
	Dialects     []dialect.Dialect
	Target       dialect.Cluster
	APIVersion   func() string // of the target's orchestrator, as far as it is known
	Policy       func() modules.Policy
	Log          *slog.Logger
	// Load holds peers and their callers to their limits; nil has none.
	Load *load.Load
	// Emulated are APIs that stand before the target for callers of other orchestrators, whose requests are then of the
	// same type as what they are handed on to.
	Emulated map[neutral.Orchestrator]dialect.Emulated
	// Mask hides addresses in what same-type callers are answered. Without one their requests are handed on unread.
	Mask *mask.Mask
}

// Module decides about container operations.
type Module struct {
	config   Config
	dialects map[neutral.Orchestrator]dialect.Dialect
	owners   *owners
}

var _ modules.Module = (*Module)(nil)

// New makes the module.
func New(config Config) *Module {
	m := &Module{config: config, dialects: map[neutral.Orchestrator]dialect.Dialect{}, owners: newOwners(time.Now)}
	if m.config.Load == nil {
		m.config.Load = load.New(load.Config{})
	}
	for _, d := range config.Dialects {
		m.dialects[d.Orchestrator()] = d
	}
	return m
}

// Class is container operations.
func (m *Module) Class() modules.Class { return modules.ContainerOperation }

// orchestratorOf is the type of the caller's cluster: what its Envoy says with the request, else what the handshake said.
// Between a change of the type and the next handshake they differ.
func orchestratorOf(req *modules.Request) neutral.Orchestrator {
	if said := req.Header.Get(names.HeaderOrchestrator); said != "" {
		return neutral.Orchestrator(said)
	}
	return req.Peer.Orchestrator
}

// owner is whose something is that a request made.
func owner(req *modules.Request) modules.Subject {
	return modules.Subject{Peer: req.Peer.Name, Caller: req.Caller}
}

// guard judges objects as they are found; the last one allowed is what the record is about.
func (m *Module) guard(req *modules.Request, op neutral.Operation, record *modules.Record) dialect.Guard {
	policy := m.config.Policy()
	return func(object neutral.Object) (dialect.Terms, error) {
		judgement := policy.Judge(req.Subject(), op.Verb, object)
		if judgement.Allowed && op.Verb == neutral.Copy { // a copy's source is got as well
			for _, verb := range op.Also {
				if also := policy.Judge(req.Subject(), verb, object); !also.Allowed {
					judgement = also
				}
			}
		}
		if !judgement.Allowed {
			if !policy.MayKnow(req.Subject(), object) {
				// As if there were no such object: a part of an id must not tell whose it is.
				return dialect.Terms{}, fault.Wrap(fault.NotFound, judgement.Err(), "No such %s: %s", object.Kind, op.Ref)
			}
			return dialect.Terms{}, judgement.Err()
		}
		record.Rule = judgement.Rule
		if op.Verb != neutral.List {
			record.Object = object
		}
		return dialect.Terms{Pause: judgement.Pause}, nil
	}
}

// Decide chooses the executor.
func (m *Module) Decide(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	a, err := m.admit(ctx, req)
	record := a.record()
	if err != nil {
		return modules.Verdict{Record: record}, err
	}
	if a.same {
		return m.handOn(req, a, record)
	}
	inbound, ok := a.dialect.(dialect.Inbound)
	if !ok {
		return modules.Verdict{Record: record}, fault.New(fault.Unsupported,
			"%s callers cannot operate the %s cluster %s yet", req.Peer.Orchestrator, m.config.Orchestrator, m.config.Cluster)
	}
	if response, ok := inbound.Local(a.op, a.head, m.target()); ok {
		record.Upstream = "none"
		return modules.Verdict{Answer: answer(response), Record: record}, nil
	}
	switch {
	case a.op.Action.Body():
		if remembered[a.op.Action] {
			break
		}
		if err := m.config.Load.TooLarge(req.Peer.Name, contentLength(req.Header)); err != nil {
			return modules.Verdict{Record: record}, err
		}
		return modules.Verdict{Record: record, Exchange: &exchange{module: m, req: req, inbound: inbound, admission: a,
			record: record}}, nil
	case a.op.Action.Stream():
	default:
		if remembered[a.op.Action] {
			break
		}
		e := &exchange{module: m, req: req, inbound: inbound, admission: a, record: record}
		other, err := e.plan(nil)
		if err != nil {
			return modules.Verdict{Record: e.record}, err
		}
		if other != nil {
			return *other, nil
		}
		return modules.Verdict{Record: e.record, Exchange: e}, nil
	}
	return toBridge(record), nil
}

// contentLength is how long a body says that it is; -1 when it does not.
func contentLength(header http.Header) int64 {
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return length
}

// handOn sends a same-type request to the orchestrator as it is. Two pass through the bridge: one whose answer is read
// on its way back, and a hijacked docker connection, which reaches this gateway as a streaming POST, to become one again.
// The others Envoy carries alone, and tells of their end.
func (m *Module) handOn(req *modules.Request, a admission, record modules.Record) (modules.Verdict, error) {
	if m.reviewer(req, a.op) != nil {
		return toBridge(record), nil
	}
	if req.Header.Get(names.HeaderSession) != "" || a.read() || a.copies() && a.reading != nil {
		return toBridge(record), nil
	}
	hold, err := m.config.Load.Hold(req.Peer.Name, req.Caller, a.streams(false))
	if err != nil {
		return modules.Verdict{Record: record}, err
	}
	record.Upstream = names.Orchestrator
	route := m.native(req)
	route.Set.Set(names.HeaderHold, hold)
	if hide := m.hides(req, a); hide != "" {
		route.Set.Set(names.HeaderHide, hide)
	}
	return modules.Verdict{Record: record, Route: route}, nil
}

// streams tells what counts as a stream and not as an operation. Of what is handed on it is what has no answer in one
// piece; discovery has, though it is not read.
func (a admission) streams(session bool) bool {
	switch {
	case a.op.Action.Stream() || session && a.same:
		return true
	case !a.same:
		return false
	case a.reading == nil:
		return a.op.Object.Kind != neutral.KindSystem
	}
	return a.reading.Sequence
}

// native is the route to the orchestrator: the gateway's own credential, never the caller's, and in the peer's name where
// the orchestrator knows one.
func (m *Module) native(req *modules.Request) *modules.Route {
	upstream := m.upstream(req).Upstream() // its token changes over time
	route := &modules.Route{Upstream: m.routeTo(req), Authority: upstream.Host, Set: http.Header{}}
	if upstream.Token != "" {
		route.Set.Set("authorization", "Bearer "+upstream.Token)
	} else {
		route.Remove = append(route.Remove, "authorization")
	}
	m.impersonate(req, route.Set)
	removed := map[string]bool{"impersonate-user": true, "impersonate-group": true, "impersonate-uid": true}
	for key := range req.Header {
		if impersonates(key) {
			removed[strings.ToLower(key)] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(removed)) {
		if route.Set.Get(key) == "" {
			route.Remove = append(route.Remove, key)
		}
	}
	return route
}

// impersonates tells headers by which one acts as another.
func impersonates(key string) bool { return strings.HasPrefix(strings.ToLower(key), "impersonate-") }

// impersonate makes a request act in the peer's name, whatever it said of one.
func (m *Module) impersonate(req *modules.Request, header http.Header) {
	for key := range header {
		if impersonates(key) {
			delete(header, key)
		}
	}
	if target, ok := m.upstream(req).(dialect.Impersonator); ok {
		maps.Copy(header, target.Impersonation(actor(req)))
	}
}

// actor is on whose behalf a request is carried out.
func actor(req *modules.Request) dialect.Actor { return dialect.Actor{Peer: req.Peer.Name} }

func toBridge(record modules.Record) modules.Verdict {
	record.Upstream = names.Bridge
	return modules.Verdict{Record: record, Route: &modules.Route{Upstream: names.Bridge}}
}

// upstream is what a request of its own type is handed on to: this cluster's orchestrator, or the API of the caller's
// type that stands before it.
func (m *Module) upstream(req *modules.Request) dialect.Cluster {
	if e, ok := m.config.Emulated[req.Peer.Orchestrator]; ok {
		return e
	}
	return m.config.Target
}

// routeTo is how Envoy is told of it.
func (m *Module) routeTo(req *modules.Request) string {
	if _, ok := m.config.Emulated[req.Peer.Orchestrator]; ok {
		return names.EmulationRoute(req.Peer.Orchestrator)
	}
	return names.OrchestratorRoute(m.config.Orchestrator)
}

func (m *Module) target() dialect.Target {
	return dialect.Target{Cluster: m.config.Cluster, Orchestrator: m.config.Orchestrator, APIVersion: m.config.APIVersion()}
}

// Refuse renders a fault in the caller's dialect.
func (m *Module) Refuse(req *modules.Request, err error) modules.Answer {
	if d, ok := m.dialects[orchestratorOf(req)]; ok {
		return *answer(d.Refuse(dialect.Request{Method: req.Method, Path: req.Path, Header: req.Header}, err))
	}
	return modules.Refusal(err)
}

func answer(r dialect.Response) *modules.Answer {
	return &modules.Answer{Status: r.Status, Header: r.Header, Body: r.Body}
}

// unavailable turns a transport's error into a fault that shows no address.
func unavailable(err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the orchestrator cannot be reached")
}

// planDeadline bounds what has an answer in one piece; streams end with their caller.
const planDeadline = 5 * time.Minute
