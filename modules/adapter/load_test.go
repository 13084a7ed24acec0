package adapter_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// held plans operations that stay under way until the test lets them go.
func held(under chan<- struct{}, release <-chan struct{}) func(neutral.Operation, dialect.Guard) (dialect.Plan, error) {
	wait := func(ctx context.Context) error {
		under <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return func(op neutral.Operation, _ dialect.Guard) (dialect.Plan, error) {
		if op.Action == neutral.ContainerInspect {
			return dialect.Plan{Answer: &neutral.Result{Container: &neutral.Container{}}}, nil
		}
		if op.Action.Stream() {
			return dialect.Plan{Stream: func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
				return neutral.Result{}, errors.Join(session.Accept(), wait(ctx))
			}}, nil
		}
		return program(func(ctx context.Context) (neutral.Result, error) { return neutral.Result{}, wait(ctx) })
	}
}

// TestBridgeLimits holds that a peer, and each of its callers, has a share that others do not take and that is there
// again once something has ended.
func TestBridgeLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, limit string
		limits            load.Limits
		room              int // how many the limit lets be under way
		others            []string
	}{
		{"operations of a peer", "/container.stop/web", "operations", load.Limits{Share: load.Share{Operations: 2}}, 2, []string{"north ci-1", "north ci-2"}},
		{"streams of a peer", "/container.logs/web", "streams", load.Limits{Share: load.Share{Streams: 2}}, 2, []string{"north ci-1"}},
		{"operations of a caller", "/container.stop/web", "caller-operations", load.Limits{Caller: load.Share{Operations: 1}}, 1, []string{"west ci-2", "north ci-1"}},
		{"streams of a caller", "/container.logs/web", "caller-streams", load.Limits{Caller: load.Share{Streams: 1}}, 1, []string{"west ci-2", "north ci-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			under, release := make(chan struct{}, 16), make(chan struct{})
			r := newLimitedRig(t, fakePolicy{}, held(under, release), c.limits)
			answers := make(chan int, 16)
			begin := func(peer, caller string) {
				t.Helper()
				go func() {
					response, err := r.as(t.Context(), peer, caller, c.path)
					if err != nil {
						t.Error(err)
						answers <- 0
						return
					}
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
					answers <- response.StatusCode
				}()
				<-under
			}
			for range c.room {
				begin("west", "ci-1")
			}
			response, err := r.as(t.Context(), "west", "ci-1", c.path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(text), "too many") || !strings.Contains(string(text), "west") {
				t.Fatalf("one more: %d %q, %v", response.StatusCode, text, err)
			}
			if e := r.heard(); !fault.Is(e.err, fault.Exhausted) {
				t.Errorf("the observer heard %v", e.err)
			}
			if got := <-r.limited; got != "west "+c.limit {
				t.Errorf("counted is %q", got)
			}
			for _, other := range c.others {
				peer, caller, _ := strings.Cut(other, " ")
				begin(peer, caller)
			}
			close(release)
			for range c.room + len(c.others) {
				if status := <-answers; status >= 300 {
					t.Errorf("one that was let in ends with %d", status)
				}
			}
			for range c.room + len(c.others) {
				r.heard() // the share is free before the observer hears
			}
			begin("west", "ci-1")
			<-answers
		})
	}
}

func (r *rig) as(ctx context.Context, peer, caller, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set(names.HeaderPeer, peer)
	request.Header.Set(names.HeaderCaller, caller)
	return r.client.Do(request)
}

