// Package policy decides who may do what: it compiles AccessPolicy documents into an engine that answers per request,
// before and after the object of the request is known. Nothing is allowed that no policy allows.
package policy

import (
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Request is what a decision is about.
//
// Kind and Resource of the object are known from a request's head. Before the object was looked up, its Namespace and
// Name may be empty and its Labels and Container nil: Check takes these as unknown. Decide takes Namespace and Name as
// they are: an empty namespace is an object outside all namespaces, or a list over all of them, and is matched only by
// rules for any namespace. An object without labels has an empty map, not nil.
type Request struct {
	Peer   string
	Caller string // "" when the peer does not say
	Groups modules.Groups
	Verb   neutral.Verb
	Object neutral.Object
}

// String is the request in words, "peer west (caller ci-1): destroy container team-a/web".
func (r Request) String() string {
	var b strings.Builder
	b.WriteString("peer " + word(r.Peer))
	if r.Caller != "" {
		b.WriteString(" (caller " + r.Caller)
		if r.Groups != "" {
			b.WriteString(" of " + listed(r.Groups))
		}
		b.WriteString(")")
	}
	b.WriteString(": " + word(string(r.Verb)) + " " + subject(r.Object))
	return b.String()
}

// inGroups tells an admin of the caller's groups; nothing where it has none.
func (r *Request) inGroups() string {
	if r.Groups == "" {
		return ""
	}
	return ", in " + listed(r.Groups)
}

func listed(groups modules.Groups) string {
	names := groups.List()
	if !groups.Whole() {
		names = append(names, "others that the peer could not tell")
	}
	return strings.Join(names, ", ")
}

func subject(o neutral.Object) string {
	var b strings.Builder
	b.WriteString(word(string(o.Kind)))
	if o.Resource != "" {
		b.WriteString(" (" + o.Resource + ")")
	}
	switch {
	case o.Namespace != "" && o.Name != "":
		b.WriteString(" " + o.Namespace + "/" + o.Name)
	case o.Namespace != "":
		b.WriteString(" in namespace " + o.Namespace)
	case o.Name != "":
		b.WriteString(" " + o.Name)
	}
	return b.String()
}

func word(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// Options are how an allowed operation is done, by the policy that allows it. The zero Options are not valid; a denial
// carries the strictest.
type Options struct {
	Pause         manifest.PauseMode
	NetworkMode   manifest.AccessMode
	NetworkSwitch manifest.SwitchMode
	Addresses     manifest.AddressMode
}

// strictest are the options of a request that nothing allows.
var strictest = Options{Pause: manifest.PauseRefuse, NetworkMode: manifest.AccessAny, NetworkSwitch: manifest.SwitchNever, Addresses: manifest.AddressesHide}

// Decision is the answer to a request whose object is known.
type Decision struct {
	Allow   bool
	Rule    string // the rule that allows, "west-ci/0"; "" for a denial
	Reason  string // for audit and the admin; it names policies, so it is not for the caller
	Options Options
}

// Fault is a denial for the caller, who learns no more than what it asked. It is nil for a permission.
func (d Decision) Fault(r Request) error {
	if d.Allow {
		return nil
	}
	who := "peer " + word(r.Peer)
	if r.Caller != "" {
		who = "caller " + r.Caller + " of peer " + word(r.Peer)
	}
	f := fault.New(fault.Denied, "no policy of this cluster allows %s to %s %s", who, word(string(r.Verb)), subject(r.Object))
	f.Cause = cause(d.Reason)
	return f
}

// cause is a denial's reason as the cause of its fault, which only logs see.
type cause string

func (c cause) Error() string { return string(c) }

// Outcome is the answer to a request whose object may not be known yet.
type Outcome uint8

// The outcomes.
const (
	Deny        Outcome = iota // whatever the object is
	Allow                      // whatever the object is
	NeedsObject                // Decide must be asked once the object is known; for a list, for each of its items
)

// String is the outcome's name.
func (o Outcome) String() string {
	switch o {
	case Deny:
		return "deny"
	case Allow:
		return "allow"
	case NeedsObject:
		return "needs-object"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}
