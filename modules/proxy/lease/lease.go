// Package lease keeps the switches of network modes that are under way: what was changed for whom, until when, and how it
// is given back. The journal of a switch is written before each touch of the orchestrator, to the gateway's state, so that
// whoever comes after a crash, this replica or another, brings the target back.
package lease

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Kind is where leases are kept. What a dialect remembers of a container has its environment, which may hold secrets.
var Kind = state.Kind{Name: "switches", File: "switches/*.json", Secret: true}

// Phase is how far a lease is.
type Phase string

// The phases. A lease that has ended is not there any more.
const (
	Switching Phase = "switching" // its target is on the way into the new mode
	Serving   Phase = "serving"   // its target runs in the new mode
	Restoring Phase = "restoring" // its target is on the way back
	Keeping   Phase = "keeping"   // its target stays in the new mode, and what was kept for its way back goes
)

// Lease is one switch, as the journal has it.
type Lease struct {
	ID     string              `json:"id"`
	Target string              `json:"target"` // <namespace>/<name>, as it was asked for
	Ref    neutral.TargetRef   `json:"ref"`
	Now    neutral.TargetRef   `json:"now"` // where it is since it was switched
	Need   neutral.NetworkNeed `json:"need"`
	Plan   neutral.SwitchPlan  `json:"plan"`
	Peer   string              `json:"peer"` // who holds it
	Caller string              `json:"caller,omitempty"`
	Phase  Phase               `json:"phase"`
	Step   string              `json:"step,omitempty"` // that was begun last
	Since  time.Time           `json:"since"`
	Until  time.Time           `json:"until"` // it ends then, unless it is renewed
	Most   time.Time           `json:"most"`  // it is not renewed beyond
	// Away is how long the target was away when it was switched.
	Away     time.Duration `json:"away,omitempty"`
	Released bool          `json:"released,omitempty"` // an admin has ended it
	Failure  string        `json:"failure,omitempty"`  // what hinders it
	Replica  string        `json:"replica"`            // that acts
	Term     uint64        `json:"term"`               // grows with each replica that takes it over
}

// key is the name of the record of an object's lease. An object has one at a time.
func key(o neutral.Object) state.Key {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(o.Kind), o.Resource, o.Namespace, o.Name}, "\x00")))
	return Kind.Key(hex.EncodeToString(sum[:12]))
}

// newID names a lease in the orchestrator as well.
func newID() string { return strings.ToLower(rand.Text()[:10]) }

func (l *Lease) key() state.Key { return key(l.Plan.Object) }

// mode is the one that the lease's target is to run in.
func (l *Lease) mode() neutral.NetworkMode { return l.Plan.To }

// fits tells whether a need is served in the lease's mode.
func (l *Lease) fits(need neutral.NetworkNeed) bool {
	return need.Mode == "" || need.Mode == l.mode() || bridged(need.Mode) && bridged(l.mode())
}

// bridged tells of the two words for a network of the container's own.
func bridged(mode neutral.NetworkMode) bool {
	return mode == neutral.NetworkBridge || mode == neutral.NetworkPod
}

// refuse is the answer to who needs another mode. The holder may have named another container of the same workload.
func (l *Lease) refuse(wish Wish) error {
	holder := "another peer"
	if wish.Peer == l.Peer {
		holder = "peer " + l.Peer
		if l.Caller != "" {
			holder = "caller " + l.Caller + " of " + holder
		}
	}
	return fault.New(fault.Conflict, "container %s runs in network mode %s for %s until %s, and in no other before",
		wish.Target, l.mode(), holder, l.Until.UTC().Format(time.RFC3339))
}

func (l *Lease) encode() ([]byte, error) { return json.MarshalIndent(l, "", "  ") }

func decode(record state.Record) (Lease, error) {
	var l Lease
	if err := json.Unmarshal(record.Value, &l); err != nil {
		return l, fault.Wrap(fault.Internal, err, "the journal of a network switch, %s, is damaged", record.Key)
	}
	return l, nil
}
