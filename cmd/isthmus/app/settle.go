package app

import (
	"context"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
)

const (
	// settling is how long a client of a peer's API waits for a handshake that has just begun, as after a restart of this
	// gateway. Most take some milliseconds; a client that came in between would be refused.
	settling   = 5 * time.Second
	settlePace = 20 * time.Millisecond
)

// settle waits while a handshake with a peer has just begun, and until Envoy knows of its end.
func (g *gateway) settle(ctx context.Context, peer string) {
	for {
		status, ok := g.tracker.Peer(peer)
		if !ok || g.settled(status) || time.Since(status.Since) >= settling {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settlePace):
		}
	}
}

// settled tells whether nothing of a handshake is missing that will soon be there.
func (g *gateway) settled(status tracker.Status) bool {
	switch {
	case status.Condition == peering.Connecting:
		return false
	case !status.Routable():
		return true
	}
	given := g.compiled.Load()
	return given != nil && given.routable[status.Peer] && g.xds.Took(given.version)
}
