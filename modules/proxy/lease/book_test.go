package lease

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

// fakeSwitcher is an orchestrator with one container.
type fakeSwitcher struct {
	mu      sync.Mutex
	mode    neutral.NetworkMode
	touches []string
	slow    time.Duration // each way
	fails   error         // of Switch, after its first touch
	hinders error         // of Restore
}

func (f *fakeSwitcher) PlanSwitch(context.Context, string, neutral.TargetRef, neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	return neutral.SwitchPlan{}, errors.New("the book makes no plans")
}

func (f *fakeSwitcher) touch(what string, mode neutral.NetworkMode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.touches = append(f.touches, what)
	if mode != "" {
		f.mode = mode
	}
}

func (f *fakeSwitcher) is() (neutral.NetworkMode, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode, strings.Join(f.touches, " ")
}

func (f *fakeSwitcher) set(fails, hinders error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails, f.hinders = fails, hinders
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (f *fakeSwitcher) Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	if err := s.Step(ctx, "stop", json.RawMessage(`{"was":"running"}`)); err != nil {
		return s.Ref, err
	}
	f.touch("stopped", "")
	if err := wait(ctx, f.slow); err != nil {
		return s.Ref, err
	}
	f.mu.Lock()
	fails := f.fails
	f.mu.Unlock()
	if fails != nil {
		return s.Ref, fails
	}
	if err := s.Step(ctx, "start", nil); err != nil {
		return s.Ref, err
	}
	f.touch("switched", s.Plan.To)
	return s.Ref, nil
}

func (f *fakeSwitcher) Restore(ctx context.Context, s *neutral.Switching) error {
	if err := s.Step(ctx, "restore", nil); err != nil {
		return err
	}
	f.mu.Lock()
	hinders := f.hinders
	f.mu.Unlock()
	if hinders != nil {
		f.touch("hindered", "")
		return hinders
	}
	if err := wait(ctx, f.slow); err != nil {
		return err
	}
	f.touch("restored", s.Plan.From)
	return nil
}

func (f *fakeSwitcher) Keep(ctx context.Context, s *neutral.Switching) error {
	if err := s.Step(ctx, "keep", nil); err != nil {
		return err
	}
	f.touch("kept", "")
	return nil
}

const (
	linger = 6 * time.Second
	most   = time.Minute
)

// replica is a book that runs.
type replica struct {
	*Book
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}
}

// gone is what a home answers to a replica that was cut off from it.
var errGone = fault.New(fault.Unavailable, "the home is gone")

// cuttable is a home that a replica may lose.
type cuttable struct {
	state.Store
	mu   sync.Mutex
	cut  bool
	turn sync.Mutex // a bubble's time stands while one waits for a file's lock and others for a mutex
}

func (c *cuttable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

func (c *cuttable) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return errGone
	}
	return nil
}

func (c *cuttable) Get(ctx context.Context, key state.Key) (state.Record, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.err(); err != nil {
		return state.Record{}, err
	}
	return c.Store.Get(ctx, key)
}

func (c *cuttable) List(ctx context.Context, kind state.Kind) ([]state.Record, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.Store.List(ctx, kind)
}

func (c *cuttable) Put(ctx context.Context, r state.Record) (string, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.err(); err != nil {
		return "", err
	}
	return c.Store.Put(ctx, r)
}

func (c *cuttable) Delete(ctx context.Context, key state.Key, revision string) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.err(); err != nil {
		return err
	}
	return c.Store.Delete(ctx, key, revision)
}

func open(t *testing.T, home state.Store, name string, switcher Switcher) *replica {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &replica{t: t, stop: stop, done: make(chan struct{})}
	r.Book = New(Config{Home: home, Replica: name, Switcher: switcher, Linger: linger, Most: most, Log: slog.New(slog.DiscardHandler),
		Reach: func(context.Context, neutral.TargetRef) error { return nil }})
	go func() {
		defer close(r.done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(r.end)
	synctest.Wait()
	return r
}

func (r *replica) end() {
	r.stop()
	<-r.done
}

var object = neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "db"}

func wish(mode neutral.NetworkMode) Wish {
	return Wish{
		Ref: neutral.TargetRef{Namespace: "shop", Container: "db", Port: 5432}, Target: "shop/db", Object: object,
		Need: neutral.NetworkNeed{Mode: mode, Port: 5432}, Peer: "east", Caller: "ann",
		Plan: func(context.Context) (neutral.SwitchPlan, error) {
			return neutral.SwitchPlan{Object: object, From: neutral.NetworkNone, To: mode}, nil
		},
	}
}

func (r *replica) take(mode neutral.NetworkMode) Grant {
	r.t.Helper()
	grant, err := r.Take(r.t.Context(), wish(mode))
	if err != nil {
		r.t.Fatal(err)
	}
	return grant
}

func (r *replica) leases(n int) []Lease {
	r.t.Helper()
	all := r.List()
	if len(all) != n {
		r.t.Fatalf("%d leases, want %d: %+v", len(all), n, all)
	}
	return all
}

func in(t *testing.T, f *fakeSwitcher, mode neutral.NetworkMode, touches string) {
	t.Helper()
	if m, did := f.is(); m != mode || did != touches {
		t.Errorf("the target is in %s after %q; want %s after %q", m, did, mode, touches)
	}
}

// each runs a test in a bubble with a home of files.
func each(t *testing.T, test func(t *testing.T, home *cuttable, f *fakeSwitcher)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		home := file.Open(file.Config{Dir: dir})
		defer home.Close()
		test(t, &cuttable{Store: home}, &fakeSwitcher{mode: neutral.NetworkNone, slow: time.Second})
	})
}

