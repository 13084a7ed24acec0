package manifest

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/policy/glob"
)

// maxSocketPath is what a Unix socket's address holds on Linux.
const maxSocketPath = 107

// validate holds the documents against each other and fills what is derived. It works on sets that have errors too, so
// that one run reports all of them.
func validate(set *Set, sources []Source, issues *Issues) {
	validateCount(set, sources, issues)
	derive(set)
	if len(set.gateways) > 0 {
		validateOrchestrator(set.Gateway, issues)
		validateAuthority(set.Gateway, issues)
		validateState(&set.Gateway, issues)
		validateCallers(set, issues)
		if !set.Gateway.Spec.Listeners.Admin.Addr().IsLoopback() && set.Gateway.Spec.Listeners.Admin.IsValid() {
			set.Warnings.add(set.Gateway.At("spec.listeners.admin"), "spec.listeners.admin",
				"%s is no loopback address: whoever reaches it reads metrics and state", set.Gateway.Spec.Listeners.Admin)
		}
	}
	validateNames(set, issues)
	validateTrust(set, issues)
	validateTunnels(set, issues)
	validateListeners(set, issues)
	validateSockets(set, issues)
	validateSubjects(set)
	validateLeases(set, issues)
}

// Bounds of the times of leases.
const (
	minLinger  = time.Second
	maxLinger  = time.Hour
	maxLongest = 7 * 24 * time.Hour
)

// validateLeases refuses times of leases that cannot be.
func validateLeases(set *Set, issues *Issues) {
	g := set.Gateway
	linger, err := time.ParseDuration(g.Spec.Leases.Linger)
	if err != nil {
		return // told by its format
	}
	if linger < minLinger || linger > maxLinger {
		issues.add(g.At("spec.leases.linger"), "spec.leases.linger", "must be from %s to %s", minLinger, maxLinger)
	}
	longest, err := time.ParseDuration(g.Spec.Leases.Longest)
	if err == nil && (longest < linger || longest > maxLongest) {
		issues.add(g.At("spec.leases.longest"), "spec.leases.longest", "must be from linger, %s, to %s", linger, maxLongest)
	}
}

// validateCallers refuses ways to know callers that cannot be, and warns of listeners that let in nobody, or anybody.
func validateCallers(set *Set, issues *Issues) {
	g, callers := set.Gateway, set.Gateway.Spec.Callers
	if callers.TokenReview != nil && g.Spec.Orchestrator.Type == Docker {
		issues.add(g.At("spec.callers.tokenReview"), "spec.callers.tokenReview", "the orchestrator's type is %s", g.Spec.Orchestrator.Type)
	}
	for _, p := range set.Peers {
		if tls := p.Spec.API.TLS; (tls.CertFile == "") != (tls.KeyFile == "") {
			issues.add(p.At("spec.api.tls"), "spec.api.tls", "certFile and keyFile go together")
		}
		listen := p.Spec.API.Listen
		switch {
		case !listen.IsValid() || len(set.gateways) == 0:
		case callers.Open(CallersOfAPI) && !listen.Addr().IsLoopback():
			set.Warnings.add(p.At("spec.api.listen"), "spec.api.listen", "%s is no loopback address, and spec.callers.unauthenticated "+
				"of the Gateway has api: whoever reaches it operates the peer", listen)
		case !callers.Open(CallersOfAPI) && !callers.Known():
			set.Warnings.add(p.At("spec.api.listen"), "spec.api.listen", "nobody can use it: spec.callers of the Gateway says "+
				"neither how callers are known nor that those without a credential may come (unauthenticated: [api])")
		}
	}
}

func validateCount(set *Set, sources []Source, issues *Issues) {
	if len(set.gateways) == 0 {
		// Without a file nothing else is worth saying, and a document that failed was reported.
		if len(*issues) == 0 {
			var names []string
			for _, s := range sources {
				names = append(names, s.Name)
			}
			issues.add(Position{}, "", "no Gateway document in %s", strings.Join(names, ", "))
		}
		return
	}
	first := set.gateways[0]
	for _, g := range set.gateways[1:] {
		issues.add(g.document, "kind", "a second Gateway; the first is at %s", first.document)
	}
}

// derive fills the fields whose defaults are made of other fields.
func derive(set *Set) {
	g := &set.Gateway
	if g.Spec.TrustDomain == "" {
		g.Spec.TrustDomain = g.Metadata.Name + "." + g.Spec.Suffix
	}
	if g.Spec.Audit.Path == "" {
		g.Spec.Audit.Path = strings.TrimSuffix(g.Spec.StateDir, "/") + "/audit.log"
	}
	// The other type's defaults mean nothing here.
	switch g.Spec.Orchestrator.Type {
	case Docker:
		g.Spec.Orchestrator.Kubernetes = KubernetesOrchestrator{}
	case Kubernetes:
		g.Spec.Orchestrator.Docker = DockerOrchestrator{}
	}
	for i := range set.Peers {
		if p := &set.Peers[i]; p.Spec.TrustDomain == "" {
			p.Spec.TrustDomain = p.Metadata.Name + "." + g.Spec.Suffix
		}
	}
}

func validateOrchestrator(g Gateway, issues *Issues) {
	for _, t := range []OrchestratorType{Docker, Kubernetes} {
		path := "spec.orchestrator." + string(t)
		if _, written := g.fields[path]; written && t != g.Spec.Orchestrator.Type && g.Spec.Orchestrator.Type != "" {
			issues.add(g.At(path), path, "the orchestrator's type is %s", g.Spec.Orchestrator.Type)
		}
	}
}

