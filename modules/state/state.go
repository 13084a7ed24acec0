// Package state is what a gateway must remember when its process ends: small records, each whole, kept in a home that
// the admin chooses (files, etcd, the Kubernetes API). Replicas of a gateway share one home. A home has leases too, by
// which one of them is the one that acts.
package state

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Kind is a sort of record. Whoever keeps records declares theirs.
type Kind struct {
	// Name is the kind's name in homes that have keys, a DNS label.
	Name string
	// File is the path of a record under a folder of files, with * for the record's name. Without one the kind has a
	// single record, Only.
	File string
	// Secret records are kept where others cannot read them.
	Secret bool
}

// Key names one record. Names are DNS names of at most MaxName bytes.
type Key struct {
	Kind Kind
	Name string
}

// only is the name of the record of a kind that has no more than one.
const only = "only"

// Key is the key of a record of the kind.
func (k Kind) Key(name string) Key { return Key{Kind: k, Name: name} }

// Only is the key of the record of a kind that has no more than one.
func (k Kind) Only() Key { return Key{Kind: k, Name: only} }

// Single tells whether the kind has no more than one record.
func (k Kind) Single() bool { return !strings.Contains(k.File, "*") }

func (k Key) String() string {
	if k.Kind.Single() {
		return k.Kind.Name
	}
	return k.Kind.Name + "/" + k.Name
}

// Record is a value and what tells it from those before it.
type Record struct {
	Key   Key
	Value []byte
	// Revision changes with every Put. It is opaque, and means something only to the home that gave it.
	Revision string
}

// Limits that every home holds, so that what one takes another takes as well.
const (
	MaxName  = 128
	MaxValue = 512 << 10
)

// Store keeps records. A call has happened whole or not at all, whenever the process ends; a change that was returned
// from is there after a crash of the machine. A context without a deadline gets the home's own. A home that does not
// answer is a fault of kind Unavailable or Timeout. Safe for use by several goroutines.
type Store interface {
	// Get reads a record; ErrNotFound when there is none.
	Get(ctx context.Context, key Key) (Record, error)
	// List reads the records of a kind, sorted by name, all as of one moment. One that cannot be read is left out and
	// told in the error, beside the others.
	List(ctx context.Context, kind Kind) ([]Record, error)
	// Put writes a record if its Revision is still that of the home's, or, when it is empty, if there is none yet; else
	// it is ErrConflict. It returns the new revision.
	Put(ctx context.Context, r Record) (revision string, err error)
	// Delete removes a record if its revision is still this one; else it is ErrConflict. An empty revision stands for
	// any, and for none.
	Delete(ctx context.Context, key Key, revision string) error
	// Watch calls changed, from one goroutine, after each change of the kind's records; several may be one call, and a
	// call may be for nothing. It returns when ctx ends, and connects again by itself before that.
	Watch(ctx context.Context, kind Kind, changed func())
	// Place says where a record is kept, in the words of the home, for an admin who wants to look at it.
	Place(key Key) string
}

// Home is a Store with leases.
type Home interface {
	Store
	// Lease is the lease of a name, a DNS label, for this replica to take.
	Lease(name string) Lease
	// String names the home for messages. It holds no address.
	String() string
	// Close ends what the home holds open. Terms that were not released end by themselves, in their time.
	Close() error
}

// What a Store answers beside faults.
var (
	ErrNotFound = errors.New("state: no such record")
	ErrConflict = errors.New("state: the record was changed meanwhile")
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// Check tells what is wrong with a key. Homes ask it before anything else.
func (k Key) Check() error {
	if len(k.Name) > MaxName || !nameForm.MatchString(k.Name) {
		return fault.New(fault.Invalid, "state: %.200q is no name of a record", k.Name)
	}
	if k.Kind.Single() && k.Name != only {
		return fault.New(fault.Invalid, "state: there is one record of kind %s only", k.Kind.Name)
	}
	return nil
}

// Check tells what is wrong with a record.
func (r Record) Check() error {
	if err := r.Key.Check(); err != nil {
		return err
	}
	if len(r.Value) > MaxValue {
		return fault.New(fault.TooLarge, "state: %s has %d bytes, and may have %d", r.Key, len(r.Value), MaxValue)
	}
	return nil
}

// Unavailable is the fault of a home that gave no answer.
func Unavailable(home fmt.Stringer, cause error) error {
	switch {
	case errors.Is(cause, context.Canceled):
		return cause
	case errors.Is(cause, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, cause, "the gateway's state, in %s, did not answer in time", home)
	}
	return fault.Wrap(fault.Unavailable, cause, "the gateway's state, in %s, cannot be reached", home)
}
