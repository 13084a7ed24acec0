package statetest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

func acquire(t *testing.T, h state.Home, name string) *state.Term {
	t.Helper()
	term, err := h.Lease(name).Acquire(t.Context())
	if err != nil {
		t.Fatalf("acquire %s: %v", name, err)
	}
	if term.Number == 0 {
		t.Fatalf("term %d", term.Number)
	}
	return term
}

func refused(t *testing.T, h state.Home, name, holder string) {
	t.Helper()
	_, err := h.Lease(name).Acquire(t.Context())
	var held *state.HeldError
	if !errors.As(err, &held) || held.Holder != holder {
		t.Fatalf("acquire of a lease that %s holds: %v", holder, err)
	}
}

func release(t *testing.T, term *state.Term) {
	t.Helper()
	if err := term.Release(t.Context()); err != nil {
		t.Fatalf("release: %v", err)
	}
	select {
	case <-term.Lost():
	default:
		t.Error("a term that was released goes on")
	}
}

func lease(t *testing.T, open Open) {
	a, b := opened(t, open, "a"), opened(t, open, "b")
	first := acquire(t, a, "x")
	refused(t, b, "x", "a")
	other := acquire(t, b, "y") // another lease
	refused(t, a, "y", "b")
	release(t, first)
	second := acquire(t, b, "x")
	if second.Number <= first.Number {
		t.Errorf("term %d after term %d", second.Number, first.Number)
	}
	refused(t, a, "x", "b")
	release(t, second)
	release(t, other)
	third := acquire(t, a, "x")
	if third.Number <= second.Number {
		t.Errorf("term %d after term %d", third.Number, second.Number)
	}
	release(t, third)
}

// killed closes a home that holds a lease, as the end of its process does: the next replica has it after its lifetime
// at most, and not while it is renewed.
func killed(t *testing.T, open Open, lifetime time.Duration) {
	a, b := open("a"), opened(t, open, "b")
	first := acquire(t, a, "x")
	for end := time.Now().Add(lifetime * 3 / 2); time.Now().Before(end); time.Sleep(lifetime / 10) {
		refused(t, b, "x", "a")
		select {
		case <-first.Lost():
			t.Fatal("a lease that is renewed is lost")
		default:
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	contender := b.Lease("x")
	for {
		second, err := contender.Acquire(t.Context())
		if err == nil {
			if second.Number <= first.Number {
				t.Errorf("term %d after term %d", second.Number, first.Number)
			}
			select {
			case <-first.Lost():
			default:
				t.Error("two hold it")
			}
			t.Logf("taken over after %s of a lifetime of %s", time.Since(began).Round(time.Millisecond), lifetime)
			release(t, second)
			return
		}
		var held *state.HeldError
		if !errors.As(err, &held) {
			t.Fatal(err)
		}
		if time.Since(began) > 2*lifetime+2*time.Second {
			t.Fatalf("not taken over within %s", time.Since(began))
		}
		time.Sleep(lifetime / 20)
	}
}

// again starts a replica a second time, which need not wait for the lease of its first life.
func again(t *testing.T, open Open) {
	a := open("a")
	first := acquire(t, a, "x")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	<-first.Lost()
	second := acquire(t, opened(t, open, "a"), "x")
	if second.Number <= first.Number {
		t.Errorf("term %d after term %d", second.Number, first.Number)
	}
	refused(t, opened(t, open, "b"), "x", "a")
	release(t, second)
}

// singleton has three replicas do what one may do at a time: each does it once, one after the other, in growing terms.
func singleton(t *testing.T, open Open) {
	var group sync.WaitGroup
	var acting, done atomic.Int32
	var last atomic.Uint64
	for _, replica := range []string{"a", "b", "c"} {
		h := opened(t, open, replica)
		s := &state.Singleton{Lease: h.Lease("x"), Log: slog.New(slog.DiscardHandler), Retry: 20 * time.Millisecond}
		group.Go(func() {
			err := s.Run(t.Context(), func(ctx context.Context) error {
				if acting.Add(1) != 1 {
					t.Error("two act at once")
				}
				defer acting.Add(-1)
				if before := last.Swap(s.Number()); s.Number() <= before {
					t.Errorf("term %d after term %d", s.Number(), before)
				}
				if s.Waiting() != "" {
					t.Errorf("it acts and waits for %s", s.Waiting())
				}
				time.Sleep(100 * time.Millisecond)
				done.Add(1)
				return ctx.Err()
			})
			if err != nil {
				t.Errorf("replica %s: %v", replica, err)
			}
		})
	}
	group.Wait()
	if done.Load() != 3 {
		t.Errorf("%d have acted", done.Load())
	}
}
