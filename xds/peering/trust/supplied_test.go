package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// supply is what an admin has: a root, an authority under it, and a gateway's certificate of that.
type supply struct {
	root, issuing, leaf          *x509.Certificate
	rootKey, issuingKey, leafKey crypto.Signer
}

var westIdentity = peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func authorityTemplate(name string, uris ...string) *x509.Certificate {
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, parsed)
	}
	return c
}

func leafTemplate(uris ...string) *x509.Certificate {
	c := authorityTemplate("gateway", uris...)
	c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return c
}

func newSupply(t *testing.T, uris ...string) *supply {
	t.Helper()
	s := &supply{rootKey: newKey(t), issuingKey: newKey(t), leafKey: newKey(t)}
	template := authorityTemplate("Example root", uris...)
	s.root = sign(t, template, template, s.rootKey.Public(), s.rootKey)
	s.issuing = sign(t, authorityTemplate("Example issuing"), s.root, s.issuingKey.Public(), s.rootKey)
	s.leaf = sign(t, leafTemplate(westIdentity.String()), s.issuing, s.leafKey.Public(), s.issuingKey)
	return s
}

func newRootOf(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := authorityTemplate("another root")
	return sign(t, template, template, key.Public(), key)
}

func pemsOf(certificates ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, pemOf("CERTIFICATE", c.Raw)...)
	}
	return text
}

func keyOf(t *testing.T, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der)
}

// issues is the material of an issuing authority, certifies that of a ready certificate.
func (s *supply) issues(t *testing.T) Material {
	return Material{CA: pemsOf(s.root), Certificate: pemsOf(s.issuing), Key: keyOf(t, s.issuingKey)}
}

func (s *supply) certifies(t *testing.T) Material {
	return Material{CA: pemsOf(s.root), Certificate: pemsOf(s.leaf, s.issuing), Key: keyOf(t, s.leafKey)}
}

func (s *supply) authority(t *testing.T, identity peering.Identity) *Authority {
	t.Helper()
	a, err := Supplied(s.issues(t), identity, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSupplied(t *testing.T) {
	t.Parallel()
	s := newSupply(t)
	now := time.Now()
	root := Material{CA: pemsOf(s.root), Certificate: pemsOf(s.root), Key: keyOf(t, s.rootKey)}
	withRoot := s.certifies(t)
	withRoot.Certificate = append(withRoot.Certificate, pemsOf(s.root)...)
	chainInCA := s.certifies(t) // as trust-manager and some issuers write it
	chainInCA.CA, chainInCA.Certificate = pemsOf(s.issuing, s.root), pemsOf(s.leaf)
	ec, err := x509.MarshalECPrivateKey(s.issuingKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	sec1 := s.issues(t)
	sec1.Key = pemOf("EC PRIVATE KEY", ec)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaRoot := authorityTemplate("RSA root", "spiffe://west.isthmus.internal")
	rsaRoot = sign(t, rsaRoot, rsaRoot, rsaKey.Public(), rsaKey)
	pkcs1 := Material{CA: pemsOf(rsaRoot), Certificate: pemsOf(rsaRoot), Key: pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))}
	for name, c := range map[string]struct {
		material Material
		renews   bool
	}{
		"an issuing authority": {s.issues(t), true}, "a root": {root, true}, "a certificate": {s.certifies(t), false},
		"with its root": {withRoot, false}, "with the chain in ca.crt": {chainInCA, false}, "SEC 1": {sec1, true}, "RSA": {pkcs1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := Supplied(c.material, westIdentity, now)
			if err != nil {
				t.Fatal(err)
			}
			if a.Renews() != c.renews || a.Identity() != westIdentity {
				t.Errorf("renews %v, identity %s", a.Renews(), a.Identity())
			}
			pair, err := a.Issue(now, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			leaf := parse(t, pair)
			chain, err := parseCertificates(pair.CertificatePEM)
			if err != nil {
				t.Fatal(err)
			}
			// What is sent along leads to what peers trust, and holds the certificate that a token names.
			b, err := ParseBundle(export(t, a))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool(b.certificates), Intermediates: pool(chain[1:])}); err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return fingerprint(c.Raw) == a.Fingerprint() }) {
				t.Error("the token's certificate is not sent along")
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != westIdentity.String() {
				t.Errorf("it is of %v", leaf.URIs)
			}
			if b.Identity != westIdentity || !b.External || b.Serial != 0 || a.Signed().Text != "" {
				t.Errorf("bundle %+v", b)
			}
		})
	}
}

