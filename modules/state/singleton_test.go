package state_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

// board is a lease that several replicas see, and that can be away. Its time is the test's.
type board struct {
	mu     sync.Mutex
	holder string
	until  time.Time
	number uint64
	away   bool
}

const lifetime = 10 * time.Second

var errAway = errors.New("the home is away")

type seat struct {
	board   *board
	replica string
}

func (s seat) Acquire(context.Context) (*state.Term, error) {
	b := s.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, errAway
	}
	if b.holder != "" && b.holder != s.replica && time.Now().Before(b.until) {
		return nil, &state.HeldError{Holder: b.holder}
	}
	b.number++
	number := b.number
	b.holder, b.until = s.replica, time.Now().Add(lifetime)
	return state.NewTerm(state.TermConfig{Number: number, Lifetime: lifetime, Begun: time.Now(), Alive: context.Background(),
		Renew: func(context.Context) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.away {
				return errAway
			}
			if b.number != number {
				return state.ErrLost
			}
			b.until = time.Now().Add(lifetime)
			return nil
		},
		Release: func(context.Context) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.number == number {
				b.holder = ""
			}
			return nil
		}}), nil
}

func (b *board) set(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

func newSingleton(b *board, replica string) *state.Singleton {
	return &state.Singleton{Lease: seat{b, replica}, Log: slog.New(slog.DiscardHandler)}
}

// A home that is away for long ends nothing: the replica goes on, and holds the lease again afterwards.
func TestSingletonGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		s := newSingleton(b, "a")
		ctx, cancel := context.WithCancel(t.Context())
		acting := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(ctx context.Context) error {
				close(acting)
				<-ctx.Done()
				return nil
			})
		}()
		<-acting
		first := s.Number()
		b.set(true)
		time.Sleep(5 * lifetime)
		if s.Number() != first {
			t.Errorf("number %d became %d", first, s.Number())
		}
		b.set(false)
		time.Sleep(2 * time.Second)
		if s.Number() <= first {
			t.Errorf("the lease is not held again: %d after %d", s.Number(), first)
		}
		select {
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%v", err)
		}
		if b.holder != "" {
			t.Error("the lease was not given back")
		}
	})
}

// A replica that was cut off, and that another has succeeded, ends what it does as soon as it knows.
func TestSingletonDeposed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		s := newSingleton(b, "a")
		acting, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- s.Run(t.Context(), func(ctx context.Context) error {
				close(acting)
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		<-acting
		b.set(true)
		time.Sleep(2 * lifetime)
		b.set(false)
		term, err := seat{b, "b"}.Acquire(t.Context()) // before a asks again
		if err != nil {
			t.Fatal(err)
		}
		var deposed *state.Deposed
		if err := <-done; !errors.As(err, &deposed) || deposed.Holder != "b" {
			t.Errorf("%v", err)
		}
		if s.Number() != 0 {
			t.Errorf("it acts in term %d", s.Number())
		}
		if err := term.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A replica that waits says for whom, also while the home is away, and acts when it is its turn.
func TestSingletonWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		term, err := seat{b, "a"}.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := newSingleton(b, "b")
		acted, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- s.Run(t.Context(), func(context.Context) error {
				close(acted)
				return errAway
			})
		}()
		time.Sleep(3 * lifetime)
		if s.Waiting() != "a" || s.Number() != 0 {
			t.Errorf("it waits for %q in term %d", s.Waiting(), s.Number())
		}
		b.set(true)
		time.Sleep(2 * time.Second)
		if s.Waiting() != "the lease cannot be asked for" {
			t.Errorf("it waits for %q", s.Waiting())
		}
		b.set(false)
		select {
		case <-acted:
			t.Fatal("two act")
		default:
		}
		if err := term.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-acted
		if err := <-done; !errors.Is(err, errAway) { // what it did is told as it is
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newSingleton(b, "c").Run(ctx, func(context.Context) error { t.Error("done for nobody"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
