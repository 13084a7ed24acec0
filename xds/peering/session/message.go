package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Epoch is one side's half of a session: a start of its process, and which of the sessions that it offered since. An
// epoch belongs to at most one session, so a message for another session is told apart however late it comes.
type Epoch struct {
	Boot   string
	Number uint64
}

// Pair is a session: both sides' epochs. The zero Pair is none.
type Pair struct{ Mine, Theirs Epoch }

// ID is the same on both sides of a session, and another one for each session; "" for none.
func (p Pair) ID() string {
	if p == (Pair{}) {
		return ""
	}
	ends := []string{fmt.Sprint(p.Mine.Boot, "/", p.Mine.Number), fmt.Sprint(p.Theirs.Boot, "/", p.Theirs.Number)}
	slices.Sort(ends)
	sum := sha256.Sum256([]byte(strings.Join(ends, " ")))
	return hex.EncodeToString(sum[:6])
}

// Outcome is what came of a call.
type Outcome int

// The outcomes.
const (
	Accepted Outcome = iota + 1
	Stale            // addressed to a session that the receiver does not hold
	Refused          // the receiver will not peer with what the sender says it is
)

// Hello says who is there.
type Hello struct {
	From     Epoch
	Sequence uint64
	Cluster  string
	Protocol peering.ProtocolRange
}

// HelloAnswer names the epoch that a configuration is to be addressed to.
type HelloAnswer struct {
	Sequence uint64
	Outcome  Outcome
	Reason   string
	From     Epoch
	Cluster  string
	Protocol peering.ProtocolRange
}

// Configure brings a configuration.
type Configure struct {
	From, To      Epoch
	Sequence      uint64
	Configuration peering.Configuration
}

// ConfigureAnswer tells what came of it and, when it was accepted, the answering side's own configuration.
type ConfigureAnswer struct {
	Sequence      uint64
	Outcome       Outcome
	Reason        string
	From, To      Epoch
	Configuration peering.Configuration
}

// Heartbeat tells that the sender still holds the session.
type Heartbeat struct {
	From, To Epoch
	Sequence uint64
	Revision uint64 // of the sender's own configuration
	Holds    uint64 // revision of the receiver's configuration that the sender holds
}

// HeartbeatAnswer tells whether the receiver holds it as well.
type HeartbeatAnswer struct {
	Sequence uint64
	Outcome  Outcome
	Revision uint64
	Holds    uint64 // 0 while the receiver waits for the answer to its own configuration
}

// Goodbye ends a session.
type Goodbye struct {
	From, To Epoch
	Sequence uint64
	Reason   string
}

// Call stands for one call that the peer made and waits on; its answer names it again.
type Call uint64

// Event is something that happened. The named structs below are all there are.
type Event interface{ event() }

// The events.
type (
	// Started is the first event of a session.
	Started struct{}
	// Tick is time that passed; due whenever State.Wake is reached, harmless at any other time.
	Tick struct{}
	// LocalChanged brings what this gateway now says of itself.
	LocalChanged struct{ Configuration peering.Configuration }
	// Stopping ends the session for good.
	Stopping struct{ Reason string }

	// HelloReceived is a call of the peer, as are its three fellows. The stream has held the caller's certificate
	// against the peer's identity before.
	HelloReceived struct {
		Call  Call
		Hello Hello
	}
	// ConfigureReceived is a call of the peer.
	ConfigureReceived struct {
		Call      Call
		Configure Configure
	}
	// HeartbeatReceived is a call of the peer.
	HeartbeatReceived struct {
		Call      Call
		Heartbeat Heartbeat
	}
	// GoodbyeReceived is a call of the peer.
	GoodbyeReceived struct {
		Call    Call
		Goodbye Goodbye
	}

	// HelloAnswered is the peer's answer to a call of this side.
	HelloAnswered struct{ Answer HelloAnswer }
	// ConfigureAnswered is the peer's answer to a call of this side.
	ConfigureAnswered struct{ Answer ConfigureAnswer }
	// HeartbeatAnswered is the peer's answer to a call of this side.
	HeartbeatAnswered struct{ Answer HeartbeatAnswer }
	// Failed says that the call of that sequence brought no answer and never will.
	Failed struct {
		Sequence uint64
		Reason   string
	}
)

func (Started) event()           {}
func (Tick) event()              {}
func (LocalChanged) event()      {}
func (Stopping) event()          {}
func (HelloReceived) event()     {}
func (ConfigureReceived) event() {}
func (HeartbeatReceived) event() {}
func (GoodbyeReceived) event()   {}
func (HelloAnswered) event()     {}
func (ConfigureAnswered) event() {}
func (HeartbeatAnswered) event() {}
func (Failed) event()            {}

// Action is something to do. The named structs below are all there are.
type Action interface{ action() }

// The actions.
type (
	// SendHello is a call to make. Whoever makes it gives the answer, or Failed, back; so with the next two.
	SendHello struct{ Hello Hello }
	// SendConfigure is a call to make.
	SendConfigure struct{ Configure Configure }
	// SendHeartbeat is a call to make.
	SendHeartbeat struct{ Heartbeat Heartbeat }
	// SendGoodbye is a call to make, whose answer nobody waits for.
	SendGoodbye struct{ Goodbye Goodbye }

	// AnswerHello answers a call of the peer.
	AnswerHello struct {
		Call   Call
		Answer HelloAnswer
	}
	// AnswerConfigure answers a call of the peer.
	AnswerConfigure struct {
		Call   Call
		Answer ConfigureAnswer
	}
	// AnswerHeartbeat answers a call of the peer.
	AnswerHeartbeat struct {
		Call   Call
		Answer HeartbeatAnswer
	}
	// AnswerGoodbye answers a call of the peer.
	AnswerGoodbye struct {
		Call     Call
		Sequence uint64
	}
	// Decline ends a call of the peer without an answer.
	Decline struct {
		Call   Call
		Reason string
	}

	// Apply says that the peer's configuration is another one now.
	Apply struct{ Configuration peering.Configuration }
	// Took counts one of the ten steps.
	Took struct{ Step int }
	// Failure says that something went wrong, for metrics and logs.
	Failure struct {
		Kind   FailureKind
		Detail string
	}
)

func (SendHello) action()       {}
func (SendConfigure) action()   {}
func (SendHeartbeat) action()   {}
func (SendGoodbye) action()     {}
func (AnswerHello) action()     {}
func (AnswerConfigure) action() {}
func (AnswerHeartbeat) action() {}
func (AnswerGoodbye) action()   {}
func (Decline) action()         {}
func (Apply) action()           {}
func (Took) action()            {}
func (Failure) action()         {}

// FailureKind is why something went wrong, as a metric's label.
type FailureKind string

// The failures.
const (
	FailedNoAnswer  FailureKind = "no-answer" // a call failed or its deadline passed
	FailedStale     FailureKind = "stale"     // one side no longer holds the session
	FailedRefused   FailureKind = "refused"   // the peer refuses us
	FailedIdentity  FailureKind = "identity"  // the peer claims to be another than its certificate proves
	FailedProtocol  FailureKind = "protocol"  // no version that both speak
	FailedSilence   FailureKind = "silence"   // no heartbeat for longer than Timing.Down
	FailedMalformed FailureKind = "malformed" // an answer that does not belong to the question
)
