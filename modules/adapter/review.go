package adapter

import (
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// reviewer is the API that a request asks about its caller's own rights; nil for any other request.
func (m *Module) reviewer(req *modules.Request, op neutral.Operation) dialect.Reviewer {
	api, ok := m.config.Emulated[req.Peer.Orchestrator]
	if !ok {
		return nil
	}
	reviewer, ok := api.(dialect.Reviewer)
	if !ok || !reviewer.Reviews(op) {
		return nil
	}
	return reviewer
}

// review answers a caller's question about itself.
func (b *Bridge) review(w http.ResponseWriter, r *http.Request, req *modules.Request, reviewer dialect.Reviewer, a admission) error {
	request := a.head
	var err error
	if request.Body, err = b.whole(w, r); err != nil {
		return b.refuse(w, req, err)
	}
	asker := dialect.Asker{Peer: req.Peer.Name, Caller: req.Caller, Groups: req.Groups.List(), Whole: req.Groups.Whole()}
	asker.May = func(op neutral.Operation) dialect.Leave {
		judgement := b.module.foresee(req, admission{dialect: a.dialect, op: op, same: true})
		switch {
		case judgement.Allowed:
			return dialect.Leave{Allowed: true}
		case judgement.Open:
			return dialect.Leave{Open: true, Why: "for some objects, or under conditions"}
		}
		return dialect.Leave{Why: fault.Of(judgement.Err()).Message} // its cause names policies
	}
	response, err := reviewer.Review(a.op, request, asker)
	if err != nil {
		return b.refuse(w, req, err)
	}
	return write(w, *answer(response))
}
