package envoytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/extproc"
	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

const callerToken = "correct-horse-battery"

// secureClient is clientTo with TLS.
func secureClient(t *testing.T, address string, http2 bool, config *tls.Config) *http.Client {
	transport := &http.Transport{DialContext: dialOnly("tcp", address), TLSClientConfig: config, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// client makes the certificate of a caller.
func (a *authority) named(name string) tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}}))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// admits runs isthmus' own admission of callers beside the gateway's Envoy; the returned function kills it.
func (g *gateway) admits(config caller.Config) (kill func()) {
	g.t.Helper()
	config.Tokens = filepath.Join(g.model.Gateway.RunDir, "tokens")
	if err := os.WriteFile(config.Tokens, []byte(callerToken+",ci\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	authenticator, err := caller.New(config)
	if err != nil {
		g.t.Fatal(err)
	}
	refused := func(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }
	s := grpc.NewServer()
	extproc.New(extproc.Config{
		Zone: extproc.NewZone(g.model.Gateway.Cluster, names.DefaultSuffix), Fallback: nobodys{}, Deadline: 5 * time.Second, Log: discard(),
		Peer: func(string) modules.Peer { return modules.Peer{} },
		Edge: caller.Admission{Callers: func() *caller.Authenticator { return authenticator }, Native: refused},
	}).Register(s)
	socket := g.socket(names.ExtProcSocket)
	_ = os.Remove(socket)
	l := listen(g.t, "unix", socket)
	go func() { _ = s.Serve(l) }()
	g.t.Cleanup(s.Stop)
	return s.Stop
}

// nobodys refuses what comes by the peer link.
type nobodys struct{}

func (nobodys) Class() modules.Class { return modules.Unknown }
func (nobodys) Decide(context.Context, *modules.Request) (modules.Verdict, error) {
	return modules.Verdict{}, fault.New(fault.Denied, "not by the peer link")
}
func (nobodys) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// offers makes west listen for clients of east's API, with TLS.
func (g *gateway) offers(t *testing.T) (address string, config *tls.Config) {
	t.Helper()
	address = loopback.Address(t, g.address)
	certificate, key := g.authority.issueDNS("localhost")
	g.model.Peers[0].API, g.model.Peers[0].APIIdentity = address, snapshot.Identity{Certificate: certificate, Key: key}
	pool := x509.NewCertPool()
	pool.AddCert(g.authority.certificate)
	return address, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// TestCallersOfAPI lets callers in to a peer's API by what they show, and names them to the peer.
func TestCallersOfAPI(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	address, trusting := west.offers(t)
	ca := newAuthority(t, "callers")
	west.model.Gateway.Callers.Authorities = string(ca.bundle)
	caFile := filepath.Join(west.model.Gateway.RunDir, "callers.pem")
	if err := os.WriteFile(caFile, ca.bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("upgrade") != "":
			shout(w, r)
		case r.URL.Path == "/watch":
			ticking(w, r)
		default:
			echo(w, r)
		}
	}))
	west.start()
	east.start()
	decider, _ := east.decides(routed(toOrchestrator))
	kill := west.admits(caller.Config{ClientCA: caFile})

	with := func(name string) *tls.Config {
		config := trusting.Clone()
		if name != "" {
			config.Certificates = []tls.Certificate{ca.named(name)}
		}
		return config
	}
	base := "https://" + strings.Replace(address, west.address, "localhost", 1)
	ask := func(config *tls.Config, http2 bool, header http.Header) answer {
		r := request(t, http.MethodGet, base+"/api/v1/pods?limit=5", nil)
		for k, v := range header {
			r.Header[http.CanonicalHeaderKey(k)] = v
		}
		return call(t, secureClient(t, address, http2, config), r)
	}
	forged := http.Header{
		names.HeaderCaller: {"root"}, names.HeaderRoute: {names.PeerCluster("east")}, names.HeaderCertificate: {`Hash=1;Chain="x";URI=spiffe://root`},
		names.OwnPrefix + "edge": {"peer"},
	}
	token := func(header http.Header, value string) http.Header {
		header = header.Clone()
		if header == nil {
			header = http.Header{}
		}
		header["authorization"] = []string{value}
		return header
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		header http.Header
		want   string
	}{
		{"a token", with(""), token(nil, "Bearer "+callerToken), "ci"},
		{"a certificate", with("alice"), nil, "alice"},
		{"a token and a certificate", with("alice"), token(nil, "Bearer "+callerToken), "ci"},
		{"a token and forged headers", with(""), token(forged, "Bearer "+callerToken), "ci"},
		{"a certificate and forged headers", with("alice"), forged, "alice"},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", c.name, http2), func(t *testing.T) {
				before := len(decider.requests())
				a := ask(c.config, http2, c.header)
				if a.code != http.StatusOK || !strings.Contains(a.body, "/api/v1/pods?limit=5") {
					t.Fatalf("%d %s", a.code, a.body)
				}
				seen := decider.requests()[before]
				if seen[names.HeaderCaller] != c.want || seen[":authority"] != east.host("api") {
					t.Errorf("the peer is told %q, asked %q", seen[names.HeaderCaller], seen[":authority"])
				}
				for _, h := range []string{"authorization", names.HeaderCertificate, names.HeaderRoute, names.OwnPrefix + "edge"} {
					if v, ok := seen[h]; ok {
						t.Errorf("%s crossed: %q", h, v)
					}
				}
				if lower := strings.ToLower(a.body); strings.Contains(lower, callerToken) || strings.Contains(lower, "chain=") {
					t.Errorf("a credential crossed: %s", a.body)
				}
			})
		}
	}
	for name, header := range map[string]http.Header{
		"nothing": nil, "a bad token": token(nil, "Bearer x"), "forged headers": forged, "another scheme": token(nil, "Basic Y2k6"+callerToken),
		"a bad token and forged headers": token(forged, "Bearer x"),
	} {
		t.Run(name, func(t *testing.T) {
			before := len(decider.requests())
			a := ask(with(""), false, header)
			refusal(t, a, http.StatusUnauthorized, "")
			if a.header.Get("www-authenticate") == "" || len(decider.requests()) != before {
				t.Errorf("%v, the peer saw %v", a.header, decider.requests()[before:])
			}
		})
	}
	t.Run("a stranger's certificate", func(t *testing.T) {
		config := trusting.Clone()
		config.Certificates = []tls.Certificate{newAuthority(t, "callers").named("alice")}
		// A client that minds the authorities that are asked for sends none, and one that does not is cut off.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &config.Certificates[0], nil }
		if resp, err := secureClient(t, address, false, config).Get(base + "/"); err == nil {
			_ = resp.Body.Close()
			t.Errorf("answered %s", resp.Status)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		if resp, err := clientTo(t, "tcp", address, false).Get("http://localhost/"); err == nil {
			_ = resp.Body.Close()
			t.Errorf("answered %s", resp.Status)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		conn, err := tls.Dial("tcp", address, with(""))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(conn, "GET /exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", callerToken)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%v %v", resp, err)
		}
		_, _ = io.WriteString(conn, "hello\n")
		if line, err := r.ReadString('\n'); err != nil || line != "HELLO\n" {
			t.Errorf("%q %v", line, err)
		}
	})
	t.Run("isthmus is killed", func(t *testing.T) {
		c := secureClient(t, address, false, with("alice"))
		stream := read(t, c, base+"/watch")
		kill()
		west.undecided()
		stream.goesOn("after isthmus was killed")
		refusal(t, ask(with(""), false, token(nil, "Bearer "+callerToken)), http.StatusServiceUnavailable, "cannot decide")
		stream.goesOn("after a refusal")
		// One that goes without a word is not taken for consent.
		_, end := west.decides(func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse { return nil })
		eventually(t, waits, func() error {
			a := ask(with(""), false, token(forged, "Bearer "+callerToken))
			if a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, "made no decision") {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
		end()
		west.admits(caller.Config{ClientCA: caFile})
		eventually(t, waits, func() error {
			if a := ask(with("alice"), false, nil); a.code != http.StatusOK {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
		stream.goesOn("to the end")
	})
	t.Run("the log", func(t *testing.T) {
		for _, g := range []*gateway{west, east} {
			b, err := os.ReadFile(g.model.Gateway.AccessLog)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), callerToken) {
				t.Errorf("the access log of %s has a token", g.model.Gateway.Cluster)
			}
		}
	})
}

// TestCallersOfServices lets callers in to services and containers of a peer, by credentials of a proxy where one is
// needed.
func TestCallersOfServices(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
	})
	decider, undecide := east.decides(routed(names.Bridge))
	kill := west.admits(caller.Config{})
	service, container := "http://"+east.host("web", "shop", "svc")+"/", "http://"+east.host("db", "shop", "ctr")+"/"
	ask := func(url, credential string) answer {
		r := request(t, http.MethodGet, url, nil)
		r.Header.Set("authorization", "Bearer of-the-service")
		r.Header.Set(names.HeaderCaller, "root")
		r.Header.Set(names.HeaderRoute, names.PeerCluster("east"))
		if credential != "" {
			r.Header.Set("proxy-authorization", credential)
		}
		return call(t, west.edge(), r)
	}
	basic := "Basic Y2k6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5" // ci:correct-horse-battery
	named := func(when, want, credential string) {
		t.Helper()
		before := len(decider.requests())
		if a := ask(container, credential); a.code != http.StatusOK {
			t.Errorf("%s: %d %s", when, a.code, a.body)
			return
		}
		seen := decider.requests()[before]
		if seen[names.HeaderCaller] != want || seen["proxy-authorization"] != "" || seen["authorization"] != "Bearer of-the-service" || seen[names.HeaderRoute] != "" {
			t.Errorf("%s: the peer was told %v", when, seen)
		}
	}
	named("open", "", "")
	named("open, with a credential", "ci", basic)
	for _, credential := range []string{"Bearer x", "Basic eDp5"} {
		refusal(t, ask(service, credential), http.StatusProxyAuthRequired, "not good")
	}
	if a := ask(service, "Bearer "+callerToken); a.code != http.StatusOK || strings.Contains(a.body, callerToken) || !strings.Contains(a.body, "of-the-service") ||
		strings.Contains(strings.ToLower(a.body), names.HeaderPrefix) {
		t.Errorf("%d %s", a.code, a.body)
	}
	eventually(t, waits, func() error { return logged(west, "ci", "web.shop.svc.east") })

	west.model.Gateway.Callers.Services, west.model.Gateway.Callers.Accesses = false, false
	west.set()
	for _, url := range []string{service, container} {
		eventually(t, waits, func() error {
			a := ask(url, "")
			if a.code != http.StatusProxyAuthRequired || a.header.Get("proxy-authenticate") == "" || !strings.Contains(a.body, "Proxy-Authorization") {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
	}
	named("closed, with a credential", "ci", basic)
	t.Run("CONNECT", func(t *testing.T) {
		echoing := tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		undecide()
		east.undecided()
		east.decides(routed(names.Access, names.HeaderDestination, echoing.String()))
		authority := east.host("db", "shop", "ctr") + ":5432"
		for credential, want := range map[string]int{"": http.StatusProxyAuthRequired, "Proxy-Authorization: " + basic + "\r\n": http.StatusOK} {
			eventually(t, waits, func() error {
				c := dialTCP(t, west.model.Gateway.Edge)
				defer func() { _ = c.Close() }()
				_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", authority, authority, credential)
				resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
				if err != nil {
					return err
				}
				if resp.StatusCode != want {
					return fmt.Errorf("%s, want %d", resp.Status, want)
				}
				return nil
			})
		}
	})
	t.Run("isthmus is killed", func(t *testing.T) {
		kill()
		west.undecided()
		refusal(t, ask(service, basic), http.StatusServiceUnavailable, "cannot decide")
		west.model.Gateway.Callers.Services = true
		west.set()
		eventually(t, waits, func() error {
			if a := ask(service, ""); a.code != http.StatusOK {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
	})
}

// TestQueriesByCaller serves queries that external processing allows to some callers, and none that it does not.
func TestQueriesByCaller(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)))
		east.model.Services[0].ByCaller = []string{id("west")}
		east.export("other", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
	})
	west.admits(caller.Config{})
	chosen := names.ServiceCluster("shop", "web", "80")
	east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		if head(m.GetRequestHeaders().GetHeaders())[names.HeaderCaller] == "ci" {
			return routed(chosen)(m)
		}
		return refused(typev3.StatusCode_NotFound, `{"message":"not in the catalogue"}`)(m)
	})
	ask := func(credential string) answer {
		r := request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/a", nil)
		r.Header.Set(names.HeaderRoute, chosen)
		r.Header.Set(names.HeaderCaller, "ci")
		if credential != "" {
			r.Header.Set("proxy-authorization", credential)
		}
		return call(t, west.edge(), r)
	}
	if a := ask(""); a.code != http.StatusNotFound {
		t.Errorf("nobody: %d %s", a.code, a.body)
	}
	if a := ask("Bearer " + callerToken); a.code != http.StatusOK || !strings.Contains(a.body, " /a ") || strings.Contains(strings.ToLower(a.body), names.HeaderPrefix) {
		t.Errorf("ci: %d %s", a.code, a.body)
	}
	// A peer that chooses by itself is asked about all the same.
	r := request(t, http.MethodGet, "https://"+east.host("web", "shop", "svc")+"/", nil)
	r.Header.Set(names.HeaderRoute, chosen)
	if a := call(t, direct(t, east, west.authority.client(id("west"))), r); a.code != http.StatusNotFound {
		t.Errorf("a peer's own word: %d %s", a.code, a.body)
	}
}

// logged looks for a caller and what it asked for in an access log.
func logged(g *gateway, name, authority string) error {
	f, err := os.Open(g.model.Gateway.AccessLog)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		var line struct{ Caller, Authority string }
		if json.Unmarshal(s.Bytes(), &line) == nil && line.Caller == name && strings.HasPrefix(line.Authority, authority) {
			return nil
		}
		lines = append(lines, s.Text())
	}
	return fmt.Errorf("%s and %s are not in %s", name, authority, lines)
}
