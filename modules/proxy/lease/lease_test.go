package lease_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
)

const linger = 150 * time.Millisecond

// site is an orchestrator with the gateways before it, which share a home.
type site struct {
	t      *testing.T
	fake   *fakeSwitcher
	dir    string
	mu     sync.Mutex
	events []lease.Event
	reach  func(context.Context, neutral.TargetRef) error
}

func newSite(t *testing.T) *site {
	t.Helper()
	return &site{t: t, fake: &fakeSwitcher{mode: neutral.NetworkNone}, dir: t.TempDir(),
		reach: func(context.Context, neutral.TargetRef) error { return nil }}
}

// replica starts a gateway; stop ends it as a signal does.
func (s *site) replica(name string) (book *lease.Book, stop func()) {
	s.t.Helper()
	home := file.Open(file.Config{Dir: s.dir, Holder: name, Poll: 20 * time.Millisecond})
	book = lease.New(lease.Config{Home: home, Replica: name, Switcher: s.fake, Reach: s.reach, Linger: linger, Most: time.Minute,
		Happened: func(e lease.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		}, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := book.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	s.t.Cleanup(stop)
	return book, stop
}

func wish(peer string, to neutral.NetworkMode) lease.Wish {
	object := neutral.Object{Kind: neutral.KindContainer, Namespace: "shop", Name: "db"}
	return lease.Wish{Ref: neutral.TargetRef{Namespace: "shop", Container: "db", Port: 1}, Target: "shop/db", Object: object,
		Need: neutral.NetworkNeed{Mode: to, Port: 1}, Peer: peer, Caller: "ann",
		Plan: func(context.Context) (neutral.SwitchPlan, error) {
			return neutral.SwitchPlan{Object: object, From: neutral.NetworkNone, To: to}, nil
		}}
}

// take asks until the book is open.
func (s *site) take(book *lease.Book, w lease.Wish) (lease.Grant, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	for {
		grant, err := book.Take(ctx, w)
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return grant, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *site) must(book *lease.Book, w lease.Wish) lease.Grant {
	s.t.Helper()
	grant, err := s.take(book, w)
	if err != nil {
		s.t.Fatal(err)
	}
	return grant
}

func (s *site) eventually(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			mode, switches, restores := s.fake.state()
			s.t.Fatalf("%s: never; mode %s after %d switches and %d restores", what, mode, switches, restores)
		}
	}
}

func (s *site) back(books ...*lease.Book) {
	s.t.Helper()
	s.eventually("the target is back", func() bool {
		mode, _, _ := s.fake.state()
		for _, b := range books {
			if len(b.List()) > 0 {
				return false
			}
		}
		return mode == neutral.NetworkNone
	})
}

// A lease is shared by those who need the mode, outlives the last of them for a while, and is then given back.
func TestShare(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	book, _ := s.replica("a")
	first := s.must(book, wish("west", neutral.NetworkBridge))
	second := s.must(book, wish("south", ""))
	if first.From != neutral.NetworkNone || second.To != neutral.NetworkBridge {
		t.Errorf("%+v, %+v", first, second)
	}
	for peer, told := range map[string]string{"west": "for caller ann of peer west until 2", "south": "for another peer until 2"} {
		_, err := s.take(book, wish(peer, neutral.NetworkHost))
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), told) {
			t.Errorf("another mode for %s: %v", peer, err)
		}
	}
	first.Leave()
	first.Leave() // counts once
	time.Sleep(3 * linger)
	if mode, switches, _ := s.fake.state(); mode != neutral.NetworkBridge || switches != 1 {
		t.Errorf("in use it is %s, after %d switches", mode, switches)
	}
	second.Leave()
	s.back(book)
	if book.Any("shop") {
		t.Error("a lease is left")
	}
	third := s.must(book, wish("west", neutral.NetworkHost))
	third.Leave()
	s.back(book)
}

// Many come and go at once: the target is never restored under one who has it, and nothing is left.
func TestCrowd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, _ := s.replica("a")
	b, _ := s.replica("b")
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			for range 4 {
				grant, err := s.take([]*lease.Book{a, b}[i%2], wish("west", neutral.NetworkBridge))
				if err != nil {
					t.Error(err)
					return
				}
				if mode, _, _ := s.fake.state(); mode != neutral.NetworkBridge {
					t.Errorf("it was granted, and is %s", mode)
				}
				time.Sleep(time.Duration(i) * linger / 8)
				if mode, _, _ := s.fake.state(); mode != neutral.NetworkBridge {
					t.Errorf("it is used, and is %s", mode)
				}
				grant.Leave()
			}
		})
	}
	group.Wait()
	s.back(a, b)
}

