// Package statetest holds what every home of state must do.
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Kinds of records that the suite keeps.
var (
	Plain  = state.Kind{Name: "test-plain", File: "plain/*.txt"}
	Secret = state.Kind{Name: "test-secret", File: "secret/*.key", Secret: true}
	Single = state.Kind{Name: "test-single", File: "single.json"}
)

// Open opens the home of one test for a replica; called again, it opens the same home once more.
type Open func(replica string) state.Home

// Run holds a home against the contract. Leases live for the lifetime given.
func Run(t *testing.T, lifetime time.Duration, home func(t *testing.T) Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"nothing":                 nothing,
		"what is put is there":    put,
		"values":                  values,
		"too large":               tooLarge,
		"kinds are apart":         apart,
		"single":                  single,
		"another revision":        conflicts,
		"every put is another":    revisions,
		"one of many creates":     once,
		"no change is lost":       counted,
		"lists are of one moment": lists,
		"hostile names":           hostile,
		"ended context":           ended,
		"watch":                   watch,
		"update":                  update,
		"lease":                   lease,
		"lease after a kill":      func(t *testing.T, open Open) { killed(t, open, lifetime) },
		"lease again":             again,
		"singleton":               singleton,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, home(t))
		})
	}
}

func opened(t *testing.T, open Open, replica string) state.Home {
	t.Helper()
	h := open(replica)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func mustPut(t *testing.T, h state.Home, key state.Key, value, revision string) string {
	t.Helper()
	after, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte(value), Revision: revision})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	if after == "" || after == revision {
		t.Fatalf("put %s: revision %q became %q", key, revision, after)
	}
	return after
}

func mustGet(t *testing.T, h state.Home, key state.Key, want string) state.Record {
	t.Helper()
	r, err := h.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if string(r.Value) != want || r.Key != key || r.Revision == "" {
		t.Fatalf("get %s: %+v, want value %q", key, r, want)
	}
	return r
}

func names(t *testing.T, h state.Home, kind state.Kind) string {
	t.Helper()
	records, err := h.List(t.Context(), kind)
	if err != nil {
		t.Fatalf("list %s: %v", kind.Name, err)
	}
	var all []string
	for _, r := range records {
		if r.Key.Kind != kind {
			t.Errorf("list of %s gave %+v", kind.Name, r.Key)
		}
		all = append(all, r.Key.Name+"="+string(r.Value))
	}
	return strings.Join(all, " ")
}

func nothing(t *testing.T, open Open) {
	h := opened(t, open, "a")
	for _, key := range []state.Key{Plain.Key("x"), Secret.Key("x"), Single.Only()} {
		if _, err := h.Get(t.Context(), key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("get %s: %v", key, err)
		}
		if got := names(t, h, key.Kind); got != "" {
			t.Errorf("list of %s: %s", key.Kind.Name, got)
		}
		if err := h.Delete(t.Context(), key, ""); err != nil {
			t.Errorf("delete of nothing: %v", err)
		}
		if err := h.Delete(t.Context(), key, "7"); !errors.Is(err, state.ErrConflict) {
			t.Errorf("delete of a revision of nothing: %v", err)
		}
	}
}

func put(t *testing.T, open Open) {
	h := opened(t, open, "a")
	for _, kind := range []state.Kind{Plain, Secret} {
		first := mustPut(t, h, kind.Key("b"), "1", "")
		mustPut(t, h, kind.Key("a"), "1", "")
		mustPut(t, h, kind.Key("c.d-e"), "1", "")
		second := mustPut(t, h, kind.Key("b"), "2", first)
		if r := mustGet(t, h, kind.Key("b"), "2"); r.Revision != second {
			t.Errorf("get gave revision %q, put %q", r.Revision, second)
		}
		other := opened(t, open, "b")
		if got, want := names(t, other, kind), "a=1 b=2 c.d-e=1"; got != want {
			t.Errorf("list of %s: %s, want %s", kind.Name, got, want)
		}
		r := mustGet(t, other, kind.Key("b"), "2")
		if err := other.Delete(t.Context(), r.Key, r.Revision); err != nil {
			t.Fatal(err)
		}
		if err := h.Delete(t.Context(), kind.Key("a"), ""); err != nil {
			t.Fatal(err)
		}
		if got, want := names(t, h, kind), "c.d-e=1"; got != want {
			t.Errorf("list of %s: %s, want %s", kind.Name, got, want)
		}
	}
}

