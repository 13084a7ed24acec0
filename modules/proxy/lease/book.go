package lease

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Switcher changes network modes at an orchestrator, as the dialects have it.
type Switcher interface {
	PlanSwitch(ctx context.Context, peer string, ref neutral.TargetRef, need neutral.NetworkNeed) (neutral.SwitchPlan, error)
	Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error)
	Restore(ctx context.Context, s *neutral.Switching) error
	Keep(ctx context.Context, s *neutral.Switching) error
}

// Config is what a Book needs. All fields but Happened are required.
type Config struct {
	Home     state.Store
	Replica  string
	Switcher Switcher
	// Reach waits until a target that was switched answers at its port.
	Reach func(ctx context.Context, ref neutral.TargetRef) error
	// Linger is how long a lease outlives its last use, or the gateway that renews it.
	Linger time.Duration
	// Most is how long a lease is renewed at most after somebody asked for it.
	Most time.Duration
	// Happened is told how each switch, and each way back, went.
	Happened func(Event)
	Log      *slog.Logger
}

// Event is the end of a switch or of a way back.
type Event struct {
	Lease Lease
	Phase Phase // that ended
	Away  time.Duration
	Err   error
}

// patience bounds a switch, and each try of a way back.
const patience = 4 * time.Minute

// Book is the leases of a gateway. It is safe for concurrent use.
type Book struct {
	config Config

	creating sync.Mutex // held while a lease is written that is not there yet

	mu    sync.Mutex
	alive context.Context // nil while the book is closed
	group sync.WaitGroup
	own   map[state.Key]*tenure // that this replica acts for
	known []Lease               // all that were in the home when it was last read
	stale bool                  // that could not be read since
}

// New makes a book. It is closed until Run.
func New(config Config) *Book {
	if config.Happened == nil {
		config.Happened = func(Event) {}
	}
	return &Book{config: config, own: map[state.Key]*tenure{}}
}

// Wish is what somebody wants switched.
type Wish struct {
	Ref          neutral.TargetRef
	Target       string         // <namespace>/<name>, for people
	Object       neutral.Object // that a switch changes, by which a lease is found
	Need         neutral.NetworkNeed
	Peer, Caller string
	// Plan makes the plan of a switch, when there is no lease that could be joined. Its error is Take's.
	Plan func(ctx context.Context) (neutral.SwitchPlan, error)
}

// Grant is a lease that was had.
type Grant struct {
	Ref  neutral.TargetRef // where the target is
	From neutral.NetworkMode
	To   neutral.NetworkMode
	Away time.Duration // that the switch cost; 0 when the target ran in that mode already
	// Leave ends the use.
	Leave func()
}

// errAgain says that a lease ended while it was waited for.
var errAgain = errors.New("the lease has ended meanwhile")

