package outage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	patience = 3 * time.Minute        // a cluster whose API server has died comes to itself slowly: how long anything may take on a busy machine
	glance   = 200 * time.Millisecond // between two looks
	slow     = 20 * time.Second       // what takes longer is explained in the log
)

// outages kills each victim before each change that a switch of a target asks for.
func (s *site) outages(t *testing.T, target target) []row {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before := s.ready(ctx, t, target)
	ledger := &ledger{}
	undisturbed := &witness{site: s}
	s.calls.Each(undisturbed.judge)
	ledger.write(ctx, t, s, target, func() bool { return false })
	s.settled(ctx, t, target, before)
	s.calls.Each(nil)
	rows := make([]row, 0, len(undisturbed.seen))
	for i, change := range undisturbed.seen {
		r := row{target: target.title(), change: change}
		for j, v := range victims {
			t.Run(fmt.Sprintf("%d-%s", i+1, v), func(t *testing.T) {
				r.back[j], r.away[j] = s.outage(t, target, before, ledger, v, i+1)
				t.Logf("killed before %s: back after %s, away %s", change, r.back[j].Round(glance), r.away[j].Round(glance))
			})
		}
		rows = append(rows, r)
	}
	return rows
}

// outage kills a victim before the n-th change, and tells how long after it the target was back, and away.
func (s *site) outage(t *testing.T, target target, before string, ledger *ledger, v victim, n int) (back, away time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var once sync.Once
	var dead atomic.Bool
	struck := make(chan time.Time, 1)
	w := &witness{site: s, at: n, strike: func() bool {
		arrives := false
		once.Do(func() {
			now := time.Now()
			dead.Store(true)
			var err error
			if arrives, err = v.kill(ctx, s); err != nil {
				t.Error(err)
			}
			struck <- now
		})
		return arrives
	}}
	s.calls.Each(w.judge)
	defer s.calls.Each(nil)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		ledger.write(ctx, t, s, target, dead.Load)
	}()
	var at time.Time
	select {
	case at = <-struck:
	case <-time.After(patience):
		t.Fatalf("there was no change %d: %q", n, w.seen)
	}
	presence := watch(ctx, glance, (&presence{port: target.port}).answers)
	if err := v.revive(ctx, s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-wrote:
	case <-ctx.Done():
		t.Fatal("psql hangs")
	}
	s.settled(ctx, t, target, before)
	back = time.Since(at)
	away = presence()
	if back > slow {
		t.Logf("that took long; the gateway said at last:\n%s", s.gateway.Process.Tail(40))
	}
	until(ctx, t, "what was written is there", func() error {
		said, err := target.query(ctx, s, "SELECT id FROM written")
		if err != nil {
			return err
		}
		return ledger.check(strings.Fields(said))
	})
	if err := s.caller.Joined(ctx); err != nil {
		t.Fatal(err)
	}
	return back, away
}

// ready makes a target unless it is there, waits until it answers, and gives its description.
func (s *site) ready(ctx context.Context, t *testing.T, target target) string {
	t.Helper()
	if _, there := s.made.LoadOrStore(target.name, true); !there {
		if err := target.make(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	var described string
	until(ctx, t, "the database is ready", func() error {
		_, err := target.query(ctx, s, "CREATE TABLE IF NOT EXISTS written (id integer PRIMARY KEY)")
		if err == nil {
			described, err = target.described(ctx, s)
		}
		return err
	})
	return described
}

// settled waits until a target is not switched any more, and as before.
func (s *site) settled(ctx context.Context, t *testing.T, target target, before string) {
	t.Helper()
	until(ctx, t, "the target is as before", func() error {
		leases, err := s.leasesOf(ctx, target)
		if err != nil {
			return err
		}
		if len(leases) > 0 {
			return fmt.Errorf("there is a lease: %+v", leases)
		}
		now, err := target.described(ctx, s)
		if err != nil {
			return err
		}
		if now != before {
			return fmt.Errorf("it is another one:\n%s", difference(before, now))
		}
		_, err = target.query(ctx, s, "SELECT 1")
		return err
	})
}

func until(ctx context.Context, t *testing.T, what string, done func() error) {
	t.Helper()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(glance):
		}
	}
}