func TestSuppliedRefuses(t *testing.T) {
	t.Parallel()
	s, other := newSupply(t), newSupply(t)
	now := time.Now()
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that is what is tested
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(m Material, edit func(*Material)) Material { edit(&m); return m }
	// certificate is a ready one of the issuing authority, authority an issuing one of the root, that differ from good ones.
	certificate := func(edit func(*x509.Certificate)) Material {
		template := leafTemplate(westIdentity.String())
		edit(template)
		return with(s.certifies(t), func(m *Material) {
			m.Certificate = pemsOf(sign(t, template, s.issuing, s.leafKey.Public(), s.issuingKey), s.issuing)
		})
	}
	authority := func(edit func(*x509.Certificate)) Material {
		template := authorityTemplate("issuing")
		edit(template)
		return with(s.issues(t), func(m *Material) {
			m.Certificate = pemsOf(sign(t, template, s.root, s.issuingKey.Public(), s.rootKey))
		})
	}
	keyed := func(key crypto.Signer) Material {
		template := authorityTemplate("keyed")
		return with(s.issues(t), func(m *Material) {
			m.Certificate, m.Key = pemsOf(sign(t, template, s.root, key.Public(), s.rootKey)), keyOf(t, key)
		})
	}
	ended := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Minute)
	}
	early := func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }
	endedRoot := authorityTemplate("ended")
	ended(endedRoot)
	endedRoot = sign(t, endedRoot, endedRoot, s.rootKey.Public(), s.rootKey)
	elsewhere := authorityTemplate("east's", "spiffe://east.isthmus.internal")
	elsewhere = sign(t, elsewhere, elsewhere, s.rootKey.Public(), s.rootKey)
	for name, c := range map[string]struct {
		material Material
		why      string
	}{
		"nothing":                   {Material{}, "ca.crt: it holds no certificate"},
		"no certificate":            {with(s.issues(t), func(m *Material) { m.Certificate = nil }), "tls.crt: it holds no certificate"},
		"no key":                    {with(s.issues(t), func(m *Material) { m.Key = nil }), "tls.key: want one PEM block"},
		"two keys":                  {with(s.issues(t), func(m *Material) { m.Key = append(m.Key, m.Key...) }), "tls.key: want one PEM block"},
		"garbage as a key":          {with(s.issues(t), func(m *Material) { m.Key = pemOf("PRIVATE KEY", []byte("secret")) }), "cannot be read"},
		"an encrypted key":          {with(s.issues(t), func(m *Material) { m.Key = pemOf("ENCRYPTED PRIVATE KEY", []byte("x")) }), "must not be encrypted"},
		"a certificate as a key":    {with(s.issues(t), func(m *Material) { m.Key = m.Certificate }), "is no private key"},
		"another's key":             {with(s.issues(t), func(m *Material) { m.Key = keyOf(t, other.issuingKey) }), "is not the key"},
		"a key in ca.crt":           {with(s.issues(t), func(m *Material) { m.CA = m.Key }), "ca.crt: it holds a"},
		"another's root":            {with(s.issues(t), func(m *Material) { m.CA = pemsOf(other.root) }), "leads to no root"},
		"no root":                   {with(s.certifies(t), func(m *Material) { m.CA = pemsOf(s.issuing) }), "holds no root"},
		"an ended root":             {with(s.issues(t), func(m *Material) { m.CA = pemsOf(endedRoot) }), "holds no root"},
		"a leaf as a root":          {with(s.certifies(t), func(m *Material) { m.CA = pemsOf(s.leaf) }), "is no authority"},
		"a root of another domain":  {with(s.issues(t), func(m *Material) { m.CA = pemsOf(s.root, elsewhere) }), "not of trust domain"},
		"without what is between":   {with(s.certifies(t), func(m *Material) { m.Certificate = pemsOf(s.leaf) }), "leads to no root"},
		"a weak key":                {keyed(weak), "too short"},
		"an Edwards key":            {keyed(edwards), "not taken by Envoy"},
		"an ended certificate":      {certificate(ended), "ended at"},
		"an early certificate":      {certificate(early), "begins only at"},
		"an ended authority":        {authority(ended), "ended at"},
		"of another gateway":        {certificate(func(c *x509.Certificate) { c.URIs[0].Path = "/cluster/east" }), "exactly one URI"},
		"of two gateways":           {certificate(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), "exactly one URI"},
		"without a URI":             {certificate(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"west.example"} }), "exactly one URI"},
		"for servers only":          {certificate(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "as a client"},
		"for clients only":          {certificate(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), "as a server"},
		"for encipherment only":     {certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "digital signature"},
		"a signer that is no CA":    {certificate(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "neither"},
		"a CA that may not sign":    {authority(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), "neither"},
		"an authority for mail":     {authority(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), "may not issue"},
		"an authority of elsewhere": {authority(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"east.isthmus.internal"} }), "may not issue"},
	} {
		a, err := Supplied(c.material, westIdentity, now)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v %v", name, a, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds the key: %v", name, err)
		}
	}
}

