package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// interrupted is a store in which something happens just before a peer's bundle is written.
type interrupted struct {
	state.Store
	before func()
}

func (i *interrupted) Put(ctx context.Context, r state.Record) (string, error) {
	if r.Key.Kind == trust.Bundles && i.before != nil {
		before := i.before
		i.before = nil
		before()
	}
	return i.Store.Put(ctx, r)
}

// TestSuspensionDuringJoin suspends a peer that redeems its token again, as one whose answer was lost may: it stays suspended,
// also where the suspension is in the state and not in force yet.
func TestSuspensionDuringJoin(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t)
	north, err := trust.Init(t.TempDir(), "north.isthmus.internal", "north")
	if err != nil {
		t.Fatal(err)
	}
	invitation, _, err := g.invitations.Create(t.Context(), "north", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	joiner := join.Joiner{Invitation: invitation.ID, Bundle: north.Export(), Addresses: []string{"192.0.2.9:15443"}}
	in := func() manifest.Peer {
		t.Helper()
		set, err := g.joined.load(g.set.Load().Paths())
		if err != nil {
			t.Fatal(err)
		}
		p, ok := set.Peer("north")
		if !ok {
			t.Fatal("the peer is gone")
		}
		return p
	}
	if err := g.admit(t.Context(), joiner); err != nil {
		t.Fatal(err)
	}
	set, err := g.joined.load(g.set.Load().Paths())
	if err != nil {
		t.Fatal(err)
	}
	g.set.Store(set)
	err = g.joined.amend(t.Context(), "north", func(p *manifest.Peer, there bool) error {
		p.Spec.Suspended = true
		return stillThere("north", there)
	})
	if err != nil {
		t.Fatal(err)
	}
	joiner.Addresses = []string{"192.0.2.10:15443"}
	for _, when := range []string{"before the suspension is in force", "after"} {
		var refusal *join.Refusal
		if err := g.admit(t.Context(), joiner); !errors.As(err, &refusal) || !strings.Contains(refusal.Message, "suspended") {
			t.Errorf("%s: %v", when, err)
		}
		if p := in(); !p.Spec.Suspended || p.Spec.Addresses[0] != "192.0.2.9:15443" {
			t.Errorf("%s: %+v", when, p.Spec)
		}
		if set, err = g.joined.load(g.set.Load().Paths()); err != nil {
			t.Fatal(err)
		}
		g.set.Store(set)
	}
	// What is changed elsewhere meanwhile is not undone by a change of something else.
	if err := g.offer(t.Context(), "north", APIRequest{Listen: "127.0.0.1:16500"}); err != nil {
		t.Fatal(err)
	}
	if p := in(); !p.Spec.Suspended || p.Spec.API.Listen.Port() != 16500 {
		t.Errorf("%+v", p.Spec)
	}
	if err := g.joined.remove(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	if err := g.suspend(t.Context(), "north", false); !fault.Is(err, fault.NotFound) {
		t.Errorf("a peer that was removed meanwhile: %v", err)
	}
	if set, err := g.joined.load(g.set.Load().Paths()); err != nil {
		t.Error(err)
	} else if _, ok := set.Peer("north"); ok {
		t.Error("it is back")
	}
}

// TestRemovalDuringJoin removes a peer at each moment of a join that is under way: the join does not bring it back.
func TestRemovalDuringJoin(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t)
	north, err := trust.Init(t.TempDir(), "north.isthmus.internal", "north")
	if err != nil {
		t.Fatal(err)
	}
	// begin redeems an invitation, as the join server does before it makes a peer.
	begin := func() join.Joiner {
		t.Helper()
		invitation, secret, err := g.invitations.Create(t.Context(), "north", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.invitations.Redeem(t.Context(), invitation.ID, secret, north.Identity(), north.Fingerprint()); err != nil {
			t.Fatal(err)
		}
		return join.Joiner{Invitation: invitation.ID, Bundle: north.Export(), Addresses: []string{"192.0.2.9:15443"}}
	}
	reload := func() {
		t.Helper()
		set, err := g.joined.load(g.set.Load().Paths())
		if err != nil {
			t.Fatal(err)
		}
		g.set.Store(set)
	}
	gone := func(when string) {
		t.Helper()
		reload()
		if bundles, err := g.bundles.List(); err != nil || len(bundles) != 0 {
			t.Errorf("%s a bundle is trusted: %v, %v", when, bundles, err)
		}
		if _, ok := g.set.Load().Peer("north"); ok {
			t.Errorf("%s the document is there", when)
		}
		if g.trusted()["north"] != "" {
			t.Errorf("%s the gateway goes on trusting", when)
		}
	}
	joined := func(j join.Joiner) {
		t.Helper()
		if err := g.admit(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		reload()
		if _, ok := g.set.Load().Peer("north"); !ok || g.trusted()["north"] != north.Fingerprint() {
			t.Fatal("it has not joined")
		}
	}
	refused := func(err error, when string) {
		t.Helper()
		var refusal *join.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != join.Revoked || !strings.Contains(refusal.Message, "removed while it joined") {
			t.Errorf("%s: %v", when, err)
		}
	}

	first := begin()
	joined(first)
	second := begin() // as when the answer to the first was lost
	if err := g.parted(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	gone("after the removal")
	refused(g.admit(t.Context(), second), "a join that had redeemed its token")
	refused(g.admit(t.Context(), first), "the join before")
	gone("after joins that were under way")

	third := begin()
	joined(third) // a new invitation is a new beginning
	if err := g.invitations.Forget(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	if err := g.forget(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	reload()
	fourth := begin()
	store := &interrupted{Store: g.home, before: func() { // another replica removes it in the middle of it
		others, err := join.OpenInvitations(t.Context(), g.home, func() {})
		if err == nil {
			err = others.Forget(t.Context(), "north")
		}
		if err == nil {
			err = trust.OpenPeers(g.home, g.self).Remove("north")
		}
		if !errors.Is(err, trust.ErrNoBundle) {
			t.Errorf("the other replica: %v", err)
		}
	}}
	g.bundles = trust.OpenPeers(store, g.self)
	refused(g.admit(t.Context(), fourth), "a join in the middle of a removal by another replica")
	if store.before != nil {
		t.Error("nothing was written in between")
	}
	gone("after it")

	// The other way round: this gateway joins north, and its admin removes north meanwhile.
	since := g.partings.count("north")
	joined(begin())
	if err := g.parted(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	if g.partings.count("north") == since {
		t.Error("a join of this gateway's own does not hear of the removal")
	}
	gone("after the removal here")
	if err := g.parted(t.Context(), "north"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}
