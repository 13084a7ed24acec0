package dialect

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Reader is a cluster whose native answers the gateway reads on their way to a caller of the same type: they tell
// addresses, and of objects that the caller may not see.
type Reader interface {
	// Reading says how the answer to an operation is read; nil where it crosses unread. An error is a fault for a caller
	// whose answer could not be read. It is pure but for the functions that it gives.
	Reading(op neutral.Operation, head Request) (*Reading, error)
	// Foreign tells whether the answer to an operation is somebody else's, before whom the orchestrator stands.
	Foreign(op neutral.Operation) bool
}

// Reading is how one native answer is read.
type Reading struct {
	// FilterPath is what is asked in the place of the caller's path where Filter must see more than the caller asked for;
	// "" keeps it.
	FilterPath string
	// Accept is the form that is asked for; "" keeps the caller's.
	Accept string
	// Rules say what its fields hold.
	Rules *mask.Rules
	// Lists are the keys of lists whose elements are objects of their own; "" is an answer that is such a list itself.
	Lists map[string]bool
	// Sequence is an answer of one value after the other, each to be passed on when it is there.
	Sequence bool
	// Filter makes what judges the elements of one answer; nil where nothing of it is judged by itself.
	Filter func(ctx context.Context) Filter
	// Part makes what judges the other members of one answer, which may tell of other objects; nil where none does. It is
	// used even where the request as a whole is allowed.
	Part func(ctx context.Context) Part
	// Body gives a request's body as JSON and, where that is another form than its own, the media type of what may take
	// its place; false where it cannot be read.
	Body func(Request) (body []byte, mediaType string, ok bool)
	// Live is the path of the object that a write is about, as it is, and LiveKey the member of it that the write replaces;
	// "" where the request writes nothing that was there.
	Live, LiveKey string
	// Steps binds a request that is a JSON patch to the object as it is, and gives the patch; ok false for what is none. Nil
	// where no request is one. Such a patch can read what it changes.
	Steps func(req Request, object []byte) (bound Request, steps []byte, ok bool, err error)
	// Reveals says how the request itself would show what is hidden; "" where it would not.
	Reveals string
	// Sought gives the texts of an element of which the request looks for a part; nil where it looks for none. An element
	// that is shown with other ones there was not found by the caller's means.
	Sought func(element []byte) []byte
	// Created reads the answer to a request that creates something, which may have been there before: the object, and the
	// answer for who may create it and not get it. Nil where an answer tells nothing but what was written.
	Created func(written, answer []byte) (object neutral.Object, reduced []byte, err error)
	// Always says that the elements are judged even where the request as a whole is allowed.
	Always bool
}

// Filter gives an element of an answer as it may be seen, nil for not at all. see judges an object of it.
type Filter func(element []byte, see func(neutral.Object) bool) ([]byte, error)

// Part gives a member of an answer as it may be seen. see judges an object that it tells of.
type Part func(key string, member []byte, see func(neutral.Object) bool) ([]byte, error)

// Forecaster is a cluster that tells what a native create or update would make, without making it: policies can hold it
// to their conditions.
type Forecaster interface {
	// Forecastable tells whether Forecast knows requests of this kind.
	Forecastable(op neutral.Operation) bool
	// Forecast asks about a whole request. The operation's object is the one that is there, if there is one.
	Forecast(ctx context.Context, op neutral.Operation, req Request) (Forecast, error)
}

// Forecast is what a request would make.
type Forecast struct {
	// Objects are what policy is asked about: the object, once for each container that it would run.
	Objects []neutral.Object
	// Request is what must be sent: it makes what was judged, or nothing.
	Request Request
	// Pinned says that a conflict means that the object was changed meanwhile, and that asking again may do.
	Pinned bool
	// Made tells what the request did make, by the orchestrator's answer, where somebody may have changed meanwhile what the
	// forecast rests on. It is judged before anybody hears of it; undo takes it back. Nil where nothing can have changed.
	Made func(ctx context.Context, answer []byte) (object neutral.Object, undo func(context.Context) error, err error)
	// Refused is the orchestrator's own answer where it would not do it at all.
	Refused *Response
}
