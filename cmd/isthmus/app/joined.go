package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// joinedPeers are the peers that joined by invitation: Peer documents like the admin's, in the gateway's own state.
type joinedPeers struct {
	place    string // where they are kept
	document *state.Document[[]byte]
}

var joinedKind = state.Kind{Name: "joined", File: "joined.yaml"}

const joinedHead = "# Peers that joined by invitation. The gateway writes this: use isthmus peer.\n"

// openJoined reads them; changed is called after each change.
func openJoined(ctx context.Context, home state.Store, changed func()) (*joinedPeers, error) {
	asItIs := func(text []byte) ([]byte, error) { return text, nil }
	document, err := state.OpenDocument(ctx, state.DocumentConfig[[]byte]{Store: home, Key: joinedKind.Only(),
		Encode: asItIs, Decode: asItIs, Changed: changed})
	if err != nil {
		return nil, fmt.Errorf("peers that joined: %w", err)
	}
	return &joinedPeers{place: home.Place(joinedKind.Only()), document: document}, nil
}

// load reads the admin's documents, and with them those of peers that joined.
func (j *joinedPeers) load(paths []string) (*manifest.Set, error) {
	return manifest.LoadWith(func() []manifest.Source {
		if text := j.document.Value(); len(text) > 0 && !slices.Contains(paths, j.place) {
			return []manifest.Source{{Name: j.place, Data: text}}
		}
		return nil
	}, paths...)
}

// loadDocuments reads the documents of a gateway, those of peers that joined as well, for a command.
func loadDocuments(ctx context.Context, paths []string) (*manifest.Set, error) {
	set, err := manifest.Load(paths...)
	if err != nil {
		return nil, err
	}
	home, err := openHome(set, "")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	joined, err := openJoined(ctx, home, nil)
	if err != nil {
		return nil, err
	}
	return joined.load(paths)
}

// follow takes in what other replicas change, until ctx ends.
func (j *joinedPeers) follow(ctx context.Context, log *slog.Logger) { j.document.Follow(ctx, log) }

// holds tells whether a peer's document is here and not among the admin's.
func (j *joinedPeers) holds(p manifest.Peer) bool { return p.Position().File == j.place }

// amend changes a peer by what it is in the state now, which is more than what is in force: there tells whether it is one
// yet. An error of change is returned as it is, and nothing is changed.
func (j *joinedPeers) amend(ctx context.Context, name string, change func(p *manifest.Peer, there bool) error) error {
	var refused error
	err := j.document.Update(ctx, func(text []byte) ([]byte, error) {
		return j.changed(text, func(peers []manifest.Peer) []manifest.Peer {
			p, there := manifest.Peer{Metadata: manifest.Metadata{Name: name}}, false
			for _, known := range peers {
				if known.Metadata.Name == name {
					p, there = known, true
				}
			}
			if refused = change(&p, there); refused != nil {
				return peers
			}
			peers = append(without(peers, name), p)
			slices.SortFunc(peers, func(a, b manifest.Peer) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
			return peers
		})
	})
	if err != nil {
		return fmt.Errorf("peers that joined: %w", err)
	}
	return refused
}

// check tells what would be wrong with the documents at paths and the peers that joined if a peer were as given.
func (j *joinedPeers) check(p manifest.Peer, paths []string) error {
	text, err := j.changed(j.document.Value(), func(peers []manifest.Peer) []manifest.Peer {
		return append(without(peers, p.Metadata.Name), p)
	})
	if err != nil {
		return err
	}
	_, err = manifest.LoadWith(func() []manifest.Source { return []manifest.Source{{Name: j.place, Data: text}} }, paths...)
	return err
}

func (j *joinedPeers) remove(ctx context.Context, name string) error {
	return j.change(ctx, func(peers []manifest.Peer) []manifest.Peer { return without(peers, name) })
}

func without(peers []manifest.Peer, name string) []manifest.Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p manifest.Peer) bool { return p.Metadata.Name == name })
}

// change changes the peers by what they are in the state.
func (j *joinedPeers) change(ctx context.Context, change func([]manifest.Peer) []manifest.Peer) error {
	err := j.document.Update(ctx, func(text []byte) ([]byte, error) { return j.changed(text, change) })
	if err != nil {
		return fmt.Errorf("peers that joined: %w", err)
	}
	return nil
}

// changed is what a change makes of the peers' document.
func (j *joinedPeers) changed(text []byte, change func([]manifest.Peer) []manifest.Peer) ([]byte, error) {
	var peers []manifest.Peer
	if len(text) > 0 {
		var err error
		if peers, err = manifest.ParsePeers(manifest.Source{Name: j.place, Data: text}); err != nil {
			return nil, err
		}
	}
	text, err := (&manifest.Set{Peers: change(peers)}).Marshal()
	return append([]byte(joinedHead), text...), err
}
