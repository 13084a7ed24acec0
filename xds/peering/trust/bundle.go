package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// Bundle is what a peer needs to trust a gateway: its authority's certificates. As text it is a PEM file that begins
// with a few lines that tell whose it is; other tools that read PEM skip those:
//
//	Isthmus trust bundle 1
//	Cluster: east
//	Trust-Domain: east.isthmus.internal
//	Fingerprint: 5f0c...  (SHA-256 of the certificate, one line for each)
//	Not-After: 2036-01-02T15:04:05Z
//
//	-----BEGIN CERTIFICATE-----
//	...
//
// The lines only repeat what the certificates say: for a reader's eye, and so that a file that was cut or mixed up is
// found out. Two more may follow the trust domain. "Authority: external" says that the authority is the admin's own:
// its certificates name no cluster, so these lines alone do. "Serial: N" grows with each change of the bundle, so that
// no older one can take the place of a newer one.
type Bundle struct {
	Identity        peering.Identity // the gateway that the authority vouches for
	CertificatesPEM []byte
	Fingerprint     string // SHA-256 of the first certificate, in hexadecimal digits
	NotAfter        time.Time
	Serial          uint64 // 0 for a bundle that never changed
	External        bool

	certificates []*x509.Certificate
}

const (
	bundleTitle   = "Isthmus trust bundle 1"
	bundleFamily  = "Isthmus trust bundle "
	externalLine  = "Authority: external"
	serialLine    = "Serial: "
	maxBundle     = 64 << 10
	maxBundleSize = 8 // certificates
)

// Export is the bundle that peers import.
func (a *Authority) Export() Bundle { return a.bundle }

// newBundle makes a bundle of an authority's certificates; more than one is an authority that is being rotated.
func newBundle(certificates []*x509.Certificate) (Bundle, error) {
	var of peering.Identity
	for i, c := range certificates {
		identity, err := authorityIdentity(c)
		if err != nil {
			return Bundle{}, err
		}
		if i > 0 && identity != of {
			return Bundle{}, fmt.Errorf("it holds authorities of %s and of %s", of, identity)
		}
		of = identity
	}
	return bundleOf(of, certificates), nil
}

// newExternalBundle makes a bundle of an authority that the admin keeps.
func newExternalBundle(identity peering.Identity, certificates []*x509.Certificate) (Bundle, error) {
	for _, c := range certificates {
		if !mayIssue(c) {
			return Bundle{}, errors.New("the certificate is not an authority's: it may not sign others")
		}
		// Envoys build a chain up to a certificate that signed itself, and to no other.
		if err := c.CheckSignatureFrom(c); err != nil {
			return Bundle{}, fmt.Errorf("the certificate is not signed by itself: %w", err)
		}
		for _, u := range c.URIs {
			if u.Scheme == "spiffe" && u.String() != "spiffe://"+identity.TrustDomain {
				return Bundle{}, fmt.Errorf("the authority is of %s, not of trust domain %s", u, identity.TrustDomain)
			}
		}
	}
	b := bundleOf(identity, certificates)
	b.External = true
	return b, nil
}

func bundleOf(identity peering.Identity, certificates []*x509.Certificate) Bundle {
	b := Bundle{Identity: identity, Fingerprint: fingerprint(certificates[0].Raw), certificates: certificates}
	for _, c := range certificates {
		b.CertificatesPEM = append(b.CertificatesPEM, pemOf("CERTIFICATE", c.Raw)...)
		if c.NotAfter.After(b.NotAfter) {
			b.NotAfter = c.NotAfter
		}
	}
	return b
}

// Fingerprints are those of all certificates, SHA-256 in hexadecimal digits.
func (b Bundle) Fingerprints() []string {
	all := make([]string, len(b.certificates))
	for i, c := range b.certificates {
		all[i] = fingerprint(c.Raw)
	}
	return all
}

// Root is one certificate of a bundle.
type Root struct {
	Fingerprint string
	NotAfter    time.Time
}

// Roots are all of them.
func (b Bundle) Roots() []Root {
	all := make([]Root, len(b.certificates))
	for i, c := range b.certificates {
		all[i] = Root{Fingerprint: fingerprint(c.Raw), NotAfter: c.NotAfter}
	}
	return all
}

func (b Bundle) holds(c *x509.Certificate) bool { return slices.ContainsFunc(b.certificates, c.Equal) }

// MarshalText writes the bundle as a file.
func (b Bundle) MarshalText() ([]byte, error) {
	if len(b.certificates) == 0 {
		return nil, errors.New("trust bundle: it holds no certificate")
	}
	return append(b.head(), b.CertificatesPEM...), nil
}

