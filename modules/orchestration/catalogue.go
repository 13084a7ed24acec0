// Package orchestration serves service queries: it keeps the catalogue of the services that this cluster exports, and
// says clearly why a query is refused. A query that is allowed never comes here: the catalogue and policy are compiled
// to routes that Envoy follows by itself.
package orchestration

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Snapshot is the catalogue at one moment. It never changes.
type Snapshot struct {
	Version  uint64
	Services []neutral.Service // sorted by namespace and name
	Synced   bool              // the orchestrator has told everything once
	byID     map[string]int
}

// Find gives the service of an id, "<service>.<namespace>".
func (s *Snapshot) Find(id string) (neutral.Service, bool) {
	i, ok := s.byID[id]
	if !ok {
		return neutral.Service{}, false
	}
	return s.Services[i], true
}

// Catalogue is the services that this cluster exports, following its orchestrator.
type Catalogue struct {
	current atomic.Pointer[Snapshot]
	mu      sync.Mutex
	changed chan struct{}
}

// NewCatalogue makes an empty catalogue that has not synced.
func NewCatalogue() *Catalogue {
	c := &Catalogue{changed: make(chan struct{})}
	c.current.Store(&Snapshot{})
	return c
}

// Snapshot is the catalogue now.
func (c *Catalogue) Snapshot() *Snapshot { return c.current.Load() }

// Changed gives the catalogue now and a channel that closes when it changes.
func (c *Catalogue) Changed() (*Snapshot, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.Load(), c.changed
}

// Publish takes the complete set of exported services. What a service's containers did is in it at once: a service
// whose last container went is not in the set, or has no endpoints.
func (c *Catalogue) Publish(services []neutral.Service) {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b neutral.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current.Load()
	if before.Synced && slices.EqualFunc(before.Services, services, neutral.Service.Equal) {
		return
	}
	next := &Snapshot{Version: before.Version + 1, Services: services, Synced: true, byID: make(map[string]int, len(services))}
	for i, s := range services {
		next.byID[s.ID()] = i
	}
	c.current.Store(next)
	close(c.changed)
	c.changed = make(chan struct{})
}
