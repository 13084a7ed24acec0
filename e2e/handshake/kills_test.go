package handshake

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// place is where the message of a step is when somebody dies.
type place int

const (
	leaving   place = iota // said, and at the asking side still
	underway               // in a link that brings nothing over
	arriving               // at the answering side, which has not looked yet
	returning              // answered, and at the asking side's Envoy
	returned               // the answer is at the asking side, which has not looked yet
)

// moment is one of the ten steps as far as it can be told from outside: the call that it is part of, and where that is.
type moment struct {
	step   int
	what   string
	method string
	nth    int32
	at     place
}

var moments = []moment{
	{1, "hello is said", "Hello", 1, leaving},
	{2, "the answer is waited for", "Hello", 1, underway},
	{3, "hello is said again", "Hello", 2, leaving},
	{4, "the hello is there", "Hello", 1, arriving},
	{5, "the hello is answered", "Hello", 1, returning},
	{6, "the answer to the hello is there", "Hello", 1, returned},
	{7, "the configuration is sent", "Configure", 1, leaving},
	{8, "the configuration is there", "Configure", 1, arriving},
	{9, "the configuration is answered", "Configure", 1, returning},
	{10, "the answer to the configuration is there", "Configure", 1, returned},
}

// killFaults are kill -9 of either side, and of both, at every step. Every third one comes back as another type.
func killFaults() []fault {
	var all []fault
	for i, m := range moments {
		for j, who := range []string{"who asks", "who answers", "both"} {
			as, comes := neutral.Docker, ""
			if (i+j)%3 == 0 {
				as, comes = neutral.Kubernetes, ", back as kubernetes"
			}
			all = append(all, fault{
				group: "kill -9", what: fmt.Sprintf("%s at step %d, %s%s", who, m.step, m.what, comes), asking: []string{"west", "east"}[(i+j)%2],
				run: func(s *scene) { s.killAt(m, who, as) },
			})
		}
	}
	return all
}

// settling is how long a message takes, at the most, to be where a frozen process would read it.
const settling = 150 * time.Millisecond

// killAt kills at a moment. What was under way then goes on, and arrives if there is anybody.
func (s *scene) killAt(m moment, who string, as neutral.Orchestrator) {
	reached, proceed := make(chan struct{}), make(chan struct{})
	both, begun := context.WithCancel(context.Background()) // whom a call finds frozen must have been started
	defer begun()
	var calls atomic.Int32
	var met atomic.Bool
	s.hush()
	s.answerer.calls.Set(quiet)
	s.asker.calls.Set(func(c *relay.Call) relay.Answer {
		if c.Method != m.method || met.Load() {
			return relay.Pass(c)
		}
		if calls.Add(1) < m.nth {
			return relay.Refusal()
		}
		met.Store(true)
		<-both.Done()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		soon := func() { time.AfterFunc(settling, func() { close(reached) }) }
		switch m.at {
		case leaving:
			close(reached)
			<-proceed
		case underway:
			s.asker.link.Set(relay.Hole)
			soon()
		case arriving:
			s.answerer.freeze()
			soon()
		}
		a := c.Pass(ctx, c.Request)
		switch m.at {
		case returning:
			close(reached)
			<-proceed
		case returned:
			s.asker.freeze()
			soon()
		}
		return a
	})
	s.begin(s.t)
	begun()
	select {
	case <-reached:
	case <-time.After(patience):
		s.t.Fatal("the step was not reached")
	}
	dead := map[string][]*gateway{"who asks": {s.asker}, "who answers": {s.answerer}, "both": {s.asker, s.answerer}}[who]
	for _, g := range dead {
		g.kill()
		g.orchestrator = as
		g.declare(s.t)
	}
	close(proceed)
	for _, g := range s.both() {
		g.thaw()
		g.link.Set(relay.Weather{})
		g.calls.Set(nil)
	}
	for _, g := range dead {
		g.start(s.t)
	}
	s.recovers()
}
