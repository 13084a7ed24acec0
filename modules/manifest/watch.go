package manifest

import (
	"context"
	"time"
)

// pollInterval is how often files are looked at. They are read, not asked for their times: times are too coarse for
// two quick edits, and no notification covers renames by editors, ConfigMap symlinks and network file systems alike.
const pollInterval = time.Second

// Watch follows the files of a loaded set until ctx ends. It calls onChange, from its own goroutine and one call at a
// time, with a new valid set when its documents differ from the last valid ones, or with an error; the last valid set
// then stays in force. When an error is gone and the documents are as before, the same documents are given once more.
// Whoever has changed a file, whole at any moment, can have it looked at now by sending on wake.
func Watch(ctx context.Context, current *Set, wake <-chan struct{}, onChange func(*Set, error)) {
	watch(ctx, current, pollInterval, wake, onChange)
}

func watch(ctx context.Context, current *Set, interval time.Duration, wake <-chan struct{}, onChange func(*Set, error)) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	f := newFollower(current)
	for {
		woken := false
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-wake:
			woken = true
		}
		sources, issues := readWith(current.more, current.paths)
		if woken {
			f.pending = digest(sources, issues) // this once counts as twice
		}
		if set, err := f.look(sources, issues); set != nil || err != nil {
			onChange(set, err)
		}
		if f.unsettled() {
			timer.Reset(interval / 4)
		} else {
			timer.Reset(interval)
		}
	}
}

// follower tells what is new in what it is shown.
type follower struct {
	paths   []string
	more    func() []Source
	judged  string // digest of the content that was last judged
	pending string // digest of a content that was seen once
	hash    string // of the last valid set
	failed  bool   // the last judgement was an error
}

func newFollower(current *Set) *follower {
	return &follower{paths: current.paths, more: current.more, judged: current.digest, hash: current.Hash()}
}

// unsettled tells whether a new content was seen once.
func (f *follower) unsettled() bool { return f.pending != "" && f.pending != f.judged }

// look gives a new set, or an error, or neither when there is nothing new. A content is judged when it was seen twice
// in a row: a file may be half written.
func (f *follower) look(sources []Source, issues Issues) (*Set, error) {
	now := digest(sources, issues)
	seen := f.pending == now
	f.pending = now
	if now == f.judged || !seen {
		return nil, nil
	}
	f.judged = now
	set, err := parse(sources, issues)
	if err != nil {
		f.failed = true
		return nil, err
	}
	set.paths, set.more, set.digest = f.paths, f.more, now
	hash := set.Hash()
	if hash == f.hash && !f.failed {
		return nil, nil
	}
	f.hash, f.failed = hash, false
	return set, nil
}
