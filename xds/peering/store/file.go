package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/durable"
)

// File keeps each record in a file of its own, <state folder>/peers/<peer>.json, readable by the gateway's user only.
type File struct {
	dir string
	// mu orders writers of this process; a gateway is the only process that writes its state.
	mu sync.Mutex
}

var _ Store = (*File)(nil)

const (
	folder     = "peers"
	fileSuffix = ".json"
	// fileVersion is the layout of a file. One of a newer layout is not guessed at.
	fileVersion = 1
)

// peerPattern is what may be a file's name: nothing that leaves the folder, nothing that looks like a half-written file.
var peerPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

type document struct {
	Version int `json:"version"`
	Record
}

// OpenFile makes the folder under the state folder if need be, and removes what a crash left half-written.
func OpenFile(stateDir string) (*File, error) {
	dir := filepath.Join(stateDir, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("peer state: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"+fileSuffix+".*"))
	if err != nil {
		return nil, fmt.Errorf("peer state: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("peer state: %w", err)
		}
	}
	return &File{dir: dir}, nil
}

// Load reads every file.
func (f *File) Load(ctx context.Context) ([]Record, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("peer state: %w", err)
	}
	var records []Record
	var broken []error
	for _, entry := range entries {
		peer, ok := strings.CutSuffix(entry.Name(), fileSuffix)
		if !ok || strings.HasPrefix(peer, ".") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := f.read(peer)
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted since the listing
		case err != nil:
			broken = append(broken, err)
		default:
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Peer, b.Peer) })
	return records, errors.Join(broken...)
}

func (f *File) read(peer string) (Record, error) {
	data, err := os.ReadFile(f.path(peer))
	if err != nil {
		return Record{}, fmt.Errorf("peer state: %w", err)
	}
	r, err := decode(data)
	if err != nil {
		return Record{}, fmt.Errorf("peer state: %s%s: %w", peer, fileSuffix, err)
	}
	if r.Peer != peer {
		return Record{}, fmt.Errorf("peer state: %s%s holds the record of %q", peer, fileSuffix, r.Peer)
	}
	return r, nil
}

func decode(data []byte) (Record, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return Record{}, err
	}
	if d.Version != fileVersion {
		return Record{}, fmt.Errorf("layout %d, want %d", d.Version, fileVersion)
	}
	return d.Record, nil
}

func encode(r Record) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document{Version: fileVersion, Record: r}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Save replaces the file whole.
func (f *File) Save(ctx context.Context, r Record) error {
	if !peerPattern.MatchString(r.Peer) {
		return fmt.Errorf("peer state: %q is no peer name", r.Peer)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("peer state: %s: %w", r.Peer, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := durable.Replace(f.path(r.Peer), data, 0o600); err != nil {
		return fmt.Errorf("peer state: %w", err)
	}
	return nil
}

// Delete removes the file.
func (f *File) Delete(ctx context.Context, peer string) error {
	if !peerPattern.MatchString(peer) {
		return fmt.Errorf("peer state: %q is no peer name", peer)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := durable.Remove(f.path(peer)); err != nil {
		return fmt.Errorf("peer state: %w", err)
	}
	return nil
}

func (f *File) path(peer string) string { return filepath.Join(f.dir, peer+fileSuffix) }
