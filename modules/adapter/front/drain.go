package front

import "sync"

// sessions counts hijacked connections, which http.Server does not know any more, and lets no new ones begin once the
// drain has.
type sessions struct {
	mu       sync.Mutex
	running  int
	draining bool
	idle     chan struct{} // closed when draining and none runs
}

func newSessions() *sessions { return &sessions{idle: make(chan struct{})} }

// begin counts a session; false refuses it.
func (s *sessions) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.running++
	return true
}

func (s *sessions) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.settle()
}

// drain refuses new sessions and tells how many run; idle is closed when they have ended.
func (s *sessions) drain() (running int, idle <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.settle()
	return s.running, s.idle
}

func (s *sessions) settle() {
	if !s.draining || s.running > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}
