// Package session is the handshake between two gateways and the session after it, as a pure state machine: no clock, no
// network, no randomness of its own. Both sides run the same machine, and either or both may begin.
package session

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Step is the machine. The ten steps stand at the arrows; what the peer calls is at the right.
//
//	         Started
//	Idle ──────────────► Greeting ◄───────────────────────────────────────────────┐
//	                     │  1 hello, 2 wait                                       │
//	                     │  3 no answer: hello again, later each time ──┐         │
//	                     │  ▲                                           │         │
//	                     │  └───────────────────────────────────────────┘         │
//	                     │                                                        │
//	       answered      │                       ┌── 4 the peer's hello           │
//	       hello         │                       │   5 answer (in any phase;      │
//	                     ▼                       │     changes nothing)           │
//	6 assemble        Configuring ── refused, stale, no answer to any resend ────►│
//	7 send, resend       │                                                        │
//	                     │ answered              ┌── the peer's configuration,    │
//	10 apply             │                       │   addressed to what we offered │
//	                     ▼                       ▼   8 apply, 9 answer            │
//	                   Joined ◄──────────────────┘   (from any phase but Ended)   │
//	                   │  ▲ heartbeat, changed configuration                      │
//	                   │  └── any message of the session                          │
//	                   ├── silent for Timing.Stale: marked stale, kept            │
//	                   └── silent for Timing.Down, stale, refused, goodbye ──────►┘
//
//	any phase ── Stopping ──► Ended
//
// Why both sides end in one session, whatever the network does:
//
//   - Each side offers one epoch at a time. A session is a pair of epochs, one of each side, and an epoch is spent once
//     a session has it. Two handshakes that cross find the same pair of offered epochs, so they make the same session.
//   - A configuration counts only when it is addressed to the epoch now offered (a new session) or to that of the
//     session held (a change in it). One that was sent to an earlier epoch, or by an earlier boot, is stale.
//   - Within a session only a newer revision is applied, so late and doubled messages change nothing.
//   - Sides that hold different sessions find out by the next heartbeat, and begin again with fresh epochs.
func Step(r Rules, s State, now time.Time, e Event) (State, []Action) {
	m := &machine{rules: r, State: s, now: now}
	m.handle(e)
	return m.State, m.actions
}

// machine is one step under way.
type machine struct {
	State
	rules   Rules
	now     time.Time
	actions []Action
}

func (m *machine) do(a Action) { m.actions = append(m.actions, a) }

// took records a step. A session that is held already does not go back to an earlier step for a doubled message.
func (m *machine) took(step int) {
	m.do(Took{Step: step})
	if m.Phase != Joined || step == 9 || step == 10 {
		m.Step = step
	}
}

func (m *machine) fail(kind FailureKind, format string, args ...any) {
	m.LastError, m.LastErrorAt = fmt.Sprintf(format, args...), m.now
	m.do(Failure{Kind: kind, Detail: m.LastError})
}

func (m *machine) handle(e Event) {
	if m.Phase == Ended {
		m.declineAfterEnd(e)
		return
	}
	switch e := e.(type) {
	case Started:
		if m.Phase == Idle {
			m.Phase, m.Next = Greeting, m.now
		}
	case LocalChanged:
		m.localChanged(e.Configuration)
	case Stopping:
		m.stop(e.Reason)
		return
	case HelloReceived:
		m.helloReceived(e)
	case ConfigureReceived:
		m.configureReceived(e)
	case HeartbeatReceived:
		m.heartbeatReceived(e)
	case GoodbyeReceived:
		m.goodbyeReceived(e)
	case HelloAnswered:
		m.helloAnswered(e.Answer)
	case ConfigureAnswered:
		m.configureAnswered(e.Answer)
	case HeartbeatAnswered:
		m.heartbeatAnswered(e.Answer)
	case Failed:
		if m.Awaited.call != callNone && m.Awaited.Sequence == e.Sequence {
			m.unanswered(e.Reason)
		}
	}
	m.advance()
}

// advance does what is due now: deadlines first, then at most one call.
func (m *machine) advance() {
	if m.Awaited.call != callNone && !m.now.Before(m.Awaited.Until) {
		m.unanswered("no answer within " + m.rules.Timing.Answer.String())
	}
	if m.Phase == Joined {
		silence := m.now.Sub(m.Alive)
		if silence >= m.rules.Timing.Down {
			m.fail(FailedSilence, "silent for %s", silence.Round(time.Millisecond))
			m.leave()
			m.Lost = true
		} else if silence >= m.rules.Timing.Stale {
			m.Stale = true
		}
	}
	if m.rules.Passive || m.Awaited.call != callNone {
		return
	}
	due := !m.now.Before(m.Next)
	switch {
	case m.Phase == Greeting && due:
		m.hello()
	case m.Phase == Configuring && due:
		m.Resent++
		m.configure()
	case m.Phase == Joined && m.untold() && !m.now.Before(m.Changed):
		m.configure()
	case m.Phase == Joined && due:
		m.heartbeat()
	}
}

