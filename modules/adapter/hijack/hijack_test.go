package hijack_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// bridge serves sessions of an engine over HTTP/2 without TLS and gives a client of it.
func bridge(t *testing.T, upstream neutral.Upstream) (*http.Client, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := hijack.Serve(w, r, upstream); err != nil {
			w.Header().Set("X-Kind", fault.Of(err).Kind.String())
			w.WriteHeader(fault.Of(err).Kind.Status())
		}
	}))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server.Config.Protocols = protocols
	server.Start()
	t.Cleanup(server.Close)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}, server.URL
}

// open begins a session and gives its answer and a writer of what the client types.
func open(t *testing.T, client *http.Client, url, body string) (*http.Response, *io.PipeWriter) {
	t.Helper()
	in, typed := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.MultiReader(strings.NewReader(body), in))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(names.HeaderSession, "tcp")
	r.Header.Set(names.HeaderSessionBody, fmt.Sprint(len(body)))
	r.Header.Set(names.HeaderCaller, "somebody")
	r.Header.Set("X-Envoy-Attempt-Count", "1")
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = typed.Close()
		_ = answer.Body.Close()
	})
	return answer, typed
}

func TestServeKeepsBothHalfCloses(t *testing.T) {
	t.Parallel()
	requests := make(chan hijacktest.Connection, 1)
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) {
		requests <- c
		c.Accept(hijacktest.RawStream)
		typed, err := io.ReadAll(c.Reader) // ends with the client's half-close alone
		_, _ = fmt.Fprintf(c, "read %d bytes, %v", len(typed), err)
	})
	client, url := bridge(t, upstream)
	answer, typed := open(t, client, url+"/v1.41/exec/e%2F1/start?a=b", `{"Tty":true}`)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != hijacktest.RawStream {
		t.Fatalf("answer %d %q", answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	payload := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := typed.Write(payload); err != nil {
		t.Fatal(err)
	}
	if err := typed.Close(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(answer.Body)
	if want := fmt.Sprintf("read %d bytes, <nil>", len(payload)); err != nil || string(said) != want {
		t.Errorf("the engine said %q, error %v; want %q", said, err, want)
	}
	c := <-requests
	if c.Request.Method != http.MethodPost || c.Request.RequestURI != "/v1.41/exec/e%2F1/start?a=b" || string(c.Body) != `{"Tty":true}` {
		t.Errorf("the engine was asked %s %s with %q", c.Request.Method, c.Request.RequestURI, c.Body)
	}
	if c.Request.Header.Get("Upgrade") != "tcp" || c.Request.Header.Get("Connection") != "Upgrade" || c.Request.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers of the request: %v", c.Request.Header)
	}
	for key := range c.Request.Header {
		if k := strings.ToLower(key); strings.HasPrefix(k, names.HeaderPrefix) || strings.HasPrefix(k, "x-envoy-") {
			t.Errorf("header %s reached the engine", key)
		}
	}
}

// A container that ends while its client still types is a good end.
func TestServeEngineEndsFirst(t *testing.T) {
	t.Parallel()
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) {
		c.Accept(hijacktest.MultiplexedStream)
		c.Say(1, "bye")
	})
	client, url := bridge(t, upstream)
	for range 50 {
		answer, typed := open(t, client, url+"/exec/1/start", "{}")
		go func() {
			for {
				if _, err := typed.Write(make([]byte, 512)); err != nil {
					return
				}
			}
		}()
		said, err := io.ReadAll(answer.Body)
		if err != nil || !bytes.HasSuffix(said, []byte("bye")) {
			t.Fatalf("the engine said %q, error %v", said, err)
		}
		_ = answer.Body.Close()
		_ = typed.Close()
	}
}

func TestServeOldHijack(t *testing.T) {
	t.Parallel()
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: "+hijacktest.RawStream+"\r\n\r\n")
		_, _ = io.Copy(c, c.Reader)
	})
	client, url := bridge(t, upstream)
	answer, typed := open(t, client, url+"/containers/1/attach", "")
	if _, err := io.WriteString(typed, "echo"); err != nil {
		t.Fatal(err)
	}
	_ = typed.Close()
	if said, err := io.ReadAll(answer.Body); err != nil || string(said) != "echo" {
		t.Errorf("the engine said %q, error %v", said, err)
	}
}

