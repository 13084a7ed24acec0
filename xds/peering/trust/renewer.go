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
	Authority *Authority    // nil until Use gives one
	Lifetime  time.Duration // of a certificate; 0 is DefaultLife
	Before    time.Duration // its end it is renewed; 0 is a third of Lifetime
	Logger    *slog.Logger  // nil is slog.Default
}

// Renewer keeps a gateway's certificate fresh.
type Renewer struct {
	config    RenewerConfig
	current   atomic.Pointer[Pair]
	authority atomic.Pointer[Authority]
	changed   chan struct{} // the authority
}

// NewRenewer makes a Renewer; Run starts it.
func NewRenewer(c RenewerConfig) *Renewer {
	if c.Lifetime == 0 {
		c.Lifetime = DefaultLife
	}
	if c.Before == 0 || c.Before >= c.Lifetime {
		c.Before = c.Lifetime / 3
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	r := &Renewer{config: c, changed: make(chan struct{}, 1)}
	if c.Authority != nil {
		r.Use(c.Authority)
	}
	return r
}

// Use makes another authority issue: a certificate of it takes the place of the present one at once.
func (r *Renewer) Use(a *Authority) {
	r.authority.Store(a)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Current is the newest certificate; none before Run has issued the first.
func (r *Renewer) Current() Pair {
	if p := r.current.Load(); p != nil {
		return *p
	}
	return Pair{}
}

// Run issues a certificate as soon as there is an authority, and another one whenever the last one nears its end or the
// authority changed. It gives each to emit, from its own goroutine, until ctx ends; then it returns nil. It fails only
// when there is an authority and no first certificate; a renewal that fails is logged and tried again.
func (r *Renewer) Run(ctx context.Context, emit func(Pair)) error {
	// The wall clock is looked at now and then, since a machine that slept has a timer that slept too.
	const glance = time.Minute
	var due time.Time
	wait := glance
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-r.changed:
			timer.Stop()
			due = time.Time{}
		case <-timer.C:
			select {
			case <-r.changed: // at the same moment
				due = time.Time{}
			default:
			}
		}
		now := time.Now().Round(0)
		authority := r.authority.Load()
		if authority == nil || now.Before(due) {
			wait = glance
			if authority != nil {
				wait = min(glance, time.Until(due))
			}
			continue
		}
		pair, err := authority.Issue(now, r.config.Lifetime)
		switch {
		case err == nil:
			r.current.Store(&pair)
			emit(pair)
			due = r.due(authority, pair, now)
		case r.current.Load() == nil:
			return err
		default:
			r.config.Logger.Error("the gateway's certificate was not renewed", "until", r.Current().NotAfter, "error", err)
			due = now.Add(renewRetry)
		}
		wait = min(glance, time.Until(due))
	}
}

// due is when a pair that was issued now is to be renewed. One that ends with its authority can only be renewed to the
// same end.
func (r *Renewer) due(a *Authority, p Pair, now time.Time) time.Time {
	if !p.NotAfter.Before(a.NotAfter()) {
		return p.NotAfter
	}
	return p.NotAfter.Add(-min(r.config.Before, p.NotAfter.Sub(now)/2))
}

// RenewAt is when the present certificate is to be renewed; zero for never by this gateway.
func (r *Renewer) RenewAt() time.Time {
	a, p := r.authority.Load(), r.current.Load()
	if a == nil || p == nil || !a.Renews() {
		return time.Time{}
	}
	return r.due(a, *p, p.NotBefore.Add(skew))
}