// A switch that fails is undone, and its caller told why.
func TestFailure(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*site){
		"switch": func(s *site) { s.fake.failSwitch = fault.New(fault.Conflict, "the port is taken") },
		"reach": func(s *site) {
			s.reach = func(context.Context, neutral.TargetRef) error {
				return fault.New(fault.Timeout, "the port is taken by nobody")
			}
		},
		"restore, three times": func(s *site) {
			s.fake.failSwitch = fault.New(fault.Conflict, "the port is taken")
			s.fake.failRestore = []error{errors.New("away"), errors.New("away"), errors.New("away")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			prepare(s)
			book, _ := s.replica("a")
			_, err := s.take(book, wish("west", neutral.NetworkBridge))
			if err == nil || !strings.Contains(err.Error(), "the port is taken") || !strings.Contains(err.Error(), "it is back in none") {
				t.Error(err)
			}
			s.back(book)
		})
	}
}

// What somebody else changed is left as it is, and the lease is over.
func TestRespect(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	book, _ := s.replica("a")
	s.must(book, wish("west", neutral.NetworkBridge)).Leave()
	s.fake.mu.Lock()
	s.fake.failRestore = []error{fault.New(fault.Conflict, "an operator has changed it")}
	s.fake.mu.Unlock()
	s.eventually("the lease is over", func() bool { return len(book.List()) == 0 })
	if mode, _, restores := s.fake.state(); mode != neutral.NetworkBridge || restores != 1 {
		t.Errorf("it is %s after %d restores", mode, restores)
	}
}

// A kept mode stays, and no lease does.
func TestKeep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	book, _ := s.replica("a")
	w := wish("west", neutral.NetworkBridge)
	w.Keep = true
	s.must(book, w).Leave()
	s.eventually("the lease is over", func() bool { return len(book.List()) == 0 })
	if mode, _, restores := s.fake.state(); mode != neutral.NetworkBridge || restores != 0 || s.fake.keeps != 1 {
		t.Errorf("it is %s after %d restores and %d keeps", mode, restores, s.fake.keeps)
	}
}

// An admin ends a lease that is in use, at any replica.
func TestRelease(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, _ := s.replica("a")
	b, _ := s.replica("b")
	grant := s.must(a, wish("west", neutral.NetworkBridge))
	s.eventually("the other replica knows it", func() bool { return len(b.List()) == 1 })
	if err := b.Release(t.Context(), "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a lease that is not there: %v", err)
	}
	if err := b.Release(t.Context(), b.List()[0].ID); err != nil {
		t.Fatal(err)
	}
	s.back(a, b)
	grant.Leave()
}

// A gateway that ends gives back what it switched before it has ended.
func TestDeparture(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	book, stop := s.replica("a")
	s.must(book, wish("west", neutral.NetworkBridge))
	stop()
	if mode, _, _ := s.fake.state(); mode != neutral.NetworkNone {
		t.Errorf("it is left in %s", mode)
	}
	if _, err := book.Take(t.Context(), wish("west", neutral.NetworkBridge)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a book that is closed: %v", err)
	}
}

// A replica that no longer reaches the home is taken over from, whatever it was at, and touches nothing afterwards.
func TestTakeover(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.fake.hold = make(chan struct{})
	a, _ := s.replica("a")
	taken := make(chan error, 1)
	go func() {
		for {
			_, err := a.Take(t.Context(), wish("west", neutral.NetworkBridge))
			if err != nil && strings.Contains(err.Error(), "begins") {
				continue
			}
			taken <- err
			return
		}
	}()
	s.eventually("the switch is under way", func() bool { return len(a.List()) == 1 && a.List()[0].Step == "stop" })
	// Somebody else writes that it acts now, as a replica does that finds the lease lapsed.
	home := file.Open(file.Config{Dir: s.dir, Holder: "b"})
	records, err := home.List(t.Context(), lease.Kind)
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	s.eventually("the record is taken over", func() bool {
		record, err := home.Get(t.Context(), records[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		var l lease.Lease
		if err := json.Unmarshal(record.Value, &l); err != nil {
			t.Fatal(err)
		}
		l.Term, l.Replica, l.Until = 2, "b", time.Now().Add(time.Minute)
		if record.Value, err = json.Marshal(l); err != nil {
			t.Fatal(err)
		}
		_, err = home.Put(t.Context(), record)
		return err == nil
	})
	close(s.fake.hold)
	if err := <-taken; !fault.Is(err, fault.Unavailable) {
		t.Errorf("who waited is told %v", err)
	}
	if mode, switches, restores := s.fake.state(); mode != neutral.NetworkNone || switches+restores != 0 {
		t.Errorf("a deposed replica made it %s by %d switches and %d restores", mode, switches, restores)
	}
	b, _ := s.replica("b") // it begins with what it was at when it died
	s.back(b)
}
