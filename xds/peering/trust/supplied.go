package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Material is what an admin supplies in place of a gateway's own authority, in cert-manager's layout. The certificate is
// one of two: an issuing authority's, from which the gateway issues its short-lived certificates, or the gateway's own
// certificate, which is used as it is.
type Material struct {
	CA          []byte // ca.crt: the roots, which peers will trust
	Certificate []byte // tls.crt: the certificate, and what is between it and a root
	Key         []byte // tls.key
}

// Equal compares.
func (m Material) Equal(n Material) bool {
	return bytes.Equal(m.CA, n.CA) && bytes.Equal(m.Certificate, n.Certificate) && bytes.Equal(m.Key, n.Key)
}

const minRSA = 2048 // bits

// Supplied judges what the admin supplies for a gateway, strictly: what passes here passes at every peer that imported
// the bundle. Number follows.
func Supplied(m Material, identity peering.Identity, now time.Time) (*Authority, error) {
	a, err := supplied(m, identity, now)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return a, nil
}

func supplied(m Material, identity peering.Identity, now time.Time) (*Authority, error) {
	roots, more, err := suppliedRoots(m.CA, now)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	chain, err := parseCertificates(m.Certificate)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	key, err := suppliedKey(m.Key)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	certificate := chain[0]
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certificate.PublicKey) {
		return nil, errors.New("tls.key is not the key of the first certificate of tls.crt")
	}
	if err := withinLife(certificate, now); err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	// A root may be its own issuing authority; then there is nothing between.
	verified, err := verifySupplied(certificate, roots, append(chain[1:], more...), now)
	if err != nil {
		return nil, err
	}
	// The root of the chain is first, since it is the one that an invitation's token names.
	root := verified[len(verified)-1]
	roots = append([]*x509.Certificate{root}, slices.DeleteFunc(roots, root.Equal)...)
	bundle, err := newExternalBundle(identity, roots)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	a := &Authority{identity: identity, bundle: bundle, chain: verified, end: endOf(verified)}
	if !mayIssue(certificate) {
		return a, a.supplyCertificate(m, identity, verified, now)
	}
	a.certificate, a.key = certificate, key
	// Name constraints, path lengths and extended usages of any certificate above show in what would be issued.
	pair, err := a.Issue(now, time.Hour)
	if err != nil {
		return nil, err
	}
	issued, err := parseCertificates(pair.CertificatePEM)
	if err != nil {
		return nil, err
	}
	if err := a.passes(issued[0], now); err != nil {
		return nil, fmt.Errorf("tls.crt: the authority may not issue the gateway's certificate: %w", err)
	}
	return a, nil
}

// suppliedRoots are the certificates of ca.crt: those that signed themselves, which Envoys build a chain up to, and the
// others.
func suppliedRoots(text []byte, now time.Time) (roots, more []*x509.Certificate, err error) {
	all, err := parseCertificates(text)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range all {
		if !mayIssue(c) {
			return nil, nil, fmt.Errorf("%q is no authority: it may not sign others", c.Subject)
		}
		if err := strong(c.PublicKey); err != nil {
			return nil, nil, err
		}
		switch {
		case c.CheckSignatureFrom(c) != nil:
			more = append(more, c)
		case now.Before(c.NotAfter): // a root that ended is of no use, and stays in files for long
			roots = append(roots, c)
		}
	}
	if len(roots) == 0 {
		return nil, nil, errors.New("it holds no root (a certificate that signed itself) that is in force: peers' Envoys trust nothing less")
	}
	return roots, more, nil
}

func suppliedKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one PEM block with a private key")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %.40q is no private key that can be used (it must not be encrypted)", block.Type)
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read") // no word of what is in it
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", parsed)
	}
	return key, strong(key.Public())
}

