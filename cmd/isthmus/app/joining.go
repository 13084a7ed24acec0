package app

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// InvitationRequest asks for an invitation.
type InvitationRequest struct {
	For     string `json:"for"`     // the cluster that is invited
	Expires string `json:"expires"` // a duration, as 15m
	Address string `json:"address"` // host:port by which that cluster reaches this gateway; "" is the peer listener's own
}

// InvitationState is an invitation as the admin interface tells it; the token only once, to who asked for it.
type InvitationState struct {
	ID      string    `json:"id"`
	For     string    `json:"for"`
	State   string    `json:"state"`
	Expires time.Time `json:"expires"`
	Token   string    `json:"token,omitempty"`
}

// JoinRequest redeems a token.
type JoinRequest struct {
	Token     string   `json:"token"`
	Addresses []string `json:"addresses"` // host:port by which the inviting cluster reaches this gateway; none if it cannot
	BehindNAT bool     `json:"behindNAT"` // it cannot, and this gateway leaves reverse tunnels with it
}

// maxInvitation is how long an invitation may be open: a token that lies about for days is found by somebody.
const maxInvitation = 24 * time.Hour

// errNoAuthority is of what needs the gateway's authority before the admin has supplied it.
var errNoAuthority = fault.New(fault.Unavailable, "the gateway has no certificate yet (spec.trust); isthmus trust show says why")

// selfBundle is what peers of this gateway are to trust.
func (g *gateway) selfBundle() trust.Bundle {
	if authority := g.authority.Load(); authority != nil {
		return authority.Export()
	}
	return trust.Bundle{}
}

// invite makes an invitation.
func (g *gateway) invite(ctx context.Context, q InvitationRequest) (InvitationState, error) {
	life, err := time.ParseDuration(q.Expires)
	if err != nil || life < time.Second || life > maxInvitation {
		return InvitationState{}, fault.New(fault.Invalid, "--expires %q is not a duration from 1s to %s, as 15m", q.Expires, maxInvitation)
	}
	set := g.set.Load()
	if _, err := peering.NewIdentity(set.Gateway.Spec.TrustDomain, q.For); err != nil {
		return InvitationState{}, fault.New(fault.Invalid, "--for %q is no cluster's name: %v", q.For, err)
	}
	if q.For == g.self.Cluster {
		return InvitationState{}, fault.New(fault.Invalid, "%s is this cluster itself", q.For)
	}
	if g.trusted()[q.For] != "" {
		return InvitationState{}, fault.New(fault.Conflict, "%s is a trusted peer already (isthmus peer remove %s ends that)", q.For, q.For)
	}
	address := q.Address
	if address == "" {
		own := set.Gateway.Spec.Listeners.Peer
		if !own.IsValid() || own.Addr().IsUnspecified() {
			return InvitationState{}, fault.New(fault.Invalid,
				"--address HOST:PORT is needed: the peer listener is on %s, and the token must say how %s reaches it", own, q.For)
		}
		address = own.String()
	} else if err := dialAddress(address); err != nil {
		return InvitationState{}, err
	}
	authority := g.authority.Load()
	if authority == nil {
		return InvitationState{}, errNoAuthority
	}
	invitation, secret, err := g.invitations.Create(ctx, q.For, life)
	if err != nil {
		return InvitationState{}, err
	}
	token, err := join.Token{
		Address: address, Suffix: set.Gateway.Spec.Suffix, Identity: g.self, Fingerprint: authority.Fingerprint(),
		Invitation: invitation.ID, Secret: secret, Expires: invitation.Expires,
	}.Encode()
	if err != nil {
		return InvitationState{}, err
	}
	g.log.Info("a peer is invited", "invitation", invitation.ID, "for", q.For, "expires", invitation.Expires)
	state := invitationState(invitation)
	state.Token = token
	return state, nil
}

func invitationState(i join.Invitation) InvitationState {
	return InvitationState{ID: i.ID, For: i.For, State: i.State(time.Now()), Expires: i.Expires}
}

func dialAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" {
		return fault.New(fault.Invalid, "%q is not host:port", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return fault.New(fault.Invalid, "nobody can dial %s", address)
	}
	return nil
}

// trusted are the fingerprints of the authorities that peers are trusted by, by the peers' names.
func (g *gateway) trusted() map[string]string {
	bundles := g.readBundles()
	trusted := make(map[string]string, len(bundles))
	for _, b := range bundles {
		trusted[b.Peer] = b.Bundle.Fingerprint
	}
	return trusted
}