// Take has a target switched, or joins those for whom it was. It waits until the target runs in the mode of the plan. A
// lease in another mode is a Conflict fault that says whose it is and until when.
func (b *Book) Take(ctx context.Context, wish Wish) (Grant, error) {
	for {
		grant, err := b.take(ctx, wish)
		if !errors.Is(err, errAgain) {
			return grant, err
		}
		select {
		case <-ctx.Done():
			return Grant{}, fault.New(fault.Timeout, "container %s is brought back into its network mode, which takes longer than the request may wait", wish.Target)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *Book) take(ctx context.Context, wish Wish) (Grant, error) {
	name := key(wish.Object)
	t, err := b.enter(ctx, name, wish)
	if err != nil {
		return Grant{}, err
	}
	if t == nil {
		return b.visit(ctx, name, wish)
	}
	select {
	case <-t.ready:
	case <-t.over:
	case <-ctx.Done():
		t.leave()
		return Grant{}, fault.New(fault.Timeout, "container %s is on its way into network mode %s, which takes longer than the request may wait", wish.Target, t.to)
	}
	return t.grant()
}

var errClosed = fault.New(fault.Unavailable, "the gateway begins or ends, and switches no network mode now")

// enter is the tenure of an object's lease, used once more; nil when another replica acts for it.
func (b *Book) enter(ctx context.Context, name state.Key, wish Wish) (*tenure, error) {
	b.mu.Lock()
	t, ok, alive := b.own[name], b.own[name] != nil, b.alive
	b.mu.Unlock()
	switch {
	case alive == nil || alive.Err() != nil:
		return nil, errClosed
	case ok:
		return t, t.join(wish)
	}
	if _, err := b.config.Home.Get(ctx, name); err == nil {
		return nil, nil
	} else if !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	plan, err := wish.Plan(ctx)
	if err != nil {
		return nil, err
	}
	plan.Object.Container = nil // it is long, and what is needed of it is in the plan
	if key(plan.Object) != name {
		return nil, fault.New(fault.Conflict, "container %s belongs to something else than a moment ago; ask again", wish.Target)
	}
	return b.create(ctx, name, wish, plan)
}

// create begins the tenure of a lease that is not there yet; nil when there is one by now.
func (b *Book) create(ctx context.Context, name state.Key, wish Wish, plan neutral.SwitchPlan) (*tenure, error) {
	b.creating.Lock()
	defer b.creating.Unlock()
	t := newTenure(b, name, Lease{
		ID: newID(), Target: wish.Target, Ref: wish.Ref, Now: wish.Ref, Need: wish.Need, Plan: plan,
		Peer: wish.Peer, Caller: wish.Caller, Phase: Switching, Since: time.Now(), Replica: b.config.Replica, Term: 1,
	})
	t.users = 1
	if err := t.create(ctx); errors.Is(err, state.ErrConflict) {
		return nil, errAgain
	} else if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alive == nil { // it stays in the journal, and nothing was touched
		return nil, errClosed
	}
	alive := b.alive
	b.own[name] = t
	b.group.Go(func() { t.run(alive) })
	return t, nil
}

// forget ends a tenure. A lease that has not ended with it stays known: it is taken over once it has lapsed.
func (b *Book) forget(t *tenure, ended bool) {
	b.mu.Lock()
	delete(b.own, t.name)
	if ended {
		b.known = slices.DeleteFunc(slices.Clone(b.known), func(l Lease) bool { return l.ID == t.id })
	}
	b.mu.Unlock()
	close(t.over)
}

// Of is the lease that an object, or a target as somebody named it, is under.
func (b *Book) Of(object neutral.Object, ref neutral.TargetRef) (Lease, bool) {
	name := key(object)
	for _, l := range b.List() {
		if l.key() == name || same(l.Ref, ref) || same(l.Now, ref) {
			return l, true
		}
	}
	return Lease{}, false
}

// same tells whether two names are of one container, whatever the port.
func same(x, y neutral.TargetRef) bool {
	return x.Namespace == y.Namespace && x.Pod == y.Pod && x.Container == y.Container
}

// Any tells whether there are leases at all, or in a namespace, which is what costs nothing to ask.
func (b *Book) Any(namespace string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.own {
		if t.namespace == namespace {
			return true
		}
	}
	return slices.ContainsFunc(b.known, func(l Lease) bool { return l.Ref.Namespace == namespace })
}

// List is all leases, sorted by target.
func (b *Book) List() []Lease {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Lease
	for _, t := range b.own {
		all = append(all, t.snapshot())
	}
	for _, l := range b.known {
		if _, ok := b.own[l.key()]; !ok {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(x, y Lease) int { return strings.Compare(x.Target, y.Target) })
	return all
}

// Release ends a lease at once, whoever uses it, and returns when its target is back, or with what hinders that.
func (b *Book) Release(ctx context.Context, id string) error {
	for _, l := range b.List() {
		if l.ID != id {
			continue
		}
		err := b.update(ctx, l.key(), func(l *Lease) error {
			if l.ID != id {
				return state.ErrNotFound
			}
			l.Released = true
			return nil
		})
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		return b.await(ctx, id)
	}
	return fault.New(fault.NotFound, "no lease has the id %q; isthmus leases shows them", id)
}

// await waits until a lease is over.
func (b *Book) await(ctx context.Context, id string) error {
	for {
		b.mu.Lock()
		for _, t := range b.own {
			if t.id == id {
				t.nudge()
			}
		}
		b.mu.Unlock()
		b.read(ctx)
		at := slices.IndexFunc(b.List(), func(l Lease) bool { return l.ID == id })
		if at < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "the target is not back yet; isthmus leases says what it waits for")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// update changes the record of a lease that there is.
func (b *Book) update(ctx context.Context, name state.Key, change func(*Lease) error) error {
	return state.Update(ctx, b.config.Home, name, func(value []byte) ([]byte, error) {
		if value == nil {
			return nil, state.ErrNotFound
		}
		l, err := decode(state.Record{Key: name, Value: value})
		if err != nil {
			return nil, err
		}
		if err := change(&l); err != nil {
			return nil, err
		}
		return l.encode()
	})
}
