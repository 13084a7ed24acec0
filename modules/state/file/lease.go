package file

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// leaseFolder holds, for each lease, a file that its holder has locked, and one that tells who that is. The system gives
// a dead holder's lock back.
const leaseFolder = "leases"

type lease struct {
	home *Home
	name string
}

// held is what is known of a lease's holder.
type held struct {
	Holder string `json:"holder"`
	Number uint64 `json:"number"`
}

// Lease is a file lock. It works between processes of one machine, and on network file systems that have such locks.
func (h *Home) Lease(name string) state.Lease { return lease{home: h, name: name} }

func (l lease) path(suffix string) string {
	return filepath.Join(l.home.config.Dir, leaseFolder, l.name+suffix)
}

// Acquire locks the file.
func (l lease) Acquire(ctx context.Context) (*state.Term, error) {
	if err := errors.Join(ctx.Err(), l.home.alive.Err()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(l.path("")), 0o700); err != nil {
		return nil, l.home.broken(err)
	}
	f, err := os.OpenFile(l.path(".lock"), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, l.home.broken(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, l.home.broken(err)
		}
		by, err := l.read()
		if err != nil || by.Holder == "" { // it has not said yet
			by.Holder = "another process"
		}
		return nil, &state.HeldError{Holder: by.Holder}
	}
	last, err := l.read()
	if err == nil {
		last = held{Holder: l.home.config.Holder, Number: state.NextNumber(last.Number)}
		err = l.write(last)
	}
	if err != nil {
		f.Close()
		return nil, l.home.broken(err)
	}
	return state.NewTerm(state.TermConfig{
		Number: last.Number, Lifetime: state.Lifetime, Begun: time.Now(), Alive: l.home.alive,
		Renew: func(context.Context) error { return l.same(f) },
		Ended: func() { f.Close() }, // which unlocks it
	}), nil
}

// same tells whether the file that is locked is still the one that others would lock.
func (l lease) same(f *os.File) error {
	ours, err := f.Stat()
	if err != nil {
		return err
	}
	theirs, err := os.Stat(l.path(".lock"))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !os.SameFile(ours, theirs)) {
		return state.ErrLost
	}
	return err
}

func (l lease) read() (held, error) {
	var h held
	return h, durable.ReadJSON(l.path(".json"), &h)
}

func (l lease) write(h held) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return durable.Replace(l.path(".json"), data, 0o600)
}
