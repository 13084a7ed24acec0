package adapter

import (
	"context"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

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
