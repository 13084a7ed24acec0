package dialect

import (
	"context"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// CopyFrom is the label, or the annotation, of a create by which a client that knows nothing of copies asks for one.
const CopyFrom = "isthmus.io/copy-from"

// CopiedFrom is what CopyFrom becomes on an object whose copy was made by another gateway than the one that it reached.
const CopiedFrom = "isthmus.io/copied-from"

// ObjectRef names an object of a cluster in a caller's words.
type ObjectRef struct{ Cluster, Namespace, Kind, Name string }

// ParseObjectRef reads <cluster>/<namespace>/<kind>/<name>.
func ParseObjectRef(text string) (ObjectRef, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return ObjectRef{}, fault.New(fault.Invalid, "%q does not read <cluster>/<namespace>/<kind>/<name>, as in west/shop/deployment/web", text)
	}
	r := ObjectRef{Cluster: parts[0], Namespace: parts[1], Kind: strings.ToLower(parts[2]), Name: parts[3]}
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, unprintable) {
			return ObjectRef{}, fault.New(fault.Invalid, "%q does not read <cluster>/<namespace>/<kind>/<name>: each part is a name", text)
		}
	}
	return r, nil
}

func unprintable(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`%?#\`, r) }

// String is what ParseObjectRef reads.
func (r ObjectRef) String() string {
	return fmt.Sprintf("%s/%s/%s/%s", r.Cluster, r.Namespace, r.Kind, r.Name)
}

// Replicator is a dialect in whose API an object can be made again of what is read of it. What is read is what the reader
// may see: nothing is copied that it could not have copied by hand.
type Replicator interface {
	Dialect
	// Replicate reads an object and says how it is made at its new place. Read's error is a fault.
	Replicate(ctx context.Context, read Read, from ObjectRef, to Place) (Draft, error)
	// Asked is the value of CopyFrom in the body of a request that creates something, "" for none, and the name that the
	// body gives. An error says that the body is in a form in which it cannot be completed.
	Asked(req Request) (from, name string, err error)
	// Alike tells whether a request creates an object of the kind that is meant by the word. A word that means none is
	// Replicate's to refuse.
	Alike(req Request, kind string) bool
	// Complete fills what a request left empty from a draft, and gives the request and what of the draft's losses is left:
	// what the request says itself is none.
	Complete(req Request, draft Draft) (Request, []Left, error)
}

// Read asks an API; the answer is of status 2xx.
type Read func(ctx context.Context, req Request) (Response, error)

// Place is where a copy is made.
type Place struct {
	Cluster, Namespace, Name string
	// Foreign says that the cluster runs another orchestrator than the dialect's, and speaks it by translation.
	Foreign bool
	// Origin says the same of the cluster that is copied from.
	Origin bool
}

// Draft is how a copy is made.
type Draft struct {
	Object ObjectRef
	Create Request
	// Body is the create's, as it is read from JSON.
	Body map[string]any
	// Get reads what Create makes, and Remove takes it back.
	Get, Remove Request
	// After are requests that follow, which a running copy needs.
	After []Request
	// Found is told what a read of it among After answers.
	Found func(answer []byte) error
	// Pull fetches the image where the target has to be told; nil where it does so itself.
	Pull *Request
	// Needs are objects that it refers to, as they are called where it is copied from.
	Needs []Need
	Left  []Left
}

// Need is an object that a copy refers to.
type Need struct {
	ObjectRef
	// Bind tells the draft of the one that is there, as its Get answers it. Nil where a name is enough.
	Bind func(body map[string]any, found []byte) error
	// Drop takes the reference out of the draft; nil where it may stay and wait.
	Drop func(body map[string]any)
	// Optional says that the copy runs without it.
	Optional bool
}

// Left is something that a copy does not have, or has otherwise.
type Left struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
	// Needed says that the copy is of no use without it.
	Needed bool `json:"needed,omitempty"`
}

func (l Left) String() string { return l.Field + ": " + l.Reason }
