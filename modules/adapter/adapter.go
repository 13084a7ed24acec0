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

// admission is a request that policy lets in as far as its head tells.
type admission struct {
	dialect dialect.Dialect
	head    dialect.Request
	op      neutral.Operation
	same    bool // the caller's orchestrator is this cluster's type
	rule    string
	// reading is how a same-type answer is read; nil where it crosses unread.
	reading *dialect.Reading
	show    bool // the policy that allows it shows addresses
	filter  bool // which objects of a list or a watch are seen is judged one by one
	judge   bool // what it would make is judged before it is done
}

func (a admission) record() modules.Record {
	return modules.Record{Verb: a.op.Verb, Action: a.op.Action, Object: a.op.Object, Rule: a.rule}
}

// admit reads the head and asks policy. Executors share it, so that the bridge trusts nothing it is told.
func (m *Module) admit(ctx context.Context, req *modules.Request) (admission, error) {
	a, err := m.admitHead(ctx, req)
	if err == nil {
		err = m.owned(req, a)
	}
	if err == nil && !a.show && !a.filter && !a.judge { // else it is known later
		err = a.reveals()
	}
	return a, err
}

// reveals refuses a request that would show by itself what is hidden.
func (a admission) reveals() error {
	if a.reading == nil || a.reading.Reveals == "" {
		return nil
	}
	return fault.New(fault.Denied, "no permission: %s", a.reading.Reveals)
}

func (m *Module) admitHead(ctx context.Context, req *modules.Request) (admission, error) {
	a := admission{head: dialect.Request{Method: req.Method, Path: req.Path, Header: req.Header}}
	if req.Peer.Name == "" {
		return a, fault.New(fault.Denied, "no permission: the caller's gateway is not a peer of %s", m.config.Cluster)
	}
	if said := orchestratorOf(req); said != req.Peer.Orchestrator && req.Peer.Orchestrator != "" {
		return a, fault.New(fault.Unavailable, "%s has become a cluster of another orchestrator, and its gateway has not shaken "+
			"hands with that of %s since; try again shortly", req.Peer.Name, m.config.Cluster)
	}
	d, ok := m.dialects[req.Peer.Orchestrator]
	if !ok {
		if !req.Peer.Ready {
			return a, fault.New(fault.Unavailable, "the gateways of %s and %s have not shaken hands yet; try again shortly",
				req.Peer.Name, m.config.Cluster)
		}
		return a, fault.New(fault.Unsupported, "gateway %s does not speak the API of orchestrator %q", m.config.Cluster,
			req.Peer.Orchestrator)
	}
	a.dialect, a.same = d, req.Peer.Orchestrator == m.config.Orchestrator || m.config.Emulated[req.Peer.Orchestrator] != nil
	op, err := d.Classify(a.head)
	if readsSource(ctx) {
		op = forCopy(op)
	}
	a.op = op
	if err != nil {
		return a, err
	}
	if !a.same {
		m.place(&a.op.Object)
	}
	if !a.same && op.Action == neutral.ObjectRaw {
		// The words "not supported" make docker's clients go on where they try one kind of object after the other.
		return a, fault.New(fault.Unsupported, "%s %s is not supported: %s runs %s", req.Method, op.Object.Resource,
			m.config.Cluster, m.config.Orchestrator)
	}
	if op.Action == neutral.SystemPing && d.Orchestrator() == neutral.Docker {
		// It says nothing of the cluster, and docker's clients cannot even report a refusal without it. The health of a
		// Kubernetes API is no such thing: it names the parts of the control plane.
		return a, nil
	}
	if m.reviewer(req, op) != nil {
		return a, nil // what it is told is of itself, and policy's own
	}
	if a.same {
		if a.reading, err = m.reading(req, a); err != nil {
			return a, err
		}
	}
	judgement := m.foresee(req, a)
	switch {
	case judgement.Allowed:
		a.rule, a.show = judgement.Rule, judgement.ShowAddresses
		return a, a.pauses(judgement.Pause)
	case !judgement.Open:
		return a, judgement.Err()
	case a.same:
		return m.admitObject(ctx, req, a)
	case a.op.Object.Kind == neutral.KindSystem: // nothing more of it will be known, and no plan asks again
		return m.admitKnown(req, a, a.op.Object)
	}
	return a, nil
}

// admitKnown judges an object that is known as well as it ever will be.
func (m *Module) admitKnown(req *modules.Request, a admission, object neutral.Object) (admission, error) {
	policy := m.config.Policy()
	a.show = true
	for _, verb := range a.verbs() {
		if verb == neutral.Update || verb == neutral.Create {
			// The object as it is now says nothing of what the request makes of it: labels and spec are not known.
			next := object
			next.Labels, next.Container = nil, nil
			if !policy.Foresee(req.Subject(), verb, next).Allowed {
				if !m.forecastable(req, a) {
					return a, unread("changing", a.op.Object.Kind)
				}
				a.judge = true
			}
		}
		if a.op.Action == neutral.ExecCreate { // which can give its process more than the container has
			a.judge = a.judge || m.forecastable(req, a)
		}
		judgement := policy.Judge(req.Subject(), verb, object)
		if !judgement.Allowed {
			return a, judgement.Err()
		}
		a.rule, a.show = judgement.Rule, a.show && judgement.ShowAddresses
		if err := a.pauses(judgement.Pause); err != nil {
			return a, err
		}
	}
	return a, nil
}

