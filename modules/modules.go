// Package modules is the contract between the external-processing server and what decides: a Module looks at a
// request's head and gives a Verdict. The server knows Envoy and no business; modules know business and no Envoy.
package modules

import (
	"context"
	"net/http"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Class is which of the three kinds of request, or none of them.
type Class string

// The classes.
const (
	ServiceQuery       Class = "service-query"
	ContainerOperation Class = "container-operation"
	ContainerAccess    Class = "container-access"
	Unknown            Class = "unknown"
)

// Peer is the gateway that a request came from, known by its certificate.
type Peer struct {
	Name         string               // "" for a request that came over no peer link
	Orchestrator neutral.Orchestrator // what the handshake told; "" before it is done
	Ready        bool
}

// Request is a request's head as it came over the peer link, or from a caller of this cluster who asks a peer.
type Request struct {
	ID        string // for logs and traces
	Class     Class
	Peer      Peer
	Caller    string // who the peer says the caller is; "" when it does not say
	Groups    Groups // which the peer says the caller is in
	To        string // the peer that a caller of this cluster asks; "" for a request over the peer link
	Method    string
	Authority string
	Path      string // with the query
	Header    http.Header
	Start     time.Time
	EndOfBody bool // the request has no body
}

// Subject is who asks, as policy sees it.
func (r *Request) Subject() Subject {
	return Subject{Peer: r.Peer.Name, Caller: r.Caller, Groups: r.Groups}
}

// Module decides about the requests of one class. The server calls Decide once a request, with a deadline; an error is
// a fault that Refuse renders.
type Module interface {
	Class() Class
	Decide(ctx context.Context, req *Request) (Verdict, error)
	// Refuse renders a fault in the form that this request's caller understands.
	Refuse(req *Request, err error) Answer
}

// Verdict says what happens to a request. Exactly one of Answer, Route, Exchange and Later is set.
type Verdict struct {
	Answer   *Answer  // answer at once
	Route    *Route   // forward, untouched but for what Route says
	Exchange Exchange // rewrite in place
	Later    *Later   // the decision takes its time
	Record   Record   // for logs, metrics, audit and the demo
}

// Later is a decision that waits for something that was allowed, which the verdict's record is about.
type Later struct {
	Patience time.Duration // for how long; names.LongestDecision at most
	// Decide gives the verdict, which is not another Later. It is called once.
	Decide func(ctx context.Context) (Verdict, error)
}

// Record is what a decision was about.
type Record struct {
	Verb     neutral.Verb
	Action   neutral.Action
	Object   neutral.Object
	Rule     string // the policy that allowed it
	Upstream string
	Losses   []neutral.Loss
	Switched string // how a network mode was switched for it, for the caller
	Status   int    // of the orchestrator's answer, where the bridge handed that on; else 0
}

// Answer is a whole answer given by the gateway.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Route sends the request to one of Envoy's clusters.
type Route struct {
	Upstream    string // what names.HeaderRoute says
	Destination string // address:port for names.Access
	Method      string // "" keeps it
	Path        string // "" keeps it
	Authority   string // "" keeps it
	Set         http.Header
	Remove      []string
}

// Exchange rewrites one request and its answer in place. Methods are called in order, at most once each but Record.
type Exchange interface {
	// NeedBody tells whether Request must be given the body.
	NeedBody() bool
	// Request gives what goes to the orchestrator, or another verdict (an answer, a route with the body untouched).
	Request(ctx context.Context, body []byte) (Rewrite, *Verdict, error)
	// Response reads the native answer and gives the caller's.
	Response(ctx context.Context, native Answer) (Answer, error)
	// Record is the record as it is known so far.
	Record() Record
	// End is called last, once, whatever came of the request.
	End()
}

// Rewrite is the native request that takes the caller's place.
type Rewrite struct {
	Route  Route
	Body   []byte // replaces the body; nil with NoBody false keeps it
	NoBody bool
}