// ledger is what callers tried to write into a target's database, and what they were told is written.
type ledger struct {
	mu                  sync.Mutex
	tried, acknowledged []string
}

// write writes a row as a caller of the other cluster does who tries again until it is told that the row is there, or
// something has died.
func (l *ledger) write(ctx context.Context, t *testing.T, s *site, target target, died func() bool) {
	for ctx.Err() == nil {
		l.mu.Lock()
		id := strconv.Itoa(len(l.tried) + 1)
		l.tried = append(l.tried, id)
		l.mu.Unlock()
		err := target.write(ctx, s, id)
		if err == nil {
			l.mu.Lock()
			l.acknowledged = append(l.acknowledged, id)
			l.mu.Unlock()
			return
		}
		t.Logf("a row was not written: %v", err)
		if died() {
			return
		}
		time.Sleep(glance)
	}
}

// check holds that all that was acknowledged is there, and nothing that nobody wrote.
func (l *ledger) check(there []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.acknowledged {
		if !slices.Contains(there, id) {
			return fmt.Errorf("row %s is lost", id)
		}
	}
	for _, id := range there {
		if !slices.Contains(l.tried, id) {
			return fmt.Errorf("row %s was never written", id)
		}
	}
	return nil
}

// witness sees each change that is asked of an orchestrator, and strikes before one of them.
type witness struct {
	site   *site
	at     int
	strike func() (arrives bool)

	mu   sync.Mutex
	seen []string
}

func (w *witness) judge(r *http.Request) bool {
	path := r.URL.Path
	if rehearses(r) || strings.Contains(path, "/apis/auth") || strings.HasSuffix(path, "/events") {
		return true // it changes no target
	}
	change := fmt.Sprintf("%s (`%s %s`)", plain(w.site.step(r.Context())), r.Method, plain(path))
	w.mu.Lock()
	again := len(w.seen) > 0 && w.seen[len(w.seen)-1] == change // after a conflict
	if !again {
		w.seen = append(w.seen, change)
	}
	strikes := !again && len(w.seen) == w.at
	w.mu.Unlock()
	return !strikes || w.strike()
}

// rehearses tells whether a request is a dry run: it says so in its query, or in its body, which may be JSON or not.
func rehearses(r *http.Request) bool {
	if r.URL.Query().Has("dryRun") {
		return true
	}
	if r.Method != http.MethodDelete && !strings.HasSuffix(r.URL.Path, "/eviction") {
		return false
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return err == nil && bytes.Contains(body, []byte("All"))
}

// passing is what differs from run to run: ids, names that a controller or a lease gives.
var passing = regexp.MustCompile(`[0-9a-f]{64}|\b[a-z0-9]{25}\b|isthmus-[a-z0-9]{6,}|^/v[0-9.]+|^/api/v1/namespaces/default|^/apis/apps/v1/namespaces/default`)

func plain(text string) string { return passing.ReplaceAllString(text, "~") }

// watch looks for a database again and again, and tells for how long there was none.
func watch(ctx context.Context, pause time.Duration, there func() bool) (away func() time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	total := make(chan time.Duration, 1)
	go func() {
		var sum time.Duration
		for last := time.Now(); ; {
			select {
			case <-ctx.Done():
				total <- sum
				return
			case <-time.After(pause):
			}
			now := time.Now()
			if !there() {
				sum += now.Sub(last)
			}
			last = now
		}
	}()
	return func() time.Duration {
		cancel()
		return <-total
	}
}

// postmasters are the folders in /proc of the databases of a port, in whatever containers.
func postmasters(port int) []string {
	var all []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		arguments := bytes.Split(raw, []byte{0})
		if filepath.Base(string(arguments[0])) == "postgres" && slices.ContainsFunc(arguments, func(a []byte) bool { return string(a) == strconv.Itoa(port) }) {
			all = append(all, filepath.Dir(file))
		}
	}
	return all
}

// difference is the lines that only one of two descriptions has.
func difference(before, now string) string {
	var b strings.Builder
	for _, side := range []struct{ sign, of, other string }{{"- ", before, now}, {"+ ", now, before}} {
		for line := range strings.Lines(side.of) {
			if !strings.Contains(side.other, line) {
				b.WriteString(side.sign + line)
			}
		}
	}
	return b.String()
}