func values(t *testing.T, open Open) {
	h := opened(t, open, "a")
	for _, kind := range []state.Kind{Plain, Secret} {
		for name, value := range map[string]string{
			"empty": "", "binary": "\x00\xff\xfe\r\n\x00", "text": "# äöü: {a: \"b\"}\n\ttab\r\n", "line": "x",
			"largest": strings.Repeat("\xff", state.MaxValue), "tags": "{{.X}} ${y} <script>",
		} {
			mustPut(t, h, kind.Key(name), value, "")
			r, err := h.Get(t.Context(), kind.Key(name))
			if err != nil || !bytes.Equal(r.Value, []byte(value)) {
				t.Errorf("%s %s: %d bytes of %d, %v", kind.Name, name, len(r.Value), len(value), err)
			}
		}
	}
}

func tooLarge(t *testing.T, open Open) {
	h := opened(t, open, "a")
	for _, kind := range []state.Kind{Plain, Secret} {
		_, err := h.Put(t.Context(), state.Record{Key: kind.Key("x"), Value: make([]byte, state.MaxValue+1)})
		if !fault.Is(err, fault.TooLarge) {
			t.Errorf("%v", err)
		}
		if got := names(t, h, kind); got != "" {
			t.Errorf("it is there: %d bytes", len(got))
		}
	}
}

func apart(t *testing.T, open Open) {
	h := opened(t, open, "a")
	mustPut(t, h, Plain.Key("x"), "plain", "")
	mustPut(t, h, Secret.Key("x"), "secret", "")
	mustGet(t, h, Plain.Key("x"), "plain")
	mustGet(t, h, Secret.Key("x"), "secret")
	if err := h.Delete(t.Context(), Plain.Key("x"), ""); err != nil {
		t.Fatal(err)
	}
	mustGet(t, h, Secret.Key("x"), "secret")
}

func single(t *testing.T, open Open) {
	h := opened(t, open, "a")
	revision := mustPut(t, h, Single.Only(), "1", "")
	mustPut(t, h, Single.Only(), "2", revision)
	if got, want := names(t, h, Single), "only=2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := h.Put(t.Context(), state.Record{Key: Single.Key("other")}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a second record of a single kind: %v", err)
	}
}

func conflicts(t *testing.T, open Open) {
	h := opened(t, open, "a")
	for _, kind := range []state.Kind{Plain, Secret} {
		key := kind.Key("x")
		first := mustPut(t, h, key, "1", "")
		second := mustPut(t, h, key, "2", first)
		for _, stale := range []string{first, ""} {
			if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("3"), Revision: stale}); !errors.Is(err, state.ErrConflict) {
				t.Errorf("put over revision %q: %v", stale, err)
			}
		}
		if err := h.Delete(t.Context(), key, first); !errors.Is(err, state.ErrConflict) {
			t.Errorf("delete of an old revision: %v", err)
		}
		mustGet(t, h, key, "2")
		if err := h.Delete(t.Context(), key, second); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("3"), Revision: second}); !errors.Is(err, state.ErrConflict) {
			t.Errorf("put of a record that is gone: %v", err)
		}
		third := mustPut(t, h, key, "4", "")
		if err := h.Delete(t.Context(), key, second); !errors.Is(err, state.ErrConflict) {
			t.Errorf("delete of a revision before another life: %v", err)
		}
		if third == second {
			t.Errorf("a new life has revision %q again", third)
		}
	}
}

