package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// unready lists what the gateway still waits for.
func (g *gateway) unready() []string {
	var why []string
	if g.system.Load() == nil {
		why = append(why, "the orchestrator does not answer")
	}
	if !g.catalogue.Snapshot().Synced {
		why = append(why, "the catalogue is not complete yet")
	}
	if problem := g.material.Load(); problem != nil && g.authority.Load() == nil {
		why = append(why, "no certificate: "+*problem)
	}
	if len(g.xds.Status().Envoys) == 0 {
		why = append(why, "no Envoy is connected")
	}
	if by := g.leader.Waiting(); by != "" {
		why = append(why, "another replica acts, this one stands by: "+by)
	}
	return why
}

func (g *gateway) peerStates() []PeerState {
	states, trusted := []PeerState{}, map[string]string{}
	for _, b := range *g.trustedBundles.Load() {
		trusted[b.Peer] = b.Bundle.Fingerprint
	}
	for _, p := range g.set.Load().Peers {
		state := PeerState{Name: p.Metadata.Name, State: "suspended", Declared: p.Position().File, Fingerprint: trusted[p.Metadata.Name],
			Link: link(p.Spec)}
		if status, ok := g.tracker.Peer(p.Metadata.Name); ok && !p.Spec.Suspended {
			state.State, state.Step = string(status.Condition), fmt.Sprint(status.Step)
			state.LastSeen, state.Session = status.LastSeen, status.Session
			if status.Condition != peering.Ready { // an error that was overcome is no news
				state.LastError = status.LastError
			} else if status.Unanswered > 1 {
				state.LastError = unreached(p.Spec, status.LastError)
			}
			if c := status.Configuration; c != nil {
				state.Orchestrator, state.Version = string(c.Orchestrator.Type), c.Orchestrator.Version
				state.Software, state.Identity = c.Software, c.Identity.String()
			}
		}
		states = append(states, state)
	}
	return states
}

// link says how a peer and this gateway reach each other.
func link(p manifest.PeerSpec) string {
	switch {
	case p.ReverseTunnel.Role == manifest.TunnelAccept:
		return "its reverse tunnels"
	case p.ReverseTunnel.Role == manifest.TunnelDial:
		return "dialled, reverse tunnels back"
	case len(p.Addresses) == 0:
		return "it dials, nothing goes to it"
	}
	return "dialled"
}

// unreached says of a peer in session that it reaches this gateway and is not reached by it.
func unreached(p manifest.PeerSpec, why string) string {
	if p.ReverseTunnel.Role == manifest.TunnelAccept {
		return "it reaches this gateway, but none of its reverse tunnels answers: " + why
	}
	return "it reaches this gateway, but cannot be reached at " + strings.Join(p.Addresses, ", ") +
		" (if nobody can dial it: isthmus peer join --behind-nat there): " + why
}

func (g *gateway) entries() []CatalogueEntry {
	set, engine := g.set.Load(), g.engine.Load()
	entries := []CatalogueEntry{}
	for _, s := range g.catalogue.Snapshot().Services {
		queriers := engine.Queries(s, set.PeerNames())
		entry := CatalogueEntry{
			Service: names.ServiceHost(s.Name, s.Namespace, set.Gateway.Metadata.Name, set.Gateway.Spec.Suffix),
			Peers:   slices.Clone(queriers.Always),
		}
		for _, peer := range queriers.ByCaller {
			entry.Peers = append(entry.Peers, peer+" (some callers)")
		}
		for _, p := range s.Ports {
			entry.Ports = append(entry.Ports, fmt.Sprintf("%d/%s", p.Number, p.App))
			entry.Endpoints += len(p.Endpoints)
		}
		entries = append(entries, entry)
	}
	return entries
}

// status is the whole state in one answer, for people and tests.
func (g *gateway) status() map[string]any {
	status := map[string]any{
		"cluster": g.self.Cluster, "identity": g.self.String(), "version": version, "orchestrator": g.dialect.Orchestrator(),
		"system": g.system.Load(), "unready": g.unready(), "xds": g.xds.Status(), "peers": g.peerStates(),
		"catalogueVersion": g.catalogue.Snapshot().Version,
	}
	if rejected := g.rejected.Load(); rejected != nil {
		status["rejectedDocuments"] = *rejected
	}
	return status
}
