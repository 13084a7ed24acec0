package outage

import (
	"context"
	"fmt"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
)

// victim is what dies.
type victim int

const (
	isthmus victim = iota
	orchestrator
	link
)

var victims = [...]victim{isthmus, orchestrator, link}

// String is the victim's name in the page's table.
func (v victim) String() string {
	return [...]string{"isthmus", "orchestrator", "link"}[v]
}

// kill kills a victim of a site, and tells whether the change before which it dies arrives nevertheless.
func (v victim) kill(ctx context.Context, s *site) (arrives bool, err error) {
	switch v {
	case isthmus:
		return false, s.gateway.Kill(ctx)
	case orchestrator:
		return false, s.engine.Crash(ctx)
	case link:
		s.link.Set(relay.Weather{Refuse: true})
		if s.link.Reset() == 0 {
			return true, fmt.Errorf("no connection was cut")
		}
	}
	return true, nil
}

// revive brings a victim back.
func (v victim) revive(ctx context.Context, s *site) error {
	switch v {
	case isthmus:
		return s.gateway.Start(ctx)
	case orchestrator:
		return s.engine.Recover(ctx)
	default:
		s.link.Set(relay.Weather{})
		return nil
	}
}
