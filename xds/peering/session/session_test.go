package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// bench drives one side by hand.
type bench struct {
	t     *testing.T
	rules Rules
	state State
	now   time.Time
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, rules: Rules{Peer: modelIdentity(1), Timing: DefaultTiming()},
		state: New("west-1", modelConfiguration(0, neutral.Docker), nil), now: modelEpoch}
}

func (b *bench) step(e Event) []Action {
	b.t.Helper()
	var actions []Action
	b.state, actions = Step(b.rules, b.state, b.now, e)
	return actions
}

func (b *bench) pass(d time.Duration) []Action {
	b.t.Helper()
	b.now = b.now.Add(d)
	return b.step(Tick{})
}

// one finds the only action of a type.
func one[A Action](t *testing.T, actions []Action) A {
	t.Helper()
	var found []A
	for _, a := range actions {
		if a, ok := a.(A); ok {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		t.Fatalf("want one %T, got %d of %+v", *new(A), len(found), actions)
	}
	return found[0]
}

func none[A Action](t *testing.T, actions []Action) {
	t.Helper()
	for _, a := range actions {
		if _, ok := a.(A); ok {
			t.Fatalf("want no %T, got %+v", a, a)
		}
	}
}

var peerEpoch = Epoch{Boot: "east-1", Number: 7}

func peerConfiguration() peering.Configuration {
	c := modelConfiguration(1, neutral.Kubernetes)
	c.Revision = 3
	return c
}

func (b *bench) configure() Configure {
	return Configure{From: peerEpoch, To: b.state.mine(), Sequence: 5, Configuration: peerConfiguration()}
}

// join brings the side into session as the answering one.
func (b *bench) join() {
	b.t.Helper()
	b.step(Started{})
	a := one[AnswerConfigure](b.t, b.step(ConfigureReceived{1, b.configure()}))
	if a.Answer.Outcome != Accepted || b.state.Condition() != peering.Ready {
		b.t.Fatalf("not joined: %+v", b.state)
	}
}

func TestTenSteps(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.rules[1].Passive = true
	w := m.start(budget{})
	// The first hello is lost, so that step 3 is taken too.
	w.net = nil
	var steps []string
	for !m.settled(w) {
		var who int
		var e Event
		if len(w.net) > 0 {
			who, e = w.net[0].to, w.net[0].event
			w.net = w.net[1:]
		} else {
			who, e = 0, Tick{}
			w.sides[0].now = w.sides[0].state.Wake(m.rules[0]).Sub(modelEpoch)
		}
		_, actions := Step(m.rules[who], w.sides[who].state, modelEpoch.Add(w.sides[who].now), e)
		for _, a := range actions {
			if a, ok := a.(Took); ok {
				steps = append(steps, fmt.Sprint(modelNames[who], " ", a.Step))
			}
		}
		w = m.step(w, who, e)
	}
	want := []string{"west 3", "west 2", "east 4", "east 5", "west 6", "west 7", "east 8", "east 9", "west 10"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps\n%q, want\n%q", steps, want)
	}
	if a, b := w.sides[0].state.Step, w.sides[1].state.Step; a != 10 || b != 9 {
		t.Errorf("the last steps are %d and %d", a, b)
	}
}

func TestHelloBacksOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	random := 0.0
	b.rules.Jitter = func() float64 { return random }
	first := one[SendHello](t, b.step(Started{}))
	var pauses []time.Duration
	for range 9 {
		actions := b.step(Failed{Sequence: b.state.Sequence, Reason: "connection refused"})
		if f := one[Failure](t, actions); f.Kind != FailedNoAnswer || !strings.Contains(f.Detail, "connection refused") {
			t.Fatalf("failure %+v", f)
		}
		pause := b.state.Wake(b.rules).Sub(b.now)
		pauses = append(pauses, pause)
		none[SendHello](t, b.pass(pause-time.Nanosecond))
		again := one[SendHello](t, b.pass(time.Nanosecond))
		if again.Hello.Sequence == first.Hello.Sequence || again.Hello.From != first.Hello.From {
			t.Fatalf("hello again is %+v after %+v", again.Hello, first.Hello)
		}
	}
	for i, pause := range pauses {
		if longest := min(500*time.Millisecond<<i, 30*time.Second); pause != longest/2 {
			t.Errorf("pause %d is %s, want half of %s", i, pause, longest)
		}
	}
	random = 0.5
	b.step(Failed{Sequence: b.state.Sequence})
	if pause := b.state.Wake(b.rules).Sub(b.now); pause != 22500*time.Millisecond {
		t.Errorf("the pause with jitter 0.5 is %s", pause)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	start := b.now
	conditions := map[peering.Condition]time.Duration{}
	hello := time.Duration(0)
	for b.now.Sub(start) < time.Minute {
		b.now = b.state.Wake(b.rules)
		for _, a := range b.step(Tick{}) {
			if _, ok := a.(SendHello); ok && hello == 0 {
				hello = b.now.Sub(start)
			}
		}
		if c := b.state.Condition(); conditions[c] == 0 {
			conditions[c] = b.now.Sub(start)
		}
	}
	if conditions[peering.Stale] != b.rules.Timing.Stale || conditions[peering.Down] != b.rules.Timing.Down {
		t.Errorf("stale after %s, down after %s", conditions[peering.Stale], conditions[peering.Down])
	}
	if hello != b.rules.Timing.Down {
		t.Errorf("hello again after %s", hello)
	}
	if b.state.Peer == nil || b.state.Peer.Orchestrator.Type != neutral.Kubernetes {
		t.Errorf("what the silent peer said is forgotten: %+v", b.state.Peer)
	}
}

func TestHeartbeatEndsStale(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.rules.Passive = true
	b.join()
	b.pass(b.rules.Timing.Stale)
	if c := b.state.Condition(); c != peering.Stale {
		t.Fatalf("condition %s", c)
	}
	a := one[AnswerHeartbeat](t, b.step(HeartbeatReceived{2, Heartbeat{From: peerEpoch, To: b.state.Pair.Mine, Sequence: 9, Revision: 3, Holds: 1}}))
	if want := (HeartbeatAnswer{Sequence: 9, Outcome: Accepted, Revision: 1, Holds: 3}); a.Answer != want {
		t.Errorf("answer %+v, want %+v", a.Answer, want)
	}
	if c := b.state.Condition(); c != peering.Ready {
		t.Errorf("condition %s", c)
	}
}

func TestLiars(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(*peering.Configuration)
		kind FailureKind
		why  string
	}{
		{"another cluster", func(c *peering.Configuration) { c.Identity.Cluster = "north" }, FailedIdentity, "the certificate proves spiffe://east.isthmus.internal/cluster/east"},
		{"another trust domain", func(c *peering.Configuration) { c.Identity.TrustDomain = "north" }, FailedIdentity, "spiffe://north/cluster/east"},
		{"no identity", func(c *peering.Configuration) { c.Identity = peering.Identity{} }, FailedIdentity, "the certificate proves"},
		{"a newer protocol only", func(c *peering.Configuration) {
			c.Protocol = peering.ProtocolRange{Current: peering.ProtocolVersion{Major: 2}, Oldest: peering.ProtocolVersion{Major: 2}}
		}, FailedProtocol, "here 1.0 to 1.0, there 2.0 to 2.0"},
	} {
		check := func(t *testing.T, b *bench, actions []Action) {
			t.Helper()
			if f := one[Failure](t, actions); f.Kind != c.kind || !strings.Contains(f.Detail, c.why) {
				t.Errorf("failure %+v", f)
			}
			none[Apply](t, actions)
			if b.state.Condition() != peering.Refused || !strings.Contains(b.state.LastError, c.why) {
				t.Errorf("condition %s, error %q", b.state.Condition(), b.state.LastError)
			}
			if wait := b.state.Wake(b.rules).Sub(b.now); wait != b.rules.Timing.BackoffMax {
				t.Errorf("it tries again after %s", wait)
			}
		}
		t.Run(c.name+"/calls", func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.step(Started{})
			msg := b.configure()
			c.edit(&msg.Configuration)
			actions := b.step(ConfigureReceived{4, msg})
			check(t, b, actions)
			a := one[AnswerConfigure](t, actions)
			if a.Call != 4 || a.Answer.Outcome != Refused || !strings.Contains(a.Answer.Reason, c.why) || a.Answer.Configuration.Revision != 0 {
				t.Errorf("answer %+v", a.Answer)
			}
		})
		t.Run(c.name+"/answers", func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			hello := one[SendHello](t, b.step(Started{}))
			sent := one[SendConfigure](t, b.step(HelloAnswered{HelloAnswer{Sequence: hello.Hello.Sequence, Outcome: Accepted,
				From: peerEpoch, Cluster: "east", Protocol: peering.Protocol}}))
			answer := ConfigureAnswer{Sequence: sent.Configure.Sequence, Outcome: Accepted, From: peerEpoch, To: sent.Configure.From,
				Configuration: peerConfiguration()}
			c.edit(&answer.Configuration)
			check(t, b, b.step(ConfigureAnswered{answer}))
		})
		t.Run(c.name+"/in session", func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.join()
			msg := b.configure()
			msg.To = b.state.Pair.Mine
			c.edit(&msg.Configuration)
			check(t, b, b.step(ConfigureReceived{4, msg}))
		})
	}
}