func TestShared(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		defer r.end()
		var grants [3]Grant
		var group sync.WaitGroup
		for i := range grants {
			group.Go(func() { grants[i] = r.take(neutral.NetworkBridge) })
		}
		group.Wait()
		in(t, f, neutral.NetworkBridge, "stopped switched")
		var away time.Duration
		for _, g := range grants {
			if away = max(away, g.Away); g.From != neutral.NetworkNone || g.To != neutral.NetworkBridge {
				t.Errorf("grant %+v", g)
			}
		}
		if away != f.slow {
			t.Errorf("away %s", away)
		}
		if l := r.leases(1)[0]; l.Phase != Serving || l.Step != "" || string(l.Plan.Native) != `{"was":"running"}` && !strings.Contains(string(l.Plan.Native), "running") {
			t.Errorf("lease %+v", l)
		}
		grants[0].Leave()
		grants[0].Leave() // once is enough
		grants[1].Leave()
		time.Sleep(3 * linger)
		in(t, f, neutral.NetworkBridge, "stopped switched")
		grants[2].Leave()
		time.Sleep(linger / 2)
		in(t, f, neutral.NetworkBridge, "stopped switched")
		time.Sleep(linger)
		in(t, f, neutral.NetworkNone, "stopped switched restored")
		r.leases(0)
	})
}

func TestOtherMode(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r, other := open(t, home, "a", f), open(t, home, "b", f)
		defer r.end()
		defer other.end()
		grant := r.take(neutral.NetworkHost)
		defer grant.Leave()
		for _, by := range []*replica{r, other} {
			for peer, holder := range map[string]string{"east": "caller ann of peer east", "south": "another peer"} {
				w := wish(neutral.NetworkBridge)
				w.Peer = peer
				_, err := by.Take(t.Context(), w)
				if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "shop/db runs in network mode host for "+holder+" until 2000-") {
					t.Errorf("%s: %v", peer, err)
				}
			}
			w := wish("")
			joined, err := by.Take(t.Context(), w) // any mode will do
			if err != nil {
				t.Fatal(err)
			}
			joined.Leave()
		}
		in(t, f, neutral.NetworkHost, "stopped switched")
	})
}

func TestMost(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		defer r.end()
		r.take(neutral.NetworkBridge)
		time.Sleep(most / 2)
		r.take(neutral.NetworkBridge) // which begins the time anew
		time.Sleep(most - linger)
		in(t, f, neutral.NetworkBridge, "stopped switched")
		time.Sleep(2 * linger)
		in(t, f, neutral.NetworkNone, "stopped switched restored")
		r.leases(0)
	})
}

func TestRelease(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r, other := open(t, home, "a", f), open(t, home, "b", f)
		defer r.end()
		defer other.end()
		for _, by := range []*replica{r, other} {
			r.take(neutral.NetworkBridge)
			time.Sleep(2 * time.Second) // the home of files is looked at each second
			if err := by.Release(t.Context(), by.leases(1)[0].ID); err != nil {
				t.Fatal(err)
			}
			if mode, did := f.is(); mode != neutral.NetworkNone {
				t.Fatalf("it is in %s after %s", mode, did)
			}
			by.leases(0)
		}
		if err := r.Release(t.Context(), "none"); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

func TestFailed(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		defer r.end()
		f.set(fault.New(fault.Conflict, "its port is taken"), nil)
		_, err := r.Take(t.Context(), wish(neutral.NetworkHost))
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "its port is taken; it is back in none, after 1s") {
			t.Error(err)
		}
		in(t, f, neutral.NetworkNone, "stopped restored")
		r.leases(0)
	})
}

// A way back is tried until it succeeds, and the journal says what hinders it.
func TestHindered(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		defer r.end()
		r.take(neutral.NetworkHost).Leave()
		f.set(nil, fault.New(fault.Unavailable, "the engine does not answer"))
		time.Sleep(2 * linger)
		if l := r.leases(1)[0]; l.Phase != Restoring || l.Failure != "the engine does not answer" {
			t.Errorf("lease %+v", l)
		}
		f.set(nil, nil)
		time.Sleep(2 * linger)
		if mode, did := f.is(); mode != neutral.NetworkNone {
			t.Errorf("it is in %s after %s", mode, did)
		}
		r.leases(0)
	})
}

func TestOperatorsChange(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		defer r.end()
		r.take(neutral.NetworkHost).Leave()
		f.set(nil, fault.New(fault.Conflict, "somebody has renamed it"))
		time.Sleep(2 * linger)
		in(t, f, neutral.NetworkHost, "stopped switched hindered")
		r.leases(0)
	})
}

