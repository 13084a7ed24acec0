package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts wait more than they work, so all of them are begun at once, and what follows says which go on: many that
// disturb nothing, or one that is alone.
var (
	// alone keeps scripts that stop a gateway, or change what its peers may do, apart from all others.
	alone sync.RWMutex
	// crowd are those that run beside each other.
	crowd gate
	// scripted is over when every script is.
	scripted sync.WaitGroup
)

// begun lets the tests be begun all at once, unless the caller says how many.
func begun() error {
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if chosen {
		return nil
	}
	return flag.Set("test.parallel", "1000")
}

// scripting makes a test one of those that run scripts, or do as scripts do.
func scripting(t *testing.T) {
	t.Helper()
	scripted.Add(1)
	t.Cleanup(scripted.Done)
	t.Parallel()
}

// turn waits until a script may run, and gives what ends its turn.
func turn(name string) (end func()) {
	if strings.HasPrefix(name, "alone_") {
		alone.Lock()
		return alone.Unlock
	}
	alone.RLock()
	crowd.enter()
	return func() {
		crowd.leave()
		alone.RUnlock()
	}
}

const (
	few      = 2                       // are let in whatever else the machine does
	many     = 16                      // are never exceeded
	glance   = 250 * time.Millisecond  // between two looks at the processors
	newcomer = 1500 * time.Millisecond // until what the last one does is seen
	spare    = 0.35                    // of the processors must be idle for one more
)

// gate lets scripts in as long as the processors have time to spare: some wait for a rollout, others compile.
type gate struct {
	door   sync.Mutex // who waits; they come in one after the other
	inside atomic.Int32
	last   time.Time
}

func (g *gate) enter() {
	g.door.Lock()
	defer g.door.Unlock()
	for g.inside.Load() >= few {
		before := processors()
		time.Sleep(glance)
		if inside := g.inside.Load(); inside < many && time.Since(g.last) > newcomer && processors().idleSince(before) > spare {
			break
		}
	}
	g.inside.Add(1)
	g.last = time.Now()
}

func (g *gate) leave() { g.inside.Add(-1) }

// ticks are what the processors have done since the machine was started.
type ticks struct{ idle, all float64 }

// processors reads /proc/stat; all of it is zero where that cannot be read, which lets few in.
func processors() (t ticks) {
	raw, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil || i > 8 { // the rest is counted among the first ones
			continue
		}
		t.all += n
		if i == 4 || i == 5 { // idle, or waiting for a disk
			t.idle += n
		}
	}
	return t
}

// idleSince is the part of the time since then that the processors were idle.
func (t ticks) idleSince(before ticks) float64 {
	if t.all <= before.all {
		return 0
	}
	return (t.idle - before.idle) / (t.all - before.all)
}

// takesTurns makes a script wait for its turn.
func takesTurns(env *testscript.Env) {
	env.Defer(turn(strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")))
}
