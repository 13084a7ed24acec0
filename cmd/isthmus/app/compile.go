package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// view is what a compilation looks at; it is complete, so that --check compiles as the gateway does.
type view struct {
	set          *manifest.Set
	engine       *policy.Engine
	self         peering.Identity
	pair         trust.Pair
	bundles      []trust.PeerBundle
	services     []neutral.Service
	accesses     []AccessState
	upstream     neutral.Upstream
	orchestrator neutral.Orchestrator
	emulation    neutral.Orchestrator // for whose callers another API stands before it; "" for none
	ready        func(peer string) bool
	joining      bool // an invitation is open

	authorities string                       // of callers' certificates, PEM; "" for none
	apis        map[string]snapshot.Identity // what the listeners of peers' APIs show, by peer
}

// compile turns what the gateway knows into the model of Envoy's configuration. Peers without a trusted bundle are
// left out and named: nothing can cross to them.
func (v view) compile() (model snapshot.Model, untrusted []string) {
	spec := v.set.Gateway.Spec
	model = snapshot.Model{
		Gateway: snapshot.Gateway{
			Cluster: v.set.Gateway.Metadata.Name, Suffix: spec.Suffix, ID: v.self.String(), Orchestrator: v.orchestrator, Emulation: v.emulation,
			Peer: spec.Listeners.Peer.String(), Edge: spec.Listeners.HTTP.String(), RunDir: spec.RunDir,
			AccessLog: accessLog(spec),
		},
		Identity: snapshot.Identity{Certificate: v.pair.CertificatePEM, Key: v.pair.KeyPEM},
		Upstream: v.upstream,
	}
	model.Gateway.Joining = v.joining
	model.Gateway.Callers = snapshot.Callers{
		Authorities: v.authorities,
		Services:    spec.Callers.Open(manifest.CallersOfServices), Accesses: spec.Callers.Open(manifest.CallersOfAccesses),
	}
	if spec.Tracing.OTLP != "" {
		model.Gateway.Tracing = snapshot.Tracing{Collector: spec.Tracing.OTLP, Percent: 100}
	}
	bundles := map[string]trust.Bundle{}
	for _, b := range v.bundles {
		bundles[b.Peer] = b.Bundle
	}
	ids := map[string]string{}
	for _, p := range v.set.Peers {
		name := p.Metadata.Name
		if p.Spec.Suspended {
			continue
		}
		bundle, ok := bundles[name]
		if !ok || bundle.Identity.TrustDomain != p.Spec.TrustDomain {
			untrusted = append(untrusted, name)
			continue
		}
		id := peering.Identity{TrustDomain: p.Spec.TrustDomain, Cluster: name}.String()
		ids[name] = id
		if limit := limitOf(p.Spec.Limits, name); limit != (snapshot.Limit{Peer: name}) {
			model.Gateway.Limits = append(model.Gateway.Limits, limit)
		}
		peer := snapshot.Peer{Name: name, Addresses: p.Spec.Addresses, Tunnels: tunnelsOf(p.Spec, spec.Envoy.Concurrency), ID: id,
			TrustDomain: p.Spec.TrustDomain,
			Bundle:      bundle.CertificatesPEM, Ready: v.ready(name)}
		// Docker's clients have their front. Without a certificate there is no listener: credentials come by it.
		if identity := v.apis[name]; len(identity.Certificate) > 0 && v.orchestrator != neutral.Docker {
			peer.API, peer.APINames, peer.APIIdentity = p.Spec.API.Listen.String(), p.Spec.API.Names, identity
		}
		model.Peers = append(model.Peers, peer)
	}
	for _, s := range v.services {
		service := snapshot.Service{Service: s}
		queriers := v.engine.Queries(s, v.set.PeerNames())
		for _, peer := range queriers.Always {
			if id := ids[peer]; id != "" {
				service.Peers = append(service.Peers, id)
			}
		}
		for _, peer := range queriers.ByCaller {
			if id := ids[peer]; id != "" {
				service.ByCaller = append(service.ByCaller, id)
			}
		}
		model.Services = append(model.Services, service)
	}
	for _, a := range v.accesses {
		if ids[a.Peer] == "" || !spec.Callers.Open(manifest.CallersOfAccesses) {
			continue
		}
		model.Accesses = append(model.Accesses, snapshot.Access{
			Name: a.Name, Listen: a.Listen, Peer: a.Peer, Node: a.Node, NetworkMode: a.NetworkMode, Layer: a.Layer,
			Authority: accessAuthority(a, spec.Suffix),
		})
	}
	return model, untrusted
}

// tunnelsOf is what Envoy is told of a peer's tunnels: each of its workers keeps its share.
func tunnelsOf(p manifest.PeerSpec, workers int) snapshot.Tunnels {
	switch p.ReverseTunnel.Role {
	case manifest.TunnelDial:
		return snapshot.Tunnels{Dialled: (p.ReverseTunnel.Connections + workers - 1) / workers}
	case manifest.TunnelAccept:
		return snapshot.Tunnels{Accepted: true}
	}
	return snapshot.Tunnels{}
}

