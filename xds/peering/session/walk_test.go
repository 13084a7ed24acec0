package session

import (
	"flag"
	"testing"
	"time"
)

// deeper adds to the depth of every walk; 2 visits a million worlds and takes some minutes.
var deeper = flag.Int("deeper", 0, "how many moves deeper than usual the model is walked")

// raceShallower is how many moves less are walked with the race detector.
var raceShallower int

func TestModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		left  budget
		depth int
		shape func(*model)
		// joined begins with both sides in session.
		joined bool
	}{
		{name: "loss", left: budget{ticks: 3, drops: 2, twins: 1}, depth: 6},
		{name: "restart", left: budget{ticks: 2, drops: 1, restarts: 1}, depth: 6},
		{name: "restarts", left: budget{ticks: 1, twins: 1, restarts: 2}, depth: 5},
		{name: "change", left: budget{ticks: 2, drops: 1, twins: 1, changes: 2}, depth: 6},
		{name: "goodbye", left: budget{ticks: 2, drops: 1, twins: 1, goodbyes: 1}, depth: 7},
		{name: "stray", left: budget{ticks: 2, drops: 1, restarts: 1}, depth: 6, shape: func(m *model) { m.stray = true }},
		{name: "passive", left: budget{ticks: 3, drops: 2, twins: 1, restarts: 1, changes: 1}, depth: 6,
			shape: func(m *model) { m.rules[1].Passive = true }},
		{name: "failure", left: budget{ticks: 3, fails: 2, twins: 1}, depth: 7},
		{name: "guises", left: budget{ticks: 2, drops: 1, guises: 2}, depth: 5},
		{name: "guises, passive", left: budget{ticks: 2, drops: 1, twins: 1, guises: 1}, depth: 6,
			shape: func(m *model) { m.rules[1].Passive = true }},
		{name: "joined/failure", joined: true, left: budget{ticks: 6, fails: 3}, depth: 8},
		{name: "joined/guise", joined: true, left: budget{ticks: 3, drops: 1, twins: 1, fails: 1, guises: 1}, depth: 6},
		{name: "joined/loss", joined: true, left: budget{ticks: 6, drops: 2, twins: 1}, depth: 8},
		{name: "joined/restart", joined: true, left: budget{ticks: 3, drops: 1, twins: 1, restarts: 1}, depth: 6},
		{name: "joined/both restart", joined: true, left: budget{ticks: 2, restarts: 2}, depth: 7},
		{name: "joined/change", joined: true, left: budget{ticks: 4, drops: 1, twins: 1, changes: 2}, depth: 6},
		{name: "joined/goodbye", joined: true, left: budget{ticks: 3, drops: 1, goodbyes: 2}, depth: 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t)
			if c.shape != nil {
				c.shape(&m)
			}
			begin := time.Now()
			first := m.start(c.left)
			if c.joined {
				first = m.join(first)
			}
			depth := c.depth + *deeper - raceShallower
			n := m.walk(first, depth)
			t.Logf("%d worlds, %d moves deep, in %s", n, depth, time.Since(begin).Round(time.Millisecond))
		})
	}
}
