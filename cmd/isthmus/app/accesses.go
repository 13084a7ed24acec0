package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// accesses are the access listeners that were opened, kept so that they outlive the process as the Envoy that serves
// them does. Replicas open the same ones.
type accesses struct {
	document *state.Document[[]AccessState] // sorted by name
}

var accessesKind = state.Kind{Name: "accesses", File: "accesses.json"}

// openAccesses reads what was opened before; changed is called after each change.
func openAccesses(ctx context.Context, home state.Store, changed func()) (*accesses, error) {
	document, err := state.OpenDocument(ctx, state.DocumentConfig[[]AccessState]{Store: home, Key: accessesKind.Only(), Changed: changed})
	if err != nil {
		return nil, fmt.Errorf("read the open accesses: %w", err)
	}
	return &accesses{document: document}, nil
}

// follow takes in what other replicas change, until ctx ends.
func (a *accesses) follow(ctx context.Context, log *slog.Logger) { a.document.Follow(ctx, log) }

func (a *accesses) list() []AccessState { return slices.Clone(a.document.Value()) }

// open adds an access; its name is the port it listens on. The same access again is no error.
func (a *accesses) open(ctx context.Context, access AccessState) (AccessState, error) {
	access.Name = access.Listen[strings.LastIndexByte(access.Listen, ':')+1:]
	return access, a.change(ctx, func(all []AccessState) ([]AccessState, error) {
		for _, other := range all {
			if other == access {
				return all, nil
			}
			if other.Name == access.Name {
				return nil, fault.New(fault.Conflict, "port %s leads to %s port %d of %s already; close it first (isthmus access close %s)",
					other.Name, other.Target, other.Port, other.Peer, other.Name)
			}
		}
		next := append(slices.Clone(all), access)
		slices.SortFunc(next, func(x, y AccessState) int { return strings.Compare(x.Name, y.Name) })
		return next, nil
	})
}

func (a *accesses) close(ctx context.Context, name string) error {
	return a.change(ctx, func(all []AccessState) ([]AccessState, error) {
		next := slices.DeleteFunc(slices.Clone(all), func(x AccessState) bool { return x.Name == name })
		if len(next) == len(all) {
			return nil, fault.New(fault.NotFound, "no access is named %q; isthmus access list shows them", name)
		}
		return next, nil
	})
}

func (a *accesses) change(ctx context.Context, change func([]AccessState) ([]AccessState, error)) error {
	err := a.document.Update(ctx, func(all []AccessState) ([]AccessState, error) { return change(slices.Clone(all)) })
	if err != nil {
		return fmt.Errorf("the open accesses: %w", err)
	}
	return nil
}
