package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Lease is what one replica at a time can hold.
type Lease interface {
	// Acquire takes the lease for this replica. It does not wait: a *HeldError says who else has it. A replica that was
	// killed and started again has its own lease back at once.
	Acquire(ctx context.Context) (*Term, error)
}

// HeldError is the error of a lease that another replica holds.
type HeldError struct {
	Holder string
}

func (e *HeldError) Error() string { return fmt.Sprintf("state: the lease is held by %s", e.Holder) }

// ErrLost is a renewal's error when the lease is somebody else's by now.
var ErrLost = errors.New("state: the lease was lost")

// Lifetime is how long a lease outlives the last renewal of its holder, unless a home says otherwise.
const Lifetime = 15 * time.Second

// Term is the time that a replica holds a lease.
type Term struct {
	// Number grows with each term of a lease. Whoever writes in a term's name writes its number too, so that a write of
	// an older term that comes late is known as such.
	Number uint64

	lost    chan struct{}
	stop    context.CancelFunc
	renewer sync.WaitGroup
	release func(context.Context) error
}

// TermConfig is what a home's term is made of.
type TermConfig struct {
	Number   uint64
	Lifetime time.Duration
	Begun    time.Time // before the home was asked
	// Renew asks the home for another lifetime; ErrLost ends the term at once.
	Renew func(context.Context) error
	// Release gives the lease back, after the end of the term; nil when there is nothing to do.
	Release func(context.Context) error
	// Alive ends the term when its home is closed.
	Alive context.Context
	// Ended is called at the end of the term, whatever ended it; nil for nothing.
	Ended func()
}

// NewTerm begins a term and keeps it renewed.
func NewTerm(c TermConfig) *Term {
	ctx, stop := context.WithCancel(c.Alive)
	t := &Term{Number: c.Number, lost: make(chan struct{}), stop: stop, release: c.Release}
	t.renewer.Go(func() { t.keep(ctx, c) })
	return t
}

// keep renews three times in a lifetime, and ends the term a tenth before the home would, since a holder must know
// before the next one begins.
func (t *Term) keep(ctx context.Context, c TermConfig) {
	defer func() {
		close(t.lost)
		if c.Ended != nil {
			c.Ended()
		}
	}()
	renewed := c.Begun
	for {
		end := renewed.Add(c.Lifetime - c.Lifetime/10)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(c.Lifetime/3, time.Until(end))):
		}
		begun := time.Now()
		if !begun.Before(end) {
			return
		}
		ask, cancel := context.WithDeadline(ctx, end)
		err := c.Renew(ask)
		cancel()
		switch {
		case errors.Is(err, ErrLost):
			return
		case err == nil:
			renewed = begun
		}
	}
}

// Lost is closed when others may hold the lease from now on: it was taken, or the home did not answer for a lifetime.
func (t *Term) Lost() <-chan struct{} { return t.lost }

// Release gives the lease back, so that the next holder need not wait.
func (t *Term) Release(ctx context.Context) error {
	t.stop()
	t.renewer.Wait()
	if t.release == nil {
		return nil
	}
	return t.release(ctx)
}

// NextNumber is that of the term after the last one. It follows the clock, so that numbers grow although a home forgot
// the last one, or was moved.
func NextNumber(last uint64) uint64 { return max(last+1, uint64(time.Now().Unix())) }
