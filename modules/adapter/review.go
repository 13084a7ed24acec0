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

// review answers what a caller may do. What depends on the object is a yes: some objects there may be.
func (b *Bridge) review(w http.ResponseWriter, r *http.Request, req *modules.Request, reviewer dialect.Reviewer, a admission) error {
	request := a.head
	var err error
	if request.Body, err = b.whole(w, r); err != nil {
		return b.refuse(w, req, err)
	}
	response, err := reviewer.Review(request, func(op neutral.Operation) (bool, string) {
		judgement := b.module.foresee(req, admission{dialect: a.dialect, op: op, same: true})
		switch {
		case judgement.Allowed:
			return true, ""
		case judgement.Open:
			return true, "for some objects, or under conditions"
		}
		return false, fault.Of(judgement.Err()).Message // its cause names policies
	})
	if err != nil {
		return b.refuse(w, req, err)
	}
	return write(w, *answer(response))
}