func revisions(t *testing.T, open Open) {
	h := opened(t, open, "a")
	seen := map[string]bool{}
	revision := ""
	for i := range 20 {
		revision = mustPut(t, h, Plain.Key("x"), fmt.Sprint(i%2), revision)
		if seen[revision] {
			t.Fatalf("put %d has revision %q again", i, revision)
		}
		seen[revision] = true
	}
}

// once has many create one record, through several replicas: one has.
func once(t *testing.T, open Open) {
	homes := []state.Home{opened(t, open, "a"), opened(t, open, "b"), opened(t, open, "c")}
	var won, refused atomic.Int32
	var group sync.WaitGroup
	for i := range 9 {
		group.Go(func() {
			_, err := homes[i%len(homes)].Put(t.Context(), state.Record{Key: Secret.Key("x"), Value: fmt.Append(nil, i)})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, state.ErrConflict):
				refused.Add(1)
			default:
				t.Errorf("put: %v", err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || refused.Load() != 8 {
		t.Errorf("%d have created it, %d were refused", won.Load(), refused.Load())
	}
}

// counted has two replicas count at once.
func counted(t *testing.T, open Open) {
	homes := []state.Home{opened(t, open, "a"), opened(t, open, "b")}
	const each = 10
	var group sync.WaitGroup
	for _, h := range homes {
		group.Go(func() {
			for range each {
				err := state.Update(t.Context(), h, Plain.Key("count"), func(value []byte) ([]byte, error) {
					n := 0
					if value != nil {
						if _, err := fmt.Sscan(string(value), &n); err != nil {
							return nil, err
						}
					}
					return fmt.Append(nil, n+1), nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	group.Wait()
	mustGet(t, homes[0], Plain.Key("count"), fmt.Sprint(each*len(homes)))
}

// lists reads lists while records come, change and go: what stays is in every list, and every value is whole.
func lists(t *testing.T, open Open) {
	writer, reader := opened(t, open, "a"), opened(t, open, "b")
	whole := func(i int) string { return strings.Repeat(fmt.Sprintf("%08d", i), 500) }
	mustPut(t, writer, Plain.Key("a-stays"), whole(0), "")
	mustPut(t, writer, Plain.Key("z-stays"), whole(0), "")
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for i := range 30 {
			revision := mustPut(t, writer, Plain.Key("m-comes"), whole(i), "")
			revision = mustPut(t, writer, Plain.Key("m-comes"), whole(i+1000), revision)
			if err := writer.Delete(t.Context(), Plain.Key("m-comes"), revision); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	})
	for n := 0; ; n++ {
		records, err := reader.List(t.Context(), Plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) < 2 || records[0].Key.Name != "a-stays" || records[len(records)-1].Key.Name != "z-stays" {
			t.Fatalf("list %d lacks what stays: %d records", n, len(records))
		}
		for _, r := range records {
			if len(r.Value) != 4000 || !bytes.Equal(r.Value[:8], r.Value[3992:]) {
				t.Fatalf("a half record: %d bytes", len(r.Value))
			}
		}
		select {
		case <-done:
			group.Wait()
			return
		default:
		}
	}
}

func hostile(t *testing.T, open Open) {
	h := opened(t, open, "a")
	mustPut(t, h, Plain.Key("good"), "1", "")
	for _, name := range []string{
		"", ".", "..", "../x", "a/b", "/etc/passwd", "A", "-a", "a-", "a_b", "a\x00", "a b", "a..b", ".a", "a.", "*", "a\n", "ä",
		strings.Repeat("a", state.MaxName+1), `a\b`, "a%2fb", "good/", "?", "a=b",
	} {
		for _, kind := range []state.Kind{Plain, Secret} {
			key := kind.Key(name)
			if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("x")}); !fault.Is(err, fault.Invalid) {
				t.Errorf("put %q: %v", name, err)
			}
			if _, err := h.Get(t.Context(), key); !fault.Is(err, fault.Invalid) {
				t.Errorf("get %q: %v", name, err)
			}
			if err := h.Delete(t.Context(), key, ""); !fault.Is(err, fault.Invalid) {
				t.Errorf("delete %q: %v", name, err)
			}
		}
	}
	if got, want := names(t, h, Plain), "good=1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, name := range []string{"a", "0", "a-b", "a.b", strings.Repeat("a", state.MaxName)} {
		mustPut(t, h, Secret.Key(name), name, "")
		mustGet(t, h, Secret.Key(name), name)
	}
	// One name that begins another is another.
	mustPut(t, h, Plain.Key("goo"), "2", "")
	if got, want := names(t, h, Plain), "goo=2 good=1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func ended(t *testing.T, open Open) {
	h := opened(t, open, "a")
	revision := mustPut(t, h, Plain.Key("x"), "1", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Put(ctx, state.Record{Key: Plain.Key("x"), Value: []byte("2"), Revision: revision}); err == nil {
		t.Error("put was done for nobody")
	}
	if err := h.Delete(ctx, Plain.Key("x"), ""); err == nil {
		t.Error("delete was done for nobody")
	}
	if _, err := h.Get(ctx, Plain.Key("x")); err == nil {
		t.Error("get was done for nobody")
	}
	if _, err := h.List(ctx, Plain); err == nil {
		t.Error("list was done for nobody")
	}
	if _, err := h.Lease("x").Acquire(ctx); err == nil {
		t.Error("a lease was taken for nobody")
	}
	mustGet(t, h, Plain.Key("x"), "1")
}

func watch(t *testing.T, open Open) {
	writer, watcher := opened(t, open, "a"), opened(t, open, "b")
	for _, kind := range []state.Kind{Plain, Secret} {
		mustPut(t, writer, kind.Key("before"), "1", "")
		ctx, cancel := context.WithCancel(t.Context())
		changes := make(chan struct{}, 1000)
		var group sync.WaitGroup
		group.Go(func() { watcher.Watch(ctx, kind, func() { changes <- struct{}{} }) })
		// A change before the watch stands may be missed; whoever watches reads afterwards.
		told := func(what string, change func(i int)) {
			t.Helper()
			for i := range 20 {
				change(i)
				select {
				case <-changes:
					return
				case <-time.After(time.Second):
				}
			}
			t.Errorf("%s of %s is not told", what, kind.Name)
		}
		revision := ""
		told("put", func(i int) { revision = mustPut(t, writer, kind.Key("x"), fmt.Sprint(i), revision) })
		for quiet := false; !quiet; {
			select {
			case <-changes:
			case <-time.After(2 * time.Second):
				quiet = true
			}
		}
		told("delete", func(i int) {
			if i == 0 {
				if err := writer.Delete(t.Context(), kind.Key("x"), ""); err != nil {
					t.Fatal(err)
				}
			}
		})
		cancel()
		group.Wait()
	}
}

func update(t *testing.T, open Open) {
	h := opened(t, open, "a")
	refusal := errors.New("no")
	if err := state.Update(t.Context(), h, Plain.Key("x"), func(value []byte) ([]byte, error) {
		if value != nil {
			t.Errorf("value %q of nothing", value)
		}
		return nil, refusal
	}); !errors.Is(err, refusal) {
		t.Errorf("%v", err)
	}
	if got := names(t, h, Plain); got != "" {
		t.Error(got)
	}
	before := mustPut(t, h, Plain.Key("x"), "1", "")
	if err := state.Update(t.Context(), h, Plain.Key("x"), func(value []byte) ([]byte, error) { return value, nil }); err != nil {
		t.Fatal(err)
	}
	if r := mustGet(t, h, Plain.Key("x"), "1"); r.Revision != before {
		t.Error("what did not change was written")
	}
}
