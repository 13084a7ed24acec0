package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Run opens the book until ctx ends: leases can be had, and those that nobody renews any more are brought to their end,
// whichever replica began them. It returns when all that this replica switched is back, or was left in the journal.
func (b *Book) Run(ctx context.Context) error {
	b.read(ctx)
	b.mu.Lock()
	b.alive = ctx
	b.mu.Unlock()
	b.group.Go(func() { b.config.Home.Watch(ctx, Kind, func() { b.read(ctx) }) })
	defer func() {
		b.mu.Lock()
		b.alive = nil // nothing begins any more
		b.mu.Unlock()
		b.group.Wait()
	}()
	for first := true; ; first = false {
		b.mu.Lock()
		stale := b.stale
		b.mu.Unlock()
		if stale {
			b.read(ctx)
		}
		b.takeOver(ctx, first)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(b.config.Linger / 3):
		}
	}
}

// read takes in what is in the home.
func (b *Book) read(ctx context.Context) {
	records, err := b.config.Home.List(ctx, Kind)
	b.mu.Lock()
	b.stale = err != nil
	b.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		b.config.Log.Warn("leases of network modes cannot be read", "err", err)
	}
	if err != nil && len(records) == 0 {
		return
	}
	known := make([]Lease, 0, len(records))
	for _, record := range records {
		l, err := decode(record)
		if err != nil {
			b.config.Log.Error("a lease cannot be read; what it switched is not brought back before that is mended", "at", b.config.Home.Place(record.Key), "err", err)
			continue
		}
		known = append(known, l)
	}
	b.mu.Lock()
	b.known = known
	b.mu.Unlock()
}

// takeOver makes this replica act for the leases for which nobody does. At its start those are also its own ones that were
// under way when it was ended.
func (b *Book) takeOver(ctx context.Context, first bool) {
	b.mu.Lock()
	known := b.known
	b.mu.Unlock()
	for _, l := range known {
		lapsed := func(l *Lease) bool {
			return !time.Now().Before(l.Until) || first && l.Replica == b.config.Replica && l.Phase != Serving
		}
		name := l.key()
		b.mu.Lock()
		_, own := b.own[name]
		b.mu.Unlock()
		if own || !lapsed(&l) {
			continue
		}
		var taken Lease
		err := b.update(ctx, name, func(now *Lease) error {
			if now.ID != l.ID || !lapsed(now) {
				return errDeposed
			}
			now.Replica, now.Until, now.Failure = b.config.Replica, time.Now().Add(b.config.Linger), ""
			now.Term++
			if now.Phase != Keeping {
				now.Phase = Restoring
			}
			taken = *now
			return nil
		})
		if errors.Is(err, errDeposed) || errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			b.config.Log.Warn("a lease that nobody renews is not taken over", "lease", l.ID, "err", err)
			continue
		}
		b.config.Log.Info("a lease that nobody renewed is brought to its end", "lease", l.ID, "target", l.Target, "step", l.Step)
		t := newTenure(b, name, taken)
		b.mu.Lock()
		if _, own := b.own[name]; own { // it ended meanwhile, and there is another one already
			b.mu.Unlock()
			continue
		}
		b.own[name] = t
		b.group.Go(func() { t.run(ctx) })
		b.mu.Unlock()
	}
}

// visitPause is how often a lease is looked at that another replica acts for.
const visitPause = 100 * time.Millisecond

// visit uses a lease that another replica acts for.
func (b *Book) visit(ctx context.Context, name state.Key, wish Wish) (Grant, error) {
	for {
		record, err := b.config.Home.Get(ctx, name)
		if errors.Is(err, state.ErrNotFound) {
			return Grant{}, errAgain
		}
		if err != nil {
			return Grant{}, err
		}
		l, err := decode(record)
		switch {
		case err != nil:
			return Grant{}, err
		case l.Phase == Restoring || l.Released:
			return Grant{}, errAgain
		case !l.fits(wish.Need):
			return Grant{}, l.refuse(wish)
		case l.Phase == Serving:
			return b.stay(ctx, name, l)
		}
		select {
		case <-ctx.Done():
			return Grant{}, fault.New(fault.Timeout, "container %s is on its way into network mode %s, which takes longer than the request may wait", wish.Target, l.mode())
		case <-time.After(visitPause):
		}
	}
}

// stay renews another replica's lease as long as it is used here.
func (b *Book) stay(ctx context.Context, name state.Key, l Lease) (Grant, error) {
	renew := func(ctx context.Context, joined bool) error {
		return b.update(ctx, name, func(now *Lease) error {
			if now.ID != l.ID || now.Phase != Serving || now.Released {
				return errAgain
			}
			if joined {
				now.Most = time.Now().Add(b.config.Most)
			}
			if until := time.Now().Add(b.config.Linger); until.After(now.Until) && until.Before(now.Most) {
				now.Until = until
			}
			return nil
		})
	}
	if err := renew(ctx, true); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			err = errAgain
		}
		return Grant{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alive == nil || b.alive.Err() != nil {
		return Grant{}, fault.New(fault.Unavailable, "the gateway ends")
	}
	staying, leave := context.WithCancel(b.alive)
	b.group.Go(func() {
		for {
			select {
			case <-staying.Done():
				return
			case <-time.After(b.config.Linger / 3):
			}
			if err := renew(staying, false); errors.Is(err, errAgain) || errors.Is(err, state.ErrNotFound) {
				return
			}
		}
	})
	return Grant{Ref: l.Now, From: l.Plan.From, To: l.Plan.To, Leave: sync.OnceFunc(leave)}, nil
}
