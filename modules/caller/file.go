package caller

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// glance is how often a file is looked at for changes, at most.
const glance = time.Second

// maxFile bounds a file, so that a wrong path is an error and not a full memory.
const maxFile = 4 << 20

// file is what a file holds, read again when it has changed. A file that is gone, or open to others, holds nothing; one
// that has a mistake holds what it held before.
type file[T any] struct {
	path   string
	parse  func([]byte) (T, error)
	secret bool // only its owner, and a group, may read it
	log    *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  stamp
	value  T
	err    error
	good   bool // value was read from the file
}

// stamp tells one content of a file from another.
type stamp struct {
	changed time.Time
	size    int64
	mode    fs.FileMode
	inode   uint64
}

func (f *file[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if !f.looked.IsZero() && now.Sub(f.looked) < glance {
		return f.value, f.err
	}
	f.looked = now
	info, err := os.Stat(f.path)
	if err != nil {
		f.stamp = stamp{} // it may come back as it was
		return f.nothing(err)
	}
	found := stamp{info.ModTime(), info.Size(), info.Mode(), inode(info)}
	if found == f.stamp {
		return f.value, f.err
	}
	f.stamp = found
	data, err := f.read()
	if err != nil {
		return f.nothing(err)
	}
	value, err := f.parse(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
		if !f.good {
			f.err = err
			return f.value, err
		}
		f.log.Error("a changed file is not taken; what it held before stays", "err", err)
		return f.value, f.err
	}
	if f.good || f.err != nil {
		f.log.Info("a changed file is in force", "file", f.path)
	}
	f.value, f.err, f.good = value, nil, true
	return f.value, nil
}

// nothing forgets what the file held.
func (f *file[T]) nothing(err error) (T, error) {
	if f.err == nil || f.err.Error() != err.Error() {
		f.log.Error("a file cannot be used, and holds nothing until it can", "err", err)
	}
	var none T
	f.value, f.err, f.good = none, err, false
	return f.value, f.err
}

// open may be read by others than its owner and its group.
const open = 0o027

func (f *file[T]) read() ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder", f.path)
	case f.secret && info.Mode().Perm()&open != 0:
		return nil, fmt.Errorf("%s has mode %04o: others can read or write it (chmod 0600)", f.path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, errors.New(f.path + " is larger than 4 MiB")
	}
	return data, nil
}
