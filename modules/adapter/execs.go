package adapter

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
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

// execShare bounds those of one peer, so that there is room for others.
const execShare = execLimit / 2

// exec is one exec between its creation and the moment it is forgotten.
type exec struct {
	id       string
	owner    modules.Subject // nobody else may start or see it
	op       neutral.Operation
	made     bool // by create; not the terminal of an attach
	running  bool
	exitCode *int
	resizes  chan neutral.Size
	touched  time.Time
}

// execs are the execs of all peers' callers.
type execs struct {
	mu    sync.Mutex
	all   map[string]*exec
	made  map[string]int // how many of them each peer made
	now   func() time.Time
	swept time.Time // when the old ones were last taken out
	stale time.Time // before then none of them is old
}

// sweepInterval is how often old execs are taken out. In between they are not found, and make room where it is needed.
const sweepInterval = execLife / 10

func newExecs(now func() time.Time) *execs {
	return &execs{all: map[string]*exec{}, made: map[string]int{}, now: now}
}

// create remembers an exec and gives its id.
func (e *execs) create(owner modules.Subject, op neutral.Operation) (string, error) {
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fault.Wrap(fault.Internal, err, "no randomness for an id")
	}
	id := hex.EncodeToString(raw[:])
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if full := e.full(owner.Peer); now.After(e.stale) && (full || now.Sub(e.swept) >= sweepInterval) {
		e.sweep(now)
	}
	if e.full(owner.Peer) {
		return "", fault.New(fault.Exhausted, "too many execs at once")
	}
	e.all[id] = &exec{id: id, owner: owner, op: op, made: true, touched: now, resizes: make(chan neutral.Size, 8)}
	e.made[owner.Peer]++
	return id, nil
}

// full tells whether there is no room for another exec of a peer.
func (e *execs) full(peer string) bool {
	return e.made[peer] >= execShare || len(e.all) >= execLimit
}

// sweep takes out the old ones. What is touched after it is old later than anything that it has seen.
func (e *execs) sweep(now time.Time) {
	e.swept, e.stale = now, now.Add(execLife)
	for key, x := range e.all {
		switch {
		case x.running:
		case x.old(now):
			delete(e.all, key)
			if x.made {
				if e.made[x.owner.Peer]--; e.made[x.owner.Peer] == 0 {
					delete(e.made, x.owner.Peer)
				}
			}
		case x.touched.Add(execLife).Before(e.stale):
			e.stale = x.touched.Add(execLife)
		}
	}
}

func (x *exec) old(now time.Time) bool { return !x.running && now.Sub(x.touched) > execLife }

// start gives an exec's operation and takes the right to run it.
func (e *execs) start(owner modules.Subject, id string) (neutral.Operation, <-chan neutral.Size, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(owner, id)
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
func (e *execs) state(owner modules.Subject, id string) (neutral.ExecState, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(owner, id)
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
func (e *execs) resize(owner modules.Subject, id string, size neutral.Size) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, err := e.find(owner, id)
	if err != nil {
		return err
	}
	select {
	case x.resizes <- size:
	default:
	}
	return nil
}

func (e *execs) find(owner modules.Subject, id string) (*exec, error) {
	x, ok := e.all[id]
	if !ok || x.owner != owner || x.old(e.now()) {
		return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	return x, nil
}

// attach remembers an attach for the sizes of its terminal. Of two to one container the later one gets them. forget
// ends it.
func (e *execs) attach(owner modules.Subject, id string, op neutral.Operation) (forget func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := &exec{id: id, owner: owner, op: op, touched: e.now(), resizes: make(chan neutral.Size, 8)}
	e.all[id] = x
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.all[id] == x {
			delete(e.all, id)
		}
	}
}