func TestHelloOfAnotherCluster(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	a := one[AnswerHello](t, b.step(HelloReceived{3, Hello{From: peerEpoch, Sequence: 1, Cluster: "north", Protocol: peering.Protocol}}))
	if a.Answer.Outcome != Refused || !strings.Contains(a.Answer.Reason, "cluster north") {
		t.Errorf("answer %+v", a.Answer)
	}
	if b.state.Condition() != peering.Ready {
		t.Error("a hello changed the session")
	}
}

// The peer refuses, an admin mends it, and the next hello succeeds.
func TestRefusalEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := one[SendHello](t, b.step(Started{}))
	b.step(HelloAnswered{HelloAnswer{Sequence: hello.Hello.Sequence, Outcome: Refused, Reason: "no", From: peerEpoch, Cluster: "east"}})
	if b.state.Condition() != peering.Refused || b.state.LastError != "the peer refuses: no" {
		t.Fatalf("condition %s, error %q", b.state.Condition(), b.state.LastError)
	}
	one[SendHello](t, b.pass(b.rules.Timing.BackoffMax))
	b.step(ConfigureReceived{1, b.configure()})
	if b.state.Condition() != peering.Ready {
		t.Errorf("condition %s", b.state.Condition())
	}
}

func TestRepeatedConfigureChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	msg := b.configure()
	b.join()
	session, epoch := b.state.Pair, b.state.Offered
	for range 3 {
		actions := b.step(ConfigureReceived{8, msg})
		none[Apply](t, actions)
		if a := one[AnswerConfigure](t, actions); a.Answer.Outcome != Accepted || a.Answer.Configuration.Revision != 1 {
			t.Errorf("answer %+v", a.Answer)
		}
	}
	if b.state.Pair != session || b.state.Offered != epoch {
		t.Errorf("session %+v became %+v", session, b.state.Pair)
	}
}

