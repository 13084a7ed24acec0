package kubernetes

import (
	"context"
	"sync"
	"time"
)

// audience counts who is reading the output of which container, so that one that removes itself at its end is not
// taken away before its last words were passed on. The zero value has no readers.
type audience struct {
	mu      sync.Mutex
	readers map[string]*readers
}

type readers struct {
	count int
	gone  chan struct{}
}

// enter counts a reader until the function it returns is called.
func (a *audience) enter(id string) (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.readers == nil {
		a.readers = map[string]*readers{}
	}
	r, ok := a.readers[id]
	if !ok {
		r = &readers{gone: make(chan struct{})}
		a.readers[id] = r
	}
	r.count++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if r.count--; r.count == 0 {
			close(r.gone)
			delete(a.readers, id)
		}
	})
}

// wait returns when nobody reads the container's output any more, or after patience.
func (a *audience) wait(ctx context.Context, id string, patience time.Duration) {
	a.mu.Lock()
	r, ok := a.readers[id]
	a.mu.Unlock()
	if !ok {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
}
