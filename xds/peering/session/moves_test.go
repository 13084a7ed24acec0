package session

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// guise is how a side may say what it is not, or what it is of another version.
type guise struct {
	name  string
	shape func(*peering.Configuration)
}

var guises = []guise{
	{name: "as another cluster", shape: func(c *peering.Configuration) { c.Identity.Cluster = "north" }},
	{name: "as one of another major version", shape: func(c *peering.Configuration) {
		c.Protocol.Oldest.Major, c.Protocol.Current.Major = 2, 2
	}},
	{name: "as one of a newer minor version", shape: func(c *peering.Configuration) { c.Protocol.Current.Minor = 7 }},
}

// mistaken tells whether nobody who is as everybody should be may be in session with what says this.
func mistaken(i int, c peering.Configuration) bool {
	_, speaks := peering.Protocol.Negotiate(c.Protocol)
	return c.Identity != modelIdentity(i) || !speaks
}

// move is one thing that can happen.
type move struct {
	name string
	next func() world
}

func (m model) moves(w world) []move {
	var moves []move
	seen := map[string]bool{}
	for n, p := range w.net {
		if seen[p.key] { // which of two equal packets moves makes no difference
			continue
		}
		seen[p.key] = true
		without := func() world {
			next := w
			next.net = append(append([]packet{}, w.net[:n]...), w.net[n+1:]...)
			return next
		}
		moves = append(moves, move{fmt.Sprintf("%T reaches %s", p.event, modelNames[p.to]), func() world {
			return m.arrive(without(), p)
		}})
		if w.left.twins > 0 {
			moves = append(moves, move{fmt.Sprintf("%T reaches %s, a twin stays", p.event, modelNames[p.to]), func() world {
				next := w
				next.left.twins--
				return m.arrive(next, p)
			}})
		}
		if w.left.drops > 0 {
			moves = append(moves, move{fmt.Sprintf("%T is lost", p.event), func() world {
				next := without()
				next.left.drops--
				return next
			}})
		}
	}
	if w.left.fails > 0 {
		moves = append(moves, m.failures(w)...)
	}
	for i := range w.sides {
		s := w.sides[i]
		if w.left.guises > 0 {
			for _, g := range guises {
				moves = append(moves, move{fmt.Sprintf("%s restarts %s", modelNames[i], g.name), func() world {
					next := w
					next.left.guises--
					c := modelConfiguration(i, s.state.Local.Orchestrator.Type)
					g.shape(&c)
					return m.bootAs(next, i, c)
				}})
			}
		}
		if w.left.ticks > 0 && !s.state.Wake(m.rules[i]).IsZero() {
			moves = append(moves, move{modelNames[i] + " ticks", func() world {
				next := w
				next.left.ticks--
				next.sides[i].now = s.state.Wake(m.rules[i]).Sub(modelEpoch)
				return m.step(next, i, Tick{})
			}})
		}
		if w.left.restarts > 0 {
			for _, o := range modelTypes {
				moves = append(moves, move{fmt.Sprintf("%s restarts as %s", modelNames[i], o), func() world {
					next := w
					next.left.restarts--
					return m.boot(next, i, o)
				}})
			}
		}
		if w.left.changes > 0 {
			o := neutral.Rancher
			if s.state.Local.Orchestrator.Type == o {
				o = modelTypes[i]
			}
			moves = append(moves, move{fmt.Sprintf("%s becomes %s", modelNames[i], o), func() world {
				next := w
				next.left.changes--
				c := s.state.Local // in the guise that it has
				c.Orchestrator.Type = o
				return m.step(next, i, LocalChanged{Configuration: c})
			}})
		}
		if w.left.goodbyes > 0 && s.state.Phase == Joined {
			moves = append(moves, move{modelNames[i] + " says goodbye and restarts", func() world {
				next := w
				next.left.goodbyes--
				next = m.step(next, i, Stopping{Reason: "upgrade"})
				return m.boot(next, i, s.state.Local.Orchestrator.Type)
			}})
		}
	}
	return moves
}

// failures are the calls in flight that fail at once, before they arrive or after.
func (m model) failures(w world) []move {
	var moves []move
	for n, p := range w.net {
		caller, sequence := p.to, uint64(0)
		switch e := p.event.(type) {
		case HelloReceived:
			caller, sequence = 1-p.to, e.Hello.Sequence
		case ConfigureReceived:
			caller, sequence = 1-p.to, e.Configure.Sequence
		case HeartbeatReceived:
			caller, sequence = 1-p.to, e.Heartbeat.Sequence
		case HelloAnswered:
			sequence = e.Answer.Sequence
		case ConfigureAnswered:
			sequence = e.Answer.Sequence
		case HeartbeatAnswered:
			sequence = e.Answer.Sequence
		default:
			continue
		}
		if p.caller != w.sides[caller].state.Boot {
			continue
		}
		moves = append(moves, move{fmt.Sprintf("%T breaks", p.event), func() world {
			next := w
			next.left.fails--
			next.net = append(append([]packet{}, w.net[:n]...), w.net[n+1:]...)
			return m.step(next, caller, Failed{Sequence: sequence, Reason: "reset"})
		}})
	}
	return moves
}
