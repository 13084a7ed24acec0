// Package freezer is how containers of Kubernetes are frozen, which its API has no call for: what a gateway wishes, what
// the agent of a node answers, and what the agent does next. It knows no orchestrator and no runtime.
//
// A gateway writes its wishes into an annotation of the Pod, and the Pod's agent answers in a condition of its status,
// which only accounts with a right to pods/status write. What an agent froze it knows by a mark that it keeps with the
// container in the runtime, where nobody writes who has no right to the node itself.
package freezer

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"time"
)

// What gateway and agent meet in.
const (
	Annotation = "isthmus.io/freeze" // of a Pod: Wishes
	Condition  = "isthmus.io/Frozen" // of a Pod's status: its message is a Report

	// Namespace is where the leases are by which agents say that they are there, unless it is told otherwise.
	Namespace = "isthmus-agent"
	// LeasePrefix and a node's name are the name of the lease by which the node's agent says that it is there.
	LeasePrefix = "isthmus-agent-"
	// LeaseLifetime is how long an agent that says nothing is believed to be there.
	LeaseLifetime = 15 * time.Second
	// WishLifetime is how old a wish may be when an agent first sees it; the clocks of nodes may differ by as much.
	WishLifetime = 30 * time.Second
)

// Wish asks that one container stands still.
type Wish struct {
	ID string `json:"id"` // of this wish; 32 hex digits
	// Instance is the container as the kubelet tells its id, "containerd://...". One that was started anew since is
	// not meant any more. It names nothing to the agent, which takes ids from the Pod's status.
	Instance string `json:"instance"`
	// At is when it was written. One that no agent has answered within WishLifetime is over: whoever wrote it has gone.
	At time.Time `json:"at"`
}

// Wishes are those for the containers of a Pod, by the containers' names. To thaw one is to take its wish away.
type Wishes map[string]Wish

// State is how a container is, for an agent.
type State string

// The states. A container that is in none of them runs on, and no wish asks for anything else.
const (
	Frozen  State = "frozen"
	Refused State = "refused" // it will not be frozen, for the reason that is given
	Resumed State = "resumed" // it was frozen, and somebody else made it go on
	Ended   State = "ended"   // what the wish names does not run any more
)

// Answer is an agent's, about one container.
type Answer struct {
	Wish     string    `json:"wish"`
	Instance string    `json:"instance"`
	State    State     `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

// Report has the answers about a Pod's containers, by their names.
type Report map[string]Answer

// limit bounds what is read of an annotation or a condition. A Pod has few containers.
const limit = 64 << 10

var (
	wishID    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	instance  = regexp.MustCompile(`^containerd://[0-9a-f]{64}$`)
	container = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// ParseWishes reads an annotation; "" is no wish.
func ParseWishes(text string) (Wishes, error) {
	if text == "" {
		return nil, nil
	}
	var wishes Wishes
	if err := decode(text, &wishes); err != nil {
		return nil, err
	}
	for name, w := range wishes {
		if !container.MatchString(name) || !wishID.MatchString(w.ID) || !instance.MatchString(w.Instance) {
			return nil, fmt.Errorf("the wish for container %.80q is not valid", name)
		}
	}
	return wishes, nil
}

// ParseReport reads a condition's message; "" is a report about nothing.
func ParseReport(text string) (Report, error) {
	if text == "" {
		return nil, nil
	}
	var report Report
	if err := decode(text, &report); err != nil {
		return nil, err
	}
	for name, a := range report {
		switch a.State {
		case Frozen, Refused, Resumed, Ended:
		default:
			return nil, fmt.Errorf("the answer about container %.80q is not valid", name)
		}
	}
	return report, nil
}

func decode(text string, into any) error {
	if len(text) > limit {
		return fmt.Errorf("%d bytes are too many", len(text))
	}
	return json.Unmarshal([]byte(text), into)
}

// String writes the annotation; "" for no wish.
func (w Wishes) String() string {
	if len(w) == 0 {
		return ""
	}
	text, _ := json.Marshal(w) // strings only
	return string(text)
}

// String writes the condition's message. It is never empty: a patch would leave the one before.
func (r Report) String() string {
	if len(r) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(r) // a time of a year with four digits
	return string(text)
}

// Frozen tells whether any container stands still.
func (r Report) Frozen() bool {
	for _, a := range r {
		if a.State == Frozen {
			return true
		}
	}
	return false
}

// After gives the report with the times of the one before where nothing has changed since.
func (r Report) After(before Report) Report {
	next := maps.Clone(r)
	for name, a := range next {
		if b, ok := before[name]; ok && a.Wish == b.Wish && a.Instance == b.Instance && a.State == b.State {
			a.Since = b.Since
			next[name] = a
		}
	}
	return next
}

// Equal compares two reports, times included.
func (r Report) Equal(other Report) bool {
	return maps.EqualFunc(r, other, func(a, b Answer) bool {
		return a.Wish == b.Wish && a.Instance == b.Instance && a.State == b.State && a.Reason == b.Reason && a.Since.Equal(b.Since)
	})
}
