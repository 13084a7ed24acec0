package adapter

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// exchange is one translated operation that Envoy itself carries out: the native request takes the caller's place, and
// the caller's answer takes the native one's.
type exchange struct {
	module    *Module
	req       *modules.Request
	inbound   dialect.Inbound
	admission admission
	record    modules.Record
	losses    []neutral.Loss
	call      *dialect.Call
	leave     func() // ends its part of the peer's load; nil before it has one
}

var _ modules.Exchange = (*exchange)(nil)

func (e *exchange) NeedBody() bool { return e.admission.op.Action.Body() }

func (e *exchange) Record() modules.Record { return e.record }

// End gives the peer's load back.
func (e *exchange) End() {
	if e.leave != nil {
		e.leave()
	}
}

// plan decodes the whole request and plans it. A verdict in place of a call says that this is not for Envoy alone.
func (e *exchange) plan(body []byte) (*modules.Verdict, error) {
	request := e.admission.head
	request.Body = body
	op, losses, err := e.module.complete(e.req, e.inbound, &e.admission, request, &e.record)
	if err != nil {
		return nil, err
	}
	e.losses = losses
	plan, err := e.module.config.Target.Plan(op, e.module.guard(e.req, op, &e.record))
	if err != nil {
		return nil, err
	}
	switch {
	case plan.Call != nil:
		e.call = plan.Call
		e.record.Upstream = names.Orchestrator
		return nil, nil
	case plan.Answer != nil:
		response, err := e.encode(*plan.Answer)
		if err != nil {
			return nil, err
		}
		e.record.Upstream = "none"
		return &modules.Verdict{Answer: answer(response), Record: e.record}, nil
	}
	verdict := toBridge(e.record)
	return &verdict, nil
}

// Request plans what was not planned at the head, and gives the native request.
func (e *exchange) Request(_ context.Context, body []byte) (modules.Rewrite, *modules.Verdict, error) {
	if err := e.module.config.Load.TooLarge(e.req.Peer.Name, int64(len(body))); err != nil {
		return modules.Rewrite{}, nil, err
	}
	if e.admission.copies() && asksCopy(body) {
		other := toBridge(e.record)
		return modules.Rewrite{}, &other, nil
	}
	if e.call == nil {
		other, err := e.plan(body)
		if err != nil || other != nil {
			return modules.Rewrite{}, other, err
		}
	}
	leave, err := e.module.config.Load.Enter(e.req.Peer.Name, e.req.Caller, false)
	if err != nil {
		return modules.Rewrite{}, nil, err
	}
	e.leave = leave
	route := e.module.native(e.req)
	route.Method, route.Path = e.call.Request.Method, e.call.Request.Path
	for key, values := range e.call.Request.Header {
		route.Set[key] = values
	}
	return modules.Rewrite{Route: *route, Body: e.call.Request.Body, NoBody: len(e.call.Request.Body) == 0}, nil, nil
}

// Response translates the native answer.
func (e *exchange) Response(_ context.Context, native modules.Answer) (modules.Answer, error) {
	result, err := e.call.Decode(dialect.Response{Status: native.Status, Header: native.Header, Body: native.Body})
	if err != nil {
		return modules.Answer{}, err
	}
	response, err := e.encode(result)
	if err != nil {
		return modules.Answer{}, err
	}
	return *answer(response), nil
}

func (e *exchange) encode(result neutral.Result) (dialect.Response, error) {
	result.Losses = append(append([]neutral.Loss(nil), e.losses...), result.Losses...)
	e.record.Losses = result.Losses
	return e.inbound.Encode(e.admission.op, e.admission.head, e.module.conceal(result, e.req.Peer.Name))
}

// complete decodes a whole request and judges it once more now that its object is known.
func (m *Module) complete(req *modules.Request, inbound dialect.Inbound, a *admission, request dialect.Request,
	record *modules.Record) (neutral.Operation, []neutral.Loss, error) {
	op, losses, err := inbound.Decode(a.op, request)
	if err != nil {
		return op, nil, err
	}
	if err := refuseConcealed(op); err != nil {
		return op, nil, err
	}
	m.place(&op.Object)
	op.Peer = req.Peer.Name
	if op.Container != nil && op.Container.Origin != nil {
		op.Container.Origin.Peer = op.Peer
	}
	if op.Workload != nil && op.Workload.Origin != nil {
		op.Workload.Origin.Peer = op.Peer
	}
	op.Told = teller{m.config.Mask, op.Peer}.text
	if op.Verb == neutral.Create || op.Action == neutral.WorkloadUpdate {
		if op.Action == neutral.WorkloadUpdate && op.Workload != nil {
			// The path holds an id as a rule, and rules speak of names. What the caller calls it is held against the one
			// that is there by the plan's guard.
			op.Object.Name = op.Workload.Name
		}
		judgement := m.config.Policy().Judge(req.Subject(), op.Verb, op.Object)
		if !judgement.Allowed {
			return op, nil, judgement.Err()
		}
		record.Rule = judgement.Rule
	}
	if op.Container != nil {
		op.Container.Losses = losses // kept beside the object, so that a later inspect tells them again
	}
	if op.Workload != nil {
		op.Workload.Losses = losses
	}
	a.op, record.Object, record.Losses = op, op.Object, losses
	return op, losses, nil
}

var errNoPlan = fault.New(fault.Internal, "the cluster made no plan for the operation")
