package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// tenure is the time that this replica acts for a lease: from its beginning, or from when it was taken over, to its end or
// to when another replica took it over.
type tenure struct {
	book      *Book
	name      state.Key
	id        string
	namespace string
	to        neutral.NetworkMode
	term      uint64
	ready     chan struct{} // closed when the target runs in the new mode
	over      chan struct{} // closed at the end
	wake      chan struct{}

	order sync.Mutex // of writes
	mu    sync.Mutex
	lease Lease
	users int
	err   error // of the switch
}

// errDeposed says that another replica acts for the lease now.
var errDeposed = errors.New("another replica has taken the switch over")

func newTenure(b *Book, name state.Key, l Lease) *tenure {
	return &tenure{book: b, name: name, id: l.ID, namespace: l.Ref.Namespace, to: l.mode(), term: l.Term, lease: l,
		ready: make(chan struct{}), over: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (t *tenure) snapshot() Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lease
}

// join uses the lease once more.
func (t *tenure) join(wish Wish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.lease.Phase == Restoring:
		return errAgain
	case !t.lease.fits(wish.Need):
		return t.lease.refuse(wish)
	case t.lease.Released:
		return errAgain
	}
	t.users++
	t.lease.Most = time.Now().Add(t.book.config.Most)
	return nil
}

func (t *tenure) leave() {
	t.mu.Lock()
	t.users--
	t.mu.Unlock()
}

// grant is what a user gets once the lease is ready or over.
func (t *tenure) grant() (Grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		t.users--
		return Grant{}, t.err
	}
	if t.lease.Phase == Restoring {
		t.users--
		return Grant{}, errAgain
	}
	return Grant{Ref: t.lease.Now, From: t.lease.Plan.From, To: t.lease.Plan.To, Away: t.lease.Away, Leave: sync.OnceFunc(t.leave)}, nil
}

// nudge makes the tenure look at the lease now.
func (t *tenure) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// create writes a lease that is not there yet.
func (t *tenure) create(ctx context.Context) error {
	t.lease.Until = time.Now().Add(t.book.config.Linger)
	t.lease.Most = time.Now().Add(t.book.config.Most)
	value, err := t.lease.encode()
	if err != nil {
		return err
	}
	_, err = t.book.config.Home.Put(ctx, state.Record{Key: t.name, Value: value})
	return err
}

