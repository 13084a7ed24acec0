package apiserver

import (
	"context"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	// pollEvery is how often the orchestrator is read while somebody watches: not all that changes is told as an event,
	// and nothing of what runs on other nodes is.
	pollEvery = time.Second
	// gatherFor is how long events are gathered before they are acted on.
	gatherFor = 20 * time.Millisecond
	// shareOfReading bounds how much of the time is spent on reading: a large cluster is read less often.
	shareOfReading = 4
	followAgain    = time.Second
)

// follower keeps the store abreast of the orchestrator while somebody watches.
type follower struct {
	server *Server

	mu       sync.Mutex
	watchers int
	closed   bool
	cancel   context.CancelFunc
	ended    sync.WaitGroup
	caught   chan struct{} // closed once what happened before anybody watched is known; nil while nobody does
}

// enter says that somebody watches; leave that it does no longer.
func (f *follower) enter() (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers++
	if f.watchers == 1 && !f.closed {
		ctx, cancel := context.WithCancel(context.Background()) // of no one watch; close ends it
		f.cancel, f.caught = cancel, make(chan struct{})
		caught := f.caught
		f.ended.Go(func() { f.run(ctx, caught) })
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.watchers--; f.watchers == 0 && f.cancel != nil {
			f.cancel()
			f.cancel, f.caught = nil, nil
		}
	}
}

// idle tells that nobody watches.
func (f *follower) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchers == 0
}

// pastIsKnown waits for what happened before somebody watched; false says that nobody does.
func (f *follower) pastIsKnown(ctx context.Context) bool {
	f.mu.Lock()
	caught := f.caught
	f.mu.Unlock()
	if caught == nil {
		return false
	}
	select {
	case <-caught:
	case <-ctx.Done():
	}
	return true
}

func (f *follower) close() {
	f.mu.Lock()
	f.closed = true
	if f.cancel != nil {
		f.cancel()
		f.cancel = nil
	}
	f.mu.Unlock()
	f.ended.Wait()
}

func (f *follower) run(ctx context.Context, caught chan<- struct{}) {
	stirred := make(chan struct{}, 1)
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() { f.listen(ctx, stirred) })
	listening.Go(func() {
		defer close(caught)
		if err := f.server.recall(ctx); err != nil && ctx.Err() == nil && !fault.Is(err, fault.Unsupported) {
			f.server.log.Warn("what happened before is not known", "err", err)
		}
	})
	wait := pollEvery
	failing := false
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-stirred:
			timer.Stop()
			if !sleep(ctx, gatherFor) {
				return
			}
		}
		begun := time.Now()
		err := f.server.refresh(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			f.server.log.Warn("the orchestrator cannot be followed; watches of its objects stand still", "err", err)
		}
		failing = err != nil
		took := time.Since(begun)
		wait = max(pollEvery, shareOfReading*took)
		if !sleep(ctx, shareOfReading*took) {
			return
		}
	}
}

// listen says that something happened whenever the orchestrator does.
func (f *follower) listen(ctx context.Context, stirred chan<- struct{}) {
	for ctx.Err() == nil {
		_, err := f.server.under.Stream(ctx, neutral.Operation{Action: neutral.EventWatch, Verb: neutral.Watch,
			Object: neutral.Object{Kind: neutral.KindEvent}}, stirring{noting: noting{f.server}, stirred: stirred})
		if fault.Is(err, fault.Unsupported) {
			return
		}
		if !sleep(ctx, followAgain) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