func TestChangedType(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	msg := b.configure()
	msg.To = b.state.Pair.Mine
	msg.Configuration.Revision, msg.Configuration.Orchestrator.Type = 4, neutral.Rancher
	if a := one[Apply](t, b.step(ConfigureReceived{2, msg})); a.Configuration.Orchestrator.Type != neutral.Rancher {
		t.Errorf("applied %+v", a.Configuration)
	}
	// What the peer said before arrives late.
	msg.Configuration.Revision, msg.Configuration.Orchestrator.Type = 3, neutral.Kubernetes
	none[Apply](t, b.step(ConfigureReceived{3, msg}))
	if b.state.Peer.Orchestrator.Type != neutral.Rancher || b.state.Condition() != peering.Ready {
		t.Errorf("the peer is %s and %s", b.state.Peer.Orchestrator.Type, b.state.Condition())
	}
}

func TestOwnChangesSettle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	change := func(version string) []Action {
		c := modelConfiguration(0, neutral.Docker)
		c.CatalogueVersion = version
		return b.step(LocalChanged{c})
	}
	first := one[SendConfigure](t, change("2")).Configure
	if first.Configuration.Revision != 2 || first.To != peerEpoch || first.From != b.state.Pair.Mine {
		t.Fatalf("told %+v", first)
	}
	none[SendConfigure](t, change("2"))
	none[SendConfigure](t, change("3")) // one call at a time
	answer := func(sent Configure) []Action {
		return b.step(ConfigureAnswered{ConfigureAnswer{Sequence: sent.Sequence, Outcome: Accepted, From: peerEpoch,
			To: sent.From, Configuration: peerConfiguration()}})
	}
	none[SendConfigure](t, answer(first))
	none[SendConfigure](t, change("4"))
	last := one[SendConfigure](t, b.pass(b.rules.Timing.Settle)).Configure
	if last.Configuration.CatalogueVersion != "4" || last.Configuration.Revision != 4 {
		t.Errorf("told %+v", last.Configuration)
	}
	answer(last)
	for range 20 { // nothing is told again
		for _, a := range b.pass(100 * time.Millisecond) {
			if _, ok := a.(SendConfigure); ok {
				t.Fatalf("told again: %+v", a)
			}
		}
	}
}