// Another root in ca.crt is another bundle, which the issuing authority signs; peers take it as they take a rotation.
func TestSuppliedRotation(t *testing.T) {
	t.Parallel()
	east := newGateway(t, "east")
	s, next := newSupply(t), newSupply(t)
	dir := t.TempDir()
	take := func(m Material, now time.Time) *Authority {
		t.Helper()
		a, err := Supplied(m, westIdentity, now)
		if err == nil {
			a, err = a.Number(dir, now)
		}
		if err == nil {
			err = a.Record(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	now := time.Now()
	first := take(s.issues(t), now)
	if first.Export().Serial != 0 {
		t.Error("a first bundle has a serial")
	}
	b, err := ParseBundle(export(t, first))
	if err != nil {
		t.Fatal(err)
	}
	if err := east.peers.Import("west", b); err != nil {
		t.Fatal(err)
	}
	if again := take(s.issues(t), now); again.Export().Serial != 0 {
		t.Error("the same bundle has another serial")
	}
	both, turned := s.issues(t), next.issues(t)
	both.CA, turned.CA = pemsOf(s.root, next.root), pemsOf(s.root, next.root)
	for i, m := range []Material{both, turned, next.issues(t)} {
		a := take(m, now)
		if changed, err := east.peers.Renew("west", a.Signed(), now); err != nil || !changed {
			t.Fatalf("step %d: %v %v", i, changed, err)
		}
		pair, err := a.Issue(now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		all, err := east.peers.List()
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		chain, err := parseCertificates(pair.CertificatePEM)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool(all[0].Bundle.certificates), Intermediates: pool(chain[1:])}); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if got := east.trusts(t, "west"); len(got) != 1 || got[0] != fingerprint(next.root.Raw) {
		t.Errorf("trusted at the end: %v", got)
	}
	// Whoever supplies the gateway's certificate keeps the authority's key: nothing is signed here.
	ready := next.certifies(t)
	ready.CA = pemsOf(s.root, next.root)
	if a := take(ready, now); a.Export().Serial == 0 || a.Signed().Text != "" {
		t.Errorf("serial %d, signed %.20q", a.Export().Serial, a.Signed().Text)
	}
}

// Two peers under one root could speak for each other: the second one is refused.
func TestSharedRoot(t *testing.T) {
	t.Parallel()
	east := newGateway(t, "east")
	s := newSupply(t)
	if err := east.peers.Import("west", s.authority(t, westIdentity).Export()); err != nil {
		t.Fatal(err)
	}
	north := peering.Identity{TrustDomain: "north.isthmus.internal", Cluster: "north"}
	if err := east.peers.Import("north", s.authority(t, north).Export()); err == nil || !strings.Contains(err.Error(), "key is that of peer west") {
		t.Error(err)
	}
}

func FuzzSupplied(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), []byte("x"), []byte("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := authorityTemplate("root")
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pemOf("CERTIFICATE", der), pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", keyDER))
	f.Fuzz(func(t *testing.T, ca, certificate, key []byte) {
		a, err := Supplied(Material{CA: ca, Certificate: certificate, Key: key}, westIdentity, time.Now())
		if err != nil {
			return
		}
		if _, err := a.Issue(time.Now(), time.Minute); err != nil {
			t.Fatalf("accepted, and issues nothing: %v", err)
		}
		if _, err := ParseBundle(export(t, a)); err != nil {
			t.Fatalf("accepted, and its bundle is none: %v", err)
		}
	})
}
