package session

import (
	"testing"
	"time"
)

func TestModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		left  budget
		depth int
		shape func(*model)
	}{
		{name: "network", left: budget{ticks: 3, drops: 2, twins: 1}, depth: 8},
		{name: "restart", left: budget{ticks: 2, drops: 1, restarts: 1}, depth: 8},
		{name: "restarts", left: budget{ticks: 1, twins: 1, restarts: 2}, depth: 7},
		{name: "change", left: budget{ticks: 2, drops: 1, twins: 1, changes: 2}, depth: 8},
		{name: "goodbye", left: budget{ticks: 2, drops: 1, twins: 1, goodbyes: 1}, depth: 9},
		{name: "stray", left: budget{ticks: 2, drops: 1, restarts: 1}, depth: 7, shape: func(m *model) { m.stray = true }},
		{name: "passive", left: budget{ticks: 3, drops: 2, twins: 1, restarts: 1, changes: 1}, depth: 8, shape: func(m *model) { m.rules[1].Passive = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newModel(t)
			if c.shape != nil {
				c.shape(&m)
			}
			begin := time.Now()
			n := m.walk(m.start(c.left), c.depth)
			t.Logf("%d worlds in %s", n, time.Since(begin).Round(time.Millisecond))
		})
	}
}
