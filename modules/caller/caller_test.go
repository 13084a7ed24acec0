package caller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

const secret = "correct-horse-battery"

// write puts a file in its place as editors and Kubernetes do.
func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// authority signs certificates of callers.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "callers"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) client(template x509.Certificate) *x509.Certificate {
	a.t.Helper()
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	cert, _ := a.sign(&template)
	return cert
}

func (a *authority) pem() string { return pemOf(a.cert) }

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func named(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}}
}

func spiffe(t *testing.T, ids ...string) (uris []*url.URL) {
	t.Helper()
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		uris = append(uris, u)
	}
	return uris
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hash := sha256.Sum256([]byte("another-long-secret"))
	write(t, filepath.Join(dir, "tokens"), "# who may come\n\n"+secret+", ci-build\nsha256:"+hex.EncodeToString(hash[:])+",ops, deployers ,admins\n", 0o600)
	ca, stranger := newAuthority(t), newAuthority(t)
	write(t, filepath.Join(dir, "ca.pem"), ca.pem(), 0o644)
	middle, middleKey := ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "middle"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	below := &authority{t: t, cert: middle, key: middleKey}
	config := Config{Tokens: filepath.Join(dir, "tokens"), ClientCA: filepath.Join(dir, "ca.pem"), Open: []modules.Class{modules.ServiceQuery}}
	all, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	none, err := New(Config{Open: config.Open})
	if err != nil {
		t.Fatal(err)
	}
	chain := func(c ...*x509.Certificate) Credentials { return Credentials{Certificates: c} }
	expired := named("late")
	expired.NotBefore, expired.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	server := named("server")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	identified := named("web")
	identified.URIs = spiffe(t, "spiffe://corp/ci/web")
	two := named("web")
	two.URIs = spiffe(t, "spiffe://corp/a", "spiffe://corp/b")
	const api, query = modules.ContainerOperation, modules.ServiceQuery
	for _, c := range []struct {
		name  string
		by    *Authenticator
		class modules.Class
		shown Credentials
		want  string
		kind  fault.Kind // of the refusal; Internal is none
		says  string
	}{
		{"a token", all, api, Credentials{Token: secret}, "ci-build", 0, ""},
		{"a token of which the hash is kept", all, api, Credentials{Token: "another-long-secret"}, "ops admins,deployers", 0, ""},
		{"the hash itself is no token", all, api, Credentials{Token: "sha256:" + hex.EncodeToString(hash[:])}, "", fault.Unauthenticated, "not good"},
		{"another token", all, api, Credentials{Token: secret + "x"}, "", fault.Unauthenticated, "not good"},
		{"a token that is a book", all, api, Credentials{Token: strings.Repeat("x", tooLong+1)}, "", fault.Unauthenticated, "not good"},
		{"a bad token where none is needed", all, query, Credentials{Token: "x"}, "", fault.Unauthenticated, "not good"},
		{"a token of that user", all, query, Credentials{User: "ci-build", Token: secret}, "ci-build", 0, ""},
		{"a token of another user", all, query, Credentials{User: "ops", Token: secret}, "", fault.Unauthenticated, "not good"},
		{"nothing", all, api, Credentials{}, "", fault.Unauthenticated, "a bearer token or a client certificate is missing"},
		{"nothing where nothing is needed", all, query, Credentials{}, "", 0, ""},
		{"nothing where one is needed again", all, modules.ContainerAccess, Credentials{}, "", fault.Unauthenticated, "missing"},
		{"the owner of a process", all, api, Credentials{Owner: Identity{Name: "unix:alice", Groups: "unix:ops"}}, "unix:alice unix:ops", 0, ""},
		{"a token counts before the owner", all, api, Credentials{Owner: Identity{Name: "unix:root"}, Token: secret}, "ci-build", 0, ""},
		{"a bad token is not made good by the owner", all, api, Credentials{Owner: Identity{Name: "unix:root"}, Token: "x"}, "", fault.Unauthenticated, "not good"},
		{"a certificate", all, api, chain(ca.client(named("alice"))), "alice", 0, ""},
		{"a certificate with organizations", all, api, chain(ca.client(x509.Certificate{Subject: pkix.Name{CommonName: "alice",
			Organization: []string{"team-b", "team-a", "system:serviceaccounts:shop", "system:authenticated", "unix:wheel", "a,b", "Größe", "x\r\ny"}}})), "alice ,team-a,team-b", 0, ""},
		{"a certificate of an organization that cannot be told", all, api, chain(ca.client(x509.Certificate{Subject: pkix.Name{CommonName: "alice",
			Organization: []string{"Größe"}}})), "alice ,", 0, ""},
		{"a certificate with a SPIFFE ID", all, api, chain(ca.client(identified)), "spiffe://corp/ci/web", 0, ""},
		{"a certificate with two", all, api, chain(ca.client(two)), "", fault.Unauthenticated, "more than one SPIFFE ID"},
		{"a certificate with one DNS name", all, api, chain(ca.client(x509.Certificate{DNSNames: []string{"build.corp"}})), "build.corp", 0, ""},
		{"a certificate with two DNS names", all, api, chain(ca.client(x509.Certificate{DNSNames: []string{"a", "b"}})), "", fault.Unauthenticated, "names nobody"},
		{"a certificate of an authority below", all, api, chain(below.client(named("bob")), middle), "bob", 0, ""},
		{"the same alone", all, api, chain(below.client(named("bob"))), "", fault.Unauthenticated, "not good"},
		{"a stranger's certificate", all, api, chain(stranger.client(named("alice"))), "", fault.Unauthenticated, "not good"},
		{"an old certificate", all, api, chain(ca.client(expired)), "", fault.Unauthenticated, "not good"},
		{"a server's certificate", all, api, chain(ca.client(server)), "", fault.Unauthenticated, "not good"},
		{"a certificate that poses as a service account", all, api, chain(ca.client(named("system:serviceaccount:kube-system:admin"))), "", fault.Unauthenticated, "another way"},
		{"a certificate that poses as a user of this host", all, api, chain(ca.client(named("unix:root"))), "", fault.Unauthenticated, "another way"},
		{"a certificate with a new line", all, api, chain(ca.client(named("a\r\nx-isthmus-own-route: b"))), "", fault.Unauthenticated, "printable"},
		{"a certificate counts after a token", all, api, Credentials{Token: "x", Certificates: []*x509.Certificate{ca.client(named("alice"))}}, "", fault.Unauthenticated, "not good"},
		{"no way is known", none, api, Credentials{Token: secret}, "", fault.Unauthenticated, "spec.callers"},
		{"a token that nobody looks at", none, query, Credentials{Token: secret}, "", 0, ""},
		{"a certificate that nobody looks at", none, api, chain(ca.client(named("alice"))), "", fault.Unauthenticated, "spec.callers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			who, err := c.by.Admit(t.Context(), c.class, c.shown)
			got := strings.TrimSuffix(who.Name+" "+string(who.Groups), " ")
			if c.kind == fault.Internal {
				if err != nil || got != c.want {
					t.Errorf("is %q, %v", got, err)
				}
				return
			}
			if got != "" || !fault.Is(err, c.kind) || !strings.Contains(fault.Of(err).Message, c.says) {
				t.Errorf("is %q, %v", got, err)
			}
			for _, known := range []string{secret, "another-long-secret"} {
				if strings.Contains(err.Error(), known) {
					t.Errorf("the error shows a token: %v", err)
				}
			}
		})
	}
}