// limitOf is what Envoy counts of a peer's limits.
func limitOf(l manifest.Limits, peer string) snapshot.Limit {
	rate := func(perSecond, burst int) snapshot.Rate {
		if perSecond == 0 {
			return snapshot.Rate{}
		}
		return snapshot.Rate{PerSecond: uint32(perSecond), Burst: uint32(burst)} //nolint:gosec // the documents bound them
	}
	return snapshot.Limit{
		Peer: peer, Rate: rate(l.RequestsPerSecond, l.Burst), Caller: rate(l.Caller.RequestsPerSecond, l.Caller.Burst),
		Requests: uint32(l.ConcurrentRequests), //nolint:gosec // the documents bound it
	}
}

// syncPatience is how long Envoy's first configuration waits for the orchestrator. Within it a restarted isthmus
// leaves a running Envoy as it is; after it a gateway whose orchestrator is away serves what it can.
const syncPatience = 20 * time.Second

// recompile is how often what changes with time alone is looked at, as an invitation that ends.
const recompile = 2 * time.Second

// keepCompiled compiles whenever something changed, until ctx ends.
func (g *gateway) keepCompiled(ctx context.Context) error {
	changes := g.tracker.Subscribe()
	defer changes.Close()
	patience := time.NewTimer(syncPatience)
	defer patience.Stop()
	poll := time.NewTicker(recompile)
	defer poll.Stop()
	var warned, uncertified string
	patient := true
	var builder snapshot.Builder
	for {
		snap, catalogueChanged := g.catalogue.Changed()
		if pair := g.certificate(); (snap.Synced || !patient) && len(pair.CertificatePEM) > 0 {
			bundles := *g.trustedBundles.Load()
			set := g.set.Load()
			authorities, _ := g.callers.Load().Authorities()
			apis, err := g.certificates.identities(set, time.Now())
			if text := fmt.Sprint(err); text != uncertified {
				uncertified = text
				if err != nil {
					g.log.Error("the certificate of a peer's API cannot be had; the one before stays, or nobody listens", "err", err)
				}
			}
			model, untrusted := view{
				set: set, engine: g.engine.Load(), self: g.self, pair: pair, bundles: bundles,
				services: snap.Services, accesses: g.accesses.list(), upstream: g.target.Upstream(),
				orchestrator: g.dialect.Orchestrator(), emulation: g.emulation, ready: g.inSession, joining: g.invitations.AnyOpen(),
				authorities: string(authorities.PEM), apis: apis,
			}.compile()
			if text := fingerprint(untrusted); text != warned {
				warned = text
				for _, name := range untrusted {
					g.log.Warn("no trust bundle of the peer was imported, so nothing can cross (isthmus trust import)", "peer", name)
				}
			}
			if built, err := builder.Build(model); err != nil {
				g.log.Error("Envoy's configuration could not be made; the one before stays", "err", err)
			} else {
				for _, rejected := range built.Rejected {
					g.log.Warn("a service is left out of Envoy's configuration", "err", rejected)
				}
				g.xds.Set(built)
				g.departures.see(model.Peers)
				routable := map[string]bool{}
				for _, p := range model.Peers {
					routable[p.Name] = p.Ready
				}
				g.compiled.Store(&compilation{version: built.Version, trusts: fingerprints(bundles), routable: routable})
			}
			if err := g.node.SetLocal(g.configuration()); err != nil {
				g.log.Error("peers could not be told of a change", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.dirty:
		case <-changes.Changes():
		case <-catalogueChanged:
		case <-poll.C:
		case <-patience.C:
			patient = false
			if !snap.Synced {
				g.log.Warn("the orchestrator has not told its services yet; serving without them")
			}
		}
	}
}

// fingerprints are those of what is trusted of each peer.
func fingerprints(bundles []trust.PeerBundle) map[string][]string {
	all := make(map[string][]string, len(bundles))
	for _, b := range bundles {
		all[b.Peer] = b.Bundle.Fingerprints()
	}
	return all
}

// inSession tells whether requests may go to a peer: its isthmus may be away while its Envoy serves.
func (g *gateway) inSession(peer string) bool {
	status, ok := g.tracker.Peer(peer)
	return ok && status.Routable()
}

func (g *gateway) certificate() trust.Pair {
	g.pairMu.Lock()
	defer g.pairMu.Unlock()
	return g.pair
}

// renew keeps the gateway's certificate fresh until ctx ends.
func (g *gateway) renew(ctx context.Context) error {
	err := g.renewer.Run(ctx, func(pair trust.Pair) {
		g.pairMu.Lock()
		g.pair = pair
		g.pairMu.Unlock()
		g.touch()
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
