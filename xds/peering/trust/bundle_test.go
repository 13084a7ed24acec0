package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

func export(t testing.TB, a *Authority) []byte {
	t.Helper()
	text, err := a.Export().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBundle(t *testing.T) {
	t.Parallel()
	a := initialize(t, t.TempDir(), "corp.example", "east")
	text := export(t, a)
	b, err := ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	if b.Identity != a.Identity() || b.Fingerprint != a.Fingerprint() || !bytes.Equal(b.CertificatesPEM, a.CertificatePEM()) ||
		!b.NotAfter.Equal(a.NotAfter()) {
		t.Errorf("bundle %+v", b)
	}
	for _, want := range []string{"Isthmus trust bundle 1\n", "Cluster: east\n", "Trust-Domain: corp.example\n", "Fingerprint: " + a.Fingerprint() + "\n"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the bundle does not tell %q:\n%s", want, text)
		}
	}
	if block, rest := pem.Decode(text); block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		t.Error("another reader of PEM cannot read it")
	}
	if _, err := ParseBundle(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))); err != nil {
		t.Errorf("with other ends of lines: %v", err)
	}
	if bytes.Contains(text, []byte("PRIVATE")) {
		t.Error("the bundle holds a key")
	}
}

// certificate is one that no gateway makes.
func certificate(t *testing.T, edit func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "east"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "east.isthmus.internal"}},
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE", der)
}

func TestParseBundleRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := initialize(t, dir, "", "east")
	good := export(t, a)
	head, _ := split(t, good)
	otherHead, otherPEM := split(t, export(t, initialize(t, t.TempDir(), "", "west")))
	leaf, err := a.Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	uri := func(s string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
		}
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		text []byte
		why  string
	}{
		"nothing":          {nil, "it is empty"},
		"space":            {[]byte(" \r\n\n"), "it is empty"},
		"garbage":          {[]byte("\x00\x01\x02"), "it is none"},
		"a web page":       {[]byte("<html>404</html>"), "it is none"},
		"only PEM":         {a.CertificatePEM(), "it is none"},
		"a newer one":      {bytes.Replace(good, []byte("bundle 1"), []byte("bundle 2"), 1), `version "2"`},
		"cut in its head":  {good[:40], "cut off"},
		"only its head":    {head, "cut off"},
		"cut in its PEM":   {good[:len(good)-60], "cut off or damaged"},
		"cut at its end":   {good[:len(good)-10], "cut off or damaged"},
		"a flipped letter": {flip(good), ""},
		"more after it":    {join(good, []byte("more\n")), "no certificate"},
		"more before it":   {join(head, []byte("more\n"), a.CertificatePEM()), "first lines"},
		"another's head":   {join(otherHead, a.CertificatePEM()), "changed or mixed up"},
		"two gateways":     {join(good, otherPEM), "authorities of"},
		"a leaf":           {join(head, leaf.CertificatePEM), "not an authority's"},
		"a key":            {join(good, leaf.KeyPEM), "private key"},
		"our own key":      {join(head, read(t, filepath.Join(dir, keyFile))), "private key"},
		"too long":         {join(good, bytes.Repeat([]byte("\n"), maxBundle)), "longer than"},
		"no SPIFFE id":     {join(head, certificate(t, func(c *x509.Certificate) { c.URIs = nil })), "no SPIFFE trust domain"},
		"another scheme":   {join(head, certificate(t, uri("https://east.isthmus.internal"))), "no SPIFFE trust domain"},
		"a SPIFFE path":    {join(head, certificate(t, uri("spiffe://east.isthmus.internal/cluster/east"))), "no SPIFFE trust domain"},
		"a strange name":   {join(head, certificate(t, func(c *x509.Certificate) { c.Subject.CommonName = "My CA" })), "no cluster name"},
		"no signer":        {join(head, certificate(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })), "not an authority's"},
		"no authority":     {join(head, certificate(t, func(c *x509.Certificate) { c.IsCA = false })), "not an authority's"},
	} {
		b, err := ParseBundle(c.text)
		if err == nil || !strings.HasPrefix(err.Error(), "trust bundle: ") || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
		if b.CertificatesPEM != nil {
			t.Errorf("%s: it gave certificates", name)
		}
	}
}

// split parts a bundle's first lines from its certificates.
func split(t *testing.T, text []byte) (head, certificates []byte) {
	t.Helper()
	i := bytes.Index(text, []byte("-----BEGIN"))
	if i < 0 {
		t.Fatalf("no certificate in %q", text)
	}
	return text[:i], text[i:]
}

// flip changes one letter of the certificate's signature.
func flip(text []byte) []byte {
	text = bytes.Clone(text)
	i := bytes.Index(text, []byte("-----END")) - 20
	if text[i] == 'A' {
		text[i] = 'B'
	} else {
		text[i] = 'A'
	}
	return text
}

