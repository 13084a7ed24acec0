package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// checkDocuments checks the documents with those of peers that joined, as far as the state can be read.
func checkDocuments(ctx context.Context, w io.Writer, set *manifest.Set) error {
	whole, err := loadDocuments(ctx, set.Paths())
	if err == nil {
		return check(ctx, w, whole)
	}
	fmt.Fprintf(w, "warning: peers that joined are left out: %v\n", err)
	return check(ctx, w, set)
}

// check prints what a gateway with these documents would serve, as far as it is known without its orchestrator's objects,
// and what is wrong with its rights there. It starts nothing and changes nothing.
func check(ctx context.Context, w io.Writer, set *manifest.Set) error {
	self, err := identity(set)
	if err != nil {
		return err
	}
	engine, err := policy.Compile(set.Policies)
	if err != nil {
		return err
	}
	v := view{set: set, engine: engine, self: self, orchestrator: neutral.Orchestrator(set.Gateway.Spec.Orchestrator.Type),
		ready: func(string) bool { return true }}
	authority, err := storedAuthority(ctx, set, self)
	switch {
	case err == nil:
		if v.pair, err = authority.Issue(time.Now(), time.Hour); err != nil {
			return err
		}
		home, err := openHome(set, "")
		if err != nil {
			return err
		}
		defer home.Close()
		if v.bundles, err = trust.OpenPeers(home, self).List(); err != nil {
			fmt.Fprintf(w, "warning: %v\n", err)
		}
		present := func() *trust.Authority { return authority }
		if v.apis, err = newAPICertificates(present, set.Gateway.Spec.Suffix).identities(set, time.Now()); err != nil {
			return err
		}
	case errors.Is(err, os.ErrNotExist):
		fmt.Fprintf(w, "warning: %s has no certificate authority; isthmus trust init makes it\n", trustDir(set))
	case errors.Is(err, errInSecret):
		fmt.Fprintf(w, "warning: %v\n", err)
	default:
		return err
	}
	callers := set.Gateway.Spec.Callers
	known, err := caller.New(caller.Config{Tokens: callers.Tokens.File, ClientCA: callers.ClientCA})
	if err != nil {
		return err
	}
	authorities, _ := known.Authorities()
	v.authorities = string(authorities.PEM)
	model, untrusted := v.compile()
	for _, warning := range set.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning.Error())
	}
	for _, name := range untrusted {
		fmt.Fprintf(w, "warning: no trust bundle of peer %s was imported; nothing can cross to it\n", name)
	}
	for _, warning := range rights(ctx, set) {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	fmt.Fprintf(w, "cluster       %s (%s)\nidentity      %s\n", self.Cluster, set.Gateway.Spec.Orchestrator.Type, self)
	fmt.Fprintf(w, "for peers     %s\nfor callers   %s\nfor admins    %s\n", set.Gateway.Spec.Listeners.Peer,
		set.Gateway.Spec.Listeners.HTTP, set.Gateway.Spec.Listeners.Admin)
	fmt.Fprintf(w, "callers       %s\n", callersText(callers))
	for _, p := range set.Peers {
		id := peering.Identity{TrustDomain: p.Spec.TrustDomain, Cluster: p.Metadata.Name}
		fmt.Fprintf(w, "peer          %s %s at %v%s%s\n", p.Metadata.Name, id, p.Spec.Addresses, tunnels(p), suspended(p))
	}
	for _, p := range set.Policies {
		fmt.Fprintf(w, "policy        %s: %d rules for %s\n", p.Metadata.Name, len(p.Spec.Allow), subjects(p.Spec.From))
	}
	if len(model.Identity.Certificate) == 0 {
		return nil // without a certificate there is no configuration to build
	}
	built, err := snapshot.Build(model)
	if err != nil {
		return err
	}
	for _, t := range snapshot.Types {
		for _, r := range built.Resources(t) {
			fmt.Fprintf(w, "envoy         %s %s\n", t[len("type.googleapis.com/"):], r.Name)
		}
	}
	return nil
}

// callersText tells how callers are known, and where they need not be.
func callersText(c manifest.Callers) string {
	ways := []string{"users of the Unix sockets"}
	for _, way := range []struct {
		there bool
		text  string
	}{{c.Tokens.File != "", "tokens of " + c.Tokens.File}, {c.ClientCA != "", "certificates by " + c.ClientCA}, {c.TokenReview != nil, "tokens of the cluster"}} {
		if way.there {
			ways = append(ways, way.text)
		}
	}
	text := strings.Join(ways, ", ")
	if len(c.Unauthenticated) > 0 {
		text += "; anybody for "
		for i, place := range c.Unauthenticated {
			if i > 0 {
				text += ", "
			}
			text += string(place)
		}
	}
	return text
}

func subjects(from []manifest.Subject) string {
	var all []string
	for _, s := range from {
		text := s.Peer
		if s.Caller != "" {
			text += " as " + s.Caller
		}
		if s.Group != "" {
			text += " in " + s.Group
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func tunnels(p manifest.Peer) string {
	if p.Spec.ReverseTunnel.Role == manifest.TunnelNone {
		return ""
	}
	return " (" + link(p.Spec) + ")"
}

func suspended(p manifest.Peer) string {
	if p.Spec.Suspended {
		return " (suspended)"
	}
	return ""
}
