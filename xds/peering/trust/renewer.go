package trust

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// DefaultLife is how long a gateway's certificate lives.
const DefaultLife = 24 * time.Hour

// renewRetry is how soon an issue that failed is tried again; a third of a certificate's life is left for it.
const renewRetry = time.Minute

// RenewerConfig is what a Renewer needs.
type RenewerConfig struct {
	Authority *Authority
	Lifetime  time.Duration // 0 is DefaultLife
	Logger    *slog.Logger  // nil is slog.Default
}

// Renewer keeps a gateway's certificate fresh.
type Renewer struct {
	config  RenewerConfig
	current atomic.Pointer[Pair]
}

// NewRenewer makes a Renewer; Run starts it.
func NewRenewer(c RenewerConfig) *Renewer {
	if c.Lifetime == 0 {
		c.Lifetime = DefaultLife
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Renewer{config: c}
}

// Current is the newest certificate; none before Run has issued the first.
func (r *Renewer) Current() Pair {
	if p := r.current.Load(); p != nil {
		return *p
	}
	return Pair{}
}

// Run issues a certificate at once, and then another one whenever two thirds of the last one's life have passed, and
// gives each to emit, from its own goroutine, until ctx ends; then it returns nil. It fails only when there is no first
// certificate; a renewal that fails is logged and tried again.
func (r *Renewer) Run(ctx context.Context, emit func(Pair)) error {
	pair, err := r.config.Authority.Issue(time.Now(), r.config.Lifetime)
	if err != nil {
		return err
	}
	for {
		r.current.Store(&pair)
		emit(pair)
		var renewed bool
		if pair, renewed = r.next(ctx, pair); !renewed {
			return nil
		}
	}
}

// next waits until a pair is to be renewed, and renews it; false when ctx ended before.
func (r *Renewer) next(ctx context.Context, old Pair) (Pair, bool) {
	// The wall clock is looked at now and then, since a machine that slept has a timer that slept too.
	const glance = time.Minute
	due := r.due(old, time.Now().Round(0))
	for {
		wait := min(glance, time.Until(due))
		select {
		case <-ctx.Done():
			return Pair{}, false
		case <-time.After(wait):
		}
		now := time.Now().Round(0)
		if now.Before(due) {
			continue
		}
		pair, err := r.config.Authority.Issue(now, r.config.Lifetime)
		if err == nil {
			return pair, true
		}
		r.config.Logger.Error("the gateway's certificate was not renewed", "until", old.NotAfter, "error", err)
		due = now.Add(renewRetry)
	}
}

// due is when a pair that was issued now is to be renewed. One that ends with its authority can only be renewed to the
// same end.
func (r *Renewer) due(p Pair, now time.Time) time.Time {
	if !p.NotAfter.Before(r.config.Authority.NotAfter()) {
		return p.NotAfter
	}
	return now.Add(p.NotAfter.Sub(now) * 2 / 3)
}
