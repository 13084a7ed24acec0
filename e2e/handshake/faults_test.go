package handshake

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/page"
)

// lanes is how many pairs of gateways run at a time. Most of the time they wait.
var lanes = flag.Int("lanes", 8, "how many pairs of gateways meet faults at a time")

// faults are all cases.
func faults() []fault {
	return slices.Concat(messageFaults(), killFaults(), linkFaults(), silenceFaults(), peerFaults())
}

// TestFaults does to two gateways, again and again, what networks, crashes and peers do, and holds that both sides are
// ready in one session soon after each.
func TestFaults(t *testing.T) {
	t.Parallel()
	all := faults()
	results := make([]time.Duration, len(all))
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case all[a].slow == all[b].slow:
			return a - b
		case all[a].slow:
			return -1
		}
		return 1
	})
	queue := make(chan int)
	var wait sync.WaitGroup
	for range *lanes {
		wait.Go(func() {
			var lane *pair // made by the first case that runs
			for i := range queue {
				if !t.Run(all[i].name(), func(c *testing.T) {
					p := lane
					switch {
					case all[i].passive:
						p = newPair(c, c, true)
					case p == nil:
						p = newPair(c, t, false)
						lane = p
					}
					results[i] = p.meet(c, all[i])
				}) {
					lane = nil // who knows what is left of it
				}
			}
		})
	}
	for _, i := range order {
		queue <- i
	}
	close(queue)
	wait.Wait()
	t.Log("\n" + table(all, results))
	if *update && !t.Failed() && !slices.Contains(results, 0) {
		if err := page.Write(document, "faults", table(all, results)); err != nil {
			t.Error(err)
		}
	}
}

// meet lets a pair meet a fault, and tells how soon after its end both sides were ready.
func (p *pair) meet(t *testing.T, f fault) time.Duration {
	s := &scene{pair: p, t: t, fault: f, asker: p.west, answerer: p.east}
	if f.asking == "east" {
		s.asker, s.answerer = p.east, p.west
	}
	defer func() {
		if t.Failed() {
			for _, g := range p.both() {
				t.Logf("%s:\n%s", g.name, g.tail())
			}
		}
		p.calm(t)
	}()
	f.run(s)
	t.Log("ready after", s.recovered)
	return s.recovered
}

// table is what was met, as docs/handshake.md has it. Cases that did not run have no time.
func table(all []fault, results []time.Duration) string {
	var b strings.Builder
	b.WriteString("| fault | who asks | while it holds | ready after |\n|---|---|---|---|\n")
	for i, f := range all {
		if i == 0 || f.group != all[i-1].group {
			fmt.Fprintf(&b, "| **%s** | | | |\n", f.group)
		}
		after := "-"
		if results[i] > 0 {
			after = seconds(results[i])
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.what, f.asking, f.holds, after)
	}
	return b.String()
}
