package stream

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering/store"
)

// saver writes what peers said behind the drivers' backs, so that a slow store delays no heartbeat. Of several records
// of one peer only the newest is written; one that could not be written is tried again.
type saver struct {
	store store.Store
	log   *slog.Logger

	mu      sync.Mutex
	pending map[string]change
	kick    chan struct{}
}

// change is a record to write, or a peer to forget.
type change struct {
	record store.Record
	forget bool
	failed func(reason string)
}

const (
	saveDeadline = 5 * time.Second
	saveRetry    = 5 * time.Second
)

func newSaver(s store.Store, log *slog.Logger) *saver {
	return &saver{store: s, log: log, pending: map[string]change{}, kick: make(chan struct{}, 1)}
}

func (s *saver) put(r store.Record, failed func(reason string)) {
	s.add(r.Peer, change{record: r, failed: failed})
}

func (s *saver) forget(peer string) {
	s.add(peer, change{forget: true, failed: func(string) {}})
}

func (s *saver) add(peer string, c change) {
	s.mu.Lock()
	s.pending[peer] = c
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (s *saver) run(ctx context.Context) {
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush(context.WithoutCancel(ctx))
			return
		case <-s.kick:
		case <-retry.C:
		}
		if !s.flush(ctx) {
			retry.Reset(saveRetry)
		}
	}
}

// flush writes what is pending and tells whether all of it was written.
func (s *saver) flush(ctx context.Context) bool {
	s.mu.Lock()
	pending := s.pending
	s.pending = map[string]change{}
	s.mu.Unlock()

	maps.DeleteFunc(pending, func(peer string, c change) bool {
		ctx, cancel := context.WithTimeout(ctx, saveDeadline)
		defer cancel()
		var err error
		if c.forget {
			err = s.store.Delete(ctx, peer)
		} else {
			err = s.store.Save(ctx, c.record)
		}
		if err != nil {
			c.failed("store")
			s.log.Error("peering: what the peer said could not be stored", "peer", peer, "error", err)
		}
		return err == nil
	})
	if len(pending) == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer, c := range pending {
		if _, newer := s.pending[peer]; !newer {
			s.pending[peer] = c
		}
	}
	return false
}