// The answer to this side's configuration is lost. The peer, which is in session, sends a heartbeat before this side
// repeats itself: the heartbeat is answered in a way that makes the peer send its configuration.
func TestLostAnswerIsMadeGood(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := one[SendHello](t, b.step(Started{}))
	sent := one[SendConfigure](t, b.step(HelloAnswered{HelloAnswer{Sequence: hello.Hello.Sequence, Outcome: Accepted,
		From: peerEpoch, Cluster: "east", Protocol: peering.Protocol}})).Configure
	a := one[AnswerHeartbeat](t, b.step(HeartbeatReceived{1, Heartbeat{From: peerEpoch, To: sent.From, Sequence: 6, Revision: 3, Holds: 1}}))
	if a.Answer.Outcome != Accepted || a.Answer.Holds != 0 {
		t.Fatalf("answer %+v", a.Answer)
	}

	// The other side of the same: a peer that holds nothing is told.
	east := newBench(t)
	east.join()
	beat := one[SendHeartbeat](t, east.pass(east.rules.Timing.Heartbeat)).Heartbeat
	actions := east.step(HeartbeatAnswered{HeartbeatAnswer{Sequence: beat.Sequence, Outcome: Accepted, Revision: 3, Holds: 0}})
	if c := one[SendConfigure](t, actions).Configure; c.To != peerEpoch || c.From != east.state.Pair.Mine {
		t.Errorf("told %+v", c)
	}
}

func TestLateAnswersCountForNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	beat := one[SendHeartbeat](t, b.pass(b.rules.Timing.Heartbeat)).Heartbeat
	b.pass(b.rules.Timing.Answer)
	before := b.state
	b.step(HeartbeatAnswered{HeartbeatAnswer{Sequence: beat.Sequence, Outcome: Accepted, Revision: 3, Holds: 1}})
	if b.state.Alive != before.Alive {
		t.Error("an answer that came after its deadline counts as life")
	}
	again := one[SendHeartbeat](t, b.pass(b.rules.Timing.Heartbeat)).Heartbeat
	b.step(HeartbeatAnswered{HeartbeatAnswer{Sequence: beat.Sequence, Outcome: Stale}})
	if b.state.Phase != Joined || b.state.Awaited.Sequence != again.Sequence {
		t.Error("an answer to the call before ended the one under way")
	}
}

