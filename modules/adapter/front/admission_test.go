package front

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// certificate makes one that signs itself.
func certificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestAdmission shows credentials to an edge that is a port with TLS: what a client may not say is gone, what it showed
// is judged and goes no further, and who it is crosses.
func TestAdmission(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Isthmus-Own-Route") != "" {
			t.Errorf("crossed: %v", r.Header)
		}
		_, _ = io.WriteString(w, strings.TrimSuffix("asked by "+r.Header.Get(names.HeaderCaller)+" in "+r.Header.Get(names.HeaderGroups), " in "))
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate(t, "server")}, ClientAuth: tls.RequestClientCert,
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	server := New(Config{Peer: "east", Authority: "api.east.isthmus.internal", Edge: edge,
		Admit: func(_ context.Context, c caller.Credentials) (caller.Identity, error) {
			switch {
			case c.Owner.Name != "":
				return caller.Identity{}, fault.New(fault.Internal, "a port has no owner")
			case c.Token == "good":
				return caller.Identity{Name: "ci", Groups: "a,b"}, nil
			case c.Token == "away":
				return caller.Identity{}, fault.New(fault.Unavailable, "later")
			case c.Token != "":
				return caller.Identity{}, fault.New(fault.Unauthenticated, "who?")
			case len(c.Certificates) > 0:
				return caller.Identity{Name: c.Certificates[0].Subject.CommonName}, nil
			}
			return caller.Identity{}, nil
		}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, secured) }()
	t.Cleanup(func() { cancel(); <-ended })
	ask := func(config *tls.Config, header http.Header) (int, string, http.Header) {
		t.Helper()
		config.InsecureSkipVerify = true //nolint:gosec // the client is what is tested
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		defer c.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+listener.Addr().String()+"/v1.41/containers/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		return answer.StatusCode, body(t, answer), answer.Header
	}
	alice := func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{certificate(t, "alice")}} }
	for _, c := range []struct {
		name   string
		config *tls.Config
		header http.Header
		status int
		says   string
	}{
		{"nothing", &tls.Config{}, http.Header{}, 200, "asked by "},
		{"a forged name", &tls.Config{}, http.Header{"X-Isthmus-Link-Caller": {"root"}, "X-Isthmus-Link-Caller-Groups": {"wheel"}, "X-Isthmus-Own-Route": {"orchestrator"}}, 200, "asked by "},
		{"a token", &tls.Config{}, http.Header{"Authorization": {"Bearer good"}, "X-Isthmus-Link-Caller": {"root"}, "X-Isthmus-Link-Caller-Groups": {"wheel"}}, 200, "asked by ci in a,b"},
		{"a bad token", &tls.Config{}, http.Header{"Authorization": {"Bearer bad"}}, 401, `{"message":"who?"}` + "\n"},
		{"nobody to ask", &tls.Config{}, http.Header{"Authorization": {"Bearer away"}}, 503, `{"message":"later"}` + "\n"},
		{"a certificate", alice(), http.Header{"X-Isthmus-Link-Caller-Groups": {"wheel"}}, 200, "asked by alice"},
		{"a certificate and a bad token", alice(), http.Header{"Authorization": {"Bearer bad"}}, 401, `{"message":"who?"}` + "\n"},
		{"a page", alice(), http.Header{"Origin": {"https://evil.example"}}, 403, `{"message":"web pages may not use a peer's API: the request has an Origin header"}` + "\n"},
	} {
		before := asked.Load()
		status, said, header := ask(c.config, c.header)
		if status != c.status || said != c.says || (asked.Load() > before) != (status == 200) || (header.Get("Www-Authenticate") != "") != (status == 401) {
			t.Errorf("%s: %d %q %v", c.name, status, said, header)
		}
	}
}

// TestSessionOverTLS hijacks a connection with TLS: its half-close is the client's end of input, as it is without.
func TestSessionOverTLS(t *testing.T) {
	t.Parallel()
	edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		said, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintf(w, "%d bytes", len(said))
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate(t, "server")}, MinVersion: tls.VersionTLS12})
	server := New(Config{Peer: "east", Authority: "api.east.isthmus.internal", Edge: edge,
		Admit: func(context.Context, caller.Credentials) (caller.Identity, error) {
			return caller.Identity{Name: "ci"}, nil
		}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, secured) }()
	t.Cleanup(func() { cancel(); <-ended })
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the session is what is tested
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	options, err := json.Marshal(map[string]bool{"Tty": true})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, execStart(string(options))+strings.Repeat("x", 100_000))
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", answer, err)
	}
	if said, err := io.ReadAll(reader); err != nil || string(said) != fmt.Sprintf("%d bytes", 100_000+len(options)) {
		t.Errorf("%q %v", said, err)
	}
}
