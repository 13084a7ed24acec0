package docker

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// errDetached ends a session whose caller typed its detach keys: the container goes on, and nothing went wrong.
var errDetached = errors.New("the caller detached")

// stdinReader is what the caller sends. On a terminal it watches for the detach keys.
type stdinReader struct {
	session  *session
	source   io.Reader
	keys     []byte
	matched  int    // how many of keys were just read, and held back
	pending  []byte // read from the source and not yet given on
	detached atomic.Bool
}

// newStdin gives the reader of a session that carries input; nil for others.
func (s *session) newStdin() *stdinReader {
	keys := ""
	switch s.op.Action {
	case neutral.ContainerAttach:
		if s.op.Attach == nil || !s.op.Attach.Stdin || !s.op.Attach.Stream {
			return nil
		}
		keys = s.op.Extra[extraDetachKeys]
	case neutral.ExecStart:
		if s.op.Attach != nil && s.op.Attach.Detach || s.op.Exec != nil && !s.op.Exec.Stdin {
			return nil
		}
		if s.op.Exec != nil {
			keys = s.op.Exec.DetachKeys
		}
	default:
		return nil
	}
	sequence, err := detachSequence(keys)
	if err != nil {
		sequence = defaultDetachKeys // Decode refused it
	}
	return &stdinReader{session: s, source: s.r.Body, keys: sequence}
}

func (r *stdinReader) detachedNow() bool { return r != nil && r.detached.Load() }

// Read gives what the caller sends but for the detach keys, after which it fails with errDetached.
func (r *stdinReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(r.pending) > 0 {
			n := copy(p, r.pending)
			r.pending = r.pending[n:]
			return n, nil
		}
		if r.detached.Load() {
			return 0, errDetached
		}
		buffer := make([]byte, len(p))
		n, err := r.source.Read(buffer)
		if !r.session.terminal.Load() {
			n = copy(p, buffer[:n])
			return n, err
		}
		r.scan(buffer[:n])
		if err != nil && !r.detached.Load() {
			r.pending = append(r.pending, r.keys[:r.matched]...)
			r.matched = 0
			if len(r.pending) == 0 {
				return 0, err
			}
		}
	}
}

// scan moves input to pending and holds back what may be the detach keys.
func (r *stdinReader) scan(input []byte) {
	for _, b := range input {
		switch {
		case b == r.keys[r.matched]:
			r.matched++
			if r.matched == len(r.keys) {
				r.detached.Store(true)
				return
			}
			continue
		case r.matched > 0:
			r.pending = append(r.pending, r.keys[:r.matched]...)
			r.matched = 0
			if b == r.keys[0] {
				r.matched = 1
				if len(r.keys) == 1 {
					r.detached.Store(true)
					return
				}
				continue
			}
		}
		r.pending = append(r.pending, b)
	}
}

// defaultDetachKeys are ctrl-p, ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// detachSequence reads detach keys as docker writes them, "ctrl-p,ctrl-q" or "a"; "" is the default.
func detachSequence(text string) ([]byte, error) {
	if text == "" {
		return defaultDetachKeys, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		control, isControl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case isControl && len(control) == 1 && control[0] >= 'a' && control[0] <= 'z':
			keys = append(keys, control[0]-'a'+1)
		case isControl && len(control) == 1 && control[0] >= '@' && control[0] <= '_':
			keys = append(keys, control[0]-'@')
		default:
			return nil, &fault.Error{Kind: fault.Invalid, Field: extraDetachKeys, Message: "Invalid detach keys (" + shorten(text) + ") provided"}
		}
	}
	return keys, nil
}
