// Package trust is who vouches for a gateway: its own certificate authority, the short-lived certificates that it
// issues and renews, and the authorities of the peers that its admin chose to trust.
//
// Each gateway is a SPIFFE trust domain of its own. The private key of its authority never leaves its folder; what
// peers exchange is a Bundle, which holds nothing secret.
package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// The files of an authority's folder.
const (
	certificateFile = "ca.crt"
	keyFile         = "ca.key"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// skew is how far apart the two gateways' clocks may be.
	skew = 5 * time.Minute
)

// ErrNoAuthority says that a folder holds no authority yet. It is an fs.ErrNotExist too.
var ErrNoAuthority = fmt.Errorf("no certificate authority: %w", fs.ErrNotExist)

// Authority is what vouches for a gateway: its own certificate authority, or what its admin supplies. It never changes;
// a rotation gives another one.
type Authority struct {
	identity    peering.Identity
	bundle      Bundle // what peers trust: during a rotation two authorities
	signed      peering.SignedBundle
	certificate *x509.Certificate   // whose key issues; nil where the admin supplies the gateway's certificate itself
	key         crypto.Signer       // of certificate
	chain       []*x509.Certificate // that goes along with what is issued, from certificate to one of the bundle
	end         time.Time           // of all that it issues
	supplied    *Pair               // the gateway's certificate, where the admin supplies it
}

// Init makes the authority of a cluster's gateway, or opens the one that is there. One that is there for another
// cluster or trust domain is left alone: peers have imported it. An empty trust domain is the default one.
func Init(dir, trustDomain, cluster string) (*Authority, error) {
	if trustDomain == "" {
		trustDomain = peering.DefaultTrustDomain(cluster)
	}
	identity, err := peering.NewIdentity(trustDomain, cluster)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	there, err := Open(dir)
	switch {
	case errors.Is(err, ErrNoAuthority):
		return create(dir, identity)
	case err != nil:
		return nil, err
	case there.identity != identity:
		return nil, fmt.Errorf("trust: %s holds the authority of %s, not of %s; it is kept, since peers may trust it",
			dir, there.identity, identity)
	}
	return there, nil
}

func create(dir string, identity peering.Identity) (*Authority, error) {
	certPEM, keyPEM, err := generate(identity, time.Now())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if err := writeAuthority(dir, certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return Open(dir)
}

// writeAuthority replaces an authority's files. The certificate is last, since it is what makes an authority be there.
func writeAuthority(dir string, certPEM, keyPEM []byte) error {
	if err := durable.Replace(filepath.Join(dir, keyFile), keyPEM, 0o600); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, certificateFile), certPEM, 0o644)
}

// generate makes the certificate and the key of a gateway's own authority.
func generate(identity peering.Identity, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               authorityName(identity.Cluster),
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// A signing certificate's SPIFFE id is its trust domain, with no path; the subject tells the cluster, so that
		// neither a folder nor a bundle can say another.
		URIs: []*url.URL{{Scheme: "spiffe", Host: identity.TrustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %w", err)
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", keyDER), nil
}

// Open reads the authority of a folder, in the middle of a rotation too. ErrNoAuthority says that there is none.
func Open(dir string) (*Authority, error) {
	_, a, err := open(dir)
	return a, err
}

// reopenings is how often a folder is read that another process changes meanwhile.
const reopenings = 5

func open(dir string) (rotationFile, *Authority, error) {
	for attempt := 1; ; attempt++ {
		rotation, err := readRotation(dir)
		var a *Authority
		if err == nil {
			a, err = assemble(dir, rotation)
		}
		// The files are replaced one after the other: what was read is of one moment if the first of them is as it was.
		if again, e := readRotation(dir); attempt < reopenings && e == nil && again != rotation {
			continue
		}
		if err != nil {
			return rotationFile{}, nil, fmt.Errorf("trust: %s: %w", dir, err)
		}
		return rotation, a, nil
	}
}

// assemble makes the authority of a folder in which a rotation stands as it does.
func assemble(dir string, r rotationFile) (*Authority, error) {
	serial, others := r.Serial, []string{}
	certPEM, keyPEM := []byte(r.Next), []byte(r.NextKey)
	switch r.Phase {
	case Issuing:
		others = append(others, r.Former)
	case Announced:
		others = append(others, r.Next)
		fallthrough
	default:
		var err error
		if certPEM, err = os.ReadFile(filepath.Join(dir, certificateFile)); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoAuthority
		} else if err != nil {
			return nil, err
		}
		if keyPEM, err = os.ReadFile(filepath.Join(dir, keyFile)); err != nil {
			return nil, err
		}
		if r.Phase == Steady {
			if serial, err = readSerial(dir); err != nil {
				return nil, err
			}
		}
	}
	certificate, key, err := parseAuthority(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	certificates := []*x509.Certificate{certificate}
	for _, other := range others {
		more, err := parseCertificates([]byte(other))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rotationName, err)
		}
		certificates = append(certificates, more...)
	}
	bundle, err := newBundle(certificates)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	bundle.Serial = serial
	a := &Authority{
		identity: bundle.Identity, bundle: bundle, certificate: certificate, key: key,
		// The authority goes along: who joins by invitation knows no more of it than its fingerprint.
		chain: []*x509.Certificate{certificate}, end: certificate.NotAfter,
	}
	return a, a.sign()
}