// write changes the lease in its home and then here, if this replica still acts for it. What others did to the record
// meanwhile, who renew it and release it, stays.
func (t *tenure) write(ctx context.Context, change func(*Lease)) error {
	t.order.Lock()
	defer t.order.Unlock()
	var next Lease
	err := t.book.update(ctx, t.name, func(l *Lease) error {
		if l.ID != t.id || l.Replica != t.book.config.Replica || l.Term != t.term {
			return errDeposed
		}
		t.mu.Lock()
		if most := t.lease.Most; most.After(l.Most) {
			l.Most = most
		}
		t.mu.Unlock()
		change(l)
		next = *l
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		return errDeposed
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	if most := t.lease.Most; most.After(next.Most) {
		next.Most = most
	}
	t.lease = next
	t.mu.Unlock()
	return nil
}

// renew says that this replica is there.
func (t *tenure) renew(ctx context.Context) error {
	return t.write(ctx, func(l *Lease) { l.Until = time.Now().Add(t.book.config.Linger) })
}

// step is the journal's line before a touch of the orchestrator.
func (t *tenure) step(ctx context.Context, step string, native json.RawMessage) error {
	return t.write(ctx, func(l *Lease) {
		l.Step, l.Until = step, time.Now().Add(t.book.config.Linger)
		if native != nil {
			l.Plan.Native = native
		}
	})
}

func (t *tenure) switching() *neutral.Switching {
	l := t.snapshot()
	return &neutral.Switching{ID: l.ID, Peer: l.Peer, Ref: l.Ref, Need: l.Need, Plan: l.Plan, Step: t.step}
}

// run carries a lease from where it is to its end.
func (t *tenure) run(alive context.Context) {
	l := t.snapshot()
	log := t.book.config.Log.With("lease", t.id, "target", l.Target, "from", l.Plan.From, "to", l.Plan.To)
	ended := false
	defer func() { t.book.forget(t, ended) }()
	// A gateway that ends brings back what it switched. It has a while for it; who comes after has the journal.
	ctx, cancel := context.WithCancel(context.WithoutCancel(alive))
	defer cancel()
	defer context.AfterFunc(alive, func() {
		select {
		case <-ctx.Done():
		case <-time.After(departure):
			cancel()
		}
	})()
	stop := t.heart(ctx, cancel)
	defer stop()
	err := t.carry(ctx, alive)
	ended = err == nil
	switch {
	case err == nil:
	case errors.Is(err, errDeposed):
		log.Info("another replica goes on with the switch")
	default:
		log.Error("a switch is left to whoever reads its journal next", "err", err)
	}
	t.mu.Lock()
	if t.err == nil && err != nil {
		t.err = fault.New(fault.Unavailable, "the gateway has stopped the switch of container %s", l.Target)
	}
	t.mu.Unlock()
}

// departure is how long a gateway that ends has to bring back what it switched.
const departure = 20 * time.Second

// heart renews the lease while the orchestrator is at work; without it another replica takes over.
func (t *tenure) heart(ctx context.Context, lost context.CancelFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(t.book.config.Linger / 3):
			}
			if t.snapshot().Phase == Serving {
				continue // its users renew it
			}
			if err := t.renew(ctx); errors.Is(err, errDeposed) {
				lost()
				return
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// carry is run without its ends.
func (t *tenure) carry(ctx, alive context.Context) error {
	l := t.snapshot()
	if l.Phase == Switching && l.Term == 1 {
		if err := t.change(ctx); err != nil {
			return t.fail(ctx, err)
		}
		l = t.snapshot()
	}
	if l.Phase == Keeping {
		return t.attempt(ctx, t.book.config.Switcher.Keep)
	}
	if l.Phase == Serving {
		close(t.ready)
		if err := t.serve(alive); err != nil {
			return err
		}
	}
	if err := t.restore(ctx); !fault.Is(err, fault.Conflict) {
		return err
	}
	return nil
}

// change brings the target into the new mode, and waits until it answers.
func (t *tenure) change(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begun, asked := time.Now(), t.snapshot()
	defer func() { t.happened(Switching, time.Since(begun), err) }()
	now, err := t.book.config.Switcher.Switch(ctx, t.switching())
	if err != nil {
		return err
	}
	now.Port, now.Node = asked.Need.Port, ""
	if err := t.book.config.Reach(ctx, now); err != nil {
		return err
	}
	phase := Serving
	if asked.Plan.Keep {
		phase = Keeping
	}
	return t.write(ctx, func(l *Lease) { l.Phase, l.Now, l.Away, l.Step = phase, now, time.Since(begun), "" })
}

func (t *tenure) happened(phase Phase, away time.Duration, err error) {
	t.book.config.Happened(Event{Lease: t.snapshot(), Phase: phase, Away: away, Err: err})
}

// fail brings the target back after a switch that did not come about, and tells its users both.
func (t *tenure) fail(ctx context.Context, cause error) error {
	if errors.Is(cause, errDeposed) {
		return cause
	}
	begun, l := time.Now(), t.snapshot()
	err := t.restore(ctx)
	said := fault.Of(cause)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case fault.Is(err, fault.Conflict):
		t.err = fault.Wrap(fault.Conflict, errors.Join(cause, err), "the container could not be switched to network mode %s: %s; it is not brought back, for "+
			"somebody else has changed it: %s", l.Plan.To, said.Message, fault.Of(err).Message)
		return nil
	case err != nil:
		t.err = fault.Wrap(fault.Unavailable, errors.Join(cause, err), "the container could not be switched to network mode %s (%s), and is not back in %s yet",
			l.Plan.To, said.Message, l.Plan.From)
		return err
	}
	t.err = fault.Wrap(said.Kind, cause, "the container could not be switched to network mode %s: %s; it is back in %s, after %s",
		l.Plan.To, said.Message, l.Plan.From, time.Since(begun).Round(10*time.Millisecond))
	return nil
}

// serve renews the lease as long as it has users. It ends when nobody, of no replica, has used it for a while, when it is
// as old as it may be, when an admin ends it, and with the gateway.
func (t *tenure) serve(alive context.Context) error {
	for {
		select {
		case <-alive.Done():
		case <-t.wake:
		case <-time.After(t.book.config.Linger / 3):
		}
		if ended, err := t.ended(alive); ended || errors.Is(err, errDeposed) {
			return err
		} else if err != nil && alive.Err() == nil {
			t.book.config.Log.Warn("a lease is not renewed", "lease", t.id, "err", err)
		}
	}
}

// ended renews the lease, or ends its use.
func (t *tenure) ended(alive context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(alive), 5*time.Second)
	defer cancel()
	err := t.write(ctx, func(l *Lease) {
		t.mu.Lock()
		used := t.users > 0
		t.mu.Unlock()
		if used && time.Now().Add(t.book.config.Linger).Before(l.Most) {
			l.Until = time.Now().Add(t.book.config.Linger)
		}
	})
	if err != nil && alive.Err() == nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	over := t.lease.Released || alive.Err() != nil || !time.Now().Before(t.lease.Until)
	if over {
		t.lease.Phase = Restoring // nobody joins any more; the journal says so before anything is touched
	}
	return over, nil
}

// restore brings the target back, however often that takes. A Conflict says that somebody else's change was respected.
func (t *tenure) restore(ctx context.Context) error {
	begun := time.Now()
	if err := t.write(ctx, func(l *Lease) { l.Phase, l.Step = Restoring, "" }); err != nil {
		return err
	}
	err := t.attempt(ctx, t.book.config.Switcher.Restore)
	t.happened(Restoring, time.Since(begun), err)
	if fault.Is(err, fault.Conflict) { // somebody else's change is respected
		t.book.config.Log.Warn("a target is not brought back, for somebody else has changed it", "lease", t.id, "target", t.snapshot().Target, "err", err)
	}
	return err
}

// attempt does what ends a lease until it succeeds, and then ends it.
func (t *tenure) attempt(ctx context.Context, do func(context.Context, *neutral.Switching) error) error {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return do(ctx, t.switching())
		}()
		switch {
		case errors.Is(err, errDeposed):
			return err
		case err == nil || fault.Is(err, fault.Conflict):
			return errors.Join(err, t.erase(ctx))
		}
		t.book.config.Log.Warn("a target is not in its network mode yet", "lease", t.id, "target", t.snapshot().Target, "err", err)
		if err := t.write(ctx, func(l *Lease) { l.Failure = fault.Of(err).Message }); errors.Is(err, errDeposed) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// erase takes the lease out of its home.
func (t *tenure) erase(ctx context.Context) error {
	record, err := t.book.config.Home.Get(ctx, t.name)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if l, err := decode(record); err == nil && (l.ID != t.id || l.Term != t.term) {
		return nil
	}
	err = t.book.config.Home.Delete(ctx, t.name, record.Revision)
	if errors.Is(err, state.ErrConflict) {
		return t.erase(ctx)
	}
	return err
}
