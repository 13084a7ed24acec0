package policy

import (
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/condition"
)

// Unrestricted tells whether one rule allows the verb on every object of the request's kind, resource and namespace,
// whatever their names, labels and specs are. An empty namespace is all of them. Name, labels and container of the
// request's object are not looked at.
func (e *Engine) Unrestricted(r Request) bool {
	r.Object.Name, r.Object.Labels, r.Object.Container = "", nil, nil
	// An empty namespace is known here: it is all namespaces, which only a rule for any namespace matches.
	outcome, _ := e.check(r, condition.Caller|condition.Namespace)
	return outcome == Allow
}

// MayKnow tells whether the peer may learn that the object is there: whether it may list, get or watch it. A denied
// request is answered 403 when it may, and as if there were no such object when it may not.
func (e *Engine) MayKnow(r Request) bool {
	for _, v := range [...]neutral.Verb{neutral.Get, neutral.List, neutral.Watch} {
		r.Verb = v
		if e.Decide(r).Allow {
			return true
		}
	}
	return false
}

// Queriers are the peers that may query a service.
type Queriers struct {
	Always   []string // whoever the caller is: Envoy alone can let them through
	ByCaller []string // some of their callers: each request is decided
}

// Queries tells which of peers may query a service, in the order of peers.
func (e *Engine) Queries(service neutral.Service, peers []string) Queriers {
	labels := service.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	object := neutral.Object{Kind: neutral.KindService, Namespace: service.Namespace, Name: service.Name, Labels: labels}
	var q Queriers
	for _, p := range peers {
		r := Request{Peer: p, Verb: neutral.Query, Object: object}
		switch outcome, _ := e.check(r, condition.Namespace|condition.Name|condition.Labels); outcome {
		case Allow:
			q.Always = append(q.Always, p)
		case NeedsObject:
			q.ByCaller = append(q.ByCaller, p)
		case Deny:
		}
	}
	return q
}
