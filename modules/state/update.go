package state

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// How often a change is tried against others' changes, and how long between tries at first.
const (
	updateTries   = 12
	updatePause   = 2 * time.Millisecond
	updateLongest = 200 * time.Millisecond
)

// Update changes a record by what it is now: change is given the value (nil when there is none) and returns the new
// one. When others change the record meanwhile, change is called again; its error ends the update and is returned as it
// is. A new value that equals the old one is not written.
func Update(ctx context.Context, store Store, key Key, change func(value []byte) ([]byte, error)) error {
	pause := updatePause
	for range updateTries {
		record, err := store.Get(ctx, key)
		there := err == nil
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if there && record.Value == nil {
			record.Value = []byte{} // an empty value is a value
		}
		value, err := change(record.Value)
		if err != nil {
			return err
		}
		if there && string(value) == string(record.Value) {
			return nil
		}
		_, err = store.Put(ctx, Record{Key: key, Value: value, Revision: record.Revision})
		if !errors.Is(err, ErrConflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(rand.Int64N(int64(pause))) + pause/2):
		}
		pause = min(2*pause, updateLongest)
	}
	return fault.New(fault.Conflict, "state: %s is changed by others all the time", key)
}
