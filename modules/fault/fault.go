// Package fault is the one vocabulary of errors inside Isthmus: what kind of thing went wrong, in which
// operation, and why. Each dialect renders a fault in its caller's own error body; ext_proc maps it to a status once.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind says what went wrong in terms that every orchestrator knows.
type Kind int

// The kinds, each with the HTTP status that stands for it where a dialect has no word of its own.
const (
	Internal      Kind = iota // our own bug or an unexpected native answer: 500
	Invalid                   // the caller's input is wrong: 400
	Denied                    // no permission: 403
	NotFound                  // no such object: 404
	Conflict                  // the object's state or name forbids it: 409
	NotModified               // already so: 304
	Unsupported               // the target cannot express it: 501
	Unavailable               // the orchestrator, peer or handshake is not there: 503
	Timeout                   // no answer within the deadline: 504
	TooLarge                  // the body passes the limit: 413
	Unprocessable             // well-formed, yet the target's own validation refuses it: 422
	Exhausted                 // a limit of rate or concurrency: 429

	Unauthenticated // this cluster's gateway does not know who asks: 401
)

var kinds = [...]struct {
	name   string
	status int
}{
	Internal:      {"internal", http.StatusInternalServerError},
	Invalid:       {"invalid", http.StatusBadRequest},
	Denied:        {"denied", http.StatusForbidden},
	NotFound:      {"not-found", http.StatusNotFound},
	Conflict:      {"conflict", http.StatusConflict},
	NotModified:   {"not-modified", http.StatusNotModified},
	Unsupported:   {"unsupported", http.StatusNotImplemented},
	Unavailable:   {"unavailable", http.StatusServiceUnavailable},
	Timeout:       {"timeout", http.StatusGatewayTimeout},
	TooLarge:      {"too-large", http.StatusRequestEntityTooLarge},
	Unprocessable: {"unprocessable", http.StatusUnprocessableEntity},
	Exhausted:     {"exhausted", http.StatusTooManyRequests},

	Unauthenticated: {"unauthenticated", http.StatusUnauthorized},
}

// String is the kind's stable name, used in metrics and audit lines.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kinds) {
		return "internal"
	}
	return kinds[k].name
}

// Status is the HTTP status that stands for the kind.
func (k Kind) Status() int {
	if k < 0 || int(k) >= len(kinds) {
		return http.StatusInternalServerError
	}
	return kinds[k].status
}

// FromStatus is the kind that an orchestrator's HTTP status stands for. Its 401 is about the gateway's own credential,
// which no caller can better.
func FromStatus(status int) Kind {
	if status == http.StatusUnauthorized {
		return Denied
	}
	for k := range kinds {
		if kinds[k].status == status {
			return Kind(k)
		}
	}
	switch {
	case status == http.StatusBadGateway:
		return Unavailable
	case status >= 400 && status < 500:
		return Invalid
	}
	return Internal
}

// Error is a fault with the message that the caller may see. Cause is for logs only and never leaves the gateway,
// because it can carry addresses of this cluster.
type Error struct {
	Kind    Kind
	Op      string // the operation that failed, "container.create"; may be empty
	Message string // said to the caller; carries no address and no secret
	Field   string // the field that is wrong, in the caller's own terms; may be empty
	Cause   error
}

// Error is the whole story, for logs.
func (e *Error) Error() string {
	s := e.Message
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New makes a fault whose message the caller may see.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap makes a fault around a cause that only logs may see.
func Wrap(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// Of finds the fault in err, or makes one: a passed deadline is a Timeout, anything else Internal with a message that
// tells the caller nothing of this cluster.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var f *Error
	if errors.As(err, &f) {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Kind: Timeout, Message: "the orchestrator did not answer in time", Cause: err}
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Kind: Unavailable, Message: "the request was cancelled", Cause: err}
	}
	return &Error{Kind: Internal, Message: "internal error of the gateway", Cause: err}
}

// Is tells whether err is a fault of that kind.
func Is(err error, kind Kind) bool {
	var f *Error
	return errors.As(err, &f) && f.Kind == kind
}
