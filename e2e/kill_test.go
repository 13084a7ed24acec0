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

// site is an orchestrator whose gateways are killed.
type site[G any] interface {
	// space makes an empty namespace, which goes with the test.
	space(t *testing.T, namespace string)
	// open starts a gateway whose calls go by a line of its own.
	open(t *testing.T, namespace string) (G, *relay.Lifeline)
	// state is all that there is in a namespace, in a form that is the same for the same things.
	state(t *testing.T, namespace string) string
	// settle does what a gateway does by itself after its start.
	settle(ctx context.Context, t *testing.T, gateway G) error
	// done tells whether an error says that the operation was done before.
	done(err error) bool
}

// outcome is a line of the test's table.
type outcome struct{ deed, call, found, settled, end string }

type outcomes struct {
	mu  sync.Mutex
	all []outcome
}

func (o *outcomes) add(line outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, line)
}

// String is the table.
func (o *outcomes) String() string {
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
	settleRest     = 3 * time.Second
	retryDeadline  = 60 * time.Second
)

// interruption is a deed that is done in a namespace of its own.
type interruption[G any] struct {
	deed[G]
	in        site[G]
	namespace string
	whole     G // a gateway that lives on
}

func (m *interruption[G]) attempt(t *testing.T, what string, steps ...func(context.Context, G) error) {
	t.Helper()
	for i, step := range steps {
		ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
		err := step(ctx, m.whole)
		cancel()
		if err != nil && !m.in.done(err) {
			t.Fatalf("%s %d: %v", what, i, err)
		}
	}
}

func (m *interruption[G]) state(t *testing.T) string {
	t.Helper()
	return strings.ReplaceAll(m.in.state(t, m.namespace), m.namespace, "~")
}

// rest is the state that things come to: orchestrators take their time to forget.
func (m *interruption[G]) rest(t *testing.T, want string, within time.Duration) string {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(200 * time.Millisecond) {
		if state := m.state(t); state == want || time.Now().After(deadline) {
			return state
		}
	}
}

// end removes all that there is, and nothing may be left.
func (m *interruption[G]) end(t *testing.T, nothing string) {
	t.Helper()
	m.attempt(t, "undo", m.undo...)
	if left := m.rest(t, nothing, deedDeadline); left != nothing {
		t.Errorf("left behind:\n%s", difference(nothing, left))
	}
}

// kill kills a gateway at each of a deed's calls.
func kill[G any](t *testing.T, in site[G], d deed[G], namespace string, table *outcomes) {
	t.Helper()
	in.space(t, namespace)
	whole, line := in.open(t, namespace)
	m := &interruption[G]{deed: d, in: in, namespace: namespace, whole: whole}
	nothing := m.state(t)
	m.attempt(t, "before", d.before...)
	start, already := m.state(t), len(line.Changes())
	m.attempt(t, "undisturbed", d.do)
	want, calls := m.state(t), line.Changes()[already:]
	if len(calls) == 0 {
		t.Fatal("it changes nothing")
	}
	m.end(t, nothing)
	told := func(state string) string {
		switch state {
		case want:
			return "done"
		case start:
			return "undone"
		}
		return "in part"
	}
	for i, call := range calls {
		call = strings.ReplaceAll(passing.ReplaceAllString(call, "~"), namespace, "~")
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			t.Parallel()
			defer turn("killed")()
			m := *m
			m.namespace = fmt.Sprintf("%s-%d", namespace, i+1)
			in.space(t, m.namespace)
			m.whole, _ = in.open(t, m.namespace)
			m.attempt(t, "before", d.before...)
			row := outcome{deed: d.name, call: fmt.Sprintf("%d of %d: %s", i+1, len(calls), call)}
			m.die(t, i+1)
			row.found = told(m.state(t))
			ctx, cancel := context.WithTimeout(t.Context(), settleDeadline)
			defer cancel()
			if err := in.settle(ctx, t, m.whole); err != nil {
				t.Errorf("the next start: %v", err)
			}
			row.settled = told(m.rest(t, want, settleRest))
			m.retry(t)
			now := m.rest(t, want, deedDeadline)
			if row.end = told(now); now != want {
				t.Errorf("killed after %s: the end is another one:\n%s", call, difference(want, now))
			}
			table.add(row)
			m.end(t, nothing)
		})
	}
}

// die does the deed by a gateway that is killed at its n-th call.
func (m *interruption[G]) die(t *testing.T, n int) {
	t.Helper()
	mortal, line := m.in.open(t, m.namespace)
	line.CutAt(n, true)
	ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
	defer cancel()
	defer context.AfterFunc(line.Cut(), cancel)()
	_ = m.do(ctx, mortal) // nobody hears
	if line.Cut().Err() == nil {
		t.Fatalf("it was not killed at call %d: %v", n, line.Changes())
	}
}

// retry does the deed as a caller does who tries again.
func (m *interruption[G]) retry(t *testing.T) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(retryDeadline); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), deedDeadline)
		err = m.do(ctx, m.whole)
		cancel()
		if err == nil || m.in.done(err) {
			return
		}
	}
	t.Errorf("the next try: %v", err)
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
