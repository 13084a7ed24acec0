package caller

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Reviewer knows whose the tokens of an orchestrator are. The name is empty for a token that is not good; an error says
// that it could not be asked.
type Reviewer interface {
	ReviewToken(ctx context.Context, token string, audiences []string) (name string, groups []string, err error)
}

const (
	// goodFor is how long a good token is not asked about again: one that was revoked is good for that long.
	goodFor = 30 * time.Second
	// badFor is the same for a token that is not good; it may become so.
	badFor = 5 * time.Second
	// remembered bounds the tokens that are remembered, and asking how many are asked about at once.
	remembered = 4096
	asking     = 8
	// reviewDeadline bounds one question.
	reviewDeadline = 4 * time.Second
)

type tokenHash = [sha256.Size]byte

// reviews remembers what the reviewer said, by hashes of tokens.
type reviews struct {
	reviewer  Reviewer
	audiences []string
	now       func() time.Time
	log       *slog.Logger
	flights   singleflight.Group
	slots     chan struct{}

	mu    sync.Mutex
	known map[tokenHash]review
}

type review struct {
	Identity
	until time.Time
}

func newReviews(reviewer Reviewer, audiences []string, log *slog.Logger) *reviews {
	return &reviews{reviewer: reviewer, audiences: audiences, now: time.Now, log: log, slots: make(chan struct{}, asking),
		known: map[tokenHash]review{}}
}

// owner is a token's owner.
func (r *reviews) owner(ctx context.Context, token string) (Identity, error) {
	hash := sha256.Sum256([]byte(token))
	if found, ok := r.recall(hash); ok {
		return found.Identity, nil
	}
	// The question is its askers' together, so it goes on when one of them leaves; its deadline ends it.
	flight := r.flights.DoChan(string(hash[:]), func() (any, error) {
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewDeadline)
		defer cancel()
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ask.Done():
			return nil, fault.New(fault.Unavailable, "the gateway has too many tokens to check at the moment")
		}
		name, groups, err := r.reviewer.ReviewToken(ask, token, r.audiences)
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "the gateway cannot check bearer tokens at the moment")
		}
		var who Identity
		if name != "" && modules.CheckCaller(name) == nil {
			var left int
			if who.Groups, left = modules.JoinGroups(groups); left > 0 {
				r.log.Warn("a caller is in more groups than a peer is told of", "caller", name, "left", left)
			}
			who.Name = name
		}
		r.remember(hash, who)
		return who, nil
	})
	select {
	case <-ctx.Done():
		return Identity{}, ctx.Err()
	case result := <-flight:
		if result.Err != nil {
			return Identity{}, result.Err
		}
		return result.Val.(Identity), nil
	}
}

func (r *reviews) recall(hash tokenHash) (review, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.known[hash]
	return found, ok && r.now().Before(found.until)
}

func (r *reviews) remember(hash tokenHash, who Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.known) >= remembered {
		r.forget(now)
	}
	life := goodFor
	if who.Name == "" {
		life = badFor
	}
	r.known[hash] = review{Identity: who, until: now.Add(life)}
}

// forget makes room: what is over goes, and when that is not enough, bad tokens before good ones.
func (r *reviews) forget(now time.Time) {
	for hash, found := range r.known {
		if !now.Before(found.until) || found.Name == "" {
			delete(r.known, hash)
		}
	}
	for hash := range r.known {
		if len(r.known) < remembered {
			return
		}
		delete(r.known, hash)
	}
}
