package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

const (
	// trustPace is how often it is looked whether Envoy took a bundle, and whether a rotation is due.
	trustPace = 250 * time.Millisecond
	// bundleRetry is how soon a peer's bundle that was refused is judged again: an admin may have changed what it is
	// held against.
	bundleRetry = time.Minute
	// ackSettle is how long all peers have acknowledged an authority before it issues: an Envoy has taken a bundle a
	// moment before all of its threads use it.
	ackSettle = 2 * time.Second
)

// compilation is what Envoy was last given, as far as trust goes.
type compilation struct {
	version string
	trusts  map[string][]string // fingerprints, by peer
	// routable are the peers to which requests may go.
	routable map[string]bool
}

// sentBundle is a peer's bundle that was judged.
type sentBundle struct {
	bundle peering.SignedBundle
	at     time.Time
	err    error
}

// keepTrust takes the bundles that peers send, tells peers which of their authorities are accepted here, and drives the
// rotation of this gateway's own authority, until ctx ends.
func (g *gateway) keepTrust(ctx context.Context) error {
	changes := g.tracker.Subscribe()
	defer changes.Close()
	ticker := time.NewTicker(trustPace)
	defer ticker.Stop()
	var acknowledged time.Time
	for {
		g.takeBundles(time.Now())
		g.tellTrusts()
		if g.leader.Number() > 0 { // else it is another replica's
			acknowledged = g.rotate(ctx, time.Now(), acknowledged)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes.Changes():
		case <-ticker.C:
		}
	}
}

// takeBundles puts the bundles that peers in session send in the place of those that are trusted as theirs.
func (g *gateway) takeBundles(now time.Time) {
	for _, p := range g.set.Load().Peers {
		name := p.Metadata.Name
		status, ok := g.tracker.Peer(name)
		if !ok || p.Spec.Suspended || !status.InSession() || status.Remembered || status.Configuration.Bundle.Text == "" {
			continue
		}
		sent := status.Configuration.Bundle
		if last, ok := g.sent.Load(name); ok && last.(sentBundle).bundle.Same(sent) && now.Sub(last.(sentBundle).at) < bundleRetry {
			continue
		}
		changed, err := g.bundles.Renew(name, sent, now)
		if last, ok := g.sent.Load(name); err != nil && (!ok || last.(sentBundle).err == nil || last.(sentBundle).err.Error() != err.Error()) {
			g.log.Warn("the trust bundle that a peer sent is not taken; the one before stays", "peer", name, "err", err)
		}
		g.sent.Store(name, sentBundle{bundle: sent, at: now, err: err})
		if changed {
			g.log.Info("a peer's trust bundle changed: its authority is being rotated", "peer", name)
			g.readBundles()
			g.touch()
		}
	}
}

// tellTrusts tells each peer which of its authorities are accepted here, once Envoy does.
func (g *gateway) tellTrusts() {
	given := g.compiled.Load()
	if given == nil || given == g.told || !g.xds.Took(given.version) {
		return
	}
	for _, p := range g.set.Load().Peers {
		if err := g.node.SetTrusts(p.Metadata.Name, given.trusts[p.Metadata.Name]); err != nil {
			g.log.Error("a peer could not be told that its authority is accepted", "peer", p.Metadata.Name, "err", err)
		}
	}
	g.told = given
}

// rotate enters the next phase of a rotation when it is due. It returns since when all peers have acknowledged.
func (g *gateway) rotate(ctx context.Context, now, since time.Time) time.Time {
	if g.rotator == nil {
		return time.Time{}
	}
	phase := g.rotator.Rotation().Phase
	everybody := !slices.ContainsFunc(g.acknowledgements(), func(a PeerTrust) bool { return !a.Acknowledged })
	switch {
	case !everybody:
		since = time.Time{}
	case since.IsZero():
		since = now
	}
	if g.rotator.Due(now, everybody && now.Sub(since) >= ackSettle) {
		if err := g.advance(ctx, now, phase); err != nil && !errors.Is(err, trust.ErrMoved) {
			g.log.Error("the rotation of the authority does not go on", "err", err)
		}
	}
	return since
}

// advance enters the next phase of a rotation.
func (g *gateway) advance(ctx context.Context, now time.Time, from trust.Phase) error {
	if err := g.rotated(ctx, func() error { return g.rotator.Advance(now, from) }); err != nil {
		return err
	}
	authority := g.vouchAnew()
	if from == trust.Announced {
		g.log.Info("the next authority issues now", "fingerprint", authority.Fingerprint())
	} else {
		g.log.Info("the rotation has ended: the former authority is trusted no longer", "fingerprint", authority.Fingerprint())
	}
	return nil
}

// rotated has the rotation changed and kept. What was not kept was not done.
func (g *gateway) rotated(ctx context.Context, do func() error) error {
	err := g.vault.change(ctx, do)
	if err != nil && g.vault.home != nil {
		err = errors.Join(err, g.rotator.Reload())
	}
	return err
}

// takeRotation takes in what another replica has made of the authority.
func (g *gateway) takeRotation(ctx context.Context) {
	if g.rotator == nil {
		return
	}
	before := g.rotator.Authority().Export()
	err := errors.Join(g.vault.pull(ctx), g.rotator.Reload())
	if err != nil {
		g.log.Error("the own authority cannot be read; the one before stays", "err", err)
		return
	}
	if after := g.rotator.Authority().Export(); after.Serial != before.Serial || after.Fingerprint != before.Fingerprint {
		g.log.Info("another replica has changed the authority", "fingerprint", after.Fingerprint)
		g.vouchAnew()
	}
}

