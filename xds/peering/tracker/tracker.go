// Package tracker holds how each peer is now, for whoever shows it, measures it, or compiles configuration from it.
package tracker

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Status is one peer as the session sees it.
type Status struct {
	Peer      string            `json:"peer"`
	Condition peering.Condition `json:"condition"`
	Since     time.Time         `json:"since"` // when the condition began
	// Step is the last of the ten steps that was taken; 0 before the first.
	Step int `json:"step"`
	// Configuration is what the peer said last; nil while it has never said anything. It outlives a restart of this
	// gateway, and then Remembered is true until the peer has said it again.
	Configuration *peering.Configuration  `json:"configuration,omitempty"`
	Remembered    bool                    `json:"remembered,omitempty"`
	Protocol      peering.ProtocolVersion `json:"protocol"` // what both speak; zero before the handshake
	LastSeen      time.Time               `json:"lastSeen,omitzero"`
	LastError     string                  `json:"lastError,omitempty"`
	LastErrorAt   time.Time               `json:"lastErrorAt,omitzero"`
	RTT           time.Duration           `json:"rtt,omitempty"` // of the last heartbeat, in nanoseconds
}

// InSession tells whether requests may go to the peer.
func (s Status) InSession() bool { return s.Condition.InSession() }

// differs tells whether a change is one that subscribers act on: not each heartbeat is.
func (s Status) differs(t Status) bool {
	if s.Condition != t.Condition || s.Protocol != t.Protocol || (s.Configuration == nil) != (t.Configuration == nil) {
		return true
	}
	return s.Configuration != nil && !s.Configuration.Same(*t.Configuration)
}

// Tracker holds the status of every configured peer. The zero value is not usable; New makes one.
type Tracker struct {
	metrics

	mu            sync.Mutex
	peers         map[string]Status
	subscriptions map[*Subscription]struct{}
}

// New makes an empty Tracker.
func New() *Tracker {
	return &Tracker{
		metrics:       newMetrics(),
		peers:         map[string]Status{},
		subscriptions: map[*Subscription]struct{}{},
	}
}

// Peers lists every peer, by name.
func (t *Tracker) Peers() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.peers), func(a, b Status) int { return cmp.Compare(a.Peer, b.Peer) })
}

// Peer is the status of one peer.
func (t *Tracker) Peer(name string) (Status, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.peers[name]
	return s, ok
}

// Update sets a peer's status. Since is kept while the condition is the same.
func (t *Tracker) Update(s Status, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.peers[s.Peer]
	s.Since = now
	if known && old.Condition == s.Condition {
		s.Since = old.Since
	}
	t.peers[s.Peer] = s
	if !known || s.differs(old) {
		t.notify()
	}
}

// Remove forgets a peer and its metrics.
func (t *Tracker) Remove(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.peers[peer]; !known {
		return
	}
	delete(t.peers, peer)
	t.metrics.forget(peer)
	t.notify()
}

// notify wakes every subscriber; one that has not looked yet needs no second call. The caller holds mu.
func (t *Tracker) notify() {
	for s := range t.subscriptions {
		select {
		case s.changes <- struct{}{}:
		default:
		}
	}
}

// Subscription tells that something changed; what it is, Peers tells.
type Subscription struct {
	tracker *Tracker
	changes chan struct{}
}

// Subscribe begins to tell of changes of a peer's condition, protocol or configuration, and of peers that come and go.
// Changes that come faster than they are received are told once.
func (t *Tracker) Subscribe() *Subscription {
	s := &Subscription{tracker: t, changes: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscriptions[s] = struct{}{}
	return s
}

// Changes receives a value after a change. It is never closed.
func (s *Subscription) Changes() <-chan struct{} { return s.changes }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.tracker.mu.Lock()
	defer s.tracker.mu.Unlock()
	delete(s.tracker.subscriptions, s)
}