func bundle(t *testing.T, trustDomain, cluster string) Bundle {
	t.Helper()
	b, err := ParseBundle(export(t, initialize(t, t.TempDir(), trustDomain, cluster)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func peers(t *testing.T, dir string) *Peers {
	t.Helper()
	return OpenPeers(file.Open(file.Config{Dir: dir}), peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"})
}

func list(t *testing.T, p *Peers) map[string]string {
	t.Helper()
	bundles, err := p.List()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, b := range bundles {
		got[b.Peer] = b.Bundle.Fingerprint
	}
	return got
}

func TestPeers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := peers(t, dir)
	if got := list(t, p); len(got) > 0 {
		t.Fatalf("peers of nothing: %v", got)
	}
	east, north := bundle(t, "", "east"), bundle(t, "", "north")
	for _, b := range []Bundle{east, north, east} { // again is no error
		if err := p.Import(b.Identity.Cluster, b); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "trust", "peers", "east.bundle")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if got := list(t, peers(t, dir)); len(got) != 2 || got["east"] != east.Fingerprint || got["north"] != north.Fingerprint {
		t.Errorf("peers %v", got)
	}

	other := bundle(t, "", "east")
	if err := p.Import("east", other); err == nil || !strings.Contains(err.Error(), "--replace") || !strings.Contains(err.Error(), east.Fingerprint) {
		t.Errorf("other keys of a peer: %v", err)
	}
	if got := list(t, p); got["east"] != east.Fingerprint {
		t.Errorf("a refused import changed %v", got)
	}
	if err := p.Import("east", other, Replace(true)); err != nil {
		t.Fatal(err)
	}
	if got := list(t, p); got["east"] != other.Fingerprint || len(got) != 2 {
		t.Errorf("after replacing: %v", got)
	}
	if err := p.Remove("east"); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove("east"); err == nil || !strings.Contains(err.Error(), "no bundle of peer east") {
		t.Errorf("removed twice: %v", err)
	}
	if err := p.Remove("../ca"); err == nil {
		t.Error("a path was removed")
	}
	if got := list(t, p); len(got) != 1 {
		t.Errorf("after removing: %v", got)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	p := peers(t, t.TempDir())
	if err := p.Import("east", bundle(t, "corp.example", "east")); err != nil {
		t.Fatal(err)
	}
	made := func(edit func(*x509.Certificate)) Bundle {
		certificates, err := parseCertificates(certificate(t, edit))
		if err != nil {
			t.Fatal(err)
		}
		b, err := newBundle(certificates)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		peer   string
		bundle Bundle
		why    string
	}{
		"a wrong name":      {"south", bundle(t, "", "north"), "of cluster north, not of south"},
		"a bad name":        {"../x", bundle(t, "", "north"), "no cluster name"},
		"our own domain":    {"north", bundle(t, "west.isthmus.internal", "north"), "this gateway's own"},
		"a peer's domain":   {"north", bundle(t, "corp.example", "north"), "that of peer east already"},
		"nothing":           {"north", Bundle{}, "no certificate"},
		"ended":             {"east", made(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "ended at"},
		"not begun":         {"east", made(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }), "begins only at"},
		"a domain replaced": {"north", bundle(t, "corp.example", "north"), "remove that peer"},
	} {
		if err := p.Import(c.peer, c.bundle, Replace(name == "a domain replaced")); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
	if got := list(t, p); len(got) != 1 {
		t.Errorf("refused imports left %v", got)
	}
}

// One key under two names is one gateway that stands for two clusters.
func TestImportRefusesSharedKey(t *testing.T) {
	t.Parallel()
	p := peers(t, t.TempDir())
	a := initialize(t, t.TempDir(), "", "east")
	if err := p.Import("east", a.Export()); err != nil {
		t.Fatal(err)
	}
	template := *a.certificate
	template.RawSubject, template.Subject = nil, authorityName("north")
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: "north.isthmus.internal"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := parseCertificates(pemOf("CERTIFICATE", der))
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBundle(certificates)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Import("north", b); err == nil || !strings.Contains(err.Error(), "key is that of peer east") {
		t.Errorf("error %v", err)
	}
}

// A broken file is told, costs no other peer, and replacing mends it.
func TestBrokenPeer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := peers(t, dir)
	east, north := bundle(t, "", "east"), bundle(t, "", "north")
	if err := p.Import("north", north); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "trust", "peers", "east.bundle"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	bundles, err := p.List()
	if err == nil || !strings.Contains(err.Error(), "east: trust bundle: it is none") || len(bundles) != 1 {
		t.Errorf("list %v, %v", bundles, err)
	}
	if err := p.Import("east", east); err == nil {
		t.Error("a broken file was written over unasked")
	}
	if err := p.Import("east", east, Replace(true)); err != nil {
		t.Error(err)
	}
	if got := list(t, p); len(got) != 2 {
		t.Errorf("peers %v", got)
	}
}

func FuzzParseBundle(f *testing.F) {
	a, err := Init(f.TempDir(), "", "east")
	if err != nil {
		f.Fatal(err)
	}
	good, err := a.Export().MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good), a.CertificatePEM()...))
	f.Add(bytes.Replace(good, []byte("Fingerprint: "), []byte("Authority: external\nSerial: 7\nFingerprint: "), 1))
	f.Add([]byte("Isthmus trust bundle 1\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBundle(text)
		if err != nil {
			return
		}
		// Whatever is accepted is an authority's, and says again what it said.
		for _, c := range b.certificates {
			if !c.IsCA {
				t.Fatal("a bundle of a certificate that is no authority's")
			}
		}
		again, err := b.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if c, err := ParseBundle(again); err != nil || c.Identity != b.Identity || c.Fingerprint != b.Fingerprint || c.Serial != b.Serial || c.External != b.External {
			t.Fatalf("%+v became %+v (%v)", b, c, err)
		}
	})
}
