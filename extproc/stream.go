package extproc

import (
	"context"
	"net/http"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// stream is one HTTP request on its way through the filter. Messages come in this order, each phase at most once:
//
//	request headers ──answer──> done
//	      │ │ └──────route────> done (Envoy sends nothing more)
//	      │ └─exchange, no body──────────┐
//	      └─exchange──> request body ────┴─> response headers ──> response body ──> done
type stream struct {
	server   *Server
	ctx      context.Context
	edge     string // of a caller of this cluster; "" for the peer link
	request  *modules.Request
	module   modules.Module
	exchange modules.Exchange
	ending   modules.Exchange // to be told of the end, also after a change of mind
	sent     bool             // the native request is on its way
	native   modules.Answer   // as read so far
	decided  bool
	later    *modules.Later // the decision that Envoy waits for
	done     bool           // the last word was said: nothing of the answer is for this stream
}

// end is the end of the request.
func (s *stream) end() {
	if s.ending == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			_ = s.server.panicked(p) // nobody waits for an answer any more
		}
	}()
	s.ending.End()
}

// step answers one message. It always answers, whatever the message: a silent phase would be taken for consent. Where
// something panics that no deadline guards, whose peer it is, a refusal or the observer, the answer is a refusal too.
func (s *stream) step(message *extprocv3.ProcessingRequest) (response *extprocv3.ProcessingResponse) {
	defer s.recovered(&response)
	switch m := message.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		return s.requestHeaders(m.RequestHeaders)
	case *extprocv3.ProcessingRequest_RequestBody:
		return s.requestBody(m.RequestBody)
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return s.responseHeaders(m.ResponseHeaders)
	case *extprocv3.ProcessingRequest_ResponseBody:
		return s.responseBody(m.ResponseBody)
	case *extprocv3.ProcessingRequest_RequestTrailers:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestTrailers{
			RequestTrailers: &extprocv3.TrailersResponse{}}}
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{
			ResponseTrailers: &extprocv3.TrailersResponse{}}}
	}
	return s.refuse(fault.New(fault.Internal, "the gateway's proxy sent a message of an unknown kind"))
}

// recovered is deferred: what panicked is answered by a refusal.
func (s *stream) recovered(response **extprocv3.ProcessingResponse) {
	if p := recover(); p != nil {
		*response = s.panicked(s.server.panicked(p))
	}
}

func (s *stream) requestHeaders(m *extprocv3.HttpHeaders) *extprocv3.ProcessingResponse {
	pseudo, header := readHeaders(m.GetHeaders())
	authority := pseudo[headerAuthority]
	s.request = &modules.Request{
		ID: header.Get(names.HeaderRequestID), Method: pseudo[headerMethod], Authority: authority, Path: pseudo[headerPath],
		Header: header, Start: time.Now(), EndOfBody: m.GetEndOfStream(),
	}
	err := s.place()
	s.ctx = s.server.config.Observer.Begin(s.ctx, s.request)
	if err != nil {
		return s.refuse(err)
	}
	var verdict modules.Verdict
	err = s.server.guarded(s.ctx, func(ctx context.Context) (err error) {
		verdict, err = s.module.Decide(ctx, s.request)
		return err
	})
	if err != nil {
		return s.refuseWith(verdict.Record, err)
	}
	if verdict.Later != nil {
		s.later = &modules.Later{Patience: min(verdict.Later.Patience, names.LongestDecision), Decide: verdict.Later.Decide}
		return &extprocv3.ProcessingResponse{OverrideMessageTimeout: durationpb.New(s.later.Patience + answerTime)}
	}
	if verdict.Exchange == nil {
		return s.say(verdict)
	}
	s.exchange, s.ending = verdict.Exchange, verdict.Exchange
	if s.exchange.NeedBody() && !s.request.EndOfBody {
		return &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
				Response: &extprocv3.CommonResponse{}}},
			ModeOverride: escalate(true),
		}
	}
	rewrite, response := s.rewrite(nil)
	if response != nil {
		return response
	}
	common := &extprocv3.CommonResponse{HeaderMutation: rewriteMutation(rewrite, s.request.Header), ClearRouteCache: true}
	switch {
	case len(rewrite.Body) > 0:
		common.Status, common.BodyMutation = extprocv3.CommonResponse_CONTINUE_AND_REPLACE, replaceBody(rewrite.Body)
		// The new body's length is Envoy's to know here: it goes out chunked.
		common.HeaderMutation.SetHeaders = without(common.HeaderMutation.SetHeaders, headerLength)
	case !s.request.EndOfBody:
		common.Status, common.BodyMutation = extprocv3.CommonResponse_CONTINUE_AND_REPLACE, clearBody()
	}
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
			Response: common}},
		ModeOverride:    escalate(false),
		DynamicMetadata: s.allowed(s.exchange.Record(), 0),
	}
}

