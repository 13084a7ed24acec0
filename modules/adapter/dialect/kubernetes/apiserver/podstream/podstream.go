// Package podstream serves the streams of a Pod as the Kubernetes API does: exec, attach, log and port-forward. Requests
// come over HTTP/1.1. Who is asked, and for what, is read by Parse functions; what they give has a method Serve, which
// answers.
//
// Serve returns an error that is not a *Told where nothing was answered yet, so that the caller answers with a Status.
package podstream

import (
	"context"
	"errors"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Run carries a streamed operation out. Its context ends when the caller goes away. It must not use the session after it
// returned; a read of stdin that still waits then ends.
type Run func(ctx context.Context, session neutral.Session) (neutral.Result, error)

// Told is an error that came after the answer had begun: the caller was told in the stream, as far as it could still be
// told anything. It is for logs only.
type Told struct{ Cause error }

// Error is the cause's.
func (t *Told) Error() string { return t.Cause.Error() }

// Unwrap is the cause.
func (t *Told) Unwrap() error { return t.Cause }

// The times of a stream.
const (
	// idleLimit is how long neither side may send a byte. Clients that ping are never idle.
	idleLimit = 4 * time.Hour
	// creationLimit is how long a client may take to create the streams that it announced.
	creationLimit = 30 * time.Second
	// lingerLimit is how long a client may take to close the connection after it was told the end. Closing first could lose
	// what it has not read yet.
	lingerLimit = time.Minute
	// patience is how long it may take until it is told so by the connection's end as well.
	patience = 5 * time.Second
	// graceLimit is how long telling the end may take when the request was cancelled.
	graceLimit = 2 * time.Second
)

var (
	errGone  = fault.New(fault.Unavailable, "the caller is gone")
	errIdle  = fault.New(fault.Timeout, "the stream was idle for %s", idleLimit)
	errEnded = fault.New(fault.Unavailable, "the session has ended")
	errKind  = fault.New(fault.Internal, "a Pod's stream has output only")
)

// told makes err a *Told, unless it is one.
func told(err error) error {
	var t *Told
	if err == nil || errors.As(err, &t) {
		return err
	}
	return &Told{Cause: err}
}
