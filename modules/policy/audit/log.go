package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/modules/durable"
)

// Config says where a log is.
type Config struct {
	Path    string // "" is Output
	Output  io.Writer
	MaxSize int64 // bytes at which the file is rotated; 0 never
	Keep    int   // rotated files that are kept
	// Lenient lets be done what could not be recorded.
	Lenient bool
	// Report is told when lines begin to fail, and with nil when they are written again; nil tells nobody.
	Report func(error)
}

// Log is an audit log. It is safe for concurrent use.
type Log struct {
	config  Config
	written atomic.Uint64
	failed  atomic.Uint64
	failing atomic.Bool

	mu      sync.Mutex
	file    *os.File // nil when it writes to Output
	size    int64
	broken  bool // a line was cut short; the next one begins anew
	closed  bool
	trouble error // of the last rotation
}

// ErrClosed is the error of a log that was closed.
var ErrClosed = errors.New("the audit log is closed")

// Open opens a log, appending to what its file holds.
func Open(config Config) (*Log, error) {
	l := &Log{config: config}
	if config.Path == "" {
		if config.Output == nil {
			return nil, errors.New("audit log: neither a path nor an output")
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(config.Path), 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return l, nil
}

// open opens the file in place of the one that is open; on failure that one stays.
func (l *Log) open() error {
	file, err := os.OpenFile(l.config.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		err = file.Chmod(0o600)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	previous := l.file
	l.file, l.size, l.broken = file, 0, false
	if info.Mode().IsRegular() {
		l.size = info.Size()
		l.broken = l.size > 0 && !endsWithNewline(l.config.Path, l.size)
	}
	if previous != nil {
		return previous.Close()
	}
	return nil
}

// endsWithNewline tells whether the last line is whole. A process that died in the middle of one leaves it cut.
func endsWithNewline(path string, size int64) bool {
	file, err := os.Open(path)
	if err != nil {
		return true // it can be written, so it is worth going on
	}
	defer file.Close()
	last := make([]byte, 1)
	_, err = file.ReadAt(last, size-1)
	return err != nil || last[0] == '\n'
}

// Write records an entry. On an error the entry is not in the log, and what it is about must not be done; a lenient log
// gives none.
func (l *Log) Write(e Entry) error {
	line, err := e.encode()
	if err == nil {
		err = l.append(line)
	}
	if l.failing.Swap(err != nil) != (err != nil) && l.config.Report != nil {
		l.config.Report(err)
	}
	if err != nil {
		l.failed.Add(1)
		if l.config.Lenient {
			return nil
		}
		return fmt.Errorf("audit log: %w", err)
	}
	l.written.Add(1)
	return nil
}

func (l *Log) append(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.file == nil {
		return l.put(l.config.Output, line)
	}
	if l.config.MaxSize > 0 && l.size > 0 && l.size+int64(len(line)) > l.config.MaxSize {
		// A log that cannot be rotated is still a log; the next line tries again.
		l.trouble = l.rotate()
	}
	return l.put(l.file, line)
}

// put writes a line in one call. A line that a full disk cuts short is taken back, or else ended by the next one.
func (l *Log) put(w io.Writer, line []byte) error {
	if l.broken {
		line = append([]byte{'\n'}, line...)
	}
	n, err := w.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err == nil {
		l.size += int64(n)
		l.broken = false
		return nil
	}
	if n > 0 {
		if l.file != nil && l.file.Truncate(l.size) == nil {
			return err
		}
		l.size += int64(n)
		l.broken = true
	}
	return err
}

// rotate moves path to path.1, path.1 to path.2 and so on, and drops what is too old.
func (l *Log) rotate() error {
	info, err := os.Lstat(l.config.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // someone else moved it; a new one is made
		return l.open()
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return nil
	}
	if err := durable.Rotate(l.config.Path, l.config.Keep); err != nil {
		return err
	}
	return l.open()
}

// Reopen opens the file anew, after someone else moved it. Lines are never lost: until it succeeds they go to the file
// that was moved.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.file == nil {
		return nil
	}
	if err := l.open(); err != nil {
		return fmt.Errorf("audit log: reopen: %w", err)
	}
	return nil
}

// Close ends the log; later writes fail. An Output is left open.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.file == nil {
		return nil
	}
	if err := errors.Join(syncFile(l.file), l.file.Close()); err != nil {
		return fmt.Errorf("audit log: close: %w", err)
	}
	return nil
}

// syncFile leaves out files that cannot be synced, such as a terminal or a pipe.
func syncFile(file *os.File) error {
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		return file.Sync()
	}
	return nil
}

// Trouble is why the last rotation failed; nil when it did not. Lines are written all the same.
func (l *Log) Trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble
}

// Stats counts the lines that were written and those that failed, for metrics.
func (l *Log) Stats() (written, failed uint64) { return l.written.Load(), l.failed.Load() }
