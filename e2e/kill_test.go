package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
)

// A gateway may be killed between any two calls of an operation that takes several. Whatever it had done by then, its next
// run and its caller's next try end in what an undisturbed operation ends in, and a removal leaves nothing behind.

// deed is such an operation, by a gateway G.
type deed[G any] struct {
	name   string
	before []func(context.Context, G) error // makes what there is before
	do     func(context.Context, G) error
	undo   []func(context.Context, G) error // removes whatever has come of it
}

// graveyard is an orchestrator whose gateways are killed.
type graveyard[G any] interface {
	// open starts a gateway whose calls go by a line of its own.
	open(t *testing.T, namespace string) (G, *relay.Lifeline)
	// state is all that there is in a namespace, in a form that is the same for the same things.
	state(t *testing.T, namespace string) string
	// settle does what a gateway does by itself after its start.
	settle(ctx context.Context, gateway G) error
	// done tells whether an error says that the operation was done before.
	done(err error) bool
}

// obituary is a line of the test's table.
type obituary struct{ deed, call, found, settled, end string }

type obituaries struct {
	mu  sync.Mutex
	all []obituary
}

func (o *obituaries) add(line obituary) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, line)
}

// String is the table.
func (o *obituaries) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "operation\tkilled after\tfound\tafter the next start\tafter the next try")
	for _, line := range o.all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", line.deed, line.call, line.found, line.settled, line.end)
	}
	_ = w.Flush() // into memory
	return b.String()
}

const (
	deedDeadline   = 30 * time.Second
	settleDeadline = 60 * time.Second // a gateway leaves another one's work alone until it is certain that that one died
	retryDeadline  = 60 * time.Second
)

// kill kills a gateway at each of a deed's calls.
func kill[G any](t *testing.T, in graveyard[G], d deed[G], namespace string, table *obituaries) {
	t.Helper()
	whole, line := in.open(t, namespace)
	attempt := func(what string, steps ...func(context.Context, G) error) {
		t.Helper()
		for i, step := range steps {
			ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
			err := step(ctx, whole)
			cancel()
			if err != nil && !in.done(err) {
				t.Fatalf("%s %d: %v", what, i, err)
			}
		}
	}
	nothing := in.state(t, namespace)
	attempt("before", d.before...)
	start := in.state(t, namespace)
	already := len(line.Changes())
	attempt("undisturbed", d.do)
	want := in.state(t, namespace)
	calls := line.Changes()[already:]
	if len(calls) == 0 {
		t.Fatal("it changes nothing")
	}
	told := func(state string) string {
		switch state {
		case want:
			return "done"
		case start:
			return "undone"
		}
		return "in part"
	}
	remove := func() {
		t.Helper()
		attempt("undo", d.undo...)
		if left := in.state(t, namespace); left != nothing {
			t.Errorf("left behind:\n%s", difference(nothing, left))
		}
	}
	remove()
	for i, call := range calls {
		attempt("before", d.before...)
		mortal, line := in.open(t, namespace)
		line.CutAt(i+1, true)
		ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
		stop := context.AfterFunc(line.Cut(), cancel)
		_ = d.do(ctx, mortal) // nobody hears
		stop()
		cancel()
		if line.Cut().Err() == nil {
			t.Fatalf("it was not killed at call %d: %v", i+1, line.Changes())
		}
		row := obituary{deed: d.name, call: fmt.Sprintf("%d of %d: %s", i+1, len(calls), call), found: told(in.state(t, namespace))}
		ctx, cancel = context.WithTimeout(t.Context(), settleDeadline)
		if err := in.settle(ctx, whole); err != nil {
			t.Errorf("killed after %s: the next start: %v", call, err)
		}
		cancel()
		row.settled = told(in.state(t, namespace))
		var err error
		for deadline := time.Now().Add(retryDeadline); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
			err = d.do(ctx, whole)
			cancel()
			if err == nil || in.done(err) {
				err = nil
				break
			}
		}
		if err != nil {
			t.Errorf("killed after %s: the next try: %v", call, err)
		}
		now := in.state(t, namespace)
		if row.end = told(now); now != want {
			t.Errorf("killed after %s: the end is another one:\n%s", call, difference(want, now))
		}
		table.add(row)
		remove()
	}
}

// difference is the lines that only one of two states has.
func difference(want, got string) string {
	var b strings.Builder
	only := func(sign, of, other string) {
		there := map[string]bool{}
		for line := range strings.Lines(other) {
			there[line] = true
		}
		for line := range strings.Lines(of) {
			if !there[line] {
				b.WriteString(sign + line)
			}
		}
	}
	only("- ", want, got)
	only("+ ", got, want)
	return b.String()
}
