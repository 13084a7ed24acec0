package session

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// The model is both sides and the network between them. Every interleaving of what can happen is walked to a depth:
// each message in flight may arrive in any order, arrive twice or be lost; each side's clock may reach what it waits
// for; calls may fail at once, before they arrive or after; sides may be restarted, also as another type or in a guise,
// change their type, or say goodbye. In each state that is reached nothing unsafe may hold, and from each of them a
// network that is good again, and an admin who mends what is wrong, must bring both sides into one session.

// world is one state of the model. It is copied by value but for net.
type world struct {
	sides [2]side
	net   []packet
	left  budget
}

// side is one gateway. Each has a clock of its own.
type side struct {
	state State
	now   time.Duration
	boots int
	// said is which type each boot said at each revision.
	said map[string]neutral.Orchestrator
	// newest is the newest boot of the peer that this boot was in session with.
	newest string
}

// packet is a message in flight.
type packet struct {
	to    int
	event Event
	// caller is the boot whose call this is part of: an answer arrives there and nowhere else.
	caller string
	key    string // equal for equal packets
}

// budget is how often each thing that is not an arrival may happen, from here on.
type budget struct{ ticks, drops, twins, fails, restarts, guises, changes, goodbyes int }

var (
	modelEpoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	modelTiming = DefaultTiming()
	modelNames  = [2]string{"west", "east"}
	modelTypes  = [2]neutral.Orchestrator{neutral.Docker, neutral.Kubernetes}
)

func modelIdentity(i int) peering.Identity {
	return peering.Identity{TrustDomain: modelNames[i] + ".isthmus.internal", Cluster: modelNames[i]}
}

func modelConfiguration(i int, o neutral.Orchestrator) peering.Configuration {
	return peering.Configuration{Identity: modelIdentity(i), Orchestrator: peering.Orchestrator{Type: o}, Protocol: peering.Protocol}
}

// model is what does not change while it is walked.
type model struct {
	t     testing.TB
	rules [2]Rules
	// stray lets answers to an earlier boot arrive at a later one, which gRPC rules out.
	stray bool
	// fairly is while a good network runs, where nothing is compared.
	fairly bool
	// hostile is a peer that lies about its boots.
	hostile bool
}

func newModel(t testing.TB) model {
	var m model
	m.t = t
	for i := range m.rules {
		m.rules[i] = Rules{Peer: modelIdentity(1 - i), Timing: modelTiming}
	}
	return m
}

func (m model) start(left budget) world {
	w := world{left: left}
	for i := range w.sides {
		w = m.boot(w, i, modelTypes[i])
	}
	return w
}

// join runs a good network until both sides are in session and nothing is in flight.
func (m model) join(w world) world {
	for !m.settled(w) || len(w.net) > 0 {
		w, _ = m.fair(w)
	}
	return w
}

// boot starts a side, or starts it again: it remembers what the peer said, and nothing else.
func (m model) boot(w world, i int, o neutral.Orchestrator) world {
	return m.bootAs(w, i, modelConfiguration(i, o))
}

func (m model) bootAs(w world, i int, c peering.Configuration) world {
	s := &w.sides[i]
	remembered := s.state.Peer
	s.boots++
	s.newest = ""
	s.state = New(fmt.Sprintf("%s-%d", modelNames[i], s.boots), c, remembered)
	s.note()
	return m.step(w, i, Started{})
}

// note records what a side now says of itself.
func (s *side) note() {
	said := make(map[string]neutral.Orchestrator, len(s.said)+1)
	for k, v := range s.said {
		said[k] = v
	}
	said[saidKey(s.state.Boot, s.state.Local.Revision)] = s.state.Local.Orchestrator.Type
	s.said = said
}

func saidKey(boot string, revision uint64) string { return fmt.Sprint(boot, "/", revision) }

// arrive lets a packet reach its side.
func (m model) arrive(w world, p packet) world {
	switch p.event.(type) {
	case HelloAnswered, ConfigureAnswered, HeartbeatAnswered:
		if !m.stray && p.caller != w.sides[p.to].state.Boot {
			return w
		}
	}
	return m.stepFor(w, p.to, p.event, p.caller)
}

// step lets an event that is no packet happen to a side.
func (m model) step(w world, i int, e Event) world { return m.stepFor(w, i, e, "") }

// stepFor lets an event happen to a side, and sends what it makes the side send: answers to caller, calls as its own.
func (m model) stepFor(w world, i int, e Event, caller string) world {
	s := &w.sides[i]
	now := modelEpoch.Add(s.now)
	before := s.state
	var actions []Action
	s.state, actions = Step(m.rules[i], s.state, now, e)
	m.check(before, *s, now, e)
	if s.state.Phase == Joined {
		s.newest = s.state.Pair.Theirs.Boot
	}
	if s.state.Local.Revision != before.Local.Revision {
		s.note()
	}
	for _, a := range actions {
		event, answer := eventOf(a)
		if event == nil {
			continue
		}
		p := packet{to: 1 - i, event: event, caller: s.state.Boot}
		if answer {
			p.caller = caller
		}
		if !m.fairly {
			p.key = fmt.Sprintf("%d%s%T%v", p.to, p.caller, p.event, p.event)
		}
		w.net = append(w.net[:len(w.net):len(w.net)], p)
	}
	return w
}

