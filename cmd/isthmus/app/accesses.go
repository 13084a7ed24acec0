package app

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// accesses are the access listeners that were opened, kept in a file so that they outlive the process as the Envoy that
// serves them does.
type accesses struct {
	path    string
	changed func()

	mu  sync.Mutex
	all []AccessState // sorted by name
}

// openAccesses reads what was opened before; changed is called after each change.
func openAccesses(stateDir string, changed func()) (*accesses, error) {
	a := &accesses{path: filepath.Join(stateDir, "accesses.json"), changed: changed}
	if err := durable.ReadJSON(a.path, &a.all); err != nil {
		return nil, fmt.Errorf("read the open accesses: %w", err)
	}
	return a, nil
}

func (a *accesses) list() []AccessState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all)
}

// open adds an access; its name is the port it listens on. The same access again is no error.
func (a *accesses) open(access AccessState) (AccessState, error) {
	access.Name = access.Listen[strings.LastIndexByte(access.Listen, ':')+1:]
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, other := range a.all {
		if other == access {
			return access, nil
		}
		if other.Name == access.Name {
			return access, fault.New(fault.Conflict, "port %s leads to %s port %d of %s already; close it first (isthmus access close %s)",
				other.Name, other.Target, other.Port, other.Peer, other.Name)
		}
	}
	next := append(slices.Clone(a.all), access)
	slices.SortFunc(next, func(x, y AccessState) int { return strings.Compare(x.Name, y.Name) })
	return access, a.save(next)
}

func (a *accesses) close(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(a.all), func(x AccessState) bool { return x.Name == name })
	if len(next) == len(a.all) {
		return fault.New(fault.NotFound, "no access is named %q; isthmus access list shows them", name)
	}
	return a.save(next)
}

// save makes next the accesses. The file is whole at any moment.
func (a *accesses) save(next []AccessState) error {
	if err := durable.WriteJSON(a.path, next); err != nil {
		return fmt.Errorf("write the open accesses: %w", err)
	}
	a.all = next
	a.changed()
	return nil
}