// answerTime is how long Envoy waits beyond the time that a decision has, so that a late one is refused in the caller's words.
const answerTime = 5 * time.Second

// wait gives the verdict that takes its time.
func (s *stream) wait() (response *extprocv3.ProcessingResponse) {
	defer s.recovered(&response)
	later := s.later
	s.later = nil
	var verdict modules.Verdict
	err := s.server.guardedFor(s.ctx, later.Patience, func(ctx context.Context) (err error) {
		verdict, err = later.Decide(ctx)
		return err
	})
	if err != nil {
		return s.refuseWith(verdict.Record, err)
	}
	return s.say(verdict)
}

// place finds who asks, and who decides about it.
func (s *stream) place() error {
	r := s.request
	if s.edge != "" {
		r.Class, r.To = s.server.config.Zone.ClassifyEdge(s.edge, r.Authority)
		s.module = s.server.config.Edge
		return nil
	}
	r.Class, r.Peer = s.server.config.Zone.Classify(r.Authority), s.server.config.Peer(r.Header.Get(names.HeaderPeer))
	s.module = s.server.module(r.Class)
	var err error
	if r.Caller, err = modules.CallerOf(r.Header[callerKey]); err != nil {
		return err
	}
	r.Groups, err = modules.GroupsOf(r.Header[groupsKey], r.Caller)
	return err
}

var (
	callerKey = http.CanonicalHeaderKey(names.HeaderCaller)
	groupsKey = http.CanonicalHeaderKey(names.HeaderGroups)
)

func (s *stream) requestBody(m *extprocv3.HttpBody) *extprocv3.ProcessingResponse {
	if s.exchange == nil {
		return s.refuse(fault.New(fault.Internal, "the gateway's proxy sent a body that nobody asked for"))
	}
	body := m.GetBody()
	if body == nil {
		body = []byte{} // a body that turned out empty, not a request's head
	}
	rewrite, response := s.rewrite(body)
	if response != nil {
		return response
	}
	common := &extprocv3.CommonResponse{HeaderMutation: rewriteMutation(rewrite, s.request.Header), ClearRouteCache: true}
	switch {
	case len(rewrite.Body) > 0:
		common.BodyMutation = replaceBody(rewrite.Body)
	case rewrite.NoBody:
		common.BodyMutation = clearBody()
		common.HeaderMutation.RemoveHeaders = append(common.HeaderMutation.RemoveHeaders, headerLength)
	}
	return &extprocv3.ProcessingResponse{
		Response:        &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: common}},
		DynamicMetadata: s.allowed(s.exchange.Record(), 0),
	}
}

// rewrite asks the exchange for the native request; a response in its place is a refusal or another verdict. A nil body
// is asked for at the request's head.
func (s *stream) rewrite(body []byte) (rewrite modules.Rewrite, response *extprocv3.ProcessingResponse) {
	var other *modules.Verdict
	err := s.server.guarded(s.ctx, func(ctx context.Context) (err error) {
		rewrite, other, err = s.exchange.Request(ctx, body)
		return err
	})
	switch {
	case err != nil:
		return rewrite, s.refuseWith(s.exchange.Record(), err)
	case other != nil && other.Route != nil && body != nil:
		s.exchange, s.done = nil, true // the answer is the bridge's own, and must not be held until it ends
		return rewrite, &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{
				Response: &extprocv3.CommonResponse{HeaderMutation: routeMutation(*other.Route), ClearRouteCache: true}}},
			DynamicMetadata: s.allowed(other.Record, 0),
		}
	case other != nil:
		return rewrite, s.say(*other)
	}
	s.sent = true
	return rewrite, nil
}

func (s *stream) responseHeaders(m *extprocv3.HttpHeaders) *extprocv3.ProcessingResponse {
	pseudo, header := readHeaders(m.GetHeaders())
	status, err := strconv.Atoi(pseudo[headerStatus])
	if err != nil {
		status = http.StatusBadGateway
	}
	s.native = modules.Answer{Status: status, Header: header}
	common := &extprocv3.CommonResponse{}
	if m.GetEndOfStream() && s.translates() {
		answer, refusal := s.answer()
		if refusal != nil {
			return refusal
		}
		common.HeaderMutation = answerMutation(answer, header)
		if len(answer.Body) > 0 {
			// An answer without a body cannot be given one in this phase; the gateway gives the whole answer.
			return immediate(answer)
		}
	}
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{
		ResponseHeaders: &extprocv3.HeadersResponse{Response: common}}}
}

