// Package tracker holds how each peer is now, for whoever shows it, measures it, or compiles configuration from it.
package tracker

import (
	"cmp"
	"slices"
	"strconv"
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
	// Session tells sessions apart; it is the same at both peers, and "" outside of one.
	Session string `json:"session,omitempty"`
	// Configuration is what the peer said last; nil while it has never said anything. It outlives a restart of this
	// gateway, and then Remembered is true until the peer has said it again.
	Configuration *peering.Configuration  `json:"configuration,omitempty"`
	Remembered    bool                    `json:"remembered,omitempty"`
	Protocol      peering.ProtocolVersion `json:"protocol"` // what both speak; zero before the handshake
	LastSeen      time.Time               `json:"lastSeen,omitzero"`
	LastError     string                  `json:"lastError,omitempty"`
	LastErrorAt   time.Time               `json:"lastErrorAt,omitzero"`
	// Unanswered is how many calls of this side had no answer since the last that had. A peer that is in session then
	// reaches this gateway, and is not reached by it.
	Unanswered int           `json:"unanswered,omitempty"`
	RTT        time.Duration `json:"rtt,omitempty"` // of the last heartbeat, in nanoseconds
}

// InSession tells whether both sides' isthmus are known to be there and to agree.
func (s Status) InSession() bool { return s.Condition.InSession() }

// Routable tells whether requests may go to the peer: it has said what it is, in this process or before, and neither
// side refuses the other. That its isthmus is silent, restarted or stopped is no reason against it, since its Envoy
// goes on with all that needs no isthmus, and answers for itself when it does not.
func (s Status) Routable() bool { return s.Configuration != nil && s.Condition != peering.Refused }

// differs tells whether a change is one that subscribers act on: not each heartbeat is.
func (s Status) differs(t Status) bool {
	if s.Condition != t.Condition || s.Protocol != t.Protocol || (s.Configuration == nil) != (t.Configuration == nil) {
		return true
	}
	return s.Configuration != nil && !s.Configuration.Same(*t.Configuration)
}

// Tracker holds the status of every configured peer. The zero value is not usable; New makes one.
type Tracker struct {
	metrics metrics

	mu            sync.Mutex
	entries       map[string]*Entry
	subscriptions map[*Subscription]struct{}
}

// New makes an empty Tracker.
func New() *Tracker {
	return &Tracker{
		metrics:       newMetrics(),
		entries:       map[string]*Entry{},
		subscriptions: map[*Subscription]struct{}{},
	}
}

// Peers lists every peer, by name.
func (t *Tracker) Peers() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := make([]Status, 0, len(t.entries))
	for _, e := range t.entries {
		peers = append(peers, e.status)
	}
	slices.SortFunc(peers, func(a, b Status) int { return cmp.Compare(a.Peer, b.Peer) })
	return peers
}

// Peer is the status of one peer.
func (t *Tracker) Peer(name string) (Status, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[name]
	if !ok {
		return Status{}, false
	}
	return e.status, true
}

// Track begins to hold a peer. An entry that was held under the same name is closed.
func (t *Tracker) Track(peer string, now time.Time) *Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &Entry{tracker: t, status: Status{Peer: peer, Condition: peering.Connecting, Since: now}}
	if t.entries[peer] != nil {
		t.metrics.forget(peer)
	}
	t.entries[peer] = e
	t.notify()
	return e
}

// Entry is where one peer's session writes. After Close, or once another entry has its name, it writes nowhere.
type Entry struct {
	tracker *Tracker
	status  Status
}

// open runs write while the entry is held.
func (e *Entry) open(write func(peer string)) {
	e.tracker.mu.Lock()
	defer e.tracker.mu.Unlock()
	if e.tracker.entries[e.status.Peer] == e {
		write(e.status.Peer)
	}
}

// Update sets the status. The entry itself knows Peer, Since and RTT.
func (e *Entry) Update(s Status, now time.Time) {
	e.open(func(peer string) {
		old := e.status
		s.Peer, s.Since, s.RTT = peer, old.Since, old.RTT
		if s.Condition != old.Condition {
			s.Since = now
		}
		e.status = s
		if s.differs(old) {
			e.tracker.notify()
		}
	})
}

// Took counts one of the ten steps.
func (e *Entry) Took(step int) {
	e.open(func(peer string) { e.tracker.metrics.steps.WithLabelValues(peer, strconv.Itoa(step)).Inc() })
}

// Failed counts a failure.
func (e *Entry) Failed(reason string) {
	e.open(func(peer string) { e.tracker.metrics.failures.WithLabelValues(peer, reason).Inc() })
}

// Answered notes a heartbeat that was answered.
func (e *Entry) Answered(rtt time.Duration) {
	e.open(func(peer string) {
		e.status.RTT = rtt
		e.tracker.metrics.rtt.WithLabelValues(peer).Observe(rtt.Seconds())
	})
}

// Close forgets the peer and its metrics.
func (e *Entry) Close() {
	e.open(func(peer string) {
		delete(e.tracker.entries, peer)
		e.tracker.metrics.forget(peer)
		e.tracker.notify()
	})
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
