package app

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

func apiPeer(listen string, names ...string) manifest.Peer {
	p := manifest.Peer{Metadata: manifest.Metadata{Name: "east"}}
	p.Spec.API.Listen, p.Spec.API.Names = netip.MustParseAddrPort(listen), names
	return p
}

// TestAPICertificates holds that a listener's certificate is for its names, is kept while it is good, and is renewed well
// before it ends.
func TestAPICertificates(t *testing.T) {
	t.Parallel()
	authority, err := trust.Init(t.TempDir(), "", "west")
	if err != nil {
		t.Fatal(err)
	}
	c := newAPICertificates(func() *trust.Authority { return authority }, "isthmus.internal")
	now := time.Now()
	of := func(p manifest.Peer, at time.Time) (trust.Pair, *x509.Certificate) {
		t.Helper()
		pair, parts, err := c.of(p, at)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(parts.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return pair, leaf
	}
	first, leaf := of(apiPeer("10.0.0.7:16443", "gateway.example"), now)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "10.0.0.7", "gateway.example", "api.east.isthmus.internal"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if again, _ := of(apiPeer("10.0.0.7:16443", "gateway.example"), now.Add(trust.DefaultLife/2)); again.String() != first.String() || string(again.KeyPEM) != string(first.KeyPEM) {
		t.Error("it is not kept")
	}
	if late, _ := of(apiPeer("10.0.0.7:16443", "gateway.example"), now.Add(trust.DefaultLife*3/4)); string(late.KeyPEM) == string(first.KeyPEM) {
		t.Error("it is not renewed")
	}
	if _, leaf := of(apiPeer("0.0.0.0:16443", "other.example"), now); leaf.VerifyHostname("other.example") != nil || leaf.VerifyHostname("gateway.example") == nil {
		t.Errorf("it is for %v %v", leaf.DNSNames, leaf.IPAddresses)
	}
}

// TestAPICertificateFiles holds that the admin's files are read again when they change, and that half a change leaves
// what was there.
func TestAPICertificateFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := trust.Init(t.TempDir(), "", "west")
	if err != nil {
		t.Fatal(err)
	}
	p := apiPeer("127.0.0.1:16443")
	p.Spec.API.TLS = manifest.PeerAPITLS{CertFile: filepath.Join(dir, "api.pem"), KeyFile: filepath.Join(dir, "api.key")}
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, now := newAPICertificates(func() *trust.Authority { return authority }, "isthmus.internal"), time.Now()
	if pair, _, err := c.of(p, now); err == nil || len(pair.CertificatePEM) > 0 {
		t.Errorf("no files give %v, %v", pair, err)
	}
	var pairs []trust.Pair
	for range 2 {
		pair, err := authority.IssueServer(now, time.Hour, []string{"localhost"})
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, pair)
	}
	is := func(when string, want trust.Pair, fails bool) {
		t.Helper()
		pair, _, err := c.of(p, now)
		if string(pair.CertificatePEM) != string(want.CertificatePEM) || (err != nil) != fails {
			t.Errorf("%s: %v, %v", when, pair, err)
		}
	}
	write(p.Spec.API.TLS.CertFile, pairs[0].CertificatePEM)
	write(p.Spec.API.TLS.KeyFile, pairs[0].KeyPEM)
	is("first", pairs[0], false)
	write(p.Spec.API.TLS.CertFile, pairs[1].CertificatePEM)
	is("half changed", pairs[0], true)
	write(p.Spec.API.TLS.KeyFile, pairs[1].KeyPEM)
	is("changed", pairs[1], false)
}

// TestAPITLS shakes hands with the listener of a docker client's edge.
func TestAPITLS(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t, peerEast)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.NewListener(listener, g.apiTLS("east"))
	t.Cleanup(func() { _ = secured.Close() })
	go func() {
		for {
			conn, err := secured.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(g.authority.Load().Export().CertificatesPEM)
	for name, good := range map[string]bool{"localhost": true, "api.east.isthmus.internal": true, "api.south.isthmus.internal": false} {
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12})
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}
