package kubernetes

import (
	"bytes"
	"sync"
)

// replay joins the log of a terminal with the stream that was attached to it later. Both are parts of one output: the
// log its beginning, the stream its end, and where they overlap the bytes are the same.
type replay struct {
	emit func([]byte) error

	mu    sync.Mutex
	hold  bool   // the log is not known yet
	held  []byte // what the stream brought meanwhile
	wrote bool
	err   error
}

// Write takes what the stream brings.
func (r *replay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if r.hold {
		r.held = append(r.held, p...)
		return len(p), nil
	}
	return len(p), r.pass(p)
}

// release takes what the log holds, and lets the stream go on.
func (r *replay) release(past []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = false
	past = past[:len(past)-overlap(past, r.held)]
	r.err = r.pass(append(past, r.held...))
	r.held = nil
}

func (r *replay) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	r.wrote = true
	return r.emit(p)
}

// written tells whether the caller was given anything.
func (r *replay) written() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wrote
}

// overlap is the length of the longest end of a that b begins with.
func overlap(a, b []byte) int {
	for n := min(len(a), len(b)); n > 0; n-- {
		if bytes.Equal(a[len(a)-n:], b[:n]) {
			return n
		}
	}
	return 0
}
