package session

import (
	"errors"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Timing is how long things take and may take.
type Timing struct {
	Answer     time.Duration // a call's deadline
	BackoffMin time.Duration // after the first hello without an answer; doubles with each
	BackoffMax time.Duration
	Heartbeat  time.Duration // between two heartbeats
	Stale      time.Duration // of silence: the peer is marked stale, the session is kept
	Down       time.Duration // of silence: the session is over, the handshake begins again
	Settle     time.Duration // between two changes of the own configuration that are told in a session
	Resends    int           // of a configuration whose answer was lost, before it is hello again
}

// DefaultTiming marks a silent peer stale after 15 seconds and down after 30.
func DefaultTiming() Timing {
	return Timing{
		Answer:     4 * time.Second,
		BackoffMin: 500 * time.Millisecond,
		BackoffMax: 30 * time.Second,
		Heartbeat:  5 * time.Second,
		Stale:      15 * time.Second,
		Down:       30 * time.Second,
		Settle:     500 * time.Millisecond,
		Resends:    2,
	}
}

// Rules are what does not change while a session runs.
type Rules struct {
	Peer    peering.Identity // whom the certificate must prove and the configuration must claim
	Passive bool             // never call, only answer
	Timing  Timing
	// Jitter is a fraction in [0, 1) that spreads what would else happen at once. Nil is no jitter.
	Jitter func() float64
}

// jittered is between half of d and d.
func (r Rules) jittered(d time.Duration) time.Duration {
	if r.Jitter == nil {
		return d
	}
	return d/2 + time.Duration(float64(d/2)*r.Jitter())
}

// backoff is the pause before an attempt; attempts count from 1.
func (r Rules) backoff(attempt int) time.Duration {
	d := r.Timing.BackoffMin
	for ; attempt > 1 && d < r.Timing.BackoffMax; attempt-- {
		d *= 2
	}
	return r.jittered(min(d, r.Timing.BackoffMax))
}

// Phase is where a session is.
type Phase int

// The phases, as drawn above Step.
const (
	Idle Phase = iota
	Greeting
	Configuring
	Joined
	Ended
)

// call is what this side waits on; one at a time.
type call int

const (
	callNone call = iota
	callHello
	callConfigure
	callHeartbeat
)

// Awaited is the one call of this side that is under way.
type Awaited struct {
	call     call
	Sequence uint64
	Until    time.Time
	revision uint64 // of the own configuration that the call carries
}

// State is all that a session knows. It is a value: Step returns another one.
type State struct {
	Phase Phase
	Boot  string
	Step  int // the last of the ten that was taken

	// Local is what this side says of itself; Peer what the other said last, nil for nothing. Remembered is true while
	// Peer comes from before this boot.
	Local      peering.Configuration
	Peer       *peering.Configuration
	Remembered bool
	Protocol   peering.ProtocolVersion

	Pair     Pair   // the session; zero unless Joined
	Offered  uint64 // the epoch that the next session will have
	Target   Epoch  // Configuring: the peer's offered epoch
	Sequence uint64 // of the last message
	Awaited  Awaited
	Next     time.Time // when to call again
	Attempt  int       // calls without an answer since the last success
	Resent   int       // Configuring: of the configuration

	Alive   time.Time // Joined: when the peer was last heard in this session
	Stale   bool      // Joined: silent for longer than Timing.Stale
	Known   uint64    // Joined: the revision of Local that the peer holds, as far as is known
	Pull    bool      // Joined: the peer has a newer configuration than Peer
	Changed time.Time // Joined: when the next change may be told

	Lost     bool   // was joined and fell silent
	Departed bool   // the peer said goodbye
	Refusal  string // why one side will not peer; "" for no refusal

	LastSeen    time.Time // any message of the peer
	LastError   string
	LastErrorAt time.Time
}

// New is a session before Started. boot is random for each start of the process, 32 hexadecimal digits; remembered is
// what the peer said before, nil for nothing.
func New(boot string, local peering.Configuration, remembered *peering.Configuration) State {
	local.Revision = 1
	return State{Boot: boot, Local: local, Peer: remembered, Remembered: remembered != nil, Offered: 1}
}

// Condition is the session in one word.
func (s State) Condition() peering.Condition {
	switch {
	case s.Phase == Ended:
		return peering.Stopped
	case s.Phase == Joined && s.Stale:
		return peering.Stale
	case s.Phase == Joined:
		return peering.Ready
	case s.Refusal != "":
		return peering.Refused
	case s.Departed:
		return peering.Departed
	case s.Lost:
		return peering.Down
	}
	return peering.Connecting
}

// Wake is when the next Tick is due; zero for never.
func (s State) Wake(r Rules) time.Time {
	if s.Phase == Idle || s.Phase == Ended {
		return time.Time{}
	}
	var wake time.Time
	sooner := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	switch {
	case s.Awaited.call != callNone:
		sooner(s.Awaited.Until)
	case !r.Passive:
		sooner(s.Next)
		if s.Phase == Joined && s.untold() {
			sooner(s.Changed)
		}
	}
	if s.Phase == Joined {
		if !s.Stale {
			sooner(s.Alive.Add(r.Timing.Stale))
		}
		sooner(s.Alive.Add(r.Timing.Down))
	}
	return wake
}

// untold tells whether the two sides hold configurations of each other that are not the newest.
func (s State) untold() bool { return s.Known < s.Local.Revision || s.Pull }

func (s State) mine() Epoch { return Epoch{Boot: s.Boot, Number: s.Offered} }

// Validate tells what makes a Timing useless.
func (t Timing) Validate() error {
	switch {
	case t.Answer <= 0, t.BackoffMin <= 0, t.Heartbeat <= 0, t.Settle < 0, t.Resends < 0:
		return errors.New("timing: answer, backoff and heartbeat must be above 0")
	case t.BackoffMax < t.BackoffMin:
		return errors.New("timing: the longest backoff is below the shortest")
	case t.Stale <= t.Heartbeat+t.Answer:
		return errors.New("timing: a peer would be stale before a heartbeat can be answered")
	case t.Down <= t.Stale:
		return errors.New("timing: a peer would be down before it is stale")
	}
	return nil
}
