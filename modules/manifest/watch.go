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
func Watch(ctx context.Context, current *Set, onChange func(*Set, error)) {
	watch(ctx, current, pollInterval, onChange)
}

func watch(ctx context.Context, current *Set, interval time.Duration, onChange func(*Set, error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var (
		reported = current.digest // of the content that was last judged
		pending  string           // of a content that was seen once
		hash     = current.Hash()
		failed   bool
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		sources, issues := read(current.paths)
		now := digest(sources, issues)
		if now == reported {
			pending = ""
			continue
		}
		// A content is judged when it was seen twice: a file may be half written.
		if now != pending {
			pending = now
			continue
		}
		pending, reported = "", now
		set, err := parse(sources, issues)
		if err != nil {
			failed = true
			onChange(nil, err)
			continue
		}
		set.paths, set.digest = current.paths, now
		if next := set.Hash(); next != hash || failed {
			hash, failed = next, false
			onChange(set, nil)
		}
	}
}