// strong tells why Envoy would not take a public key.
func strong(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("a key on curve %s is too weak", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key of %d bits is too short: at least %d", k.N.BitLen(), minRSA)
		}
	default:
		return fmt.Errorf("a key of type %T is not taken by Envoy: use ECDSA or RSA", public)
	}
	return nil
}

func withinLife(c *x509.Certificate, now time.Time) error {
	if !now.Before(c.NotAfter) {
		return fmt.Errorf("the certificate %q ended at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Add(skew).Before(c.NotBefore) {
		return fmt.Errorf("the certificate %q begins only at %s; is the clock right?", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// verifySupplied is the chain from the certificate to a root.
func verifySupplied(c *x509.Certificate, roots, between []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if slices.ContainsFunc(roots, c.Equal) {
		return []*x509.Certificate{c}, nil
	}
	chains, err := c.Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(between), CurrentTime: later(now, c), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("tls.crt leads to no root of ca.crt: %w", err)
	}
	return chains[0], nil
}

// later allows for a certificate that begins in a moment: the clock of who issued it may be ahead.
func later(now time.Time, c *x509.Certificate) time.Time {
	if now.Before(c.NotBefore) {
		return c.NotBefore
	}
	return now
}

func endOf(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// supplyCertificate takes the gateway's certificate as it is.
func (a *Authority) supplyCertificate(m Material, identity peering.Identity, verified []*x509.Certificate, now time.Time) error {
	c := verified[0]
	switch {
	case c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("tls.crt is neither an issuing authority's certificate (CA, and usage cert sign) nor a gateway's (no CA, no usage cert sign or CRL sign)")
	case len(c.URIs) != 1 || c.URIs[0].String() != identity.String():
		return fmt.Errorf("tls.crt must have exactly one URI among its names, %s; it has %v", identity, c.URIs)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("tls.crt has no usage digital signature, which TLS needs")
	}
	if err := a.passes(c, now); err != nil {
		return fmt.Errorf("tls.crt cannot be used as a gateway's: %w", err)
	}
	pair := Pair{KeyPEM: m.Key, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	for _, c := range verified {
		pair.CertificatePEM = append(pair.CertificatePEM, pemOf("CERTIFICATE", c.Raw)...)
	}
	if _, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM); err != nil {
		return fmt.Errorf("tls.crt and tls.key: %w", err)
	}
	a.supplied = &pair
	return nil
}

// passes tells why peers would not take a certificate, as a server's or as a client's.
func (a *Authority) passes(c *x509.Certificate, now time.Time) error {
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{
			Roots: pool(a.bundle.certificates), Intermediates: pool(a.chain), CurrentTime: later(now, c), KeyUsages: []x509.ExtKeyUsage{usage},
		}); err != nil {
			what := "server"
			if usage == x509.ExtKeyUsageClientAuth {
				what = "client"
			}
			return fmt.Errorf("as a %s: %w", what, err)
		}
	}
	return nil
}

// suppliedState is what must be remembered of what an admin supplied: when it changed.
type suppliedState struct {
	Serial uint64 `json:"serial"`
	Bundle string `json:"bundle"` // its certificates
}

const suppliedName = "supplied.json"

// Number gives the bundle of a supplied authority its serial: the one that it had when it was recorded, or one above it
// where its roots changed since.
func (a *Authority) Number(dir string, now time.Time) (*Authority, error) {
	var state suppliedState
	if err := durable.ReadJSON(filepath.Join(dir, suppliedName), &state); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if state.Bundle != "" && state.Bundle != string(a.bundle.CertificatesPEM) {
		state.Serial = nextSerial(state.Serial, now)
	}
	numbered := *a
	numbered.bundle.Serial = state.Serial
	if err := numbered.sign(); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return &numbered, nil
}

// Record makes the folder remember what peers are told from now on.
func (a *Authority) Record(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	state := suppliedState{Serial: a.bundle.Serial, Bundle: string(a.bundle.CertificatesPEM)}
	if err := durable.WriteJSON(filepath.Join(dir, suppliedName), state); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return nil
}
