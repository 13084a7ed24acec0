// Package dialect is the contract between the adapter and an orchestrator's API. A dialect is one folder: it reads what
// its callers send and writes what they expect (the inbound half), and it plans and performs neutral operations on its
// own orchestrator (the outbound half, a Cluster).
//
// The halves never know each other's orchestrator, nor who runs a plan: the adapter chooses the executor from the
// plan's shape (in place in Envoy, or the bridge).
package dialect

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Dialect is what every orchestrator's API has: requests that can be named and errors in its own words. Both are pure.
type Dialect interface {
	Orchestrator() neutral.Orchestrator
	// Classify names what a request asks from its head alone. Body is empty. An operation outside the neutral model is
	// ObjectRaw with its native resource in Object; an error is a fault for the caller (unknown path, bad version).
	Classify(head Request) (neutral.Operation, error)
	// Refuse renders err in the caller's own error body. head is what the caller asked.
	Refuse(head Request, err error) Response
}

// Inbound is the half that serves this dialect's callers on another orchestrator. Its methods are pure.
type Inbound interface {
	Dialect
	// Decode completes a classified operation from the whole request. The losses are fields that the neutral model does
	// not carry and that change neither safety nor data; those that do are refused with an error.
	Decode(op neutral.Operation, req Request) (neutral.Operation, []neutral.Loss, error)
	// Encode renders a result. Losses are reported in the caller's own way where the answer has one.
	Encode(op neutral.Operation, req Request, result neutral.Result) (Response, error)
	// Session frames a streamed action on an HTTP answer. Stdin is read from r. Close ends it: err nil is a good end,
	// with the result for actions that answer at their end (container.wait); an err before anything was sent becomes
	// Refuse's answer, after it the stream must end so that the caller's client shows an error.
	Session(op neutral.Operation, w http.ResponseWriter, r *http.Request) Session
	// Local answers operations that need no orchestrator (ping, discovery); ok false when op is not such a one.
	Local(op neutral.Operation, req Request, target Target) (resp Response, ok bool)
}

// Session is neutral.Session with its end.
type Session interface {
	neutral.Session
	Close(result neutral.Result, err error) error
}

// Target tells an inbound half whom its caller talks to.
type Target struct {
	Cluster      string
	Orchestrator neutral.Orchestrator
	APIVersion   string // of the target's orchestrator
}

// Request is a request's head and, where it was read, body.
type Request struct {
	Method string
	Path   string // with the query, as sent
	Header http.Header
	Body   []byte
}

// URL parses the path.
func (r Request) URL() (*url.URL, error) { return url.ParseRequestURI(r.Path) }

// Response is a whole answer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Guard asks policy about an object once its name and labels are known. Its error is a Denied fault; lists leave out
// what it denies.
type Guard func(neutral.Object) (Terms, error)

// Terms are how policy wants an operation done that it allows.
type Terms struct{ Pause neutral.PauseMode }

// Cluster is the outbound half, connected to one orchestrator.
type Cluster interface {
	// Upstream tells Envoy where the orchestrator's API is.
	Upstream() neutral.Upstream
	// System asks the orchestrator who it is; the gateway's readiness and the handshake use it.
	System(ctx context.Context) (neutral.System, error)
	// Plan says how op is done here. It is pure but for the functions it returns. An Unsupported fault names what
	// cannot be expressed.
	Plan(op neutral.Operation, guard Guard) (Plan, error)
	// Lookup finds an existing object with its labels, for policies that need them on a same-type call.
	Lookup(ctx context.Context, op neutral.Operation) (neutral.Object, error)
	// Services follows the exported services until ctx ends: it calls publish with the complete set once it is known
	// and again whenever it changed. It reconnects by itself; publish is called from one goroutine.
	Services(ctx context.Context, publish func([]neutral.Service)) error
	// Locate finds a container and its network mode as they are now.
	Locate(ctx context.Context, ref neutral.TargetRef) (neutral.Target, error)
	// Transport reaches the API for calls that are handed on unread; request URLs carry any host.
	Transport() http.RoundTripper
	Close() error
}

// Reaper is a cluster that leaves work for later: what it finishes or takes away by itself, for the peers that there
// are. Reap runs until ctx ends.
type Reaper interface {
	Reap(ctx context.Context, peers func() []string) error
}

// SecretWatcher is a cluster that keeps secrets which the gateway may read.
type SecretWatcher interface {
	// WatchSecret follows one secret until ctx ends: changed gets its data once it is known and whenever it differs, nil
	// when it is not there. It reconnects by itself; changed is called from one goroutine.
	WatchSecret(ctx context.Context, namespace, name string, changed func(data map[string][]byte)) error
}

// TokenReviewer is a cluster whose orchestrator knows whose its bearer tokens are. The name is empty for a token that is
// not good; an error says that it could not be asked. No audiences are the orchestrator's own.
type TokenReviewer interface {
	ReviewToken(ctx context.Context, token string, audiences []string) (name string, groups []string, err error)
}

// Permitter is a cluster whose orchestrator has rights of its own, and tells what they let an actor do without doing it.
type Permitter interface {
	// Permissions are the rights that an operation takes: of one native call those of the call, else, with a nil call,
	// those of what the operation is planned as.
	Permissions(ctx context.Context, actor Actor, op neutral.Operation, call *Request) ([]Permission, error)
	// Subject is who the orchestrator takes an actor for.
	Subject(actor Actor) string
}

// Permission is one right, in the orchestrator's words.
type Permission struct {
	Right   string
	When    string // under which circumstances it is needed; "" for always
	Allowed bool
}

// Connector opens an orchestrator.
type Connector interface {
	Connect(ctx context.Context, config Config) (Cluster, error)
}

// Config is how to reach an orchestrator. Unset fields are not used by that type.
type Config struct {
	Cluster    string // this cluster's name
	Endpoint   string // Docker: unix:///path or tcp://host:port
	Kubeconfig string // Kubernetes: a file; "" is the in-cluster config
	Context    string // Kubernetes: a context of the file
	Namespace  string // where another orchestrator's containers land; "" is "default"
	// Impersonate makes the gateway ask in the name of the peer that it asks for (Kubernetes).
	Impersonate bool
	// AgentNamespace has the leases of agents that freeze containers (Kubernetes).
	AgentNamespace string
	// ReviewTokens says that ReviewToken will be asked, which takes a right of its own (Kubernetes).
	ReviewTokens bool
	// Seal is a key by which the gateway knows again what it left in the cluster, where others may write as well.
	Seal []byte
	Log  *slog.Logger
}

// Plan is how an operation is done on a target. Exactly one field is set.
type Plan struct {
	Answer  *neutral.Result // no native call
	Call    *Call           // one native call with one answer
	Program Program         // several native calls
	Stream  Stream          // a stream in another framing
}

// Call is one native request and the pure reading of its answer.
type Call struct {
	Request Request
	// Decode reads the native answer; a native error answer becomes a fault.
	Decode func(Response) (neutral.Result, error)
}

// Program runs several native calls and compensates when one fails.
type Program func(ctx context.Context) (neutral.Result, error)

// Stream drives a session. Its result is for actions that answer at their end.
type Stream func(ctx context.Context, session neutral.Session) (neutral.Result, error)
