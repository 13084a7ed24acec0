package app

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// maskKind is the key by which this cluster's addresses become stand-ins. Replicas share it, and it stays, so that an
// address has the same stand-in each time.
var maskKind = state.Kind{Name: "mask", File: "mask.key", Secret: true}

// openMask makes the mask of the gateway's key, and the key where there is none yet.
func openMask(ctx context.Context, home state.Home) (*mask.Mask, error) {
	var key []byte
	err := state.Update(ctx, home, maskKind.Only(), func(value []byte) ([]byte, error) {
		if key = value; value == nil {
			key = make([]byte, mask.KeySize)
			if _, err := rand.Read(key); err != nil {
				return nil, fmt.Errorf("no randomness for the key of the mask: %w", err)
			}
		}
		if len(key) != mask.KeySize {
			return nil, fmt.Errorf("the key of the mask, in %s, has %d bytes instead of %d; remove it and a new one is made",
				home.Place(maskKind.Only()), len(key), mask.KeySize)
		}
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	return mask.New(key), nil
}
