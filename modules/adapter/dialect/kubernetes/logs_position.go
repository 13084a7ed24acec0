package kubernetes

import (
	"bytes"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logKeyMost bounds what is kept of a line to know it again.
const logKeyMost = 1 << 10

// logPosition is how far a log was read. A log can be asked for from a second on, and several lines can share a time,
// so the position is the second of the latest line and the number of lines read since that second began.
type logPosition struct {
	tailed bool      // reading began among the last lines: the first one's second may hold lines that were not read
	second time.Time // zero before the first line
	latest time.Time // the latest line's time
	lines  int       // whose time is not before second
	size   int64     // bytes of the last line
	open   bool      // the last line counts in lines and its end was not read
	late   bool      // the last line does not count in lines: it was written after later ones
	first  *logKey   // the line that lines counts from, when it may not be its second's first
}

// logKey tells a line from others of the same time.
type logKey struct {
	at   time.Time
	data []byte // its beginning
}

func (k *logKey) fits(at time.Time, data []byte) bool {
	return at.Equal(k.at) && bytes.HasPrefix(data, k.data)
}

// pass moves the position over a line, or over a further piece of one, which has no time.
func (p *logPosition) pass(at time.Time, data []byte) {
	if !at.IsZero() {
		if second := at.Truncate(time.Second); second.After(p.second) {
			p.first = nil
			if p.second.IsZero() && p.tailed {
				p.first = &logKey{at: at, data: bytes.Clone(data[:min(len(data), logKeyMost)])}
			}
			p.second, p.lines = second, 0
		}
		if at.After(p.latest) {
			p.latest = at
		}
		if p.late = at.Before(p.second); !p.late {
			p.lines++
		}
		p.size = 0
	}
	p.size += int64(len(data))
	p.open = !p.late && data[len(data)-1] != '\n'
}

// native turns a request into one for what comes after the position.
func (p *logPosition) native(request corev1.PodLogOptions) *corev1.PodLogOptions {
	request.TailLines = nil // were none read, then there were none
	if !p.second.IsZero() {
		since := metav1.NewTime(p.second)
		request.SinceTime = &since
	}
	return &request
}

// after gives take what a log that is read from the position's second on has after the position, which moves along.
func (p *logPosition) after(take func(at time.Time, data []byte) error) func(at time.Time, data []byte) error {
	start := *p
	const (
		known = iota // the line was read before
		cut          // its beginning was
		fresh
	)
	counted, found, line, size := 0, start.first == nil, fresh, int64(0)
	more := start.lines == 0
	return func(at time.Time, data []byte) error {
		if !at.IsZero() && !more {
			found = found || start.first.fits(at, data)
			switch {
			case at.After(start.latest), found && counted == start.lines && !at.Before(start.second):
				// A later time alone is enough: after a rotation the log no longer holds all that was counted.
				more, line = true, fresh
			case !found || at.Before(start.second):
				line = known
			default:
				counted++
				if line = known; counted == start.lines && start.open {
					line = cut
				}
			}
		}
		switch line {
		case known:
			return nil
		case cut:
			seen := min(start.size-size, int64(len(data)))
			size += seen
			if data = data[seen:]; len(data) == 0 {
				return nil
			}
			at = time.Time{}
		}
		p.pass(at, data)
		return take(at, data)
	}
}