func validateNames(set *Set, issues *Issues) {
	peers, policies := map[string]Position{}, map[string]Position{}
	for _, p := range set.Peers {
		unique(peers, "Peer", p.Metadata.Name, p.origin, issues)
		if p.Metadata.Name != "" && len(set.gateways) > 0 && p.Metadata.Name == set.Gateway.Metadata.Name {
			issues.add(p.At("metadata.name"), "metadata.name", "%q is this gateway itself", p.Metadata.Name)
		}
	}
	for _, p := range set.Policies {
		unique(policies, "AccessPolicy", p.Metadata.Name, p.origin, issues)
	}
}

func unique(seen map[string]Position, kind, name string, o origin, issues *Issues) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		issues.add(o.At("metadata.name"), "metadata.name", "a second %s %q; the first is at %s", kind, name, first)
		return
	}
	seen[name] = o.At("metadata.name")
}

// validateTrust refuses a trust domain of two gateways: each one's trust bundle is found by its trust domain.
func validateTrust(set *Set, issues *Issues) {
	owners := map[string]string{}
	if len(set.gateways) > 0 {
		owners[set.Gateway.Spec.TrustDomain] = "this gateway"
	}
	for _, p := range set.Peers {
		if p.Metadata.Name == "" || p.Metadata.Name == set.Gateway.Metadata.Name {
			continue
		}
		if owner, ok := owners[p.Spec.TrustDomain]; ok && owner != "peer "+p.Metadata.Name {
			issues.add(p.At("spec.trustDomain"), "spec.trustDomain", "%q is the trust domain of %s", p.Spec.TrustDomain, owner)
			continue
		}
		owners[p.Spec.TrustDomain] = "peer " + p.Metadata.Name
	}
}

// validateTunnels holds what a peer's tunnels are against whether it can be dialled.
func validateTunnels(set *Set, issues *Issues) {
	for _, p := range set.Peers {
		switch role := p.Spec.ReverseTunnel.Role; {
		case role == TunnelDial && len(p.Spec.Addresses) == 0:
			issues.add(p.At("spec.reverseTunnel.role"), "spec.reverseTunnel.role", "tunnels are dialled, and there are no spec.addresses")
		case role == TunnelAccept && len(p.Spec.Addresses) > 0:
			issues.add(p.At("spec.reverseTunnel.role"), "spec.reverseTunnel.role", "requests go by the tunnels that the peer leaves, "+
				"and not to spec.addresses: leave one of the two out")
		}
	}
}

func validateListeners(set *Set, issues *Issues) {
	type listener struct {
		address netip.AddrPort
		name    string
		at      Position
	}
	var all []listener
	check := func(o origin, path string, address netip.AddrPort, zero bool) {
		if !address.IsValid() {
			return
		}
		l := listener{address: address, name: path, at: o.At(path)}
		if address.Port() == 0 {
			if !zero {
				issues.add(l.at, path, "%s: port 0 has no meaning here: nobody would find the listener", address)
			}
			return
		}
		for _, other := range all {
			if clash(address, other.address) {
				issues.add(l.at, path, "%s clashes with %s %s (%s)", address, other.name, other.address, other.at)
				return
			}
		}
		all = append(all, l)
	}
	if len(set.gateways) > 0 {
		g := set.Gateway
		check(g.origin, "spec.listeners.peer", g.Spec.Listeners.Peer, false)
		check(g.origin, "spec.listeners.http", g.Spec.Listeners.HTTP, false)
		check(g.origin, "spec.listeners.admin", g.Spec.Listeners.Admin, true)
		check(g.origin, "spec.listeners.health", g.Spec.Listeners.Health, false)
	}
	for _, p := range set.Peers {
		check(p.origin, "spec.api.listen", p.Spec.API.Listen, false)
	}
}

// clash tells whether two TCP listeners cannot both be bound. An unspecified IPv6 address is taken to listen on IPv4
// as well, which is the system's default.
func clash(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	covers := func(wide, narrow netip.Addr) bool {
		return wide.IsUnspecified() && (wide.Is6() || narrow.Is4())
	}
	return x == y || covers(x, y) || covers(y, x)
}

func validateSockets(set *Set, issues *Issues) {
	if len(set.gateways) == 0 || set.Gateway.Spec.RunDir == "" {
		return
	}
	longest := "extproc.sock"
	for _, p := range set.Peers {
		if name := p.Metadata.Name + ".sock"; len(name) > len(longest) {
			longest = name
		}
	}
	path := strings.TrimSuffix(set.Gateway.Spec.RunDir, "/") + "/" + longest
	if len(path) > maxSocketPath {
		issues.add(set.Gateway.At("spec.runDir"), "spec.runDir",
			"too long for a Unix socket: %s has %d bytes of %d", path, len(path), maxSocketPath)
	}
}

// validateSubjects warns of policies that are for nobody. It is no error: policies may be written before peers join.
func validateSubjects(set *Set) {
	for _, p := range set.Policies {
		for i, subject := range p.Spec.From {
			pattern, err := glob.Compile(subject.Peer)
			if err != nil || pattern.Any() {
				continue
			}
			matched := false
			var names []string
			for _, peer := range set.Peers {
				names = append(names, peer.Metadata.Name)
				matched = matched || pattern.Match(peer.Metadata.Name)
			}
			if matched {
				continue
			}
			path := fmt.Sprintf("spec.from[%d].peer", i)
			if name, ok := pattern.Literal(); ok {
				set.Warnings.add(p.At(path), path, "there is no Peer %q%s", name, suggest(name, names))
			} else {
				set.Warnings.add(p.At(path), path, "no Peer matches %q", subject.Peer)
			}
		}
	}
}