func (s *stream) responseBody(m *extprocv3.HttpBody) *extprocv3.ProcessingResponse {
	common := &extprocv3.CommonResponse{}
	if s.translates() {
		s.native.Body = m.GetBody()
		answer, refusal := s.answer()
		if refusal != nil {
			return refusal
		}
		common.HeaderMutation = answerMutation(answer, s.native.Header)
		common.BodyMutation = replaceBody(answer.Body)
		if len(answer.Body) == 0 {
			common.BodyMutation = clearBody()
		}
	}
	return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{
		ResponseBody: &extprocv3.BodyResponse{Response: common}}}
}

// translates tells whether the answer is a native one. It is not after a change of mind (a route to the bridge), nor
// when Envoy itself answered before the native request was made, because the body was too large to hold.
func (s *stream) translates() bool { return s.exchange != nil && s.sent }

func (s *stream) answer() (answer modules.Answer, refusal *extprocv3.ProcessingResponse) {
	err := s.server.guarded(s.ctx, func(ctx context.Context) (err error) {
		answer, err = s.exchange.Response(ctx, s.native)
		return err
	})
	if err != nil {
		return answer, s.refuseWith(s.exchange.Record(), err)
	}
	return answer, nil
}

// say tells Envoy a verdict without an exchange.
func (s *stream) say(verdict modules.Verdict) *extprocv3.ProcessingResponse {
	switch {
	case verdict.Answer != nil:
		response := immediate(*verdict.Answer)
		response.DynamicMetadata = s.allowed(verdict.Record, verdict.Answer.Status)
		return response
	case verdict.Route != nil:
		return &extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
				Response: &extprocv3.CommonResponse{HeaderMutation: routeMutation(*verdict.Route), ClearRouteCache: true}}},
			DynamicMetadata: s.allowed(verdict.Record, 0),
		}
	}
	return s.refuseWith(verdict.Record, fault.New(fault.Internal, "the gateway came to no decision"))
}

func (s *stream) refuse(err error) *extprocv3.ProcessingResponse {
	return s.refuseWith(modules.Record{}, err)
}

func (s *stream) refuseWith(record modules.Record, err error) *extprocv3.ProcessingResponse {
	f := fault.Of(err)
	if s.request == nil {
		s.request, s.module = &modules.Request{Start: time.Now()}, s.server.config.Fallback
	}
	if f.Kind == fault.Internal || (f.Cause != nil && f.Kind != fault.Denied) {
		s.server.config.Log.Warn("request refused", "id", s.request.ID, "kind", f.Kind.String(), "err", err)
	}
	answer := s.module.Refuse(s.request, err)
	response := immediate(answer)
	response.DynamicMetadata = s.observe(record, f.Kind.String(), answer.Status)
	return response
}

// panicked refuses a request after a panic: in the caller's words where its module finds them, and observed where the
// observer can.
func (s *stream) panicked(err error) (response *extprocv3.ProcessingResponse) {
	s.done = true
	response = immediate(modules.Refusal(err))
	defer func() {
		if p := recover(); p != nil {
			_ = s.server.panicked(p) // the plain refusal is said
		}
	}()
	if s.module != nil {
		response = immediate(s.module.Refuse(s.request, err))
	}
	if s.request != nil {
		response.DynamicMetadata = s.observe(modules.Record{}, fault.Internal.String(), fault.Internal.Status())
	}
	return response
}

func (s *stream) allowed(record modules.Record, status int) *structpb.Struct {
	return s.observe(record, OutcomeAllow, status)
}

// OutcomeAllow is the outcome of a request that was let through.
const OutcomeAllow = "allow"

func (s *stream) observe(record modules.Record, outcome string, status int) *structpb.Struct {
	if !s.decided {
		s.decided = true
		s.server.config.Observer.Decided(s.ctx, s.request, record, outcome, status)
	}
	return metadata(s.request, record, outcome)
}

func without(options []*corev3.HeaderValueOption, key string) []*corev3.HeaderValueOption {
	kept := options[:0]
	for _, o := range options {
		if o.GetHeader().GetKey() != key {
			kept = append(kept, o)
		}
	}
	return kept
}
