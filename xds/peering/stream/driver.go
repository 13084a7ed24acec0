package stream

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
)

// inboxSize bounds the calls of a peer that wait for its driver; a correct peer has one or two under way.
const inboxSize = 32

// driver runs one peer's session: one goroutine owns the state, and turns time, calls and answers into events, and
// actions into calls and answers.
type driver struct {
	peer   Peer
	node   *Node
	client *client
	entry  *tracker.Entry
	log    *slog.Logger

	inbox   chan inquiry
	answers chan session.Event // of this side's own calls
	changed chan struct{}      // the node's own configuration
	done    chan struct{}      // closed when run has returned
	cancel  context.CancelFunc

	// Only run's goroutine touches what follows.
	state   session.State
	rules   session.Rules
	waiting map[session.Call]chan<- session.Action
	calls   session.Call
	flights sync.WaitGroup // this side's calls
	failed  session.Failure
	applied peering.Configuration
}

// inquiry is a call of the peer that waits for its answer.
type inquiry struct {
	event  func(session.Call) session.Event
	answer chan<- session.Action
}

func newDriver(n *Node, p Peer, remembered *store.Record) (*driver, error) {
	c, err := newClient(p.Name, n.config.Suffix, n.config.Dial)
	if err != nil {
		return nil, err
	}
	d := &driver{
		peer: p, node: n, client: c,
		entry:   n.config.Tracker.Track(p.Name, time.Now()),
		log:     n.config.Logger.With("peer", p.Name),
		inbox:   make(chan inquiry, inboxSize),
		answers: make(chan session.Event),
		changed: make(chan struct{}, 1),
		done:    make(chan struct{}),
		rules:   session.Rules{Peer: p.Identity, Passive: p.Passive, Timing: n.config.Timing, Jitter: n.config.Jitter},
		waiting: map[session.Call]chan<- session.Action{},
	}
	var said *peering.Configuration
	if remembered != nil {
		said = &remembered.Configuration
	}
	d.state = session.New(n.boot, n.localFor(p.Name), said)
	if remembered != nil {
		d.state.LastSeen = remembered.LastSeen
	}
	d.publish()
	return d, nil
}

// ask gives an event of the peer to the driver and waits for the action that answers it.
func (d *driver) ask(ctx context.Context, event func(session.Call) session.Event) (session.Action, error) {
	answer := make(chan session.Action, 1)
	select {
	case d.inbox <- inquiry{event: event, answer: answer}:
	default:
		d.entry.Failed("overload")
		return nil, status.Error(codes.ResourceExhausted, "too many calls of this peer are waiting")
	}
	select {
	case a := <-answer:
		return a, nil
	case <-d.done:
		return nil, status.Error(codes.Unavailable, "this gateway is stopping")
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// notice says that the node's own configuration changed. It never blocks.
func (d *driver) notice() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// run drives the session until ctx ends, and then says goodbye.
func (d *driver) run(ctx context.Context) {
	defer close(d.done)
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer d.flights.Wait()
	defer cancel()

	timer := time.NewTimer(0)
	defer timer.Stop()
	d.step(calls, session.Started{})
	for {
		if wake := d.state.Wake(d.rules); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			d.farewell(calls)
			return
		case q := <-d.inbox:
			d.calls++
			d.waiting[d.calls] = q.answer
			d.step(calls, q.event(d.calls))
		case e := <-d.answers:
			d.step(calls, e)
		case <-d.changed:
			d.step(calls, session.LocalChanged{Configuration: d.node.localFor(d.peer.Name)})
		case <-timer.C:
			d.step(calls, session.Tick{})
		}
	}
}

// farewell ends the session within one call's deadline, and answers whoever still waits.
func (d *driver) farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(d.rules.Timing.Answer, goodbyeDeadline))
	defer cancel()
	d.step(ctx, session.Stopping{Reason: "the gateway is stopping"})
	for {
		select {
		case q := <-d.inbox:
			d.calls++
			d.waiting[d.calls] = q.answer
			d.step(ctx, q.event(d.calls))
		default:
			return
		}
	}
}

// goodbyeDeadline bounds how long a stop waits for a peer: a goodbye is a courtesy.
const goodbyeDeadline = time.Second

