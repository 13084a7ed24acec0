package adapter

import (
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestOwners(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	o := newOwners(func() time.Time { return now })
	o.add(ofWest, "a")
	for _, other := range []modules.Subject{{Peer: "north", Caller: "ci"}, {Peer: "west", Caller: "other"}, {Peer: "west"}, {}} {
		if err := o.check(other, "a"); !fault.Is(err, fault.NotFound) || err.Error() != "No such exec instance: a" {
			t.Errorf("%v: %v", other, err)
		}
	}
	now = now.Add(ownerLife)
	if err := o.check(ofWest, "a"); err != nil {
		t.Error(err)
	}
	if err := o.check(ofWest, "b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("one that nobody made: %v", err)
	}
	now = now.Add(ownerLife + 1)
	if err := o.check(ofWest, "a"); !fault.Is(err, fault.NotFound) || len(o.all) != 0 || len(o.count) != 0 {
		t.Errorf("one that nobody asked for: %v, %v", err, o.all)
	}
}

// A peer that makes too many loses its own oldest ones, and no other peer's.
func TestOwnersShare(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	o := newOwners(func() time.Time { now = now.Add(time.Millisecond); return now })
	north := modules.Subject{Peer: "north"}
	o.add(north, "n")
	for i := range execShare + 2 {
		o.add(ofWest, fmt.Sprint(i))
		if i == 10 {
			if err := o.check(ofWest, "0"); err != nil { // in use
				t.Fatal(err)
			}
		}
	}
	for id, there := range map[string]bool{"0": true, "1": false, "2": false, "3": true, fmt.Sprint(execShare + 1): true} {
		if err := o.check(ofWest, id); (err == nil) != there {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := o.check(north, "n"); err != nil || o.count["west"] != execShare {
		t.Errorf("%v, %v", err, o.count)
	}
}