// vouchAnew puts the own authority into use as the rotation left it.
func (g *gateway) vouchAnew() *trust.Authority {
	g.vouching.Lock() // so that of two that were changed at once the later one stays
	defer g.vouching.Unlock()
	authority := g.rotator.Authority()
	g.vouch(authority)
	return authority
}

// awaited are the fingerprints of the authorities that peers must trust: the next one, the one that issues, or, where
// an admin supplies several, all of them.
func awaited(rotation trust.Rotation, authority *trust.Authority) []string {
	all := authority.Export().Fingerprints()
	switch rotation.Phase {
	case trust.Announced:
		return all[len(all)-1:]
	case trust.Issuing:
		return all[:1]
	default:
		return all
	}
}

// acknowledges tells whether a peer trusts all that it must.
func acknowledges(trusts, awaited []string) bool {
	return !slices.ContainsFunc(awaited, func(fingerprint string) bool { return !slices.Contains(trusts, fingerprint) })
}

// acknowledgements tells of each peer whether it trusts the authority that this gateway's certificate is of, or is to be
// of when a rotation goes on.
func (g *gateway) acknowledgements() []PeerTrust {
	authority := g.authority.Load()
	var rotation trust.Rotation
	if g.rotator != nil {
		rotation = g.rotator.Rotation()
	}
	peers := []PeerTrust{}
	for _, p := range g.set.Load().Peers {
		status, _ := g.tracker.Peer(p.Metadata.Name)
		state := PeerTrust{Name: p.Metadata.Name}
		if status.Configuration != nil {
			state.Trusts = status.Configuration.Trusts
			state.OverLink = status.Configuration.Offers(peering.FeatureTrustBundle)
		}
		if last, ok := g.sent.Load(p.Metadata.Name); ok && last.(sentBundle).err != nil {
			state.Refused = last.(sentBundle).err.Error()
		}
		switch {
		case authority == nil:
			state.Why = "this gateway has no authority yet"
		case p.Spec.Suspended:
			state.Why = "suspended: it is told nothing"
		case acknowledges(state.Trusts, awaited(rotation, authority)):
			state.Acknowledged = true
		default:
			state.Why = unacknowledged(status, state.OverLink, authority)
		}
		peers = append(peers, state)
	}
	return peers
}

// unacknowledged says why a peer may not have acknowledged.
func unacknowledged(status tracker.Status, overLink bool, authority *trust.Authority) string {
	switch {
	case status.Configuration == nil:
		return "it has never shaken hands"
	case !overLink:
		return "its isthmus takes no bundles over the link: import the bundle there by hand"
	case authority.Export().Serial > 0 && authority.Signed().Text == "":
		return "no authority's key is here to sign the bundle: import it there by hand"
	case !status.InSession():
		return "it is not in session: " + string(status.Condition)
	}
	return "it was told, and has not taken it yet; its log may say why"
}

// renewCertificate has the gateway's certificate issued anew.
func (g *gateway) renewCertificate() error {
	authority := g.authority.Load()
	if authority == nil || !authority.Renews() {
		return fault.New(fault.Conflict, "the gateway's certificate is supplied as it is (spec.trust): it is renewed where it comes from")
	}
	g.renewer.Use(authority)
	return nil
}

// beginRotation makes the next authority and announces it.
func (g *gateway) beginRotation(ctx context.Context, q RotationRequest) error {
	if err := g.rotates(); err != nil {
		return err
	}
	within, err := time.ParseDuration(q.Within)
	if err != nil {
		return fault.New(fault.Invalid, "--within %q is no duration, as 168h", q.Within)
	}
	keep, err := time.ParseDuration(q.Keep)
	if err != nil {
		return fault.New(fault.Invalid, "--keep %q is no duration, as 1h", q.Keep)
	}
	if err := g.rotated(ctx, func() error { return g.rotator.Begin(time.Now(), within, keep) }); err != nil {
		return rotationFault(err)
	}
	authority := g.vouchAnew()
	g.log.Info("the authority is being rotated: peers are told of the next one", "fingerprints", authority.Export().Fingerprints())
	return nil
}

// nextPhase enters the phase after the one that the admin saw at once, whoever has not acknowledged.
func (g *gateway) nextPhase(ctx context.Context, q NextRequest) error {
	if err := g.rotates(); err != nil {
		return err
	}
	return rotationFault(g.advance(ctx, time.Now(), trust.Phase(q.After)))
}

// abortRotation takes an announced authority back.
func (g *gateway) abortRotation(ctx context.Context) error {
	if err := g.rotates(); err != nil {
		return err
	}
	if err := g.rotated(ctx, func() error { return g.rotator.Abort(time.Now()) }); err != nil {
		return rotationFault(err)
	}
	g.log.Info("the rotation was aborted")
	g.vouchAnew()
	return nil
}

func (g *gateway) rotates() error {
	if g.rotator == nil {
		return fault.New(fault.Conflict, "the authority is supplied (spec.trust): rotate it where it comes from, and keep both roots in ca.crt while peers learn")
	}
	return nil
}

func rotationFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, trust.ErrRotating):
		return fault.New(fault.Conflict, "a rotation is under way already: isthmus trust show tells how it stands")
	case errors.Is(err, trust.ErrNotRotating):
		return fault.New(fault.Conflict, "no rotation is under way")
	case errors.Is(err, trust.ErrSwitched), errors.Is(err, trust.ErrMoved):
		return fault.New(fault.Conflict, "%v", err)
	}
	return fault.Wrap(fault.Invalid, err, "%v", err)
}