// TestFilesChange holds that a changed file is in force, a mistake in it changes nothing, and one that is gone or open to
// others lets in nobody.
func TestFilesChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, caPath := filepath.Join(dir, "tokens"), filepath.Join(dir, "ca.pem")
	ca, next := newAuthority(t), newAuthority(t)
	write(t, path, secret+",ci\n", 0o640)
	write(t, caPath, ca.pem(), 0o644)
	a, err := New(Config{Tokens: path, ClientCA: caPath})
	if err != nil {
		t.Fatal(err)
	}
	glanceAgain := func() {
		for _, looked := range []*time.Time{&a.tokens.looked, &a.clients.looked} {
			*looked = time.Time{}
		}
	}
	is := func(when, token, want string, kind fault.Kind) {
		t.Helper()
		glanceAgain()
		who, err := a.Admit(context.Background(), modules.ContainerOperation, Credentials{Token: token})
		if got := who.Name; got != want || (want == "") != (err != nil) || err != nil && !fault.Is(err, kind) {
			t.Errorf("%s: %q, %v", when, who, err)
		}
	}
	is("at first", secret, "ci", 0)
	write(t, path, "a-token-of-another,ops\n", 0o600)
	is("once it is taken out", secret, "", fault.Unauthenticated)
	is("once another is there", "a-token-of-another", "ops", 0)
	write(t, path, "a-token-of-another,ops\nshort,x\n", 0o600)
	is("with a mistake", "a-token-of-another", "ops", 0)
	write(t, path, "a-token-of-another,ops\n", 0o604)
	is("open to others", "a-token-of-another", "", fault.Unavailable)
	write(t, path, "a-token-of-another,ops\n", 0o600)
	is("closed again", "a-token-of-another", "ops", 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	is("gone", "a-token-of-another", "", fault.Unavailable)
	write(t, path, "a-token-of-another,ops\n", 0o600)
	is("there once more", "a-token-of-another", "ops", 0)
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	is("put aside", "a-token-of-another", "", fault.Unavailable)
	if err := os.Rename(path+".aside", path); err != nil {
		t.Fatal(err)
	}
	is("put back as it was", "a-token-of-another", "ops", 0)

	alice := ca.client(named("alice"))
	if got, err := a.byCertificate([]*x509.Certificate{alice}); got.Name != "alice" {
		t.Errorf("%q, %v", got, err)
	}
	write(t, caPath, next.pem(), 0o644)
	glanceAgain()
	if got, err := a.byCertificate([]*x509.Certificate{alice}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an authority that was taken out still names %q, %v", got, err)
	}
	if known, ok := a.Authorities(); !ok || string(known.PEM) != next.pem() {
		t.Error("the new authority is not told")
	}
}

func TestFilesAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "open"), secret+",ci\n", 0o644)
	write(t, filepath.Join(dir, "bad"), secret+"\n", 0o600)
	write(t, filepath.Join(dir, "empty"), "", 0o600)
	for _, c := range []struct {
		config Config
		says   string
	}{
		{Config{Tokens: filepath.Join(dir, "none")}, "no such file"},
		{Config{Tokens: filepath.Join(dir, "open")}, "others can read"},
		{Config{Tokens: filepath.Join(dir, "bad")}, "line 1: a line reads token,name"},
		{Config{Tokens: dir}, "is a folder"},
		{Config{ClientCA: filepath.Join(dir, "empty")}, "no certificate"},
	} {
		if _, err := New(c.config); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q is not in %v", c.says, err)
		}
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		process Process
		want    Identity
	}{
		{Process{}, Identity{Name: "unix:root"}},
		{Process{User: 3999999999, Groups: []uint32{3999999998, 0, 0}}, Identity{Name: "unix:3999999999", Groups: "unix:3999999998,unix:root"}},
		{Process{Groups: []uint32{0}, Part: true}, Identity{Name: "unix:root", Groups: ",unix:root"}},
	} {
		got := Owner(c.process)
		if got != c.want || got.Groups.Whole() == c.process.Part {
			t.Errorf("%+v is %+v", c.process, got)
		}
	}
}
