package load_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
)

// one lets each caller of each peer have one stream, and a peer two.
func one(string) load.Limits {
	return load.Limits{Share: load.Share{Streams: 2}, Caller: load.Share{Streams: 1}}
}

// TestHold holds that what goes on elsewhere counts from its decision to the end that is told, and is given back when
// nobody ever follows it.
func TestHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var limited []string
		l := load.New(load.Config{Limits: one, Limited: func(peer, limit string) { limited = append(limited, peer+" "+limit) }})
		token, err := l.Hold("west", "ci", true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Hold("west", "ci", true); !fault.Is(err, fault.Exhausted) {
			t.Errorf("one more of the caller: %v", err)
		}
		if _, err := l.Enter("west", "ci", true); !fault.Is(err, fault.Exhausted) {
			t.Errorf("one more that this process carries: %v", err)
		}
		if _, err := l.Hold("west", "ci", false); err != nil {
			t.Errorf("an operation: %v", err)
		}
		if _, err := l.Hold("west", "other", true); err != nil {
			t.Errorf("another caller: %v", err)
		}
		if _, err := l.Hold("west", "third", true); !fault.Is(err, fault.Exhausted) {
			t.Errorf("one more of the peer: %v", err)
		}
		if want := []string{"west caller-streams", "west caller-streams", "west streams"}; len(limited) != len(want) || limited[0] != want[0] || limited[2] != want[2] {
			t.Errorf("counted are %q", limited)
		}
		leave, ok := l.Follow(token)
		if !ok {
			t.Fatal("what is held cannot be followed")
		}
		if _, ok := l.Follow(token); ok {
			t.Error("it is followed twice")
		}
		if _, ok := l.Follow("a guess"); ok {
			t.Error("a guess is followed")
		}
		time.Sleep(time.Minute) // the others were followed by nobody
		if _, err := l.Hold("west", "ci", true); !fault.Is(err, fault.Exhausted) {
			t.Errorf("what is followed ended by itself: %v", err)
		}
		leave()
		for _, caller := range []string{"ci", "other"} {
			if _, err := l.Hold("west", caller, true); err != nil {
				t.Errorf("%s afterwards: %v", caller, err)
			}
		}
		time.Sleep(time.Minute) // no timer outlives the test
	})
}

// TestHoldRace holds that nothing is lost or given back twice when ends, followers and the time cross.
func TestHoldRace(t *testing.T) {
	t.Parallel()
	l := load.New(load.Config{Limits: func(string) load.Limits { return load.Limits{Share: load.Share{Operations: 4}} }})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 200 {
				token, err := l.Hold("west", "", false)
				if err != nil {
					continue
				}
				leave, ok := l.Follow(token)
				if !ok {
					t.Error("a hold is gone")
					return
				}
				leave()
				leave()
			}
		})
	}
	group.Wait()
	for range 4 {
		if _, err := l.Enter("west", "", false); err != nil {
			t.Errorf("room is lost: %v", err)
		}
	}
	if _, err := l.Enter("west", "", false); !fault.Is(err, fault.Exhausted) {
		t.Errorf("there is more room than the limit: %v", err)
	}
}
