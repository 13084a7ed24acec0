package app

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// rights asks the target's orchestrator whether it would let the peer make the request's native calls.
func (r *explainRun) rights(ctx context.Context, req *modules.Request) *ExplainedRights {
	found := &ExplainedRights{Allowed: []ExplainedRight{}, Missing: []ExplainedRight{}}
	account, ok := r.account.(dialect.Permitter)
	if !ok {
		found.Error = fmt.Sprintf("a %s engine has none of its own: policy alone decides", r.orchestrator())
		return found
	}
	actor := dialect.Actor{Peer: req.Peer.Name}
	found.As = account.Subject(actor)
	call := r.out.native
	switch {
	case r.of == r.orchestrator(): // handed on as it is
		call = &dialect.Request{Method: req.Method, Path: req.Path, Header: req.Header}
	case r.local || !r.planned:
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, rightsPatience)
	defer cancel()
	permissions, err := account.Permissions(ctx, actor, r.out.operation, call)
	if err != nil {
		found.Error = "not known: " + fault.Of(err).Message
		return found
	}
	for _, p := range permissions {
		right := ExplainedRight{Right: p.Right, When: p.When}
		if p.Allowed {
			found.Allowed = append(found.Allowed, right)
		} else {
			found.Missing = append(found.Missing, right)
		}
	}
	return found
}
