package tap

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// leaveTunnel does at an end of a tunnel what Envoy does before its use, and gives the bare connection.
func leaveTunnel(conn *tls.Conn, say string) (net.Conn, *bufio.Reader, error) {
	if _, err := io.WriteString(conn, say); err != nil {
		return nil, nil, err
	}
	return bare(conn), bufio.NewReader(conn), nil
}

// fakeInner leaves a tunnel through the tap, answers pings, and serves what comes by it.
func fakeInner(t *testing.T, inner Gateway, address string, handler http.Handler) error {
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Client(&recorded{Conn: raw}, &tls.Config{InsecureSkipVerify: true, ServerName: "tunnel.inner.peer.outer",
		NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{show(t, inner)}})
	wire, words, err := leaveTunnel(conn, "GET /reverse_connections/request HTTP/1.1\r\nHost: 172.18.0.7\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		return err
	}
	response, err := http.ReadResponse(words, nil)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%v %w", response, err)
	}
	for range 2 {
		word := make([]byte, len(ping))
		if _, err := io.ReadFull(wire, word); err != nil || string(word) != ping {
			return fmt.Errorf("%q in place of a ping: %w", word, err)
		}
		if _, err := wire.Write(word); err != nil {
			return err
		}
	}
	server := tls.Server(wire, &tls.Config{Certificates: []tls.Certificate{show(t, inner)}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}})
	come := &once{conn: make(chan net.Conn, 1), address: wire.LocalAddr(), end: t.Context().Done()}
	come.conn <- server
	ended := make(chan struct{})
	serving := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(ended)
		}
	}}
	serving.Protocols.SetHTTP2(true)
	go func() { _ = serving.Serve(come) }()
	<-ended
	return nil
}

// once is a listener to which one connection comes.
type once struct {
	conn    chan net.Conn
	address net.Addr
	end     <-chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.end:
		return nil, net.ErrClosed
	}
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return o.address }

// fakeOuter takes a tunnel, tries it twice, and asks by it.
func fakeOuter(t *testing.T, outer Gateway, listener net.Listener, path string) (string, error) {
	raw, err := listener.Accept()
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Server(&recorded{Conn: raw}, &tls.Config{Certificates: []tls.Certificate{show(t, outer)}, ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true})
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return "", err
	}
	wire, _, err := leaveTunnel(conn, "HTTP/1.1 200 OK\r\nX-Where: 10.102.3.4\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		return "", err
	}
	for range 2 {
		if _, err := io.WriteString(wire, ping); err != nil {
			return "", err
		}
		word := make([]byte, len(ping))
		if _, err := io.ReadFull(wire, word); err != nil || string(word) != ping {
			return "", fmt.Errorf("%q in place of a ping: %w", word, err)
		}
	}
	client := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, ServerName: "outer.peer.inner", NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{show(t, outer)}})
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return client, client.HandshakeContext(t.Context())
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://inner"+path, strings.NewReader("for 10.102.0.1"))
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// TestTapReadsTunnels has a gateway leave a reverse tunnel through the tap, by which the other one asks.
func TestTapReadsTunnels(t *testing.T) {
	t.Parallel()
	inner := gateway(t, "inner", Network("an address of a container", netip.MustParsePrefix("172.18.0.0/16")))
	outer := gateway(t, "outer", pods)
	var listeners [2]net.Listener
	for i := range listeners {
		var err error
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = listeners[1].Close() }()
	tap := New()
	t.Cleanup(tap.Close)
	tap.Between(inner, outer, listeners[0], func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listeners[1].Addr().String())
	})
	served := make(chan error, 1)
	go func() {
		served <- fakeInner(t, inner, listeners[0].Addr().String(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].URIs[0].Host != "outer.isthmus.internal" {
				t.Errorf("who asks shows %v", r.TLS.PeerCertificates)
			}
			_, _ = io.WriteString(w, "from 172.18.0.9")
		}))
	}()
	body, err := fakeOuter(t, outer, listeners[1], "/planted")
	if err != nil || body != "from 172.18.0.9" {
		t.Fatalf("%q, %v", body, err)
	}
	// What crossed in the last moment is read before the tap has closed.
	tap.Close()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the tunnel goes on without the tap")
	}
	told := map[string]bool{}
	for _, f := range tap.Findings() {
		told[fmt.Sprint(f.From, " ", f.Request, " ", f.Answer)] = true
	}
	for _, want := range []string{"inner a tunnel false", "outer a tunnel true", "outer GET inner /planted false", "inner GET inner /planted true"} {
		if !told[want] {
			t.Errorf("not found: %s", want)
		}
	}
	if err := tap.Blind(); err != nil || tap.Counts().Tunnels != 1 {
		t.Errorf("%v, %+v, %v", err, tap.Counts(), tap.Findings())
	}
}

// TestTapIsBlindOnTunnels holds that what is no TLS on a tunnel is told.
func TestTapIsBlindOnTunnels(t *testing.T) {
	t.Parallel()
	for text, blind := range map[string]bool{"GET / HTTP/1.1\r\n": true, ping + ping + "hello": true, ping: false, "RP": false, "": false} {
		inner, farther := net.Pipe()
		outer, speaker := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, farther) }()
		go func() {
			_, _ = io.WriteString(speaker, text)
			_ = speaker.Close()
		}()
		if head, err := untilUsed(inner, outer); (err != nil) != blind || head != nil {
			t.Errorf("%q: %q, %v", text, head, err)
		}
		for _, c := range []net.Conn{inner, farther, outer} {
			_ = c.Close()
		}
	}
}
