package adapter

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestExecs(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	e := newExecs(func() time.Time { return now })
	id, err := e.create("west", neutral.Operation{Ref: "c1", Exec: &neutral.ExecSpec{Command: []string{"true"}}})
	if err != nil || len(id) != 64 {
		t.Fatalf("%q %v", id, err)
	}
	if _, _, err := e.start("north", id); !fault.Is(err, fault.NotFound) {
		t.Errorf("another peer starts it: %v", err)
	}
	if _, err := e.state("north", id); !fault.Is(err, fault.NotFound) {
		t.Errorf("another peer sees it: %v", err)
	}
	if s, err := e.state("west", id); err != nil || s.Running || s.ExitCode != nil || s.Container != "c1" {
		t.Errorf("before its start: %+v %v", s, err)
	}
	if _, _, err := e.start("west", id); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.start("west", id); !fault.Is(err, fault.Conflict) {
		t.Errorf("it starts twice: %v", err)
	}
	for range 20 { // more sizes than anybody reads do not block
		if err := e.resize("west", id, neutral.Size{Rows: 1, Columns: 1}); err != nil {
			t.Fatal(err)
		}
	}
	e.end(id, 7)
	if s, _ := e.state("west", id); s.Running || s.ExitCode == nil || *s.ExitCode != 7 {
		t.Errorf("after its end: %+v", s)
	}
	now = now.Add(execLife + time.Second)
	if _, err := e.create("west", neutral.Operation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.state("west", id); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one is still remembered: %v", err)
	}
}

func TestExecLimit(t *testing.T) {
	t.Parallel()
	e := newExecs(time.Now)
	for _, peer := range []string{"west", "north"} {
		for i := range execShare {
			if _, err := e.create(peer, neutral.Operation{}); err != nil {
				t.Fatalf("exec %d of %s: %v", i, peer, err)
			}
		}
		if _, err := e.create(peer, neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
			t.Errorf("past the share of %s: %v", peer, err)
		}
	}
	if _, err := e.create("south", neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
}

// TestExecSweep holds that an old exec is gone at once for whoever asks, makes room where room is short, and that one
// that runs is never old.
func TestExecSweep(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	e := newExecs(func() time.Time { return now })
	addFor := func(peer string) string {
		id, err := e.create(peer, neutral.Operation{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	add := func() string { return addFor("west") }
	first, running := add(), add()
	if _, _, err := e.start("west", running); err != nil {
		t.Fatal(err)
	}
	now = now.Add(execLife / 2)
	for range execShare {
		addFor("north")
	}
	for len(e.all) < execLimit {
		add()
	}
	if _, err := e.create("west", neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
	now = now.Add(execLife/2 + time.Second)
	if _, err := e.state("west", first); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one is still remembered: %v", err)
	}
	if err := e.resize("west", first, neutral.Size{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an old one takes a size: %v", err)
	}
	add() // in the place of the first
	if _, err := e.create("west", neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
	if s, err := e.state("west", running); err != nil || !s.Running {
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
	forgetFirst := e.attach("west", "attach", neutral.Operation{})
	forgetSecond := e.attach("west", "attach", neutral.Operation{})
	forgetFirst()
	if err := e.resize("west", "attach", neutral.Size{Rows: 1}); err != nil {
		t.Errorf("the second one is forgotten with the first: %v", err)
	}
	forgetSecond()
	if err := e.resize("west", "attach", neutral.Size{Rows: 1}); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is not forgotten: %v", err)
	}
}
