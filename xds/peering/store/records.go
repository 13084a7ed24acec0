package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Kind is the kind of state that Records keeps.
var Kind = state.Kind{Name: "peers", File: "peers/*.json"}

// Records keeps each record in a gateway's state.
type Records struct {
	home state.Store
	term func() uint64
}

var _ Store = (*Records)(nil)

// recordVersion is the layout of a record. One of a newer layout is not guessed at.
const recordVersion = 1

// peerPattern is what a peer may be called.
var peerPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// document is a record as it is kept. Term is that of the replica that wrote it.
type document struct {
	Version int    `json:"version"`
	Term    uint64 `json:"term,omitempty"`
	Record
}

// ErrDeposed is the error of a write by a replica whose successor has written already.
var ErrDeposed = errors.New("peer state: another replica keeps it now")

// New makes a Store of a gateway's state. Where replicas share it, term numbers the time in which this one is the one
// that writes; nil where there is but one.
func New(home state.Store, term func() uint64) *Records {
	if term == nil {
		term = func() uint64 { return 0 }
	}
	return &Records{home: home, term: term}
}

// Load reads every record.
func (s *Records) Load(ctx context.Context) ([]Record, error) {
	kept, err := s.home.List(ctx, Kind)
	if err != nil && len(kept) == 0 {
		return nil, fmt.Errorf("peer state: %w", err)
	}
	broken := []error{err}
	var records []Record
	for _, k := range kept {
		peer := k.Key.Name
		d, err := decode(k.Value)
		switch {
		case err != nil:
			broken = append(broken, fmt.Errorf("peer state: %s: %w", s.home.Place(k.Key), err))
		case d.Peer != peer:
			broken = append(broken, fmt.Errorf("peer state: %s holds the record of %q", s.home.Place(k.Key), d.Peer))
		default:
			records = append(records, d.Record)
		}
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Peer, b.Peer) })
	return records, errors.Join(broken...)
}

func decode(data []byte) (document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return document{}, err
	}
	if d.Version != recordVersion {
		return document{}, fmt.Errorf("layout %d, want %d", d.Version, recordVersion)
	}
	return d, nil
}

func encode(d document) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Save replaces the record whole, unless a later term's is there.
func (s *Records) Save(ctx context.Context, r Record) error {
	if !peerPattern.MatchString(r.Peer) {
		return fmt.Errorf("peer state: %q is no peer name", r.Peer)
	}
	next := document{Version: recordVersion, Term: s.term(), Record: r}
	err := state.Update(ctx, s.home, Kind.Key(r.Peer), func(before []byte) ([]byte, error) {
		if d, err := decode(before); err == nil && d.Term > next.Term { // what is broken is mended
			return nil, ErrDeposed
		}
		return encode(next)
	})
	if err != nil {
		return fmt.Errorf("peer state: %s: %w", r.Peer, err)
	}
	return nil
}

// Delete removes the record, unless it is a later term's.
func (s *Records) Delete(ctx context.Context, peer string) error {
	if !peerPattern.MatchString(peer) {
		return fmt.Errorf("peer state: %q is no peer name", peer)
	}
	key := Kind.Key(peer)
	for {
		there, err := s.home.Get(ctx, key)
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err == nil {
			if d, broken := decode(there.Value); broken == nil && d.Term > s.term() {
				return fmt.Errorf("peer state: %s: %w", peer, ErrDeposed)
			}
			err = s.home.Delete(ctx, key, there.Revision)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, state.ErrConflict): // else it was changed meanwhile
			return fmt.Errorf("peer state: %s: %w", peer, err)
		}
	}
}
