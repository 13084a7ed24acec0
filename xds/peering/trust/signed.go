package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// signedContext keeps the signature of a bundle apart from every other use of an authority's key: no certificate begins
// with it.
const signedContext = "isthmus trust bundle, signed by its authority\x00"

// Signed is the bundle as peers take it over the link: signed by the authority, so that whoever holds no more than a
// gateway's short-lived key cannot change whom its peers trust. It is empty where there is nothing to tell, since the
// bundle never changed, and where the admin keeps the authority's key elsewhere.
func (a *Authority) Signed() peering.SignedBundle { return a.signed }

// sign fills in what Signed gives.
func (a *Authority) sign() error {
	if a.key == nil || a.bundle.Serial == 0 {
		return nil
	}
	text, err := a.bundle.MarshalText()
	if err != nil {
		return err
	}
	digest := sha256.Sum256(append([]byte(signedContext), text...))
	var options crypto.SignerOpts = crypto.SHA256
	if _, ok := a.key.Public().(*rsa.PublicKey); ok {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	signature, err := a.key.Sign(rand.Reader, digest[:], options)
	if err != nil {
		return fmt.Errorf("sign the trust bundle: %w", err)
	}
	a.signed = peering.SignedBundle{Text: string(text), Signature: signature}
	for _, c := range a.chain {
		if !a.bundle.holds(c) {
			a.signed.Signers = append(a.signed.Signers, c.Raw)
		}
	}
	return nil
}

// signedBy tells why a bundle was not signed by an authority of this one.
func (b Bundle) signedBy(s peering.SignedBundle, now time.Time) error {
	candidates := b.certificates
	if len(s.Signers) > 0 {
		signer, err := b.delegate(s.Signers, now)
		if err != nil {
			return err
		}
		candidates = []*x509.Certificate{signer}
	}
	payload := append([]byte(signedContext), s.Text...)
	for _, c := range candidates {
		algorithm := x509.ECDSAWithSHA256
		switch c.PublicKey.(type) {
		case *ecdsa.PublicKey:
		case *rsa.PublicKey:
			algorithm = x509.SHA256WithRSAPSS
		default:
			continue
		}
		if now.Before(c.NotAfter) && c.CheckSignature(algorithm, payload, s.Signature) == nil {
			return nil
		}
	}
	return errors.New("the bundle is signed by no authority that is trusted as this peer's")
}

// delegate is the issuing authority that signed, if one of this bundle vouches for it.
func (b Bundle) delegate(signers [][]byte, now time.Time) (*x509.Certificate, error) {
	var chain []*x509.Certificate
	for _, der := range signers {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the bundle's signer cannot be read: %w", err)
		}
		chain = append(chain, c)
	}
	if !mayIssue(chain[0]) {
		return nil, errors.New("the bundle's signer is not an authority: it may not sign others")
	}
	options := x509.VerifyOptions{
		Roots: pool(b.certificates), Intermediates: pool(chain[1:]), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if _, err := chain[0].Verify(options); err != nil {
		return nil, fmt.Errorf("the bundle's signer is not of an authority that is trusted as this peer's: %w", err)
	}
	return chain[0], nil
}

// mayIssue tells whether a certificate is one of an authority.
func mayIssue(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && c.KeyUsage&x509.KeyUsageCertSign != 0
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}
