package apiserver

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podspec"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podstatus"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// launch makes the containers of a Pod of several, and starts what may begin. What comes after an init container begins
// when that one has ended, of which nobody but the gateway takes care.
func (k podKind) launch(ctx context.Context, peer string, about neutral.Object, spec *corev1.PodSpec) ([]neutral.Loss, error) {
	defer k.starting.claim(about.Namespace, about.Name)()
	made, err := k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerCreate, Verb: neutral.Create, Peer: peer, Object: about, Container: about.Container})
	if err != nil {
		return nil, err
	}
	_, err = k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerStart, Verb: neutral.Start, Peer: peer, Object: about, Ref: made.ID})
	if err == nil || fault.Is(err, fault.NotModified) { // somebody else was faster
		_, err = k.advance(ctx, peer, made.ID, about.Namespace, spec)
	}
	if err != nil {
		k.undo(ctx, deed{peer: peer, next: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: about.Namespace}}}, made.ID)
		return nil, err
	}
	return made.Losses, nil
}

// advance starts what may begin of a Pod of several containers, and tells for which one the rest waits.
func (s *Server) advance(ctx context.Context, peer, id, namespace string, spec *corev1.PodSpec) (wait string, err error) {
	about := neutral.Object{Kind: neutral.KindContainer, Namespace: namespace}
	for {
		found, err := s.under.Do(ctx, neutral.Operation{Action: neutral.ContainerInspect, Verb: neutral.Get, Peer: peer, Object: about, Ref: id})
		if err != nil {
			return "", err
		}
		if found.Container == nil || found.Container.State.Status != neutral.StatusRunning {
			return "", nil // it is being removed
		}
		start, wait := podstatus.Next(found.Container, spec)
		if len(start) == 0 {
			return wait, nil
		}
		for _, member := range start {
			_, err := s.under.Do(ctx, neutral.Operation{Action: neutral.ContainerStart, Verb: neutral.Start, Peer: peer, Object: about, Ref: member})
			if err != nil && !fault.Is(err, fault.NotModified) {
				return "", err
			}
		}
	}
}

// starting is the Pods that have not begun wholly. The order of several containers is in their documents and how far they
// are in the engine, so that a gateway that begins goes on where another one was killed.
type starting struct {
	server *Server
	ctx    context.Context //nolint:containedctx // of all that is under way; close ends it
	cancel context.CancelFunc

	again time.Duration // how long a Pod that could not begin is left alone

	mu     sync.Mutex
	busy   map[key]*work
	closed bool
	ended  sync.WaitGroup
}

// work is what somebody does with a Pod.
type work struct {
	cancel context.CancelFunc // nil for what is not to be ended
	done   chan struct{}
}

func newStarting(s *Server) *starting {
	ctx, cancel := context.WithCancel(context.Background())
	return &starting{server: s, ctx: ctx, cancel: cancel, again: startAgain, busy: map[key]*work{}}
}

// claim keeps others from a Pod while one works on it, unless one does already. The end looks whether it has to go on.
func (s *starting) claim(namespace, name string) (release func()) {
	k, mine := key{namespace, name}, &work{done: make(chan struct{})}
	s.take(k, mine)
	return func() {
		s.release(k, mine)
		s.poke()
	}
}

// seize ends what goes on with the beginning of a Pod, and keeps it from going on.
func (s *starting) seize(ctx context.Context, namespace, name string) (release func()) {
	k, mine := key{namespace, name}, &work{done: make(chan struct{})}
	s.mu.Lock()
	before := s.busy[k]
	s.busy[k] = mine
	s.mu.Unlock()
	if before != nil && before.cancel != nil {
		before.cancel()
		select {
		case <-before.done:
		case <-ctx.Done():
		}
	}
	return func() {
		s.release(k, mine)
		s.poke()
	}
}

func (s *starting) take(k key, mine *work) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[k] != nil {
		return false
	}
	s.busy[k] = mine
	return true
}

func (s *starting) release(k key, mine *work) {
	s.mu.Lock()
	if s.busy[k] == mine {
		delete(s.busy, k)
	}
	s.mu.Unlock()
	close(mine.done)
}

// poke has the orchestrator read, and with it what has to go on.
func (s *starting) poke() {
	s.spawn(func(ctx context.Context) {
		if err := s.server.refresh(ctx); err != nil && ctx.Err() == nil {
			s.server.log.Warn("whether a Pod has to go on beginning is not known", "err", err)
		}
	})
}

