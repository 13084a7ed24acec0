package app

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

// joinedPeers are the peers that joined by invitation: Peer documents like the admin's, in a file of the gateway's own.
type joinedPeers struct {
	path string

	mu    sync.Mutex
	peers []manifest.Peer // sorted by name
}

const joinedHead = "# Peers that joined by invitation. The gateway writes this file: use isthmus peer.\n"

// joinedFile is where they are kept.
func joinedFile(set *manifest.Set) string {
	return filepath.Join(set.Gateway.Spec.StateDir, "joined.yaml")
}

// loadDocuments reads the admin's documents and those of peers that joined.
func loadDocuments(paths []string) (*manifest.Set, error) {
	set, err := manifest.Load(paths...)
	if err != nil {
		return nil, err
	}
	file := joinedFile(set)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) || slices.Contains(paths, file) {
		return set, nil
	}
	return manifest.Load(append(slices.Clone(paths), file)...)
}

// openJoined makes the file where there is none, so that it is watched from the beginning.
func openJoined(set *manifest.Set) (*joinedPeers, error) {
	j := &joinedPeers{path: joinedFile(set)}
	for _, p := range set.Peers {
		if j.holds(p) {
			j.peers = append(j.peers, p)
		}
	}
	if _, err := os.Stat(j.path); errors.Is(err, fs.ErrNotExist) {
		if err := durable.Replace(j.path, []byte(joinedHead), 0o600); err != nil {
			return nil, fmt.Errorf("peers that joined: %w", err)
		}
	}
	return j, nil
}

// holds tells whether a peer's document is here and not among the admin's.
func (j *joinedPeers) holds(p manifest.Peer) bool { return p.Position().File == j.path }

// put adds a peer or changes it.
func (j *joinedPeers) put(p manifest.Peer) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	peers := append(without(j.peers, p.Metadata.Name), p)
	slices.SortFunc(peers, func(a, b manifest.Peer) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	return j.save(peers)
}

func (j *joinedPeers) remove(name string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.save(without(j.peers, name))
}

func without(peers []manifest.Peer, name string) []manifest.Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p manifest.Peer) bool { return p.Metadata.Name == name })
}

func (j *joinedPeers) save(peers []manifest.Peer) error {
	text, err := (&manifest.Set{Peers: peers}).Marshal()
	if err == nil {
		err = durable.Replace(j.path, append([]byte(joinedHead), text...), 0o600)
	}
	if err != nil {
		return fmt.Errorf("peers that joined: %w", err)
	}
	j.peers = peers
	return nil
}
