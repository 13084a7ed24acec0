// Package store keeps what peers said, so that a gateway that was restarted knows them before they speak again. Records
// keeps it in the gateway's state, whichever home that has; storetest holds what a Store must do.
package store

import (
	"context"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Record is what one peer said last.
type Record struct {
	Peer          string                `json:"peer"` // the name that this gateway's admin gave
	Configuration peering.Configuration `json:"configuration"`
	LastSeen      time.Time             `json:"lastSeen"`
}

// Store keeps one Record for each peer. A call either happened whole or not at all, whenever the process ends; what
// Save returned from is there after a crash of the machine. Safe for use by several goroutines.
type Store interface {
	// Load lists every record, by peer. A record that cannot be read is left out and told in the error, beside the
	// others: one broken record costs no other.
	Load(ctx context.Context) ([]Record, error)
	// Save adds a record, or replaces the one of the same peer.
	Save(ctx context.Context, r Record) error
	// Delete removes a peer's record. That there is none is no error.
	Delete(ctx context.Context, peer string) error
}