// An answer of another session than the one that was asked for is none, and the handshake goes on.
func TestAnswerOfAnotherSession(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*ConfigureAnswer){
		"from": func(a *ConfigureAnswer) { a.From.Number++ },
		"to":   func(a *ConfigureAnswer) { a.To.Boot = "west-0" },
	} {
		b := newBench(t)
		hello := one[SendHello](t, b.step(Started{}))
		sent := one[SendConfigure](t, b.step(HelloAnswered{HelloAnswer{Sequence: hello.Hello.Sequence, Outcome: Accepted,
			From: peerEpoch, Cluster: "east", Protocol: peering.Protocol}})).Configure
		answer := ConfigureAnswer{Sequence: sent.Sequence, Outcome: Accepted, From: peerEpoch, To: sent.From,
			Configuration: peerConfiguration()}
		edit(&answer)
		actions := b.step(ConfigureAnswered{answer})
		none[Apply](t, actions)
		if f := one[Failure](t, actions); f.Kind != FailedMalformed || b.state.Phase != Greeting {
			t.Errorf("%s: %+v, phase %d", name, f, b.state.Phase)
		}
		one[SendHello](t, b.pass(b.rules.Timing.BackoffMax))
	}
}

func TestRestartIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	b.now = b.now.Add(time.Second)
	actions := b.step(HelloReceived{1, Hello{From: Epoch{Boot: "east-2", Number: 1}, Sequence: 1, Cluster: "east", Protocol: peering.Protocol}})
	beat := one[SendHeartbeat](t, actions).Heartbeat
	if b.state.Condition() != peering.Ready {
		t.Errorf("a hello alone changed the condition to %s", b.state.Condition())
	}
	one[SendHello](t, b.step(HeartbeatAnswered{HeartbeatAnswer{Sequence: beat.Sequence, Outcome: Stale}}))
	if b.state.Condition() != peering.Connecting {
		t.Errorf("condition %s", b.state.Condition())
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	goodbye := Goodbye{From: peerEpoch, To: b.state.Pair.Mine, Sequence: 11}
	wrong := goodbye
	wrong.From.Number++
	one[AnswerGoodbye](t, b.step(GoodbyeReceived{1, wrong}))
	if b.state.Condition() != peering.Ready {
		t.Fatal("a goodbye of another session ended this one")
	}
	one[AnswerGoodbye](t, b.step(GoodbyeReceived{2, goodbye}))
	if b.state.Condition() != peering.Departed {
		t.Fatalf("condition %s", b.state.Condition())
	}
	one[SendHello](t, b.pass(b.rules.Timing.BackoffMax))
}

func TestStop(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.join()
	pair := b.state.Pair
	g := one[SendGoodbye](t, b.step(Stopping{Reason: "upgrade"}))
	if g.Goodbye.From != pair.Mine || g.Goodbye.To != pair.Theirs {
		t.Errorf("goodbye %+v of %+v", g.Goodbye, pair)
	}
	if b.state.Condition() != peering.Stopped || !b.state.Wake(b.rules).IsZero() {
		t.Errorf("condition %s, wakes at %s", b.state.Condition(), b.state.Wake(b.rules))
	}
	if d := one[Decline](t, b.step(HelloReceived{Call: 5})); d.Call != 5 {
		t.Errorf("declined %+v", d)
	}
	if a := b.step(Tick{}); len(a) > 0 {
		t.Errorf("it still does %+v", a)
	}
}