// TestExchangeLimits holds the same for what is rewritten in place, whose end may be an answer or a caller that is gone,
// and that a body is refused by what it says of its length and by its length.
func TestExchangeLimits(t *testing.T) {
	t.Parallel()
	call := dialect.Plan{Call: &dialect.Call{Request: dialect.Request{Method: http.MethodPost, Path: "/native"}}}
	r := newLimitedRig(t, fakePolicy{}, func(neutral.Operation, dialect.Guard) (dialect.Plan, error) { return call, nil },
		load.Limits{Share: load.Share{Operations: 1}, Body: 8})
	begin := func(header http.Header) (modules.Exchange, error) {
		t.Helper()
		verdict, err := r.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: peers["west"], Method: http.MethodPost,
			Path: "/container.create/web", Header: header})
		return verdict.Exchange, err
	}
	first, err := begin(http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.Request(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	second, err := begin(http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := second.Request(t.Context(), []byte("{}")); !fault.Is(err, fault.Exhausted) {
		t.Errorf("one more: %v", err)
	}
	second.End()
	first.End()
	first.End() // an end is one end
	third, err := begin(http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := third.Request(t.Context(), []byte("{}")); err != nil {
		t.Errorf("after the end: %v", err)
	}
	if _, err := begin(http.Header{"Content-Length": {"9"}}); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a length past the limit: %v", err)
	}
	chunked, err := begin(http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := chunked.Request(t.Context(), []byte("123456789")); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a body past the limit: %v", err)
	}
}

// TestHandedOnLimits holds what Envoy carries alone to the same limits, each until its end is told, and what is refused is
// said in the caller's dialect.
func TestHandedOnLimits(t *testing.T) {
	t.Parallel()
	const pod = "/api/v1/namespaces/x/pods/a"
	for _, c := range []struct {
		of      neutral.Orchestrator
		request string
		stream  bool
		refusal string
	}{
		{neutral.Kubernetes, "GET " + pod + "/log?follow=true", true, `"reason":"TooManyRequests"`},
		{neutral.Kubernetes, "POST " + pod + "/exec?command=sh", true, `"reason":"TooManyRequests"`},
		{neutral.Kubernetes, "GET /apis/apps/v1", false, `"reason":"TooManyRequests"`},
		{neutral.Kubernetes, "GET " + pod, false, `"reason":"TooManyRequests"`},
		{neutral.Kubernetes, "GET /api/v1/pods?watch=true", true, `"reason":"TooManyRequests"`},
		{neutral.Docker, "GET /containers/a/logs", true, `{"message":"too many streams of caller ci of peer south are under way`},
		{neutral.Docker, "GET /containers/json", false, `{"message":"too many operations of caller ci of peer south are under way`},
		{neutral.Docker, "POST /build", true, `{"message":"too many streams`},
	} {
		t.Run(string(c.of)+" "+c.request, func(t *testing.T) {
			t.Parallel()
			s := newSameType(t, c.of, showing, answers("", ""))
			s.limits.Caller = load.Share{Operations: 1, Streams: 9}
			if c.stream {
				s.limits.Caller = load.Share{Operations: 9, Streams: 1}
			}
			method, path, _ := strings.Cut(c.request, " ")
			ask := func(caller string) (*modules.Request, modules.Verdict, error) {
				req := &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Caller: caller, Method: method, Path: path, Header: http.Header{}}
				verdict, err := s.module.Decide(t.Context(), req)
				return req, verdict, err
			}
			_, verdict, err := ask("ci")
			if err != nil || verdict.Route == nil || verdict.Route.Upstream == names.Bridge {
				t.Fatalf("%+v, %v", verdict, err)
			}
			hold := verdict.Route.Set.Get(names.HeaderHold)
			req, _, err := ask("ci")
			if !fault.Is(err, fault.Exhausted) {
				t.Fatalf("one more: %v", err)
			}
			answer := s.module.Refuse(req, err)
			if answer.Status != http.StatusTooManyRequests || answer.Header.Get("Retry-After") != "1" || !strings.Contains(string(answer.Body), c.refusal) {
				t.Errorf("the refusal is %d %v %s", answer.Status, answer.Header, answer.Body)
			}
			if _, _, err := ask("another"); err != nil {
				t.Errorf("another caller: %v", err)
			}
			leave, ok := s.load.Follow(hold)
			if !ok {
				t.Fatalf("%q cannot be followed", hold)
			}
			leave()
			if _, _, err := ask("ci"); err != nil {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}