// readBundles takes in the bundles as they are in the state now. While those cannot be read, the ones before stay.
func (g *gateway) readBundles() []trust.PeerBundle {
	bundles, err := g.bundles.List()
	if err != nil {
		g.log.Error("trust bundles cannot be read; the ones before stay", "err", err)
		return *g.trustedBundles.Load()
	}
	g.trustedBundles.Store(&bundles)
	return bundles
}

// admit makes a peer of a gateway that redeemed an invitation, unless the peer was removed since.
func (g *gateway) admit(ctx context.Context, j join.Joiner) error {
	g.partings.Lock()
	defer g.partings.Unlock()
	if err := g.invitations.Standing(ctx, j.Invitation); err != nil {
		return err
	}
	if err := g.befriend(ctx, j.Bundle, reachedSpec(j.Addresses, j.BehindNAT, manifest.TunnelAccept)); err != nil {
		return err
	}
	// Another replica may have removed the peer before it was written here, and found nothing: what is written goes again.
	err := g.invitations.Standing(ctx, j.Invitation)
	var refusal *join.Refusal
	if errors.As(err, &refusal) {
		return errors.Join(err, g.forget(ctx, j.Bundle.Identity.Cluster))
	}
	return err
}

// reachedSpec is how a peer that joined is reached; role is this gateway's where one of the two is behind NAT.
func reachedSpec(addresses []string, behindNAT bool, role manifest.TunnelRole) manifest.PeerSpec {
	p := manifest.PeerSpec{Addresses: addresses}
	if behindNAT {
		p.ReverseTunnel = manifest.ReverseTunnel{Role: role, Connections: manifest.DefaultTunnels}
	}
	return p
}

// befriend trusts a gateway's bundle and writes its document, unless the admin wrote one. Of how the peer is reached only
// the addresses and the tunnels are taken.
func (g *gateway) befriend(ctx context.Context, bundle trust.Bundle, reached manifest.PeerSpec) error {
	id := bundle.Identity
	if known := g.trusted()[id.Cluster]; known != "" && known != bundle.Fingerprint {
		return join.Reject(errors.New("a peer of this name is trusted already, by another certificate authority; its admin would have to remove it first"))
	}
	p, declared := g.set.Load().Peer(id.Cluster)
	if declared && p.Spec.TrustDomain != id.TrustDomain {
		return join.Reject(errors.New("a peer of this name is declared with another trust domain"))
	}
	if declared && p.Spec.Suspended {
		return errSuspended
	}
	if err := g.bundles.Import(id.Cluster, bundle); err != nil {
		return err
	}
	g.readBundles()
	if !declared || g.joined.holds(p) {
		err := g.joined.amend(ctx, id.Cluster, func(p *manifest.Peer, _ bool) error {
			if p.Spec.Suspended { // a moment ago
				return errSuspended
			}
			p.Spec.TrustDomain, p.Spec.Addresses = id.TrustDomain, reached.Addresses
			p.Spec.ReverseTunnel = reached.ReverseTunnel
			return nil
		})
		if err != nil {
			return err
		}
	}
	g.readAgain()
	return nil
}

var errSuspended = join.Reject(errors.New("the peer of this name is suspended here"))

// join redeems a token of another gateway. It returns that cluster's name.
func (g *gateway) join(ctx context.Context, q JoinRequest) (string, error) {
	token, err := join.ParseToken(q.Token)
	if err != nil {
		return "", fault.New(fault.Invalid, "%v", err)
	}
	if token.Identity.Cluster == g.self.Cluster {
		return "", fault.New(fault.Invalid, "the token is of %s, which is this cluster's own name", token.Identity)
	}
	if q.BehindNAT && len(q.Addresses) > 0 {
		return "", fault.New(fault.Invalid, "--behind-nat is for a gateway that cannot be dialled, and --address for one that can")
	}
	for _, a := range q.Addresses {
		if err := dialAddress(a); err != nil {
			return "", err
		}
	}
	if known := g.trusted()[token.Identity.Cluster]; known != "" && known != token.Fingerprint {
		return "", fault.New(fault.Conflict, "%s is trusted already, by another certificate authority (isthmus peer remove %s ends that)",
			token.Identity.Cluster, token.Identity.Cluster)
	}
	authority := g.authority.Load()
	if authority == nil {
		return "", errNoAuthority
	}
	since := g.partings.count(token.Identity.Cluster)
	bundle, err := join.Redeem(ctx, token, join.Joiner{Bundle: authority.Export(), Addresses: q.Addresses, BehindNAT: q.BehindNAT})
	var refusal *join.Refusal
	switch {
	case errors.As(err, &refusal):
		return "", fault.New(fault.Denied, "%s refused: %s", token.Identity.Cluster, refusal.Message)
	case err != nil:
		return "", fault.Wrap(fault.Unavailable, err, "%v", err)
	}
	g.partings.Lock()
	defer g.partings.Unlock()
	if g.partings.of[token.Identity.Cluster] != since {
		return "", fault.New(fault.Conflict, "%s was removed while this gateway joined it", token.Identity.Cluster)
	}
	if err := g.befriend(ctx, bundle, reachedSpec([]string{token.Address}, q.BehindNAT, manifest.TunnelDial)); err != nil {
		return "", fault.Wrap(fault.Internal, err, "%s trusts this gateway now, but not the other way round: %v", token.Identity.Cluster, err)
	}
	return token.Identity.Cluster, nil
}

