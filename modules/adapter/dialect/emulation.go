package dialect

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Emulator is a dialect whose callers' requests are no single operations: they read objects, compare them, write them back
// and watch them. Before an orchestrator of another type it stands as an API of its own, made of neutral operations; to
// the adapter that is a cluster of the callers' own type.
type Emulator interface {
	Dialect
	Emulate(config Emulation) (Emulated, error)
}

// Emulation is what such an API needs.
type Emulation struct {
	Cluster string
	Over    Executor
	Socket  string // where it will be served: the Unix socket of Envoy's upstream
	Seal    []byte // a key by which the gateway alone reads what it keeps in the orchestrator
	Log     *slog.Logger
}

// Emulated is the API, and the cluster that it looks like.
type Emulated interface {
	Cluster
	http.Handler
}

// Reviewer is an emulated API whose callers may ask about themselves: who they are, and what they may do. Policy has the
// answer.
type Reviewer interface {
	Reviews(op neutral.Operation) bool
	// Review answers a whole request, whose operation is op.
	Review(op neutral.Operation, req Request, asker Asker) (Response, error)
}

// Asker is a caller that asks about itself.
type Asker struct {
	Peer   string
	Caller string // "" when the peer does not say
	Groups []string
	Whole  bool // these are all of its groups
	// May judges what the caller would ask for.
	May func(neutral.Operation) Leave
}

// Leave is what policy would say.
type Leave struct {
	Allowed bool
	Open    bool   // it is allowed for some objects, or under conditions
	Why     string // not, or how
}

// ErrStandalone is the cause of a refusal of what takes a swarm, on an engine that is part of none.
var ErrStandalone = errors.New("the engine is part of no swarm")

// Executor carries out neutral operations on a cluster. Policy was asked before.
type Executor interface {
	// Do carries out an operation that has one answer, Stream one that has a session.
	Do(ctx context.Context, op neutral.Operation) (neutral.Result, error)
	Stream(ctx context.Context, op neutral.Operation, session neutral.Session) (neutral.Result, error)
	// Dial connects to a port of a container, by its id.
	Dial(ctx context.Context, container string, port uint16) (net.Conn, error)
}
