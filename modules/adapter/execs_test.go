package adapter

import (
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var ofWest = modules.Subject{Peer: "west", Caller: "ci"}

func TestExecs(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	e := newExecs(func() time.Time { return now })
	id, err := e.create(ofWest, neutral.Operation{Ref: "c1", Exec: &neutral.ExecSpec{Command: []string{"true"}}})
	if err != nil || len(id) != 64 {
		t.Fatalf("%q %v", id, err)
	}
	for _, other := range []modules.Subject{{Peer: "north", Caller: "ci"}, {Peer: "west", Caller: "other"}, {Peer: "west"}} {
		if _, _, err := e.start(other, id); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v starts it: %v", other, err)
		}
		if _, err := e.state(other, id); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v sees it: %v", other, err)
		}
		if err := e.resize(other, id, neutral.Size{}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%v resizes it: %v", other, err)
		}
	}
	if s, err := e.state(ofWest, id); err != nil || s.Running || s.ExitCode != nil || s.Container != "c1" {
		t.Errorf("before its start: %+v %v", s, err)
	}
	if _, _, err := e.start(ofWest, id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.start(ofWest, id); !fault.Is(err, fault.Conflict) {
		t.Errorf("it starts twice: %v", err)
	}
	for range 20 { // more sizes than anybody reads do not block
		if err := e.resize(ofWest, id, neutral.Size{Rows: 1, Columns: 1}); err != nil {
			t.Fatal(err)
		}
	}
	e.end(id, 7)
	if s, _ := e.state(ofWest, id); s.Running || s.ExitCode == nil || *s.ExitCode != 7 {
		t.Errorf("after its end: %+v", s)
	}
	now = now.Add(execLife + time.Second)
	if _, err := e.create(ofWest, neutral.Operation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.state(ofWest, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one is still remembered: %v", err)
	}
}

func TestExecLimit(t *testing.T) {
	t.Parallel()
	e := newExecs(time.Now)
	for _, peer := range []string{"west", "north"} {
		for i := range execShare {
			if _, err := e.create(modules.Subject{Peer: peer, Caller: fmt.Sprint(i)}, neutral.Operation{}); err != nil {
				t.Fatalf("exec %d of %s: %v", i, peer, err)
			}
		}
		if _, err := e.create(modules.Subject{Peer: peer}, neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
			t.Errorf("past the share of %s: %v", peer, err)
		}
	}
	if _, err := e.create(modules.Subject{Peer: "south"}, neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
}

// TestExecSweep holds that an old exec is gone at once for whoever asks, makes room where room is short, and that one
// that runs is never old.
func TestExecSweep(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	e := newExecs(func() time.Time { return now })
	addFor := func(by modules.Subject) string {
		id, err := e.create(by, neutral.Operation{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	add := func() string { return addFor(ofWest) }
	first, running := add(), add()
	if _, _, err := e.start(ofWest, running); err != nil {
		t.Fatal(err)
	}
	now = now.Add(execLife / 2)
	for range execShare {
		addFor(modules.Subject{Peer: "north"})
	}
	for len(e.all) < execLimit {
		add()
	}
	if _, err := e.create(ofWest, neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
	now = now.Add(execLife/2 + time.Second)
	if _, err := e.state(ofWest, first); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one is still remembered: %v", err)
	}
	if err := e.resize(ofWest, first, neutral.Size{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one takes a size: %v", err)
	}
	add() // in the place of the first
	if _, err := e.create(ofWest, neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
	if s, err := e.state(ofWest, running); err != nil || !s.Running {
		t.Errorf("one that runs is gone: %+v %v", s, err)
	}
	now = now.Add(2 * execLife)
	add()
	if len(e.all) != 2 {
		t.Errorf("%d are remembered after all but one were old", len(e.all))
	}
}

// TestExecAttach holds that the end of one attach does not take the terminal of another to the same container.
func TestExecAttach(t *testing.T) {
	t.Parallel()
	e := newExecs(time.Now)
	forgetFirst := e.attach(ofWest, "attach", neutral.Operation{})
	forgetSecond := e.attach(ofWest, "attach", neutral.Operation{})
	forgetFirst()
	if err := e.resize(ofWest, "attach", neutral.Size{Rows: 1}); err != nil {
		t.Errorf("the second one is forgotten with the first: %v", err)
	}
	forgetSecond()
	if err := e.resize(ofWest, "attach", neutral.Size{Rows: 1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is not forgotten: %v", err)
	}
}
