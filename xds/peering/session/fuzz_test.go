package session

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// FuzzWalk lets two honest sides live through what the bytes choose of all that can happen, far deeper than TestModel
// goes, and then asks for the same: nothing unsafe at any time, and one session once the network is good.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("restart, restart, lose, tick, tick, goodbye, restart, twin, change"))
	f.Add([]byte{9, 200, 31, 7, 7, 7, 90, 2, 14, 250, 3, 3, 8, 61, 17, 5, 5, 44, 120, 33, 2, 1, 0, 77, 13, 6, 99, 4, 18})
	f.Fuzz(func(t *testing.T, choices []byte) {
		m := newModel(t)
		m.stray = len(choices)%2 == 1
		m.rules[1].Passive = len(choices)%3 == 0
		w := m.start(budget{ticks: 40, drops: 12, twins: 8, fails: 6, restarts: 3, guises: 2, changes: 4, goodbyes: 2})
		var path string
		for _, c := range choices[:min(len(choices), 120)] {
			moves := m.moves(w)
			if len(moves) == 0 {
				break
			}
			mv := moves[int(c)%len(moves)]
			path += mv.name + "\n"
			w = mv.next()
			m.safe(w, func() string { return path })
		}
		m.recovers(w, func() string { return path })
	})
}

// FuzzStep sends one side whatever a hostile peer with a good certificate could send, in any order and at any time. It
// may end up refusing the peer, but never in a state that contradicts itself, and each call is answered once.
func FuzzStep(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 1, 1, 1, 1, 1, 0, 1, 2, 1, 1, 1, 1, 1, 0, 2, 3, 1, 1, 1, 1, 1, 0, 3, 4, 1, 1, 1, 1, 1, 0})
	f.Add([]byte("hello configure heartbeat goodbye, and what a liar says: hello configure heartbeat goodbye"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newModel(t)
		m.hostile = true
		s := side{state: New("west-1", modelConfiguration(0, neutral.Docker), nil)}
		s.state, _ = Step(m.rules[0], s.state, modelEpoch, Started{})
		for call := Call(1); len(data) >= 8 && call < 200; call++ {
			e := hostile(data[:8], s.state, call)
			s.now += time.Duration(data[7]) * 100 * time.Millisecond
			data = data[8:]
			before, now := s.state, modelEpoch.Add(s.now)
			var actions []Action
			s.state, actions = Step(m.rules[0], s.state, now, e)
			m.check(before, s, now, e)
			if got, want := answered(actions, call), asks(e); got != want {
				t.Fatalf("after %+v: %d answers, want %d: %+v", e, got, want, actions)
			}
			if s.state.Phase == Joined && s.state.Peer.Identity != m.rules[0].Peer {
				t.Fatalf("joined with %s", s.state.Peer.Identity)
			}
		}
	})
}

// hostile makes an event of eight bytes. Epochs, boots and sequences are near what the side knows, so that they often
// match.
func hostile(b []byte, s State, call Call) Event {
	near := func(b byte) Epoch {
		switch b % 6 {
		case 0:
			return s.Pair.Theirs
		case 1:
			return s.Target
		case 2:
			return s.Pair.Mine
		case 3:
			return Epoch{Boot: s.Boot, Number: s.Offered}
		}
		return Epoch{Boot: fmt.Sprint("east-", b%3), Number: uint64(b % 5)}
	}
	from, to := near(b[1]), near(b[2])
	seq := s.Sequence - uint64(b[3]%2)
	c := modelConfiguration(1, modelTypes[b[4]%2])
	c.Revision = 1 + uint64(b[5]%8)
	cluster := "east"
	if b[6]%8 == 0 {
		c.Identity.Cluster, cluster = "north", "north"
	}
	if b[6]%8 == 1 {
		c.Protocol.Oldest.Major, c.Protocol.Current.Major = 2, 2
	}
	outcome := Outcome(1 + b[6]/8%4) // one beyond what is known
	n := uint64(binary.BigEndian.Uint16(b[4:]))
	switch b[0] % 11 {
	case 0:
		return HelloReceived{call, Hello{From: from, Sequence: n, Cluster: cluster, Protocol: c.Protocol}}
	case 1:
		return ConfigureReceived{call, Configure{From: from, To: to, Sequence: n, Configuration: c}}
	case 2:
		return HeartbeatReceived{call, Heartbeat{From: from, To: to, Sequence: n, Revision: n, Holds: n >> 8}}
	case 3:
		return GoodbyeReceived{call, Goodbye{From: from, To: to, Sequence: n}}
	case 4:
		return HelloAnswered{HelloAnswer{Sequence: seq, Outcome: outcome, From: from, Cluster: cluster, Protocol: c.Protocol}}
	case 5:
		return ConfigureAnswered{ConfigureAnswer{Sequence: seq, Outcome: outcome, From: from, To: to, Configuration: c}}
	case 6:
		return HeartbeatAnswered{HeartbeatAnswer{Sequence: seq, Outcome: outcome, Revision: n, Holds: n >> 8}}
	case 7:
		return Failed{Sequence: seq, Reason: "reset"}
	case 8:
		return LocalChanged{modelConfiguration(0, modelTypes[b[4]%2])}
	case 9:
		if b[1] == 0 {
			return Stopping{}
		}
	}
	return Tick{}
}

// asks is how many answers an event calls for.
func asks(e Event) int {
	switch e.(type) {
	case HelloReceived, ConfigureReceived, HeartbeatReceived, GoodbyeReceived:
		return 1
	}
	return 0
}

func answered(actions []Action, call Call) int {
	n := 0
	for _, a := range actions {
		var c Call
		switch a := a.(type) {
		case AnswerHello:
			c = a.Call
		case AnswerConfigure:
			c = a.Call
		case AnswerHeartbeat:
			c = a.Call
		case AnswerGoodbye:
			c = a.Call
		case Decline:
			c = a.Call
		default:
			continue
		}
		if c == call {
			n++
		} else {
			n += 100 // an answer to nobody
		}
	}
	return n
}