func (b Bundle) head() []byte {
	var text bytes.Buffer
	fmt.Fprintln(&text, bundleTitle)
	fmt.Fprintf(&text, "Cluster: %s\nTrust-Domain: %s\n", b.Identity.Cluster, b.Identity.TrustDomain)
	if b.External {
		fmt.Fprintln(&text, externalLine)
	}
	if b.Serial > 0 {
		fmt.Fprintf(&text, "%s%d\n", serialLine, b.Serial)
	}
	for _, c := range b.certificates {
		fmt.Fprintf(&text, "Fingerprint: %s\n", fingerprint(c.Raw))
	}
	fmt.Fprintf(&text, "Not-After: %s\n\n", b.NotAfter.UTC().Format(time.RFC3339))
	return text.Bytes()
}

// ParseBundle reads what MarshalText wrote, and says what is wrong with anything else.
func ParseBundle(text []byte) (Bundle, error) {
	b, err := parseBundle(text)
	if err != nil {
		return Bundle{}, fmt.Errorf("trust bundle: %w", err)
	}
	return b, nil
}

func parseBundle(text []byte) (Bundle, error) {
	if len(text) > maxBundle {
		return Bundle{}, fmt.Errorf("it is longer than %d KiB", maxBundle>>10)
	}
	// Mail and editors change the ends of lines.
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if len(bytes.TrimSpace(text)) == 0 {
		return Bundle{}, errors.New("it is empty")
	}
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		return Bundle{}, errors.New("it holds a private key: that must never leave its gateway; export the bundle again, and make a new authority if this file went anywhere")
	}
	title, _, _ := strings.Cut(string(text), "\n")
	switch {
	case title == bundleTitle:
	case strings.HasPrefix(title, bundleFamily):
		return Bundle{}, fmt.Errorf("it is of version %.20q, which this software does not know", strings.TrimPrefix(title, bundleFamily))
	default:
		return Bundle{}, fmt.Errorf("it is none: it does not begin with %q (isthmus trust export writes one)", bundleTitle)
	}
	begin := bytes.Index(text, []byte("-----BEGIN "))
	if begin < 0 {
		return Bundle{}, errors.New("it is cut off: no certificate follows its first lines")
	}
	certificates, err := parseCertificates(text[begin:])
	if err != nil {
		return Bundle{}, err
	}
	b, err := bundleWithHead(string(text[:begin]), certificates)
	if err != nil {
		return Bundle{}, err
	}
	if head := b.head(); !bytes.Equal(head, text[:begin]) {
		return Bundle{}, errors.New("its first lines are not those of its certificate: it was changed or mixed up")
	}
	return b, nil
}

// bundleWithHead takes from the first lines what the certificates do not tell; the caller holds all lines against what
// comes of it.
func bundleWithHead(head string, certificates []*x509.Certificate) (Bundle, error) {
	var b Bundle
	var err error
	var cluster, domain, serial string
	external := false
	for line := range strings.Lines(head) {
		line = strings.TrimSuffix(line, "\n")
		external = external || line == externalLine
		for prefix, into := range map[string]*string{"Cluster: ": &cluster, "Trust-Domain: ": &domain, serialLine: &serial} {
			if value, ok := strings.CutPrefix(line, prefix); ok {
				*into = value
			}
		}
	}
	if external {
		var identity peering.Identity
		if identity, err = peering.NewIdentity(domain, cluster); err == nil {
			b, err = newExternalBundle(identity, certificates)
		}
	} else {
		b, err = newBundle(certificates)
	}
	if err == nil && serial != "" {
		b.Serial, err = strconv.ParseUint(serial, 10, 64)
	}
	return b, err
}

// parseCertificates reads PEM that holds certificates and nothing else.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil {
			if bytes.Contains(text, []byte("-----BEGIN ")) {
				return nil, errors.New("it is cut off or damaged within a certificate")
			}
			return nil, errors.New("what follows the certificate is no certificate")
		}
		// Decode skips what it cannot read; here nothing may be skipped.
		if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN "+block.Type+"-----")) {
			return nil, errors.New("it is damaged before a certificate")
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, fmt.Errorf("it holds a %.40q where a certificate should be", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it holds a certificate that cannot be read: %w", err)
		}
		if certificates = append(certificates, c); len(certificates) > maxBundleSize {
			return nil, fmt.Errorf("it holds more than %d certificates", maxBundleSize)
		}
		text = rest
	}
	if len(certificates) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return certificates, nil
}