func (d *driver) step(ctx context.Context, e session.Event) {
	before := d.state.Condition()
	var actions []session.Action
	d.state, actions = session.Step(d.rules, d.state, time.Now(), e)
	for _, a := range actions {
		d.act(ctx, a)
	}
	if after := d.state.Condition(); after != before {
		attrs := []any{"from", before, "to", after}
		if !after.InSession() {
			attrs = append(attrs, "error", d.state.LastError)
		}
		d.log.Info("peering: the peer's condition changed", attrs...)
	}
	d.publish()
}

func (d *driver) act(ctx context.Context, a session.Action) {
	switch a := a.(type) {
	case session.SendHello:
		d.call(ctx, a.Hello.Sequence, func(ctx context.Context) (session.Event, error) { return d.client.hello(ctx, a.Hello) })
	case session.SendConfigure:
		d.call(ctx, a.Configure.Sequence, func(ctx context.Context) (session.Event, error) { return d.client.configure(ctx, a.Configure) })
	case session.SendHeartbeat:
		d.call(ctx, a.Heartbeat.Sequence, func(ctx context.Context) (session.Event, error) { return d.client.heartbeat(ctx, a.Heartbeat) })
	case session.SendGoodbye:
		if err := d.client.goodbye(ctx, a.Goodbye); err != nil {
			d.log.Info("peering: the peer did not hear the goodbye", "error", err)
		}
	case session.AnswerHello:
		d.answer(a.Call, a)
	case session.AnswerConfigure:
		d.answer(a.Call, a)
	case session.AnswerHeartbeat:
		d.answer(a.Call, a)
	case session.AnswerGoodbye:
		d.answer(a.Call, a)
	case session.Decline:
		d.answer(a.Call, a)
	case session.Apply:
		level := slog.LevelInfo
		if d.applied.SameGateway(a.Configuration) { // a catalogue changes all day
			level = slog.LevelDebug
		}
		d.applied = a.Configuration
		d.log.Log(ctx, level, "peering: the peer's configuration changed", "orchestrator", a.Configuration.Orchestrator.Type,
			"version", a.Configuration.Orchestrator.Version, "software", a.Configuration.Software,
			"catalogue", a.Configuration.CatalogueVersion, "revision", a.Configuration.Revision)
		d.node.saver.put(store.Record{Peer: d.peer.Name, Configuration: a.Configuration, LastSeen: time.Now()}, d.entry.Failed)
	case session.Took:
		d.entry.Took(a.Step)
	case session.Failure:
		d.entry.Failed(string(a.Kind))
		level := slog.LevelWarn
		if a == d.failed { // said already
			level = slog.LevelDebug
		}
		d.failed = a
		d.log.Log(ctx, level, "peering: failure", "kind", a.Kind, "detail", a.Detail)
	}
}

// call makes one call beside the loop. Its end comes back as an event, unless the driver ends first.
func (d *driver) call(ctx context.Context, sequence uint64, do func(context.Context) (session.Event, error)) {
	d.flights.Go(func() {
		deadline, cancel := context.WithTimeout(ctx, d.rules.Timing.Answer)
		defer cancel()
		start := time.Now()
		event, err := do(deadline)
		if err != nil {
			event = session.Failed{Sequence: sequence, Reason: said(err)}
		} else if _, ok := event.(session.HeartbeatAnswered); ok {
			d.entry.Answered(time.Since(start))
		}
		select {
		case d.answers <- event:
		case <-ctx.Done():
		}
	})
}

func (d *driver) answer(c session.Call, a session.Action) {
	if w, ok := d.waiting[c]; ok {
		w <- a // holds one, and gets one
		delete(d.waiting, c)
	}
}

func (d *driver) publish() {
	s := d.state
	d.entry.Update(tracker.Status{
		Condition:     s.Condition(),
		Step:          s.Step,
		Session:       s.Pair.ID(),
		Configuration: s.Peer,
		Remembered:    s.Remembered,
		Protocol:      s.Protocol,
		LastSeen:      s.LastSeen,
		LastError:     s.LastError,
		LastErrorAt:   s.LastErrorAt,
		Unanswered:    s.Attempt,
	}, time.Now())
}

// said is an error as an admin reads it.
func said(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Code().String() + ": " + s.Message()
	}
	return err.Error()
}