// eventOf is what an action is at the other side; nil for one that the other side does not see.
func eventOf(a Action) (e Event, answer bool) {
	switch a := a.(type) {
	case SendHello:
		return HelloReceived{Hello: a.Hello}, false
	case SendConfigure:
		return ConfigureReceived{Configure: a.Configure}, false
	case SendHeartbeat:
		return HeartbeatReceived{Heartbeat: a.Heartbeat}, false
	case SendGoodbye:
		return GoodbyeReceived{Goodbye: a.Goodbye}, false
	case AnswerHello:
		return HelloAnswered{Answer: a.Answer}, true
	case AnswerConfigure:
		return ConfigureAnswered{Answer: a.Answer}, true
	case AnswerHeartbeat:
		return HeartbeatAnswered{Answer: a.Answer}, true
	}
	return nil, false
}

// check is what must hold of a side after every step.
func (m model) check(before State, s side, now time.Time, e Event) {
	fail := func(format string, args ...any) {
		m.t.Helper()
		m.t.Fatalf("after %T %+v\nbefore %+v\nafter  %+v\n%s", e, e, before, s.state, fmt.Sprintf(format, args...))
	}
	a := s.state
	if (a.Pair != Pair{}) != (a.Phase == Joined) {
		fail("phase %d with session %+v", a.Phase, a.Pair)
	}
	if a.Offered < before.Offered {
		fail("an epoch is offered again")
	}
	if a.Phase == Joined {
		switch {
		case a.Pair.Mine.Boot != a.Boot, a.Pair.Mine.Number >= a.Offered:
			fail("the session's epoch is still on offer")
		case a.Pair != before.Pair && a.Pair.Mine.Number < before.Offered:
			fail("an epoch is used twice")
		case a.Peer.Revision < 1:
			fail("joined without a configuration")
		case before.Phase == Joined && a.Peer.Revision < before.Peer.Revision &&
			(a.Pair == before.Pair || !m.hostile && a.Pair.Theirs.Boot == before.Pair.Theirs.Boot):
			fail("an older configuration took a newer one's place")
		// Boots are west-1, west-2 ...; the walks do not get to west-10.
		case !m.hostile && a.Pair.Theirs.Boot < s.newest:
			fail("an earlier boot took the place of a later one")
		}
	}
	if wake := a.Wake(m.rulesOf(a)); !wake.IsZero() && !wake.After(now) {
		fail("it wants to wake at %s, which is over: it would spin", wake)
	}
}

func (m model) rulesOf(s State) Rules {
	if strings.HasPrefix(s.Boot, modelNames[0]) {
		return m.rules[0]
	}
	return m.rules[1]
}

// safe is what must hold of every world: whoever is joined holds, word for word, what that boot of the peer said.
func (m model) safe(w world, path func() string) {
	for i := range w.sides {
		s, other := w.sides[i].state, w.sides[1-i]
		if s.Phase != Joined {
			continue
		}
		if _, speak := s.Local.Protocol.Negotiate(s.Peer.Protocol); !speak || s.Peer.Identity != m.rules[i].Peer {
			m.t.Fatalf("%s is joined with %+v\n%s", modelNames[i], s.Peer, path())
		}
		said, known := other.said[saidKey(s.Pair.Theirs.Boot, s.Peer.Revision)]
		if !known || said != s.Peer.Orchestrator.Type || s.Remembered {
			m.t.Fatalf("%s is joined with %+v and holds %s of revision %d, which said %q\n%s", modelNames[i], s.Pair,
				s.Peer.Orchestrator.Type, s.Peer.Revision, said, path())
		}
	}
	if a, b := w.sides[0].state, w.sides[1].state; a.Phase == Joined && b.Phase == Joined &&
		a.Pair.Mine == b.Pair.Theirs && a.Pair.Theirs.Boot == b.Boot && a.Pair.Theirs != b.Pair.Mine &&
		a.Pair.Theirs.Number >= b.Offered {
		m.t.Fatalf("a session with an epoch that was never offered: %+v, %+v\n%s", a.Pair, b.Pair, path())
	}
}

