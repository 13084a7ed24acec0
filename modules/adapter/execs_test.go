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
	for i := range execLimit {
		if _, err := e.create("west", neutral.Operation{}); err != nil {
			t.Fatalf("exec %d: %v", i, err)
		}
	}
	if _, err := e.create("west", neutral.Operation{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("past the limit: %v", err)
	}
}
