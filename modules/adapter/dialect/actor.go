package dialect

import (
	"context"
	"net/http"
)

// Actor is on whose behalf an orchestrator is asked.
type Actor struct {
	Peer string
}

type actorKey struct{}

// WithActor marks what is asked with a context as asked on behalf of an actor.
func WithActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf is on whose behalf a context asks; ok false is the gateway itself.
func ActorOf(ctx context.Context) (actor Actor, ok bool) {
	actor, ok = ctx.Value(actorKey{}).(Actor)
	return actor, ok
}

// Impersonator is a cluster that knows each peer by a name of its own. What it is asked with the context of an Actor it
// does in that name, so that the cluster's own permissions and its audit log hold for the peer.
type Impersonator interface {
	// Impersonation gives the headers that make a request which others send act in the actor's name, nil where the
	// gateway acts in its own.
	Impersonation(actor Actor) http.Header
}

// Rights tells how a gateway's account fits what the gateway does with it. Its findings are sentences for an admin.
type Rights interface {
	Rights(ctx context.Context, peers []string) (Findings, error)
}

// Findings are what is wrong with an account.
type Findings struct {
	Missing  []string // what the gateway needs and may not do
	Needless []string // what the account may do and the gateway does not need
}