// recovers runs a good network from w: everything arrives in order, and time passes. Both sides must be in one session,
// hold what the other now says, within a time that the timing promises, and stay so.
func (m model) recovers(w world, path func() string) {
	m.fairly = true
	for i := range w.sides {
		if s := w.sides[i].state; mistaken(i, s.Local) {
			w = m.boot(w, i, s.Local.Orchestrator.Type)
		}
	}
	// The slowest way: a silent session until it is down, and then one pause at its longest, each for both sides.
	limit := 2 * (modelTiming.Down + modelTiming.BackoffMax + modelTiming.Answer)
	// What was lost before shows until a call's deadline has passed and its repetition arrived.
	grace := modelTiming.Answer + modelTiming.Heartbeat
	elapsed := time.Duration(0)
	for n := 0; !m.settled(w) || len(w.net) > 0 || elapsed < grace; n++ {
		if elapsed > limit || n > 10_000 { // a storm of messages lets no time pass
			m.t.Fatalf("not in one session %s after the network is good\nwest %+v\neast %+v\nnet %+v\n%s", elapsed,
				w.sides[0].state, w.sides[1].state, w.net, path())
		}
		var passed time.Duration
		w, passed = m.fair(w)
		elapsed += passed
	}
	session := w.sides[0].state.Pair
	for stay := time.Duration(0); stay < modelTiming.Down+modelTiming.Heartbeat; {
		var passed time.Duration
		w, passed = m.fair(w)
		stay += passed
		if !m.settled(w) || w.sides[0].state.Pair != session {
			m.t.Fatalf("a session on a good network did not last\nwest %+v\neast %+v\nnet %+v\n%s",
				w.sides[0].state, w.sides[1].state, w.net, path())
		}
	}
}

// settled tells whether both are ready, in one session, with nothing old left.
func (m model) settled(w world) bool {
	a, b := w.sides[0].state, w.sides[1].state
	return a.Condition() == peering.Ready && b.Condition() == peering.Ready &&
		a.Pair.Mine == b.Pair.Theirs && b.Pair.Mine == a.Pair.Theirs && a.Protocol == b.Protocol &&
		a.Peer.Same(b.Local) && b.Peer.Same(a.Local)
}

// fair lets one message arrive, or else time pass until the next side wakes.
func (m model) fair(w world) (world, time.Duration) {
	if len(w.net) > 0 {
		p := w.net[0]
		w.net = w.net[1:]
		return m.arrive(w, p), 0
	}
	who, wait := -1, time.Duration(0)
	for i := range w.sides {
		wake := w.sides[i].state.Wake(m.rules[i])
		if wake.IsZero() {
			continue
		}
		if d := wake.Sub(modelEpoch) - w.sides[i].now; who < 0 || d < wait {
			who, wait = i, d
		}
	}
	if who < 0 {
		m.t.Fatal("both sides wait for ever")
	}
	for i := range w.sides {
		w.sides[i].now += wait
	}
	return m.step(w, who, Tick{}), wait
}

// walk visits every world within depth moves and returns how many it saw.
func (m model) walk(first world, depth int) int {
	type node struct {
		world world
		from  *node
		by    string
	}
	seen := map[string]struct{}{}
	level := []*node{{world: first}}
	for d := 0; len(level) > 0; d++ {
		var next []*node
		for _, n := range level {
			key := m.key(n.world)
			if _, ok := seen[key]; ok {
				continue
			}
			seen[key] = struct{}{}
			path := func() string {
				var steps []string
				for at := n; at.from != nil; at = at.from {
					steps = append([]string{at.by}, steps...)
				}
				return strings.Join(steps, "\n")
			}
			m.safe(n.world, path)
			m.recovers(n.world, path)
			if d == depth {
				continue
			}
			for _, mv := range m.moves(n.world) {
				next = append(next, &node{world: mv.next(), from: n, by: mv.name})
			}
		}
		level = next
	}
	return len(seen)
}

// key tells worlds apart by what their future depends on: times count from each side's own now.
func (m model) key(w world) string {
	b := make([]byte, 0, 512)
	number := func(n int64) { b = binary.AppendVarint(b, n) }
	text := func(s string) { number(int64(len(s))); b = append(b, s...) }
	for i, s := range w.sides {
		at := func(t time.Time) {
			if t.IsZero() {
				number(-1 << 60)
			} else {
				number(int64(t.Sub(modelEpoch.Add(w.sides[i].now)) / time.Millisecond))
			}
		}
		epoch := func(e Epoch) { text(e.Boot); number(int64(e.Number)) }
		x := s.state
		number(int64(x.Phase))
		text(x.Boot)
		text(string(x.Local.Orchestrator.Type))
		text(x.Local.Identity.Cluster)
		text(x.Local.Protocol.Current.String())
		number(int64(x.Local.Revision))
		if x.Peer != nil {
			text(string(x.Peer.Orchestrator.Type))
			text(x.Peer.Protocol.Current.String())
			number(int64(x.Peer.Revision))
		}
		epoch(x.Pair.Mine)
		epoch(x.Pair.Theirs)
		epoch(x.Target)
		for _, n := range []uint64{x.Offered, x.Sequence, uint64(x.Awaited.call), x.Awaited.Sequence, x.Awaited.revision,
			uint64(x.Attempt), uint64(x.Resent), x.Known} {
			number(int64(n))
		}
		for _, t := range []time.Time{x.Awaited.Until, x.Next, x.Alive, x.Changed} {
			at(t)
		}
		text(s.newest)
		for _, is := range []bool{x.Remembered, x.Stale, x.Pull, x.Lost, x.Departed, x.Refusal != ""} {
			if is {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
	}
	packets := make([]string, len(w.net))
	for i, p := range w.net { // their order makes no difference to what can happen, and much to how many worlds there are
		packets[i] = p.key
	}
	slices.Sort(packets)
	return string(b) + strings.Join(packets, "|") + fmt.Sprint(w.left)
}
