package snapshot

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/resource"
)

// The parts of a Model.
type (
	// Gateway is this cluster's gateway.
	Gateway = resource.Gateway
	// Limit bounds the requests of one peer.
	Limit = resource.Limit
	// Rate is a number of requests.
	Rate = resource.Rate
	// Tracing sends Envoy's spans to a collector.
	Tracing = resource.Tracing
	// Callers are this cluster's own.
	Callers = resource.Callers
	// Identity is what this gateway shows to its peers.
	Identity = resource.Identity
	// Peer is another cluster's gateway.
	Peer = resource.Peer
	// Tunnels says how a peer is reached where one side cannot be dialled.
	Tunnels = resource.Tunnels
	// Service is an exported service with the peers that may query it.
	Service = resource.Service
	// Access is a listener of raw TCP to a container or service of a peer.
	Access = resource.Access
)

// Model is all that Envoy's configuration is made of.
type Model struct {
	Gateway  Gateway
	Identity Identity
	Peers    []Peer
	Services []Service // exported ones
	Accesses []Access
	Upstream neutral.Upstream // the orchestrator's API; the zero Upstream is none
}

// label is a DNS label, of which names are made.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// isServiceName tells whether a service's name or namespace can be part of a host name; Swarm's have dots and
// underscores.
func isServiceName(s string) bool {
	alphanumeric := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }
	if s == "" || len(s) > 253 || !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// accessName is what a listener's name is made of.
