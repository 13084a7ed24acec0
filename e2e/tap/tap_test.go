package tap

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

func gateway(t *testing.T, name string, forbidden ...Forbidden) Gateway {
	t.Helper()
	dir := t.TempDir()
	if _, err := trust.Init(dir, "", name); err != nil {
		t.Fatal(err)
	}
	return Gateway{Name: name, Authority: func() (*trust.Authority, error) { return trust.Open(dir) },
		Forbidden: func() []Forbidden { return forbidden }}
}

// link is a tap between a client of west and a server of east.
func link(t *testing.T, west, east Gateway, serve http.HandlerFunc) (*Tap, *http.Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(serve)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{show(t, east)}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	tap := New()
	t.Cleanup(tap.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap.Between(west, east, listener, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	transport := &http.Transport{
		DisableCompression: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{show(t, west)}},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return tap, &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func show(t *testing.T, g Gateway) tls.Certificate {
	t.Helper()
	c, err := certificate(g)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var pods = Network("an address of a pod", netip.MustParsePrefix("10.102.0.0/16"))

func TestTapFindsWhatIsForbidden(t *testing.T) {
	t.Parallel()
	secret := "hunter2-of-east"
	east := gateway(t, "east", pods, Secret("a password", secret))
	west := gateway(t, "west", Network("an address of a container", netip.MustParsePrefix("172.18.0.0/16")))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(strings.Repeat("x", 100_000) + "10.102.7.7"))
	_ = z.Close()
	tap, client := link(t, west, east, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/clean":
			_, _ = io.WriteString(w, "110.102.0.1 10.10.2.0.1 10.103.0.1 172.18.0.2 "+"hunter2-of-west") // none is east's
		case "/split":
			_, _ = io.WriteString(w, `{"podIP":"10.1`)
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, `02.4.5"}`)
		case "/zipped":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		case "/header":
			w.Header().Set("Location", "https://10.102.0.1:6443/")
		case "/trailer":
			w.Header().Set("Trailer", "X-Where")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Where", "10.102.0.9")
		default:
			before := len(r.URL.Path) % 3
			_, _ = io.WriteString(w, base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before)+secret+"yyy")))
		}
	})
	for _, path := range []string{"/clean", "/split", "/zipped", "/header", "/trailer", "/b", "/bb", "/bbb"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://east"+path, strings.NewReader("from 172.18.0.3"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || (path == "/zipped" && !bytes.Equal(body, zipped.Bytes())) {
			t.Errorf("%s: %q, %v", path, body, err)
		}
		_ = response.Body.Close()
	}
	tap.Close()
	got := map[string]int{}
	for _, f := range tap.Findings() {
		got[fmt.Sprint(f.From, " ", f.Request, " ", f.Answer)]++
	}
	for _, want := range []string{
		"west POST east /clean false", "east POST east /split true", "east POST east /zipped true", "east POST east /header true",
		"east POST east /trailer true", "east POST east /b true", "east POST east /bb true", "east POST east /bbb true",
	} {
		if got[want] == 0 {
			t.Errorf("not found: %s", want)
		}
	}
	if got["east POST east /clean true"] > 0 {
		t.Error("found in what is clean")
	}
	if t.Failed() {
		t.Log(tap.Findings())
	}
	if err := tap.Blind(); err != nil {
		t.Error(err)
	}
	if c := tap.Counts(); c.Connections != 1 || c.Streams != 8 || c.Bytes < int64(zipped.Len()) {
		t.Errorf("counts: %+v", c)
	}
}

// TestTapReadsJoins has a gateway redeem an invitation of one that it has never met, through the tap.
func TestTapReadsJoins(t *testing.T) {
	t.Parallel()
	east := gateway(t, "east", pods)
	west := gateway(t, "west", Network("an address of a container", netip.MustParsePrefix("172.18.0.0/16")))
	bundles := map[string]trust.Bundle{}
	for _, g := range []Gateway{east, west} {
		authority, err := g.Authority()
		if err != nil {
			t.Fatal(err)
		}
		bundles[g.Name] = authority.Export()
	}
	tap := New()
	t.Cleanup(tap.Close)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(r.TLS.PeerCertificates) != 0 || !bytes.Contains(body, []byte("of-the-invitation")) {
			t.Errorf("%s, %v, %d certificates", body, err, len(r.TLS.PeerCertificates))
		}
		text, err := bundles["east"].MarshalText()
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"bundle": string(text), "message": "from 10.102.3.4"})
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{show(t, east)}}
	server.StartTLS()
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap.Between(west, east, listener, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	token := join.Token{Address: listener.Addr().String(), Suffix: "isthmus.internal", Identity: bundles["east"].Identity, Fingerprint: bundles["east"].Fingerprint,
		Invitation: "i", Secret: "of-the-invitation", Expires: time.Now().Add(time.Minute)}
	got, err := join.Redeem(t.Context(), token, join.Joiner{Bundle: bundles["west"], Addresses: []string{"172.18.0.9:15443"}})
	if err != nil || got.Fingerprint != bundles["east"].Fingerprint {
		t.Fatal(got.Identity, err)
	}
	tap.Close()
	told := map[string]bool{}
	for _, f := range tap.Findings() {
		told[fmt.Sprint(f.From, " ", f.Request, " ", f.Answer)] = true
	}
	if !told["west a join false"] || !told["east a join true"] || tap.Blind() != nil || tap.Counts().Joins != 1 {
		t.Errorf("%v, %v, %+v", told, tap.Blind(), tap.Counts())
	}
}

// TestTapIsBlind holds that what it cannot read is told.
func TestTapIsBlind(t *testing.T) {
	t.Parallel()
	for text, blind := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: of.another.protocol\r\n\r\n":                 true,
		http2.ClientPreface + "\x00\x00\x09\x04\x00\x00\x00\x00\x00123456789": true,  // settings of a wrong length
		http2.ClientPreface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00123":       false, // cut off
		"PRI": false,
	} {
		tap := New()
		r := &reading{tap: tap, requests: &requests{of: map[uint32]string{}}}
		if err := r.follow(strings.NewReader(text)); (err != nil) != blind {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestTapPassesEnds holds that a connection that ends on one side ends on the other.
func TestTapPassesEnds(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	_, client := link(t, gateway(t, "west"), gateway(t, "east"), func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(hang)
	})
	ctx, cancel := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://east/", nil)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	cancel()
	client.CloseIdleConnections()
	select {
	case <-hang:
	case <-time.After(10 * time.Second):
		t.Error("the server does not hear that its client is gone")
	}
}
