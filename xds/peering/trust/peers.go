package trust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Bundles is the kind of state that peers' bundles are.
var Bundles = state.Kind{Name: "bundles", File: "trust/peers/*.bundle"}

// Peers are the bundles that the admin chose to trust, one record each.
type Peers struct {
	home state.Store
	self peering.Identity
	mu   sync.Mutex
}

// PeerBundle is a peer's bundle under the name that the admin gave the peer.
type PeerBundle struct {
	Peer   string
	Bundle Bundle
}

// OpenPeers makes Peers of a gateway's state. self is this gateway, whose own trust domain no peer may have.
func OpenPeers(home state.Store, self peering.Identity) *Peers { return &Peers{home: home, self: self} }

// ImportOption changes how Import treats what is there.
type ImportOption func(*importing)

type importing struct{ replace bool }

// Replace lets a bundle take the place of another one of the same peer, whose certificates are refused from then on.
func Replace(replace bool) ImportOption { return func(i *importing) { i.replace = replace } }

// Import trusts a bundle as that peer's. Importing the same one again does nothing.
func (p *Peers) Import(peer string, b Bundle, options ...ImportOption) error {
	var how importing
	for _, o := range options {
		o(&how)
	}
	text, err := b.MarshalText()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := peering.NewIdentity(p.self.TrustDomain, peer); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	err = state.Update(context.Background(), p.home, Bundles.Key(peer), func([]byte) ([]byte, error) {
		return text, p.acceptable(peer, b, how.replace, time.Now()) // as of now, also when another replica imports
	})
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return nil
}

// read gives a peer's bundle as it was written.
func (p *Peers) read(peer string) ([]byte, error) {
	record, err := p.home.Get(context.Background(), Bundles.Key(peer))
	return record.Value, err
}

// Renew takes a bundle that a peer sent over the link, in place of the one that is trusted as that peer's, and tells
// whether it was another one. Whoever calls it has held the peer's certificate against the bundle that is trusted now.
// That is not enough: the bundle must be of the same gateway, newer, signed by an authority that is trusted now, and
// leave one of those in place, so that neither side is locked out. The peer's first bundle is its admin's to give.
func (p *Peers) Renew(peer string, sent peering.SignedBundle, now time.Time) (changed bool, err error) {
	next, err := ParseBundle([]byte(sent.Text))
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if changed, err = p.renew(peer, next, sent, now); err != nil {
		return false, fmt.Errorf("trust: %w", err)
	}
	return changed, nil
}

func (p *Peers) renew(peer string, next Bundle, sent peering.SignedBundle, now time.Time) (bool, error) {
	if _, err := peering.NewIdentity(p.self.TrustDomain, peer); err != nil {
		return false, err
	}
	changed := false
	err := state.Update(context.Background(), p.home, Bundles.Key(peer), func(text []byte) ([]byte, error) {
		changed = false
		if text == nil {
			return nil, fmt.Errorf("no bundle of peer %s is trusted that another could replace", peer)
		}
		there, err := ParseBundle(text)
		switch {
		case err != nil:
			return nil, err
		case sent.Text == string(text):
			return text, nil
		case next.Identity != there.Identity || next.External != there.External:
			return nil, fmt.Errorf("the bundle is of %s, the one in place is of %s", next.Identity, there.Identity)
		case next.Serial <= there.Serial:
			return nil, fmt.Errorf("the bundle has serial %d, the one in place has %d: it is older", next.Serial, there.Serial)
		case !slices.ContainsFunc(next.certificates, there.holds):
			return nil, errors.New("the bundle holds none of the authorities that are trusted as this peer's: import it by hand")
		}
		if err := there.signedBy(sent, now); err != nil {
			return nil, err
		}
		if err := p.acceptable(peer, next, true, now); err != nil {
			return nil, err
		}
		changed = true
		return next.MarshalText()
	})
	return changed && err == nil, err
}

func (p *Peers) acceptable(peer string, b Bundle, replace bool, now time.Time) error {
	if _, err := peering.NewIdentity(b.Identity.TrustDomain, peer); err != nil {
		return err
	}
	if peer != b.Identity.Cluster {
		return fmt.Errorf("the bundle is of cluster %s, not of %s: a peer goes by its cluster's name", b.Identity.Cluster, peer)
	}
	if b.Identity.TrustDomain == p.self.TrustDomain {
		return fmt.Errorf("the bundle is of trust domain %s, which is this gateway's own", b.Identity.TrustDomain)
	}
	for _, c := range b.certificates {
		if !now.Before(c.NotAfter) {
			return fmt.Errorf("the bundle's certificate ended at %s", c.NotAfter.UTC().Format(time.RFC3339))
		}
		if now.Add(skew).Before(c.NotBefore) {
			return fmt.Errorf("the bundle's certificate begins only at %s; is the clock right?", c.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	there, err := p.list()
	if err != nil && !replace { // a broken file is what replacing mends
		return err
	}
	for _, other := range there {
		switch same := string(other.Bundle.CertificatesPEM) == string(b.CertificatesPEM); {
		case other.Peer == peer && !same && !replace:
			return fmt.Errorf("another bundle of %s is trusted already (fingerprint %s); --replace takes its place",
				peer, other.Bundle.Fingerprint)
		case other.Peer == peer:
		case other.Bundle.Identity.TrustDomain == b.Identity.TrustDomain:
			return fmt.Errorf("trust domain %s is that of peer %s already; remove that peer's bundle first",
				b.Identity.TrustDomain, other.Peer)
		case sharesKey(other.Bundle, b):
			return fmt.Errorf("the bundle's key is that of peer %s already", other.Peer)
		}
	}
	return nil
}

func sharesKey(a, b Bundle) bool {
	for _, c := range a.certificates {
		for _, d := range b.certificates {
			if string(c.RawSubjectPublicKeyInfo) == string(d.RawSubjectPublicKeyInfo) {
				return true
			}
		}
	}
	return false
}

// List is every bundle, by peer. A file that cannot be read is left out and told in the error, beside the others.
func (p *Peers) List() ([]PeerBundle, error) {
	bundles, err := p.list()
	if err != nil {
		return bundles, fmt.Errorf("trust: %w", err)
	}
	return bundles, nil
}

func (p *Peers) list() ([]PeerBundle, error) {
	records, err := p.home.List(context.Background(), Bundles)
	if err != nil && len(records) == 0 {
		return nil, err
	}
	var bundles []PeerBundle
	broken := []error{err}
	for _, record := range records {
		peer := record.Key.Name
		b, err := ParseBundle(record.Value)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", peer, err))
			continue
		}
		bundles = append(bundles, PeerBundle{Peer: peer, Bundle: b})
	}
	slices.SortFunc(bundles, func(a, b PeerBundle) int { return cmp.Compare(a.Peer, b.Peer) })
	return bundles, errors.Join(broken...)
}

// ErrNoBundle is of a peer that is not trusted.
var ErrNoBundle = errors.New("no bundle of peer")

// Remove trusts a peer's bundle no longer.
func (p *Peers) Remove(peer string) error {
	if _, err := peering.NewIdentity(p.self.TrustDomain, peer); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.read(peer); errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("trust: %w %s is trusted", ErrNoBundle, peer)
	}
	if err := p.home.Delete(context.Background(), Bundles.Key(peer), ""); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return nil
}
