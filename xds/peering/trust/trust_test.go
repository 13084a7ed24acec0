package trust

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

func initialize(t testing.TB, dir, trustDomain, cluster string) *Authority {
	t.Helper()
	a, err := Init(dir, trustDomain, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestInit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "trust")
	if _, err := Open(dir); !errors.Is(err, ErrNoAuthority) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of nothing: %v", err)
	}
	a := initialize(t, dir, "", "west")
	if want := (peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"}); a.Identity() != want {
		t.Errorf("identity %s, want %s", a.Identity(), want)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700 | fs.ModeDir, keyFile: 0o600, certificateFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %s (%v)", name, info.Mode(), want, err)
		}
	}
	again := initialize(t, dir, "west.isthmus.internal", "west")
	if again.Fingerprint() != a.Fingerprint() {
		t.Error("a second init made another authority")
	}
	for _, other := range [][2]string{{"", "east"}, {"other.example", "west"}} {
		_, err := Init(dir, other[0], other[1])
		if err == nil || !strings.Contains(err.Error(), "holds the authority of spiffe://west.isthmus.internal/cluster/west") {
			t.Errorf("init as %v: %v", other, err)
		}
	}
	if opened, err := Open(dir); err != nil || opened.Fingerprint() != a.Fingerprint() {
		t.Errorf("after refused inits: %v", err)
	}
	for _, bad := range [][2]string{{"", ""}, {"", "West"}, {"", "a.b"}, {"a b", "west"}, {"UPPER", "west"}} {
		if _, err := Init(filepath.Join(t.TempDir(), "x"), bad[0], bad[1]); err == nil {
			t.Errorf("init as %q: accepted", bad)
		}
	}
}

// A crash between the two files leaves a key without a certificate: the next init makes both anew.
func TestInitAfterCrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	initialize(t, dir, "", "west")
	if err := os.Remove(filepath.Join(dir, certificateFile)); err != nil {
		t.Fatal(err)
	}
	initialize(t, dir, "", "west")
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}

func TestOpenBroken(t *testing.T) {
	t.Parallel()
	other := t.TempDir()
	initialize(t, other, "", "other")
	leaf, err := initialize(t, t.TempDir(), "", "west").Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file    string
		content []byte
		why     string
	}{
		"garbage certificate": {certificateFile, []byte("hello"), "no certificate"},
		"empty certificate":   {certificateFile, nil, "no certificate"},
		"a gateway's":         {certificateFile, leafOnly(leaf), "not an authority's"},
		"two":                 {certificateFile, leaf.CertificatePEM, "want one certificate"},
		"garbage key":         {keyFile, []byte("hello"), "no PEM"},
		"another's key":       {keyFile, read(t, filepath.Join(other, keyFile)), "is not the key of"},
		"a certificate":       {keyFile, leaf.CertificatePEM, keyFile},
	} {
		dir := t.TempDir()
		initialize(t, dir, "", "west")
		if err := os.WriteFile(filepath.Join(dir, c.file), c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", name, err)
		}
		if _, initErr := Init(dir, "", "west"); initErr == nil {
			t.Errorf("%s: init wrote over it", name)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE KEY") {
			t.Errorf("%s: the error holds a key", name)
		}
	}
	dir := t.TempDir()
	initialize(t, dir, "", "west")
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || errors.Is(err, ErrNoAuthority) {
		t.Errorf("without its key: %v", err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.CertificatePEM, p.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestIssue(t *testing.T) {
	t.Parallel()
	a := initialize(t, t.TempDir(), "corp.example", "west")
	now := time.Now()
	pair, err := a.Issue(now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, pair)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertificatePEM())
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now}); err != nil {
			t.Error(err)
		}
	}
	// What a SPIFFE validator looks at: one URI, no authority, no signing.
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://corp.example/cluster/west" || leaf.IsCA ||
		leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 {
		t.Errorf("certificate %+v", leaf)
	}
	if life := leaf.NotAfter.Sub(now); life > 24*time.Hour || life < 24*time.Hour-time.Second {
		t.Errorf("it lives for %s", life)
	}
	if !leaf.NotBefore.Before(now.Add(-time.Minute)) {
		t.Errorf("it begins at %s, too late for a peer whose clock is behind", leaf.NotBefore)
	}
	if other, err := a.Issue(now, time.Hour); err != nil || bytes.Equal(other.KeyPEM, pair.KeyPEM) ||
		parse(t, other).SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Errorf("a second certificate repeats the first (%v)", err)
	}
	last, err := a.Issue(a.NotAfter().Add(-time.Hour), 24*time.Hour)
	if err != nil || !last.NotAfter.Equal(a.NotAfter()) {
		t.Errorf("a certificate until %s of an authority until %s (%v)", last.NotAfter, a.NotAfter(), err)
	}
	if _, err := a.Issue(a.NotAfter(), time.Hour); err == nil {
		t.Error("an authority that ended issued")
	}
	if _, err := a.Issue(now, 0); err == nil {
		t.Error("a certificate of no life was issued")
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, pair); strings.Contains(text, "PRIVATE") || strings.Contains(text, "[45") {
			t.Errorf("%s shows the key: %.80s", format, text)
		}
	}
}

// No other authority's certificate passes for this one's, not even one with the same names.
func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	mine, theirs := initialize(t, t.TempDir(), "", "west"), initialize(t, t.TempDir(), "", "west")
	pair, err := theirs.Issue(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(mine.CertificatePEM())
	if _, err := parse(t, pair).Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("a namesake's certificate passes")
	}
}

// leafOnly is a gateway's own certificate, without its authority's.
func leafOnly(p Pair) []byte {
	block, _ := pem.Decode(p.CertificatePEM)
	return pem.EncodeToMemory(block)
}