// own finds a peer that joined; an admin's document is the admin's to change.
func (g *gateway) own(name string) (manifest.Peer, error) {
	p, ok := g.set.Load().Peer(name)
	if !ok {
		return p, fault.New(fault.NotFound, "no peer is named %q; isthmus peers shows them", name)
	}
	if !g.joined.holds(p) {
		return p, fault.New(fault.Conflict, "peer %s is declared in %s: change it there", name, p.Position().File)
	}
	return p, nil
}

// suspend lets nothing of a peer pass, what is under way included, or again what policy allows.
func (g *gateway) suspend(ctx context.Context, name string, suspended bool) error {
	if _, err := g.own(name); err != nil {
		return err
	}
	err := g.joined.amend(ctx, name, func(p *manifest.Peer, there bool) error {
		p.Spec.Suspended = suspended
		return stillThere(name, there)
	})
	if err != nil {
		return err
	}
	g.readAgain()
	if suspended {
		return g.departed(ctx, name)
	}
	return nil
}

// APIRequest says where a joined peer's API is offered to this cluster's callers; "" for nowhere.
type APIRequest struct {
	Listen string `json:"listen"`
}

// offer opens or closes the listener of a joined peer's API.
func (g *gateway) offer(ctx context.Context, name string, q APIRequest) error {
	p, err := g.own(name)
	if err != nil {
		return err
	}
	p.Spec.API.Listen = netip.AddrPort{}
	if q.Listen != "" {
		if p.Spec.API.Listen, err = netip.ParseAddrPort(q.Listen); err != nil {
			return fault.New(fault.Invalid, "--listen %q is not ip:port", q.Listen)
		}
	}
	if err := g.joined.check(p, g.set.Load().Paths()); err != nil {
		return fault.New(fault.Invalid, "peer %s keeps its API where it is: %v", name, err)
	}
	err = g.joined.amend(ctx, name, func(now *manifest.Peer, there bool) error {
		now.Spec.API.Listen = p.Spec.API.Listen
		return stillThere(name, there)
	})
	if err != nil {
		return err
	}
	g.readAgain()
	return nil
}

func stillThere(name string, there bool) error {
	if !there {
		return fault.New(fault.NotFound, "peer %s was removed meanwhile", name)
	}
	return nil
}

// part ends the trust in a peer, and forgets it. Its certificates are refused first of all, and what it has under way is
// cut. The token that it came with is void from then on.
func (g *gateway) part(ctx context.Context, name string) error {
	if err := g.parted(ctx, name); err != nil {
		return err
	}
	return g.departed(ctx, name)
}

func (g *gateway) parted(ctx context.Context, name string) error {
	g.partings.Lock()
	defer g.partings.Unlock()
	if _, err := g.own(name); err != nil {
		return err
	}
	if err := g.invitations.Forget(ctx, name); err != nil {
		return err
	}
	g.partings.of[name]++
	return g.forget(ctx, name)
}

// forget takes trust and document of a peer away, whatever of them is there.
func (g *gateway) forget(ctx context.Context, name string) error {
	if err := g.bundles.Remove(name); err != nil && !errors.Is(err, trust.ErrNoBundle) {
		return err
	}
	g.readBundles()
	g.touch()
	if err := g.joined.remove(ctx, name); err != nil {
		return err
	}
	g.readAgain()
	return nil
}

// partings keep joins and removals apart: a join that began before a removal does not bring the peer back.
type partings struct {
	sync.Mutex
	of map[string]int // removals, by peer
}

func (p *partings) count(peer string) int {
	p.Lock()
	defer p.Unlock()
	return p.of[peer]
}

// readAgain has the documents looked at without waiting. A wish that comes while one is pending is the same.
func (g *gateway) readAgain() {
	select {
	case g.reread <- struct{}{}:
	default:
	}
}