// parseAuthority reads the files of a gateway's own authority.
func parseAuthority(certPEM, keyPEM []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificates, err := parseCertificates(certPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	if len(certificates) != 1 {
		return nil, nil, fmt.Errorf("%s: want one certificate, got %d", certificateFile, len(certificates))
	}
	if _, err := authorityIdentity(certificates[0]); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, nil, fmt.Errorf("%s: no PEM in it", keyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s: want an ECDSA key, got %T", keyFile, parsed)
	}
	if !key.PublicKey.Equal(certificates[0].PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", keyFile, certificateFile)
	}
	return certificates[0], key, nil
}

// organization marks the certificates that gateways' own authorities make.
const organization = "Isthmus"

func authorityName(cluster string) pkix.Name {
	return pkix.Name{Organization: []string{organization}, OrganizationalUnit: []string{"gateway authority"}, CommonName: cluster}
}

// authorityIdentity is whom a certificate may vouch for, if it is a gateway's authority at all.
func authorityIdentity(c *x509.Certificate) (peering.Identity, error) {
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return peering.Identity{}, errors.New("the certificate is not an authority's: it may not sign others")
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return peering.Identity{}, fmt.Errorf("the certificate is not signed by itself: %w", err)
	}
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" || c.URIs[0].String() != "spiffe://"+c.URIs[0].Host {
		return peering.Identity{}, errors.New("the certificate names no SPIFFE trust domain (one URI, spiffe://<trust domain>)")
	}
	return peering.NewIdentity(c.URIs[0].Host, c.Subject.CommonName)
}

// Identity is the gateway that the authority vouches for.
func (a *Authority) Identity() peering.Identity { return a.identity }

// CertificatePEM is the certificate that Fingerprint is of.
func (a *Authority) CertificatePEM() []byte {
	return pemOf("CERTIFICATE", a.bundle.certificates[0].Raw)
}

// Fingerprint is the SHA-256 of the certificate that peers trust, in hexadecimal digits. Where they trust more than one,
// it is that of the one by which the gateway's certificate is issued now.
func (a *Authority) Fingerprint() string { return a.bundle.Fingerprint }

// NotAfter is when the authority ends.
func (a *Authority) NotAfter() time.Time { return a.end }

// Renews tells whether the gateway issues its certificate by itself, and not its admin.
func (a *Authority) Renews() bool { return a.supplied == nil }

// Pair is a gateway's certificate with its key. It is shown to no log: the key is secret.
type Pair struct {
	CertificatePEM []byte
	KeyPEM         []byte
	NotBefore      time.Time
	NotAfter       time.Time
}

// String keeps the key out of whatever prints a Pair.
func (p Pair) String() string { return "certificate until " + p.NotAfter.UTC().Format(time.RFC3339) }

var _ fmt.GoStringer = Pair{}

// GoString does the same for %#v.
func (p Pair) GoString() string { return p.String() }

// Issue makes the gateway's certificate, for use as a server and as a client. It never outlives the authority. Where the
// admin supplies the certificate, it is that one.
func (a *Authority) Issue(now time.Time, life time.Duration) (Pair, error) {
	if life <= 0 {
		return Pair{}, fmt.Errorf("trust: a certificate cannot live for %s", life)
	}
	if !now.Before(a.end) {
		return Pair{}, fmt.Errorf("trust: the authority of %s ended at %s", a.identity, a.end.UTC().Format(time.RFC3339))
	}
	if a.supplied != nil {
		return *a.supplied, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("trust: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	end := now.Add(life)
	if end.After(a.end) {
		end = a.end
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organization}, OrganizationalUnit: []string{"gateway"}, CommonName: a.identity.Cluster},
		NotBefore:             now.Add(-skew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{identityURI(a.identity)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("trust: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("trust: %w", err)
	}
	certificatePEM := pemOf("CERTIFICATE", der)
	for _, c := range a.chain {
		certificatePEM = append(certificatePEM, pemOf("CERTIFICATE", c.Raw)...)
	}
	return Pair{
		CertificatePEM: certificatePEM,
		KeyPEM:         pemOf("PRIVATE KEY", keyDER),
		NotBefore:      template.NotBefore,
		NotAfter:       template.NotAfter,
	}, nil
}

func identityURI(i peering.Identity) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: i.TrustDomain, Path: "/cluster/" + i.Cluster}
}

func newSerial() (*big.Int, error) {
	// RFC 5280 wants a positive number of at most 20 octets.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
