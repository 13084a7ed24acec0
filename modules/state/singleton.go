package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Singleton is work that one replica does at a time.
type Singleton struct {
	Lease Lease
	Log   *slog.Logger
	// Retry is how often a lease that another replica holds is asked for; 0 is a second.
	Retry time.Duration

	number  atomic.Uint64
	waiting atomic.Pointer[string]
}

// releaseDeadline bounds giving a lease back at the end.
const releaseDeadline = 5 * time.Second

// Deposed is the error of work that another replica does now.
type Deposed struct {
	Holder string
}

func (d *Deposed) Error() string { return fmt.Sprintf("another replica acts now: %s", d.Holder) }

// Run waits until this replica holds the lease, then calls do, whose context ends with ctx or when another replica has
// taken over; Run then returns *Deposed, and do is not called again.
//
// A home that does not answer ends nothing: nobody can take over in it either, for all that is known, and what do
// writes is fenced by Number. Once it answers, the lease is held again or another has it.
func (s *Singleton) Run(ctx context.Context, do func(context.Context) error) error {
	term, err := s.wait(ctx)
	if err != nil {
		return err
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	kept := make(chan *Term, 1)
	go func() { kept <- s.keep(working, term, stop) }()
	err = do(working)
	stop(nil)
	if term = <-kept; term != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseDeadline)
		defer cancel()
		if err := term.Release(end); err != nil {
			s.Log.Warn("the lease was not given back; the next replica waits until it ends", "err", err)
		}
	}
	var deposed *Deposed
	if errors.As(context.Cause(working), &deposed) {
		return deposed
	}
	return err
}

// wait asks for the lease until it is had.
func (s *Singleton) wait(ctx context.Context) (*Term, error) {
	told := ""
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		term, err := s.Lease.Acquire(ctx)
		if err == nil {
			s.hold(term)
			s.waiting.Store(nil)
			return term, nil
		}
		var held *HeldError
		why := "the lease cannot be asked for"
		if errors.As(err, &held) {
			why = held.Holder
		}
		s.waiting.Store(&why)
		if why != told {
			told = why
			s.Log.Info("this replica waits for the lease", "err", err)
		}
		if err := s.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// keep has the lease taken again whenever it is lost, until another replica has it. It returns the term that is held at
// the end, if any.
func (s *Singleton) keep(ctx context.Context, term *Term, depose context.CancelCauseFunc) *Term {
	for {
		select {
		case <-ctx.Done():
			return term
		case <-term.Lost():
		}
		if ctx.Err() != nil {
			return term
		}
		s.Log.Warn("the lease was not renewed in time; this replica goes on until another one has it")
		for {
			again, err := s.Lease.Acquire(ctx)
			if err == nil {
				term = again
				s.hold(term)
				s.Log.Info("this replica holds the lease again", "term", term.Number)
				break
			}
			var held *HeldError
			if errors.As(err, &held) {
				s.number.Store(0)
				depose(&Deposed{Holder: held.Holder})
				return nil
			}
			if s.pause(ctx) != nil {
				return nil
			}
		}
	}
}

func (s *Singleton) hold(term *Term) { s.number.Store(term.Number) }

func (s *Singleton) pause(ctx context.Context) error {
	retry := s.Retry
	if retry == 0 {
		retry = time.Second
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retry):
		return nil
	}
}

// Number is that of the term in which this replica acts; 0 when it does not.
func (s *Singleton) Number() uint64 { return s.number.Load() }

// Waiting says what this replica waits for, another replica's name mostly; "" when it need not wait.
func (s *Singleton) Waiting() string {
	if why := s.waiting.Load(); why != nil {
		return *why
	}
	return ""
}
