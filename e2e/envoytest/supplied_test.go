package envoytest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// issuer is an authority under a root, as cert-manager keeps one in a Secret.
type issuer struct {
	root        *authority
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIssuer(t *testing.T, root *authority) issuer {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(12 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.certificate, key.Public(), root.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{root: root, certificate: certificate, key: key}
}

// files writes what an admin supplies, one file after the other, each replaced whole.
func (s *site) files(certificate, key []byte, roots ...*authority) {
	s.t.Helper()
	var ca []byte
	for _, r := range roots {
		ca = append(ca, r.bundle...)
	}
	for name, content := range map[string][]byte{"ca.crt": ca, "tls.crt": certificate, "tls.key": key} {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			s.t.Fatal(err)
		}
	}
}

// pems are the issuing authority's files.
func (i issuer) pems(t *testing.T) (certificate, key []byte) {
	t.Helper()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// certify makes the gateway's certificate, with what is between it and the root.
func (i issuer) certify(t *testing.T, id string) (certificate, key []byte) {
	t.Helper()
	a := &authority{t: t, certificate: i.certificate, key: i.key}
	certificate, key = a.issue(id)
	between, _ := i.pems(t)
	return append(certificate, between...), key
}

// TestSuppliedUnderLoad has the authority of one gateway in files, which change as cert-manager changes them, while work
// goes both ways: another issuing authority of the same root, another root with an overlap, and then the gateway's
// certificate itself.
func TestSuppliedUnderLoad(t *testing.T) {
	t.Parallel()
	services := map[string][]service{"west": loadServices(t), "east": loadServices(t)}
	west := newSite(t, "west", services["west"]...)
	east := newSite(t, "east", services["east"]...)
	first, second := newAuthority(t, "east.isthmus.internal"), newAuthority(t, "east.isthmus.internal")
	one := newIssuer(t, first)
	certificate, key := one.pems(t)
	east.files(certificate, key, first)
	east.write("gateway.yaml", strings.Replace(string(east.read("gateway.yaml")), "\nspec:\n", fmt.Sprintf(
		"\nspec:\n  trust: {authority: files, files: {caFile: %s/ca.crt, certFile: %s/tls.crt, keyFile: %s/tls.key}}\n", east.dir, east.dir, east.dir), 1))
	west.isthmus("trust", "init", "--config", west.config())
	west.knows(east)
	east.knows(west)
	west.start()
	east.start()
	west.joined("east")
	east.joined("west")
	for _, way := range [][2]*site{{west, east}, {east, west}} {
		serves(t, way[0], way[1], services[way[1].name])
	}

	east.issue = func() func() (trust.Pair, error) {
		var last trust.Pair
		return func() (trust.Pair, error) {
			var m trust.Material
			var errs []error
			for name, into := range map[string]*[]byte{"ca.crt": &m.CA, "tls.crt": &m.Certificate, "tls.key": &m.Key} {
				content, err := os.ReadFile(filepath.Join(east.dir, name))
				*into, errs = content, append(errs, err)
			}
			a, err := trust.Supplied(m, peering.Identity{TrustDomain: "east.isthmus.internal", Cluster: "east"}, time.Now())
			if err == nil { // files of two changes, and what is wrong, are no more taken by the gateway
				last, err = a.Issue(time.Now(), time.Hour)
				errs = append(errs, err)
			}
			return last, errors.Join(errs...)
		}
	}()
	l := startLoad(t, services, west, east)
	becomes := func(what string, certificate, key []byte, roots ...*authority) {
		t.Helper()
		before := shown(t, east)
		east.files(certificate, key, roots...)
		eventually(t, waits, func() error {
			state, err := east.trust()
			if err != nil {
				return err
			}
			if shown(t, east) == before || state.Problem != "" || len(state.Authorities) != len(roots) {
				return fmt.Errorf("%s: %+v", what, state)
			}
			return nil
		})
	}
	two := newIssuer(t, first)
	certificate, key = two.pems(t)
	becomes("another issuing authority", certificate, key, first)
	certificate, key = newIssuer(t, first).certify(t, "spiffe://east.isthmus.internal/cluster/east")
	becomes("the certificate itself", certificate, key, first)
	certificate, key = two.pems(t)
	becomes("both roots", certificate, key, first, second)
	east.acknowledged("west")
	three := newIssuer(t, second)
	certificate, key = three.pems(t)
	becomes("the second root issues", certificate, key, first, second)
	east.acknowledged("west")
	becomes("the second root alone", certificate, key, second)
	east.acknowledged("west")

	// What is wrong changes nothing.
	stranger := newIssuer(t, newAuthority(t, "east.isthmus.internal"))
	wrong, wrongKey := stranger.pems(t)
	before := shown(t, east)
	east.files(wrong, wrongKey, second)
	eventually(t, waits, func() error {
		if text := east.ask("trust", "show"); !strings.Contains(text, "leads to no root") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	if shown(t, east) != before {
		t.Error("a wrong certificate is shown")
	}
	l.stop()

	// West takes nothing of the first root any more.
	certificate, key = two.certify(t, "spiffe://east.isthmus.internal/cluster/east")
	if err := l.expectAs(east, west, trust.Pair{CertificatePEM: certificate, KeyPEM: key}, fmt.Sprintf("%s:%d", west.host("web"), services["west"][0].at.Port())); err == nil {
		t.Error("a certificate of the first root passes")
	}
	certificate, key = three.certify(t, "spiffe://east.isthmus.internal/cluster/east")
	l = &load{t: t, ctx: t.Context()}
	if err := l.expectAs(east, west, trust.Pair{CertificatePEM: certificate, KeyPEM: key}, fmt.Sprintf("%s:%d", west.host("web"), services["west"][0].at.Port())); err != nil {
		t.Error("a certificate of the second root: ", err)
	}
}