// pauses refuses a pause that is handed on, which freezes, where policy wants another one.
func (a admission) pauses(mode neutral.PauseMode) error {
	if !a.same || a.op.Verb != neutral.Pause || mode == neutral.PauseFreeze || mode == "" {
		return nil
	}
	if mode == neutral.PauseRefuse {
		return fault.New(fault.Denied, "no permission: the policy of this cluster refuses pause")
	}
	return fault.New(fault.Unsupported, "pause is refused: the policy of this cluster pauses by %s, and a request of the same "+
		"orchestrator is handed on as it is", mode)
}

// unread refuses what is allowed under conditions on a content that this gateway does not read.
func unread(doing string, kind neutral.Kind) error {
	return fault.New(fault.Denied, "no permission: %s a %s is allowed under conditions on its labels or spec only, and a "+
		"request that is handed on unread cannot be held to them", doing, kind)
}

// verbs are all that policy must allow: one native call can do more than one thing.
func (a admission) verbs() []neutral.Verb { return append([]neutral.Verb{a.op.Verb}, a.op.Also...) }

// foresee judges a head; the worst judgement over the verbs counts.
func (m *Module) foresee(req *modules.Request, a admission) modules.Judgement {
	policy, object := m.config.Policy(), m.foreseen(a)
	var all modules.Judgement
	show := true
	for i, verb := range a.verbs() {
		judgement := policy.Foresee(req.Subject(), verb, object)
		show = show && judgement.ShowAddresses
		switch {
		case !judgement.Allowed && !judgement.Open:
			return judgement
		case i == 0 || judgement.Open:
			all = judgement
		}
	}
	all.ShowAddresses = show
	return all
}

// foreseen is the object as far as a head tells it. Docker names an object by name, id or a part of the id, so only
// a new one's name is known; a Kubernetes path holds true names.
func (m *Module) foreseen(a admission) neutral.Object {
	object := a.op.Object
	if a.dialect.Orchestrator() == neutral.Docker && a.op.Verb != neutral.Create {
		object.Name, object.Labels = "", nil
	}
	return object
}

// admitObject finishes a same-type admission that depends on the object: what is handed on untouched cannot be judged
// later.
func (m *Module) admitObject(ctx context.Context, req *modules.Request, a admission) (admission, error) {
	if a.op.Verb == neutral.List || a.op.Verb == neutral.Watch {
		if a.reading != nil && a.reading.Filter != nil {
			a.filter = true
			return a, nil
		}
		return a, fault.New(fault.Denied, "no permission: %s of %s is allowed for some objects only, and a list that is "+
			"handed on unread cannot be filtered", a.op.Verb, a.op.Object.Kind)
	}
	if a.op.Verb == neutral.Create {
		if !m.forecastable(req, a) {
			return a, unread("creating", a.op.Object.Kind)
		}
		a.judge = true
		return a, nil
	}
	if a.op.Ref == "" && a.op.Object.Kind != neutral.KindSystem {
		// A prune, or a deletion of a collection: that nothing is named must not pass for a name that a condition accepts.
		return a, fault.New(fault.Denied, "no permission: %s of %s is allowed for some objects only, and this request names "+
			"none", a.op.Verb, a.op.Object.Kind)
	}
	if a.op.Beyond {
		return a, fault.New(fault.Denied, "no permission: %s of %s is allowed for some objects only, and this request acts "+
			"on another one as well", a.op.Verb, a.op.Object.Kind)
	}
	object, err := m.upstream(req).Lookup(dialect.WithActor(ctx, actor(req)), a.op)
	if fault.Is(err, fault.NotFound) && slices.Contains(a.op.Also, neutral.Create) && m.forecastable(req, a) {
		a.judge = true // it may create what is not there
		return a, nil
	}
	if err == nil {
		a, err = m.admitKnown(req, a, object)
	}
	if err != nil {
		if revealed := a.reveals(); revealed != nil {
			return a, revealed // whether it is there or not
		}
		return a, err
	}
	a.op.Object = object
	return a, nil
}

// place puts an object whose caller knows no namespaces into the one where such callers act.
func (m *Module) place(object *neutral.Object) {
	switch object.Kind {
	case neutral.KindSystem, neutral.KindNode, neutral.KindImage, neutral.KindNamespace:
		return // in no namespace on any orchestrator
	}
	if object.Namespace == "" {
		object.Namespace = m.config.Namespace
	}
}

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