var accessName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,251}[a-zA-Z0-9])?$`)

// printable is what fits a header's value.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// Validate tells everything that is wrong with a model, its services aside: Build leaves bad ones out.
func (m Model) Validate() error {
	return errors.Join(m.gateway(), m.peers(), m.accesses(), m.listeners(), m.upstream())
}

func (m Model) gateway() error {
	var errs []error
	g := m.Gateway
	if !label.MatchString(g.Cluster) {
		errs = append(errs, fmt.Errorf("cluster name %q is not a DNS label", g.Cluster))
	}
	for _, l := range strings.Split(g.Suffix, ".") {
		if g.Suffix != "" && !label.MatchString(l) {
			errs = append(errs, fmt.Errorf("suffix %q is not a DNS name", g.Suffix))
			break
		}
	}
	if !strings.HasPrefix(g.RunDir, "/") {
		errs = append(errs, fmt.Errorf("run directory %q is not an absolute path", g.RunDir))
	} else if err := resource.CheckAddress(g.RunDir + "/" + names.AdminSocket); err != nil {
		errs = append(errs, fmt.Errorf("run directory: %w", err))
	}
	for what, a := range map[string]string{"peer listener": g.Peer, "edge listener": g.Edge, "tracing collector": g.Tracing.Collector} {
		if a == "" {
			continue
		}
		if err := resource.CheckAddress(a); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if !printable(g.AccessLog) || g.AccessLog != "" && !strings.HasPrefix(g.AccessLog, "/") {
		errs = append(errs, fmt.Errorf("access log %q is not an absolute path", g.AccessLog))
	}
	if a := g.Callers.Authorities; a != "" && !isPEM([]byte(a), "CERTIFICATE") {
		errs = append(errs, errors.New("the authorities of callers are not PEM certificates"))
	}
	if p := g.Tracing.Percent; !(p >= 0 && p <= 100) {
		errs = append(errs, fmt.Errorf("tracing of %v percent", p))
	}
	if len(m.Peers) > 0 {
		if !isPEM(m.Identity.Certificate, "CERTIFICATE") || !isPEM(m.Identity.Key, "PRIVATE KEY") {
			errs = append(errs, errors.New("the peer link needs a certificate and its key in PEM"))
		}
	}
	return errors.Join(errs...)
}

func (m Model) peers() error {
	var errs []error
	seen := map[string]bool{m.Gateway.Cluster: true}
	ids := map[string]string{}
	bundles := map[string]Peer{}
	for _, p := range m.Peers {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("peer %q: "+format, append([]any{p.Name}, args...)...))
		}
		if !label.MatchString(p.Name) {
			fail("the name is not a DNS label")
		}
		if seen[p.Name] {
			fail("the name is taken")
		}
		seen[p.Name] = true
		if err := CheckID(p.ID, p.TrustDomain); err != nil {
			fail("%w", err)
		}
		if other, ok := ids[p.ID]; ok {
			fail("has the SPIFFE id of peer %q", other)
		}
		ids[p.ID] = p.Name
		if !isPEM(p.Bundle, "CERTIFICATE") {
			fail("the trust bundle is not PEM certificates")
		}
		// Whoever holds a CA of a trust domain can be anybody in it, so two CAs for one domain is a break-in.
		if other, ok := bundles[p.TrustDomain]; ok && !bytes.Equal(other.Bundle, p.Bundle) {
			fail("trust domain %q is peer %q's already, with another bundle", p.TrustDomain, other.Name)
		}
		bundles[p.TrustDomain] = p
		for _, a := range p.Addresses {
			if err := resource.CheckAddress(a); err != nil || strings.HasPrefix(a, "/") {
				fail("address %q is not host:port", a)
			}
		}
		if t := p.Tunnels; t.Dialled > 0 && (len(p.Addresses) == 0 || m.Gateway.Peer == "") {
			fail("tunnels need its addresses, and a peer listener")
		} else if t.Accepted && t.Dialled > 0 {
			fail("only one side dials tunnels")
		}
		if p.API != "" {
			if err := resource.CheckAddress(p.API); err != nil {
				fail("API listener: %w", err)
			}
			if i := p.APIIdentity; len(i.Certificate) > 0 && (!isPEM(i.Certificate, "CERTIFICATE") || !isPEM(i.Key, "PRIVATE KEY")) {
				fail("the API listener's certificate and its key are not PEM")
			} else if len(i.Certificate) == 0 && !strings.HasPrefix(p.API, "/") {
				fail("the API listener has no certificate: what callers show would be read on its way")
			}
			for _, name := range p.APINames {
				if resource.CheckAddress(net.JoinHostPort(name, "1")) != nil || strings.ContainsAny(name, "*/") {
					fail("API listener: %q is no name", name)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// CheckID tells whether id is a SPIFFE id of a trust domain.
func CheckID(id, domain string) error {
	rest, ok := strings.CutPrefix(id, "spiffe://"+domain+"/")
	if domain == "" || !ok || rest == "" || strings.ContainsAny(id, ", %?#\"\\") {
		return fmt.Errorf("%q is not a SPIFFE id of trust domain %q", id, domain)
	}
	return nil
}

// usable sorts the services that can have a route and tells why others cannot. What runs in a cluster names its own
// services, so a bad one must not take the others with it.
func (m Model) usable() ([]Service, []error) {
	known := make(map[string]bool, len(m.Peers))
	for _, p := range m.Peers {
		known[p.ID] = true
	}
	type named struct {
		id string // lower case, as names of hosts compare
		Service
	}
	sorted := make([]named, len(m.Services))
	for i, s := range m.Services {
		sorted[i] = named{strings.ToLower(s.ID()), s}
	}
	slices.SortStableFunc(sorted, func(a, b named) int {
		// Of two that differ by case alone the one in lower case comes first, and stays.
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(b.Name, a.Name), cmp.Compare(b.Namespace, a.Namespace))
	})
	var errs []error
	services := make([]Service, 0, len(sorted))
	last := ""
	for _, s := range sorted {
		switch {
		case !slices.ContainsFunc(slices.Concat(s.Peers, s.ByCaller), func(id string) bool { return known[id] }):
			continue // nobody who may query it can come in
		case !isServiceName(s.Name) || !isServiceName(s.Namespace):
			errs = append(errs, fmt.Errorf("service %q cannot be part of a host name", s.ID()))
			continue
		case s.id == last:
			errs = append(errs, fmt.Errorf("service %q is there twice", s.ID()))
			continue
		}
		last = s.id
		ports := make([]neutral.ServicePort, 0, len(s.Ports))
		for _, p := range s.Ports {
			if resource.Served(p) && p.Number != 0 &&
				!slices.ContainsFunc(ports, func(q neutral.ServicePort) bool { return q.Number == p.Number }) {
				ports = append(ports, p)
			}
		}
		s.Ports = ports
		services = append(services, s.Service)
	}
	return services, errs
}

func (m Model) accesses() error {
	var errs []error
	known := map[string]bool{}
	for _, p := range m.Peers {
		known[p.Name] = true
	}
	seen := map[string]bool{}
	for _, a := range m.Accesses {
		switch {
		case !accessName.MatchString(a.Name) || seen[a.Name]:
			errs = append(errs, fmt.Errorf("access %q: the name is taken or not usable", a.Name))
		case !known[a.Peer]:
			errs = append(errs, fmt.Errorf("access %q: there is no peer %q", a.Name, a.Peer))
		case resource.CheckAddress(a.Authority) != nil || strings.HasPrefix(a.Authority, "/") || !printable(a.Authority):
			errs = append(errs, fmt.Errorf("access %q: the target %q is not name:port", a.Name, a.Authority))
		case !printable(a.Caller + a.Node + a.NetworkMode + a.Layer):
			errs = append(errs, fmt.Errorf("access %q: a header's value is not printable", a.Name))
		}
		seen[a.Name] = true
		if err := resource.CheckAddress(a.Listen); err != nil {
			errs = append(errs, fmt.Errorf("access %q: %w", a.Name, err))
		}
	}
	return errors.Join(errs...)
}

// listeners makes sure that no two want one address, which Envoy would refuse together with all other listeners.
func (m Model) listeners() error {
	var errs []error
	taken := map[string]string{}
	take := func(who, at string) {
		if other, ok := taken[at]; ok && at != "" {
			errs = append(errs, fmt.Errorf("%s and %s both listen on %s", other, who, at))
		}
		taken[at] = who
	}
	take("the edge's socket", m.Gateway.RunDir+"/"+names.EdgeSocket)
	take("the peer listener", m.Gateway.Peer)
	take("the edge listener", m.Gateway.Edge)
	for _, p := range m.Peers {
		take(fmt.Sprintf("the API listener of peer %q", p.Name), p.API)
	}
	for _, a := range m.Accesses {
		take(fmt.Sprintf("access %q", a.Name), a.Listen)
	}
	return errors.Join(errs...)
}

func (m Model) upstream() error {
	u := m.Upstream
	switch {
	case !printable(u.Host + u.ServerName + u.Token):
		return errors.New("orchestrator: host, server name or token is not printable")
	case (u.Socket != "" || u.Address != "") && m.Gateway.Orchestrator == "":
		return errors.New("orchestrator: it has no type")
	case u.Socket != "" && u.Address != "":
		return errors.New("orchestrator: a socket and an address are given")
	case u.Socket != "":
		return resource.CheckAddress(u.Socket)
	case u.Address != "":
		if err := resource.CheckAddress(u.Address); err != nil {
			return fmt.Errorf("orchestrator: %w", err)
		}
		if len(u.CA) > 0 && !isPEM(u.CA, "CERTIFICATE") {
			return errors.New("orchestrator: the CA is not PEM")
		}
		if len(u.Cert) > 0 && (!isPEM(u.Cert, "CERTIFICATE") || !isPEM(u.Key, "PRIVATE KEY")) {
			return errors.New("orchestrator: the client certificate and its key are not PEM")
		}
	}
	return nil
}

// isPEM tells whether data begins with a PEM block whose type ends so.
func isPEM(data []byte, kind string) bool {
	block, _ := pem.Decode(data)
	return block != nil && strings.HasSuffix(block.Type, kind)
}
