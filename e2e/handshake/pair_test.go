package handshake

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// pair is two gateways that are each other's peer.
type pair struct{ west, east *gateway }

// patience is how soon after the end of a fault both sides must be ready, in one session. A call that was lost is given
// up after 4 seconds, and the pause before the next one has grown to 8 seconds at most by the faults here.
const patience = 15 * time.Second

// newPair starts two gateways, and puts the relays in place; they end with root. With passive, east has no address of
// west.
func newPair(t, root *testing.T, passive bool) *pair {
	t.Helper()
	p := &pair{newGateway(t, root, "west"), newGateway(t, root, "east")}
	for _, g := range p.both() {
		var err error
		if g.link, err = relay.NewLink(p.other(g).peer); err != nil {
			t.Fatal(err)
		}
		root.Cleanup(func() { _ = g.link.Close() })
		g.declare(t)
		g.command(t, "trust", "init", "--config", g.config())
	}
	p.west.knows(t, p.east, false)
	p.east.knows(t, p.west, passive)
	for _, g := range p.both() {
		g.start(t)
		root.Cleanup(g.end)
	}
	if _, err := within(60*time.Second, p.joined); err != nil {
		t.Fatal(err)
	}
	for _, g := range p.both() {
		g.interpose(t)
	}
	p.begin(t)
	if _, err := within(patience, p.joined); err != nil { // by way of the relays
		t.Fatal(err)
	}
	return p
}

func (p *pair) both() []*gateway { return []*gateway{p.west, p.east} }

func (p *pair) other(g *gateway) *gateway {
	if g == p.west {
		return p.east
	}
	return p.west
}

// begin kills both sides and starts them again, so that the ten steps begin.
func (p *pair) begin(t *testing.T) {
	t.Helper()
	for _, g := range p.both() {
		g.kill()
	}
	for _, g := range p.both() {
		g.start(t)
	}
}

// seen is how both sides see each other.
func (p *pair) seen() (states [2]app.PeerState, err error) {
	var errs []error
	for i, g := range p.both() {
		var err error
		if states[i], err = g.sees(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.name, err))
		}
	}
	return states, errors.Join(errs...)
}

// joined tells what is missing of this: both are ready, in one session, and know what the other is.
func (p *pair) joined() error {
	states, err := p.seen()
	if err != nil {
		return err
	}
	for i, g := range p.both() {
		if s := states[i]; s.State != "ready" || s.Orchestrator != string(p.other(g).orchestrator) {
			return fmt.Errorf("%s sees %+v", g.name, s)
		}
	}
	if *other != "" && states[1].Session == "" {
		return nil // it is of before sessions had ids
	}
	if states[0].Session == "" || states[0].Session != states[1].Session {
		return fmt.Errorf("sessions %q and %q", states[0].Session, states[1].Session)
	}
	return nil
}

// calm ends every fault, and makes the gateways what they were.
func (p *pair) calm(t *testing.T) {
	t.Helper()
	for _, g := range p.both() {
		g.link.Set(relay.Weather{})
		g.calls.Set(nil)
		g.thaw()
		if g.orchestrator != neutral.Docker {
			g.orchestrator = neutral.Docker
			g.declare(t)
		}
	}
}