func TestPassiveNeverCalls(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.rules.Passive = true
	calls := func(actions []Action) {
		t.Helper()
		none[SendHello](t, actions)
		none[SendConfigure](t, actions)
		none[SendHeartbeat](t, actions)
		none[SendGoodbye](t, actions)
	}
	calls(b.step(Started{}))
	calls(b.pass(time.Hour))
	calls(b.step(ConfigureReceived{1, b.configure()}))
	calls(b.step(LocalChanged{modelConfiguration(0, neutral.Rancher)}))
	for range 100 {
		calls(b.pass(time.Second))
	}
	if b.state.Condition() != peering.Down {
		t.Errorf("condition %s", b.state.Condition())
	}
	calls(b.step(Stopping{}))
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := peerConfiguration()
	old.Revision = 900
	b.state = New("west-2", modelConfiguration(0, neutral.Docker), &old)
	if !b.state.Remembered || b.state.Condition() != peering.Connecting {
		t.Fatalf("state %+v", b.state)
	}
	b.step(Started{})
	one[Apply](t, b.step(ConfigureReceived{1, b.configure()}))
	if b.state.Remembered || b.state.Peer.Revision != 3 {
		t.Errorf("an old boot's revision stands: %+v", b.state.Peer)
	}
}

func TestTimingValidate(t *testing.T) {
	t.Parallel()
	if err := DefaultTiming().Validate(); err != nil {
		t.Error(err)
	}
	for name, edit := range map[string]func(*Timing){
		"no answer":      func(t *Timing) { t.Answer = 0 },
		"no backoff":     func(t *Timing) { t.BackoffMin = 0 },
		"short backoff":  func(t *Timing) { t.BackoffMax = t.BackoffMin - 1 },
		"hasty stale":    func(t *Timing) { t.Stale = t.Heartbeat },
		"down too soon":  func(t *Timing) { t.Down = t.Stale },
		"negative pause": func(t *Timing) { t.Settle = -1 },
	} {
		timing := DefaultTiming()
		edit(&timing)
		if timing.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPairID(t *testing.T) {
	t.Parallel()
	a, b := Epoch{Boot: "a", Number: 1}, Epoch{Boot: "b", Number: 2}
	id := Pair{Mine: a, Theirs: b}.ID()
	if id == "" || id != (Pair{Mine: b, Theirs: a}).ID() {
		t.Errorf("the two sides of one session call it %q and %q", id, Pair{Mine: b, Theirs: a}.ID())
	}
	if other := (Pair{Mine: Epoch{Boot: "a", Number: 2}, Theirs: b}).ID(); other == id {
		t.Errorf("two sessions are both called %q", id)
	}
	if none := (Pair{}).ID(); none != "" {
		t.Errorf("no session is called %q", none)
	}
}

// TestLyingHello holds that a hello that lies is a refusal, also where this side never asks, and that it ends no session.
func TestLyingHello(t *testing.T) {
	t.Parallel()
	lie := HelloReceived{3, Hello{From: peerEpoch, Sequence: 1, Cluster: "north", Protocol: peering.Protocol}}
	for _, passive := range []bool{false, true} {
		b := newBench(t)
		b.rules.Passive = passive
		b.step(Started{})
		actions := b.step(lie)
		if a := one[AnswerHello](t, actions); a.Answer.Outcome != Refused || !strings.Contains(a.Answer.Reason, "north") {
			t.Errorf("answer %+v", a)
		}
		if f := one[Failure](t, actions); f.Kind != FailedIdentity || b.state.Condition() != peering.Refused || b.state.Refusal != f.Detail {
			t.Errorf("%+v, %s, %q", f, b.state.Condition(), b.state.Refusal)
		}
		b.step(ConfigureReceived{4, b.configure()})
		if b.state.Condition() != peering.Ready {
			t.Errorf("the truth after it: %s", b.state.Condition())
		}
		if b.step(lie); b.state.Condition() != peering.Ready {
			t.Errorf("in session: %s", b.state.Condition())
		}
	}
}