func (s *starting) spawn(run func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.ended.Go(func() { run(s.ctx) })
	}
}

func (s *starting) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.ended.Wait()
}

// see takes care of each Pod that was read and has not begun wholly.
func (s *starting) see(w *world) {
	for _, c := range w.beginning {
		o := &corev1.Pod{}
		if _, ok := readOrigin(c.Origin, o); !ok || c.Owner != nil || !unfinished(c, &o.Spec) || !s.server.vouched(vouchedPod, c.Origin, c.Namespace, c.Name) || !keepsAll(&o.Spec, c) {
			continue
		}
		k := key{c.Namespace, c.Name}
		on, cancel := context.WithCancel(s.ctx)
		mine := &work{cancel: cancel, done: make(chan struct{})}
		if !s.take(k, mine) {
			cancel()
			continue
		}
		o.Namespace, o.Name = c.Namespace, c.Name
		held := *c
		s.spawn(func(ctx context.Context) {
			defer cancel()
			err := s.finish(on, &held, o)
			failed := err != nil && on.Err() == nil && !isNotFound(err)
			if failed {
				s.server.log.Warn("a Pod does not begin", "namespace", k.namespace, "pod", k.name, "err", err)
				failed = sleep(on, s.again)
			}
			s.release(k, mine)
			for failed && s.server.refresh(ctx) != nil { // which sees to it once more
				failed = sleep(ctx, s.again)
			}
		})
	}
}

// startAgain is how long a Pod that could not begin is left alone.
const startAgain = 30 * time.Second

// unfinished tells whether something of a Pod is still to be made or to be started. One whose holder was stopped is being
// removed, or was stopped by a user of the engine. All are made before the holder begins: what is missing then was removed.
func unfinished(c *neutral.Container, spec *corev1.PodSpec) bool {
	switch {
	case c.State.Status == neutral.StatusCreated:
		return true
	case c.State.Status == neutral.StatusRunning && podspec.Several(spec):
		start, wait := podstatus.Next(c, spec)
		return len(start) > 0 || wait != ""
	}
	return false
}

// finish makes what is missing of a Pod, starts what is left in its order, and waits as long as that takes.
func (s *starting) finish(ctx context.Context, c *neutral.Container, o *corev1.Pod) error {
	if !podspec.Several(&o.Spec) {
		return s.begin(ctx, c, o)
	}
	if c.State.Status == neutral.StatusCreated {
		if err := s.complete(ctx, c, o); err != nil {
			return err
		}
	}
	for {
		wait, err := s.server.advance(ctx, c.Origin.Peer, c.ID, o.Namespace, &o.Spec)
		if err != nil || wait == "" {
			return err
		}
		_, err = s.server.under.Stream(ctx, neutral.Operation{Action: neutral.ContainerWait, Verb: neutral.Get, Peer: c.Origin.Peer, Ref: wait,
			Object: neutral.Object{Kind: neutral.KindContainer, Namespace: o.Namespace}, Wait: neutral.WaitNotRunning}, quiet{})
		if err != nil {
			return err
		}
		if !sleep(ctx, gatherFor) { // one that starts again at once is not asked for without pause
			return ctx.Err()
		}
	}
}

// complete makes the containers that a gateway was killed before it made.
func (s *starting) complete(ctx context.Context, c *neutral.Container, o *corev1.Pod) error {
	container, _, err := podKind{s.server}.translated(o)
	if err != nil {
		return err
	}
	container.Origin = c.Origin
	about := neutral.Object{Kind: neutral.KindContainer, Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, Container: container}
	_, err = s.server.under.Do(ctx, neutral.Operation{Action: neutral.ContainerCreate, Verb: neutral.Create, Peer: c.Origin.Peer, Object: about, Container: container})
	if err != nil && !fault.Is(err, fault.Conflict) { // somebody else was faster
		return err
	}
	return s.begin(ctx, c, o)
}

// begin starts a Pod's container, or the one that holds several.
func (s *starting) begin(ctx context.Context, c *neutral.Container, o *corev1.Pod) error {
	_, err := s.server.under.Do(ctx, neutral.Operation{Action: neutral.ContainerStart, Verb: neutral.Start, Peer: c.Origin.Peer, Ref: c.ID,
		Object: neutral.Object{Kind: neutral.KindContainer, Namespace: o.Namespace, Name: o.Name}})
	if fault.Is(err, fault.NotModified) {
		return nil
	}
	return err
}
