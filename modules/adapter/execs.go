package adapter

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// remembered are the actions that the execs below answer. Docker splits one exec over several requests; as with
// dockerd, what the requests share lives in memory and ends with the process.
var remembered = map[neutral.Action]bool{
	neutral.ExecCreate: true, neutral.ExecStart: true, neutral.ExecInspect: true, neutral.ExecResize: true,
	neutral.ContainerResize: true,
}

// execLife is how long an exec is remembered after it ended, or after it was made and never started.
const execLife = 10 * time.Minute

// execLimit bounds the execs that one gateway remembers.
const execLimit = 10000

// exec is one exec between its creation and the moment it is forgotten.
type exec struct {
	id       string
	peer     string // nobody else may start or see it
	op       neutral.Operation
	running  bool
	exitCode *int
	resizes  chan neutral.Size
	touched  time.Time
}

// execs are the execs of all peers.
type execs struct {
	mu  sync.Mutex
	all map[string]*exec
	now func() time.Time
}

func newExecs(now func() time.Time) *execs { return &execs{all: map[string]*exec{}, now: now} }

// create remembers an exec and gives its id.
func (e *execs) create(peer string, op neutral.Operation) (string, error) {
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fault.Wrap(fault.Internal, err, "no randomness for an id")
	}
	id := hex.EncodeToString(raw[:])
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	for key, x := range e.all {
		if !x.running && now.Sub(x.touched) > execLife {
			delete(e.all, key)
		}
	}
	if len(e.all) >= execLimit {
		return "", fault.New(fault.Exhausted, "too many execs at once")
	}
	e.all[id] = &exec{id: id, peer: peer, op: op, touched: now, resizes: make(chan neutral.Size, 8)}
	return id, nil
}

// start gives an exec's operation and takes the right to run it.
func (e *execs) start(peer, id string) (neutral.Operation, <-chan neutral.Size, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(peer, id)
	if err != nil {
		return neutral.Operation{}, nil, err
	}
	if x.running || x.exitCode != nil {
		return neutral.Operation{}, nil, fault.New(fault.Conflict, "Error: Exec command %s has already run", id)
	}
	x.running, x.touched = true, e.now()
	return x.op, x.resizes, nil
}

// end records how an exec ended.
func (e *execs) end(id string, exitCode int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x, ok := e.all[id]; ok {
		x.running, x.exitCode, x.touched = false, &exitCode, e.now()
	}
}

// state is what an inspect answers.
func (e *execs) state(peer, id string) (neutral.ExecState, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(peer, id)
	if err != nil {
		return neutral.ExecState{}, err
	}
	state := neutral.ExecState{ID: id, Container: x.op.Ref, Running: x.running, ExitCode: x.exitCode}
	if x.op.Exec != nil {
		state.Spec = *x.op.Exec
	}
	return state, nil
}

// resize passes a terminal's size on; a size that nobody reads yet is dropped when the queue is full, for a later one
// takes its place.
func (e *execs) resize(peer, id string, size neutral.Size) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(peer, id)
	if err != nil {
		return err
	}
	select {
	case x.resizes <- size:
	default:
	}
	return nil
}

func (e *execs) find(peer, id string) (*exec, error) {
	x, ok := e.all[id]
	if !ok || x.peer != peer {
		return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	return x, nil
}

// attach remembers an attach for the sizes of its terminal.
func (e *execs) attach(peer, id string, op neutral.Operation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[id] = &exec{id: id, peer: peer, op: op, touched: e.now(), resizes: make(chan neutral.Size, 8)}
}

func (e *execs) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, id)
}
