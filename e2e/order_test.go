package e2e

import (
	"flag"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts wait more than they work, so all of them are begun at once, and what follows says which go on: many that
// disturb nothing, or one that is alone.
var (
	// alone keeps scripts that stop a gateway, or change what its peers may do, apart from all others.
	alone sync.RWMutex
	// crowd is how many scripts run beside each other; more would only wait for the processors.
	crowd = make(chan struct{}, 4)
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
	crowd <- struct{}{}
	return func() {
		<-crowd
		alone.RUnlock()
	}
}

// takesTurns makes a script wait for its turn.
func takesTurns(env *testscript.Env) {
	env.Defer(turn(strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")))
}
