// Package file is the home of state that needs nothing beside the gateway: a folder, with a file for each record.
package file

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Config is what a Home needs.
type Config struct {
	Dir string
	// Holder names this replica in leases.
	Holder string
	// Poll is how often files that are watched are looked at; 0 is a second.
	Poll time.Duration
}

// Home is a folder. Files are for their owner alone, whole at any moment, and may be changed by hand.
type Home struct {
	config Config
	alive  context.Context // ends with Close
	close  context.CancelFunc
}

var _ state.Home = (*Home)(nil)

const (
	lockFile = ".lock" // held shared by a listing and alone by a change, also between processes
	// deadline bounds a call whose context has none.
	deadline = 10 * time.Second
)

// Open opens the home; the folder is made by the first change.
func Open(c Config) *Home {
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	h := &Home{config: c}
	h.alive, h.close = context.WithCancel(context.Background())
	return h
}

func (h *Home) String() string { return "files" }

// Close ends the terms of the home's leases.
func (h *Home) Close() error {
	h.close()
	return nil
}

// Place is the file.
func (h *Home) Place(key state.Key) string { return h.path(key) }

func (h *Home) path(key state.Key) string {
	return filepath.Join(h.config.Dir, strings.Replace(key.Kind.File, "*", key.Name, 1))
}

// Get reads a file.
func (h *Home) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := errors.Join(key.Check(), ctx.Err()); err != nil {
		return state.Record{}, err
	}
	return h.read(key)
}

func (h *Home) read(key state.Key) (state.Record, error) {
	f, err := os.Open(h.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return state.Record{}, fmt.Errorf("%s: %w", key, state.ErrNotFound)
	}
	if err != nil {
		return state.Record{}, h.broken(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return state.Record{}, h.broken(err)
	}
	// Made by hand, it may be of any size.
	if info.Size() > state.MaxValue {
		return state.Record{}, fault.New(fault.TooLarge, "state: %s has %d bytes, and may have %d", key, info.Size(), state.MaxValue)
	}
	var value bytes.Buffer
	if _, err := value.ReadFrom(f); err != nil {
		return state.Record{}, h.broken(err)
	}
	return state.Record{Key: key, Value: value.Bytes(), Revision: revision(value.Bytes(), info)}, nil
}

// revision is of the content, so that a change by hand is one, and of the file, so that a content that comes back is
// another one.
func revision(value []byte, info fs.FileInfo) string {
	sum := sha256.Sum256(value)
	inode := uint64(0)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino
	}
	return fmt.Sprintf("%s-%x-%x", hex.EncodeToString(sum[:8]), info.ModTime().UnixNano(), inode)
}

// List reads the files of a kind. One whose name could be no record's is left alone.
func (h *Home) List(ctx context.Context, kind state.Kind) ([]state.Record, error) {
	unlock, err := h.lock(ctx, syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock()
	names, err := h.names(kind)
	if err != nil {
		return nil, h.broken(err)
	}
	var records []state.Record
	var broken []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		record, err := h.read(kind.Key(name))
		switch {
		case errors.Is(err, state.ErrNotFound): // taken away by hand
		case err != nil:
			broken = append(broken, err)
		default:
			records = append(records, record)
		}
	}
	slices.SortFunc(records, func(a, b state.Record) int { return cmp.Compare(a.Key.Name, b.Key.Name) })
	return records, errors.Join(broken...)
}

func (h *Home) names(kind state.Kind) ([]string, error) {
	if kind.Single() {
		return []string{kind.Only().Name}, nil
	}
	folder, pattern := filepath.Split(kind.File)
	prefix, suffix, _ := strings.Cut(pattern, "*")
	entries, err := os.ReadDir(filepath.Join(h.config.Dir, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		name, begins := strings.CutPrefix(entry.Name(), prefix)
		name, ends := strings.CutSuffix(name, suffix)
		if begins && ends && kind.Key(name).Check() == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// Put replaces a file.
func (h *Home) Put(ctx context.Context, r state.Record) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	path := h.path(r.Key)
	if err := errors.Join(os.MkdirAll(h.config.Dir, 0o700), os.MkdirAll(filepath.Dir(path), 0o700)); err != nil {
		return "", h.broken(err)
	}
	unlock, err := h.lock(ctx, syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := h.expect(r.Key, r.Revision); err != nil {
		return "", err
	}
	before, _ := os.Stat(path) // none is none
	if err := h.sweep(path); err != nil {
		return "", h.broken(err)
	}
	if err := durable.Replace(path, r.Value, 0o600); err != nil {
		return "", h.broken(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", h.broken(err)
	}
	// Clocks are coarse, and numbers of files come back: two files of one content must differ all the same.
	if before != nil && !info.ModTime().After(before.ModTime()) {
		later := before.ModTime().Add(time.Nanosecond)
		if err := os.Chtimes(path, time.Time{}, later); err != nil {
			return "", h.broken(err)
		}
		if info, err = os.Stat(path); err != nil {
			return "", h.broken(err)
		}
	}
	return revision(r.Value, info), nil
}

// expect tells whether a record is as it was when it had the revision.
func (h *Home) expect(key state.Key, revision string) error {
	there, err := h.read(key)
	switch {
	case errors.Is(err, state.ErrNotFound) && revision == "":
		return nil
	case err != nil && !errors.Is(err, state.ErrNotFound):
		return err
	case there.Revision != revision:
		return fmt.Errorf("%s: %w", key, state.ErrConflict)
	}
	return nil
}

// sweep removes what a crash left half written beside a file.
func (h *Home) sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := durable.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a file.
func (h *Home) Delete(ctx context.Context, key state.Key, revision string) error {
	if err := key.Check(); err != nil {
		return err
	}
	unlock, err := h.lock(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if revision != "" {
		if err := h.expect(key, revision); err != nil {
			return err
		}
	}
	if err := durable.Remove(h.path(key)); err != nil {
		return h.broken(err)
	}
	return nil
}

// lock waits for the folder's lock. A folder without a lock file was never changed by a Home: for a reader there is
// nothing to wait for.
func (h *Home) lock(ctx context.Context, how int) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if how == syscall.LOCK_EX {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(filepath.Join(h.config.Dir, lockFile), flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, h.broken(err)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which unlocks, too
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, h.broken(errors.Join(err, f.Close()))
		}
		select {
		case <-ctx.Done():
			return nil, state.Unavailable(h, errors.Join(ctx.Err(), f.Close()))
		case <-time.After(pause):
		}
	}
}

// Watch looks at the files now and then: no notification covers all file systems.
func (h *Home) Watch(ctx context.Context, kind state.Kind, changed func()) {
	before := h.glance(kind)
	ticker := time.NewTicker(h.config.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.alive.Done():
			return
		case <-ticker.C:
		}
		if now := h.glance(kind); now != before {
			before = now
			changed()
		}
	}
}

// glance tells files apart without reading them: each change makes a new one.
func (h *Home) glance(kind state.Kind) string {
	names, err := h.names(kind)
	if err != nil {
		return err.Error()
	}
	slices.Sort(names)
	var text strings.Builder
	for _, name := range names {
		if info, err := os.Stat(h.path(kind.Key(name))); err == nil {
			fmt.Fprintln(&text, name, info.Size(), revision(nil, info))
		}
	}
	return text.String()
}

// broken is the fault of a folder that cannot be used.
func (h *Home) broken(err error) error { return state.Unavailable(h, err) }
