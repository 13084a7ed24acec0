package telemetry

import (
	"context"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
	"github.com/isthmus-mesh/isthmus/xds/accesslog"
)

// Audited is a module whose every decision is in the audit log before it is carried out; what cannot be recorded is
// refused.
type Audited struct {
	modules.Module
	Log *audit.Log
}

// Decide decides and records.
func (a Audited) Decide(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	defer a.panicked(req)
	verdict, err := a.Module.Decide(ctx, req)
	if err == nil && verdict.Exchange != nil {
		// The decision is complete once the whole request was read.
		verdict.Exchange = &auditedExchange{Exchange: verdict.Exchange, audited: a, req: req}
		return verdict, nil
	}
	if err == nil && verdict.Later != nil {
		// What is waited for is done for the request, so it is recorded first.
		verdict.Later = a.later(req, verdict.Later)
		return verdict, a.decided(req, verdict.Record, nil, false)
	}
	// The bridge tells how it ended, or Envoy does.
	return verdict, a.decided(req, verdict.Record, err, verdict.Route != nil)
}

// later records the decision that was waited for.
func (a Audited) later(req *modules.Request, later *modules.Later) *modules.Later {
	return &modules.Later{Patience: later.Patience, Decide: func(ctx context.Context) (modules.Verdict, error) {
		defer a.panicked(req)
		verdict, err := later.Decide(ctx)
		return verdict, a.decided(req, verdict.Record, err, verdict.Route != nil)
	}}
}

// panicked is deferred: it records a decision that panicked, for who recovers for good knows of no log.
func (a Audited) panicked(req *modules.Request) {
	if p := recover(); p != nil {
		_ = a.decided(req, modules.Record{}, errPanic, false)
		panic(p)
	}
}

var errPanic = fault.New(fault.Internal, "the decision panicked; the log says where")

// decided records a decision, and whether a line of how it ended follows. The error is the decision's own, or that it
// could not be recorded.
func (a Audited) decided(req *modules.Request, record modules.Record, refusal error, follows bool) error {
	entry := audit.NewEntry(audit.Decided, req, record)
	entry.Decision, entry.Follows = audit.Allow, follows && refusal == nil
	if refusal != nil {
		f := fault.Of(refusal)
		entry.Decision, entry.Reason, entry.Status = audit.Deny, f.Error(), f.Kind.Status()
	}
	if err := a.Log.Write(entry); err != nil && refusal == nil {
		return fault.Wrap(fault.Unavailable, err, "the decision could not be recorded, so nothing was done")
	}
	return refusal
}

type auditedExchange struct {
	modules.Exchange
	audited Audited
	req     *modules.Request
}

func (e *auditedExchange) Request(ctx context.Context, body []byte) (modules.Rewrite, *modules.Verdict, error) {
	rewrite, other, err := e.Exchange.Request(ctx, body)
	record := e.Record()
	if other != nil {
		record = other.Record
	}
	return rewrite, other, e.audited.decided(e.req, record, err, other == nil || other.Route != nil)
}

func (e *auditedExchange) Response(ctx context.Context, native modules.Answer) (modules.Answer, error) {
	answer, err := e.Exchange.Response(ctx, native)
	// The operation is done whether or not this line can be written: the answer is the caller's.
	_ = e.audited.Log.Write(done(e.req, e.Record(), err, time.Since(e.req.Start), answer.Status))
	return answer, err
}

// HandedOn writes how a request ended that went on without the gateway's doing, as Envoy tells it.
func (t *Telemetry) HandedOn(end accesslog.End) {
	entry := audit.Entry{
		Phase: audit.Done, ID: end.ID, Trace: audit.TraceOf(end.Trace), Peer: end.Peer, Caller: end.Caller, Class: modules.Class(end.Class),
		Verb: neutral.Verb(end.Verb), Kind: neutral.Kind(end.Kind), Namespace: end.Namespace, Name: end.Name, Decision: audit.Allow,
		Rule: end.Rule, Upstream: end.Upstream, Status: end.Status, Reason: end.Broke, Duration: end.Duration,
	}
	if err := t.config.Audit.Write(entry); err != nil {
		t.config.Log.Error("the audit line of an ended operation could not be written", "id", end.ID, "err", err)
	}
}

// done is the line of an operation that ended.
func done(req *modules.Request, record modules.Record, err error, took time.Duration, status int) audit.Entry {
	entry := audit.NewEntry(audit.Done, req, record)
	entry.Decision, entry.Duration, entry.Status = audit.Allow, took, status
	if err != nil {
		f := fault.Of(err)
		entry.Reason, entry.Status = f.Error(), f.Kind.Status()
		if f.Kind == fault.Denied {
			entry.Decision = audit.Deny
		}
	}
	return entry
}
