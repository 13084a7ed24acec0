package trust

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

func TestIssueServer(t *testing.T) {
	t.Parallel()
	a := initialize(t, t.TempDir(), "", "west")
	now := time.Now()
	pair, err := a.IssueServer(now, time.Hour, []string{"localhost", "127.0.0.1", "::1", "gateway.example"})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := tls.X509KeyPair(pair.CertificatePEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(parts.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	for name, good := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "gateway.example": true, "other.example": false, "10.0.0.1": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it is good for a client")
	}
	if len(leaf.URIs) > 0 {
		t.Errorf("peers could take it for %v", leaf.URIs)
	}
	if got := pair.NotAfter.Sub(now); got != time.Hour {
		t.Errorf("it lives for %v", got)
	}
	late := a.NotAfter().Add(-time.Minute)
	if pair, err := a.IssueServer(late, time.Hour, nil); err != nil || pair.NotAfter.After(a.NotAfter()) {
		t.Errorf("it outlives its authority: %v, %v", pair, err)
	}
	if _, err := a.IssueServer(a.NotAfter(), time.Hour, nil); err == nil {
		t.Error("an authority that ended issues")
	}
}
