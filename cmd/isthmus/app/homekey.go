package app

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// Keys of a gateway that its replicas share, and that stay.
var (
	// maskKind is the key by which this cluster's addresses become stand-ins, so that an address has the same one each time.
	maskKind = state.Kind{Name: "mask", File: "mask.key", Secret: true}
	// sealKind is the key by which the gateway knows again what it left in its cluster, where others may write too.
	sealKind = state.Kind{Name: "seal", File: "seal.key", Secret: true}
)

// openKey reads a key of the gateway, and makes one where there is none yet.
func openKey(ctx context.Context, home state.Home, kind state.Kind) (key []byte, err error) {
	err = state.Update(ctx, home, kind.Only(), func(value []byte) ([]byte, error) {
		if key = value; value == nil {
			key = make([]byte, mask.KeySize)
			if _, err := rand.Read(key); err != nil {
				return nil, fmt.Errorf("no randomness for the key %s: %w", kind.Name, err)
			}
		}
		if len(key) != mask.KeySize {
			return nil, fmt.Errorf("the key %s, in %s, has %d bytes instead of %d; remove it and a new one is made",
				kind.Name, home.Place(kind.Only()), len(key), mask.KeySize)
		}
		return key, nil
	})
	return key, err
}