// await notes the call that is made now.
func (m *machine) await(c call) uint64 {
	m.Sequence++
	m.Awaited = Awaited{call: c, Sequence: m.Sequence, Until: m.now.Add(m.rules.Timing.Answer), revision: m.Local.Revision}
	return m.Sequence
}

// unanswered ends the call that is under way.
func (m *machine) unanswered(reason string) {
	c := m.Awaited.call
	m.Awaited = Awaited{}
	m.Attempt++
	m.Next = m.now.Add(m.rules.backoff(m.Attempt))
	switch c {
	case callHello:
		m.fail(FailedNoAnswer, "hello: %s", reason)
	case callConfigure:
		m.fail(FailedNoAnswer, "configure: %s", reason)
		if m.Phase == Configuring && m.Resent >= m.rules.Timing.Resends {
			m.Phase = Greeting
		}
		m.Changed = m.Next
	case callHeartbeat:
		m.fail(FailedNoAnswer, "heartbeat: %s", reason)
		m.Next = m.now.Add(min(m.rules.backoff(m.Attempt), m.rules.Timing.Heartbeat))
	}
}

// leave drops the session and begins again at once.
func (m *machine) leave() {
	m.Phase, m.Pair, m.Awaited, m.Target = Greeting, Pair{}, Awaited{}, Epoch{}
	m.Stale, m.Pull, m.Known = false, false, 0
	m.Attempt, m.Resent, m.Next = 0, 0, m.now
}

// refuse leaves whatever there is, and tries again at the slowest pace: an admin has to mend something.
func (m *machine) refuse(kind FailureKind, reason string) {
	m.fail(kind, "%s", reason)
	m.leave()
	m.Refusal, m.Departed, m.Lost = reason, false, false
	m.Next = m.now.Add(m.rules.jittered(m.rules.Timing.BackoffMax))
}

// adopt makes pair the session. Steps 8 and 10 end here.
func (m *machine) adopt(pair Pair, c peering.Configuration) {
	m.Offered = pair.Mine.Number + 1
	m.Phase, m.Pair, m.Awaited, m.Target = Joined, pair, Awaited{}, Epoch{}
	m.Attempt, m.Resent, m.Pull = 0, 0, false
	m.Lost, m.Departed, m.Refusal = false, false, ""
	m.Protocol, _ = m.Local.Protocol.Negotiate(c.Protocol)
	m.Next = m.now.Add(m.rules.jittered(m.rules.Timing.Heartbeat))
	m.Changed = m.now
	m.alive()
	m.apply(c)
}

// apply takes the peer's configuration. The same content under another revision is not told again.
func (m *machine) apply(c peering.Configuration) {
	told := m.Peer != nil && !m.Remembered && m.Peer.Same(c)
	m.Peer, m.Remembered = &c, false
	if !told {
		m.do(Apply{Configuration: c})
	}
}

func (m *machine) alive() {
	m.Alive, m.LastSeen, m.Stale = m.now, m.now, false
}

// acceptable holds what the peer says of itself against what its certificate proves and what this side speaks.
func (m *machine) acceptable(c peering.Configuration) (FailureKind, string) {
	if c.Identity != m.rules.Peer {
		return FailedIdentity, fmt.Sprintf("the configuration is of %s, the certificate proves %s", c.Identity, m.rules.Peer)
	}
	return m.speaks(c.Protocol)
}

func (m *machine) speaks(p peering.ProtocolRange) (FailureKind, string) {
	if _, ok := m.Local.Protocol.Negotiate(p); !ok {
		return FailedProtocol, fmt.Sprintf("no common protocol version: here %s to %s, there %s to %s",
			m.Local.Protocol.Oldest, m.Local.Protocol.Current, p.Oldest, p.Current)
	}
	return "", ""
}

// greetable is acceptable for a hello, which claims only a cluster's name.
func (m *machine) greetable(cluster string, p peering.ProtocolRange) (FailureKind, string) {
	if cluster != m.rules.Peer.Cluster {
		return FailedIdentity, fmt.Sprintf("the hello is of cluster %s, the certificate proves %s", cluster, m.rules.Peer)
	}
	return m.speaks(p)
}

func (m *machine) localChanged(c peering.Configuration) {
	if m.Local.Same(c) {
		return
	}
	c.Revision = m.Local.Revision + 1
	m.Local = c
}

func (m *machine) stop(reason string) {
	if m.Phase == Joined && !m.rules.Passive {
		m.Sequence++
		m.do(SendGoodbye{Goodbye{From: m.Pair.Mine, To: m.Pair.Theirs, Sequence: m.Sequence, Reason: reason}})
	}
	m.leave()
	m.Phase, m.Next = Ended, time.Time{}
}

func (m *machine) declineAfterEnd(e Event) {
	var c Call
	switch e := e.(type) {
	case HelloReceived:
		c = e.Call
	case ConfigureReceived:
		c = e.Call
	case HeartbeatReceived:
		c = e.Call
	case GoodbyeReceived:
		c = e.Call
	default:
		return
	}
	m.do(Decline{Call: c, Reason: "this gateway is stopping"})
}