func TestKept(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		w := wish(neutral.NetworkHost)
		w.Plan = func(context.Context) (neutral.SwitchPlan, error) {
			return neutral.SwitchPlan{Object: object, From: neutral.NetworkNone, To: neutral.NetworkHost, Keep: true}, nil
		}
		if grant, err := r.Take(t.Context(), w); err != nil || grant.To != neutral.NetworkHost {
			t.Fatal(grant, err)
		}
		time.Sleep(2 * linger)
		r.leases(0)
		r.end()
		in(t, f, neutral.NetworkHost, "stopped switched kept")
	})
}

func TestEndOfGateway(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		r := open(t, home, "a", f)
		r.take(neutral.NetworkHost)
		r.end()
		in(t, f, neutral.NetworkNone, "stopped switched restored")
		r.leases(0)
		if _, err := r.Take(t.Context(), wish(neutral.NetworkHost)); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	})
}

// dying makes a replica die while its target is in a phase: its home and its orchestrator are gone for it.
func dying(t *testing.T, home *cuttable, f *fakeSwitcher, phase Phase) (dead *cuttable, end func()) {
	t.Helper()
	dead = &cuttable{Store: home}
	first := open(t, dead, "a", f)
	switch phase {
	case Switching:
		go func() { _, _ = first.Take(t.Context(), wish(neutral.NetworkHost)) }()
		time.Sleep(f.slow / 2)
	case Serving:
		first.take(neutral.NetworkHost)
	case Restoring:
		first.take(neutral.NetworkHost).Leave()
		for first.leases(1)[0].Step != "restore" {
			time.Sleep(100 * time.Millisecond)
		}
	}
	dead.set(true)
	return dead, first.end
}

// Whoever comes next brings back what a replica that died had begun.
func TestTakenOver(t *testing.T) {
	for phase, did := range map[Phase]string{Switching: "stopped restored", Serving: "stopped switched restored", Restoring: "stopped switched restored restored"} {
		t.Run(string(phase), func(t *testing.T) {
			each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
				dead, end := dying(t, home, f, phase)
				second := open(t, home, "b", f)
				time.Sleep(3 * linger)
				in(t, f, neutral.NetworkNone, did)
				second.leases(0)
				// The first one comes to life again, and leaves it alone.
				dead.set(false)
				time.Sleep(linger)
				end()
				in(t, f, neutral.NetworkNone, did)
				second.leases(0)
				second.take(neutral.NetworkBridge)
				second.end()
			})
		})
	}
}

// A replica that was thought dead writes no more once another one acts, and touches nothing.
func TestDeposed(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		f.slow = 4 * linger // the first one is in the middle of it when the second one takes over
		dead, end := dying(t, home, f, Switching)
		second := open(t, home, "b", f)
		time.Sleep(2 * linger)
		l := second.leases(1)[0]
		if l.Replica != "b" || l.Term != 2 || l.Phase != Restoring {
			t.Fatalf("lease %+v", l)
		}
		dead.set(false)
		time.Sleep(6 * linger)
		in(t, f, neutral.NetworkNone, "stopped restored")
		second.leases(0)
		end()
		second.end()
	})
}

// A replica that starts again goes on at once with what it was in the middle of.
func TestStartedAgain(t *testing.T) {
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		_, end := dying(t, home, f, Switching)
		again := open(t, home, "a", f)
		time.Sleep(f.slow + 100*time.Millisecond)
		in(t, f, neutral.NetworkNone, "stopped restored")
		again.leases(0)
		again.end()
		end()
	})
}

// A replica that lost its home for a while ends its leases once the home is back.
func TestHomeAway(t *testing.T) {
	for _, phase := range []Phase{Switching, Serving, Restoring} {
		t.Run(string(phase), func(t *testing.T) {
			each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
				dead, end := dying(t, home, f, phase)
				time.Sleep(5 * linger)
				dead.set(false)
				time.Sleep(5*linger + most)
				if mode, did := f.is(); mode != neutral.NetworkNone {
					t.Errorf("it is in %s after %s", mode, did)
				}
				if records, err := home.List(t.Context(), Kind); err != nil || len(records) > 0 {
					t.Errorf("%d leases are left in the home: %v", len(records), err)
				}
				end()
			})
		})
	}
}

// Many come and go at two replicas: the target is never brought back under one who has it, and nothing is left.
func TestCrowd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, home *cuttable, f *fakeSwitcher) {
		t.Helper()
		replicas := []*replica{open(t, home, "a", f), open(t, home, "b", f)}
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				for range 4 {
					grant := replicas[i%2].take(neutral.NetworkBridge)
					for range 2 {
						if mode, _ := f.is(); mode != neutral.NetworkBridge {
							t.Errorf("it is in use, and in %s", mode)
						}
						time.Sleep(time.Duration(i) * linger / 8)
					}
					grant.Leave()
				}
			})
		}
		group.Wait()
		time.Sleep(4 * linger)
		for _, r := range replicas {
			r.leases(0)
		}
		if mode, _ := f.is(); mode != neutral.NetworkNone {
			t.Errorf("it is left in %s", mode)
		}
	})
}
