package caller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// fakeReviewer knows tokens that begin with "good-".
type fakeReviewer struct {
	asked atomic.Int64
	wait  chan struct{} // nil answers at once
	err   atomic.Pointer[error]
}

func (r *fakeReviewer) ReviewToken(ctx context.Context, token string, _ []string) (string, []string, error) {
	r.asked.Add(1)
	if r.wait != nil {
		select {
		case <-r.wait:
		case <-ctx.Done():
			return "", nil, ctx.Err()
		}
	}
	if err := r.err.Load(); err != nil {
		return "", nil, *err
	}
	if name, ok := strings.CutPrefix(token, "good-"); ok {
		return "system:serviceaccount:shop:" + name, []string{"system:serviceaccounts:shop", "system:authenticated", "a,b"}, nil
	}
	return "", nil, nil
}

func TestReviews(t *testing.T) {
	t.Parallel()
	reviewer := &fakeReviewer{}
	a, err := New(Config{Reviewer: reviewer})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	a.reviews.now = func() time.Time { return now }
	is := func(when, token, want string, kind fault.Kind, asked int64) {
		t.Helper()
		got, err := a.Admit(t.Context(), modules.ContainerOperation, Credentials{Token: token})
		if groups := map[bool]modules.Groups{true: ",system:authenticated,system:serviceaccounts:shop"}[want != ""]; got.Groups != groups {
			t.Errorf("%s: the groups are %q", when, got.Groups)
		}
		if got.Name != want || (want == "") != fault.Is(err, kind) && want == "" || reviewer.asked.Load() != asked {
			t.Errorf("%s: %q, %v, asked %d times", when, got, err, reviewer.asked.Load())
		}
	}
	const ci = "system:serviceaccount:shop:ci"
	is("first", "good-ci", ci, 0, 1)
	is("again", "good-ci", ci, 0, 1)
	is("bad", "bad", "", fault.Unauthenticated, 2)
	is("bad again", "bad", "", fault.Unauthenticated, 2)
	now = now.Add(badFor)
	is("bad later", "bad", "", fault.Unauthenticated, 3)
	now = now.Add(goodFor)
	is("later", "good-ci", ci, 0, 4)
	away := errors.New("dial tcp 10.0.0.1:6443: refused")
	reviewer.err.Store(&away)
	is("away, remembered", "good-ci", ci, 0, 4)
	is("away", "good-other", "", fault.Unavailable, 5)
	is("away is not remembered", "good-other", "", fault.Unavailable, 6)
	if _, err := a.Admit(t.Context(), modules.ContainerOperation, Credentials{Token: "good-other"}); strings.Contains(fault.Of(err).Message, "10.0.0.1") {
		t.Errorf("the refusal shows an address: %v", fault.Of(err).Message)
	}
}

func TestReviewsAreBounded(t *testing.T) {
	t.Parallel()
	reviewer := &fakeReviewer{}
	r := newReviews(reviewer, nil, slog.New(slog.DiscardHandler))
	for i := range remembered + 100 {
		token := fmt.Sprint("bad-", i)
		if i%2 == 0 {
			token = fmt.Sprint("good-", i)
		}
		if _, err := r.owner(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if len(r.known) > remembered {
			t.Fatalf("%d tokens are remembered", len(r.known))
		}
	}
	asked := reviewer.asked.Load()
	if _, err := r.owner(t.Context(), "good-0"); err != nil || reviewer.asked.Load() != asked {
		t.Error("a good token was forgotten while there were bad ones")
	}
	for i := range remembered + 100 { // good ones alone
		if _, err := r.owner(t.Context(), fmt.Sprint("good-x", i)); err != nil || len(r.known) > remembered {
			t.Fatalf("%d tokens are remembered, %v", len(r.known), err)
		}
	}
}

// TestReviewsAreShared holds that many requests with one token are one question, and that who leaves does not end it.
func TestReviewsAreShared(t *testing.T) {
	t.Parallel()
	reviewer := &fakeReviewer{wait: make(chan struct{})}
	r := newReviews(reviewer, nil, slog.New(slog.DiscardHandler))
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := r.owner(ctx, "good-ci")
		first <- err
	}()
	for reviewer.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	var wait sync.WaitGroup
	names := make([]Identity, 20)
	for i := range names {
		wait.Go(func() { names[i], _ = r.owner(t.Context(), "good-ci") })
	}
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(reviewer.wait)
	wait.Wait()
	for _, who := range names {
		if name := who.Name; name != "system:serviceaccount:shop:ci" {
			t.Errorf("is %q", name)
		}
	}
	if n := reviewer.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestReviewsAtOnce holds that no more than so many tokens are asked about at once.
func TestReviewsAtOnce(t *testing.T) {
	t.Parallel()
	reviewer := &fakeReviewer{wait: make(chan struct{})}
	r := newReviews(reviewer, nil, slog.New(slog.DiscardHandler))
	var wait sync.WaitGroup
	for i := range 5 * asking {
		wait.Go(func() {
			if _, err := r.owner(t.Context(), fmt.Sprint("good-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	for reviewer.asked.Load() < asking {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := reviewer.asked.Load(); n != asking {
		t.Errorf("%d at once", n)
	}
	close(reviewer.wait)
	wait.Wait()
	if n := reviewer.asked.Load(); n != 5*asking {
		t.Errorf("%d in all", n)
	}
}
