package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// apiCertificates are what the TCP listeners of peers' APIs show: the admin's files, or certificates of the gateway's own
// authority.
type apiCertificates struct {
	authority func() *trust.Authority // nil while the admin has supplied none
	suffix    string

	mu  sync.Mutex
	all map[string]apiCertificate // by peer
}

type apiCertificate struct {
	hosts  []string // of one that was issued
	issuer string   // fingerprint
	pair   trust.Pair
	parts  tls.Certificate
}

func newAPICertificates(authority func() *trust.Authority, suffix string) *apiCertificates {
	return &apiCertificates{authority: authority, suffix: suffix, all: map[string]apiCertificate{}}
}

// of is what a peer's listener shows now. Files that cannot be used leave what was there before.
func (c *apiCertificates) of(p manifest.Peer, now time.Time) (trust.Pair, tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	had, ok := c.all[p.Metadata.Name]
	fresh, err := c.next(p, had, now)
	if err != nil {
		if ok && now.Before(had.pair.NotAfter) {
			return had.pair, had.parts, err
		}
		return trust.Pair{}, tls.Certificate{}, err
	}
	c.all[p.Metadata.Name] = fresh
	return fresh.pair, fresh.parts, nil
}

// identities are what all listeners show. The error names those that cannot have a new one, or have none.
func (c *apiCertificates) identities(set *manifest.Set, now time.Time) (map[string]snapshot.Identity, error) {
	all := map[string]snapshot.Identity{}
	var errs []error
	for _, p := range set.Peers {
		if !p.Spec.API.Listen.IsValid() {
			continue
		}
		pair, _, err := c.of(p, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", p.Metadata.Name, err))
		}
		all[p.Metadata.Name] = snapshot.Identity{Certificate: pair.CertificatePEM, Key: pair.KeyPEM}
	}
	return all, errors.Join(errs...)
}

func (c *apiCertificates) next(p manifest.Peer, had apiCertificate, now time.Time) (apiCertificate, error) {
	if p.Spec.API.TLS.CertFile != "" {
		return readAPICertificate(p.Spec.API.TLS, had)
	}
	hosts := apiHosts(p, c.suffix)
	// The same two thirds after which the gateway's own certificate is renewed.
	due := had.pair.NotBefore.Add(had.pair.NotAfter.Sub(had.pair.NotBefore) * 2 / 3)
	authority := c.authority()
	if authority == nil {
		return had, errors.New("the gateway has no certificate authority at the moment")
	}
	if slices.Equal(had.hosts, hosts) && had.issuer == authority.Fingerprint() && now.Before(due) {
		return had, nil
	}
	pair, err := authority.IssueServer(now, trust.DefaultLife, hosts)
	if err != nil {
		return had, err
	}
	parts, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	return apiCertificate{hosts: hosts, issuer: authority.Fingerprint(), pair: pair, parts: parts}, err
}

func readAPICertificate(files manifest.PeerAPITLS, had apiCertificate) (apiCertificate, error) {
	certificate, err := os.ReadFile(files.CertFile)
	if err != nil {
		return had, err
	}
	key, err := os.ReadFile(files.KeyFile)
	if err != nil {
		return had, err
	}
	if string(certificate) == string(had.pair.CertificatePEM) && string(key) == string(had.pair.KeyPEM) {
		return had, nil
	}
	parts, err := tls.X509KeyPair(certificate, key) // its errors show no key
	if err != nil {
		return had, fmt.Errorf("%s and %s: %w", files.CertFile, files.KeyFile, err)
	}
	leaf, err := x509.ParseCertificate(parts.Certificate[0])
	if err != nil {
		return had, err
	}
	return apiCertificate{parts: parts, pair: trust.Pair{
		CertificatePEM: certificate, KeyPEM: key, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}}, nil
}

// apiHosts are the names and addresses by which clients reach the listener of a peer's API.
func apiHosts(p manifest.Peer, suffix string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1", names.APIHost(p.Metadata.Name, suffix)}
	more := slices.Clone(p.Spec.API.Names)
	if own := p.Spec.API.Listen.Addr(); own.IsValid() && !own.IsUnspecified() {
		more = append(more, own.String())
	}
	for _, host := range more {
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// apiTLS is the TLS of a peer's listener that isthmus serves itself.
func (g *gateway) apiTLS(peer string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			p, ok := g.set.Load().Peer(peer)
			if !ok {
				return nil, errors.New("the peer is gone")
			}
			_, certificate, err := g.certificates.of(p, time.Now())
			if len(certificate.Certificate) == 0 {
				return nil, err
			}
			// Sessions are not resumed: a resumed one would not be checked against the authorities known by then.
			config := &tls.Config{
				MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{certificate},
				SessionTicketsDisabled: true,
			}
			if authorities, ok := g.callers.Load().Authorities(); ok {
				config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, authorities.Pool
			}
			return config, nil
		},
	}
}
