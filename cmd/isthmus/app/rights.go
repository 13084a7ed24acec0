package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// rightsPatience is how long a check waits for the orchestrator.
const rightsPatience = 10 * time.Second

// rights tells what is wrong with the gateway's account at its orchestrator: what it lacks, and what it has and does not
// need.
func rights(ctx context.Context, set *manifest.Set) []string {
	of := neutral.Orchestrator(set.Gateway.Spec.Orchestrator.Type)
	_, target, err := connect(ctx, of, connection(set, slog.New(slog.DiscardHandler)))
	if err != nil {
		return []string{err.Error()}
	}
	defer func() { _ = target.Close() }() // it only asked
	account, ok := target.(dialect.Rights)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rightsPatience)
	defer cancel()
	found, err := account.Rights(ctx, activePeers(set))
	if err != nil {
		return []string{fmt.Sprintf("the rights of the gateway's account are not known: %s", fault.Of(err).Message)}
	}
	var all []string
	for _, missing := range found.Missing {
		all = append(all, "the gateway's account may not "+missing)
	}
	for _, needless := range found.Needless {
		all = append(all, "the gateway's account may, and need not, "+needless)
	}
	return all
}

// activePeers are the peers that are not suspended.
func activePeers(set *manifest.Set) []string {
	var peers []string
	for _, p := range set.Peers {
		if !p.Spec.Suspended {
			peers = append(peers, p.Metadata.Name)
		}
	}
	return peers
}