func TestServePassesAnswersThatAreNoHijack(t *testing.T) {
	t.Parallel()
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) {
		c.Answer(http.StatusConflict, "application/json", `{"message":"is paused"}`)
	})
	client, url := bridge(t, upstream)
	answer, _ := open(t, client, url+"/exec/1/start", "{}")
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusConflict || string(body) != `{"message":"is paused"}` ||
		answer.Header.Get("Content-Type") != "application/json" {
		t.Errorf("answer %d %q %q, error %v", answer.StatusCode, answer.Header.Get("Content-Type"), body, err)
	}
}

func TestServeFaults(t *testing.T) {
	t.Parallel()
	garbage := hijacktest.Engine(t, func(c hijacktest.Connection) { _, _ = io.WriteString(c, "220 mail ready\r\n") })
	silent := hijacktest.Engine(t, func(hijacktest.Connection) {})
	tests := map[string]neutral.Upstream{
		"not there": {Socket: filepath.Join(t.TempDir(), "none.sock")}, "garbage": garbage, "closes": silent,
	}
	for name, upstream := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, url := bridge(t, upstream)
			answer, _ := open(t, client, url+"/exec/1/start", "{}")
			if kind := answer.Header.Get("X-Kind"); kind != fault.Unavailable.String() {
				t.Errorf("answer %d, fault %q; want unavailable", answer.StatusCode, kind)
			}
		})
	}
}

func TestServeBadSessionIsNotSent(t *testing.T) {
	t.Parallel()
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) { t.Errorf("the engine was asked %s", c.Request.URL) })
	client, url := bridge(t, upstream)
	answer, err := client.Post(url+"/exec/1/start", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.Header.Get("X-Kind") != fault.Invalid.String() {
		t.Errorf("answer %d %q", answer.StatusCode, answer.Header.Get("X-Kind"))
	}
}

// A client that vanishes must be felt by the engine even if neither side speaks.
func TestServeClientVanishes(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	upstream := hijacktest.Engine(t, func(c hijacktest.Connection) {
		c.Accept(hijacktest.RawStream)
		_, err := io.Copy(io.Discard, c.Reader)
		if err == nil { // both directions must be closed, not the client's half alone
			for err == nil {
				_, err = c.Write([]byte("?"))
				time.Sleep(time.Millisecond)
			}
		}
		ended <- err
	})
	client, url := bridge(t, upstream)
	ctx, cancel := context.WithCancel(t.Context())
	in, typed := io.Pipe()
	defer func() { _ = typed.Close() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/containers/1/attach", in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(names.HeaderSession, "tcp")
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = answer.Body.Close() // the transport looks at the context only once the request's body has ended
	select {
	case err := <-ended:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the engine's connection stayed: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the engine's connection stayed open")
	}
}

func TestDialTLS(t *testing.T) {
	t.Parallel()
	ca, caKey := certificate(t, nil, nil)
	server, serverKey := certificate(t, ca, caKey)
	clientCert, clientKey := certificate(t, ca, caKey)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn) // the client's half-close ends it
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	upstream := neutral.Upstream{Address: listener.Addr().String(), ServerName: "engine.test", CA: pemCertificate(ca),
		Cert: pemCertificate(clientCert), Key: pemKey(t, clientKey)}
	conn, err := hijack.Dial(t.Context(), upstream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); err != nil || string(said) != "hello" {
		t.Errorf("read %q, error %v", said, err)
	}

	stranger, _ := certificate(t, nil, nil)
	upstream.CA = pemCertificate(stranger)
	if conn, err := hijack.Dial(t.Context(), upstream); err == nil {
		_ = conn.Close()
		t.Error("an engine of a stranger's CA was trusted")
	}
	upstream.CA = []byte("no certificate")
	if _, err := hijack.Dial(t.Context(), upstream); err == nil {
		t.Error("a CA without a certificate was accepted")
	}
}

func certificate(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"engine.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if parent == nil {
		parent, parentKey = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

func pemCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pemKey(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}
