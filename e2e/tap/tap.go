// Package tap reads what crosses the links between gateways and tells of what must not. It stands between their Envoys
// with certificates of both gateways' own authorities, so that both sides take it for the other, and passes on every
// byte as it is.
package tap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// certificateLife is longer than any connection of a test.
const certificateLife = time.Hour

// Gateway is one end of a tapped link.
type Gateway struct {
	Name      string
	Authority func() (*trust.Authority, error) // as it is now: it may have been rotated
	Forbidden func() []Forbidden               // what of this gateway's cluster must not reach the other end
}

// Finding is something of a cluster that crossed to another.
type Finding struct {
	From, To string // clusters
	What     string // of Forbidden
	Text     string // what crossed, with what stands around it
	Request  string // in which: method, authority and path
	Answer   bool   // in the answer, not in the request
}

// String tells the finding on one line.
func (f Finding) String() string {
	part := "request"
	if f.Answer {
		part = "answer"
	}
	return fmt.Sprintf("%s -> %s: %s in the %s of %s: %q", f.From, f.To, f.What, part, f.Request, f.Text)
}

// Tap is on any number of links.
type Tap struct {
	wait sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	open     map[io.Closer]struct{}
	findings []Finding
	known    map[Finding]bool
	blind    []error
	counts   Counts
}

// Counts are how much was read.
type Counts struct {
	Connections, Streams, Joins int
	Tunnels                     int   // reverse ones, that were used
	Bytes                       int64 // decrypted, both directions
}

// New makes a tap on no link.
func New() *Tap { return &Tap{open: map[io.Closer]struct{}{}, known: map[Finding]bool{}} }

// Between carries what the gateway from dials at the listener to whatever dial reaches, which is the gateway to. The
// listener is the tap's from now on.
func (t *Tap) Between(from, to Gateway, listener net.Listener, dial func(context.Context) (net.Conn, error)) {
	if !t.hold(listener) {
		return
	}
	t.wait.Go(func() {
		defer t.release(listener)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			t.wait.Go(func() {
				if err := t.carry(from, to, conn, dial); err != nil {
					t.blinded(fmt.Errorf("%s -> %s: %w", from.Name, to.Name, err))
				}
			})
		}
	})
}

// Findings are what was found until now, each once.
func (t *Tap) Findings() []Finding {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.findings)
}

// Blind tells what the tap could not read: nobody knows what crossed there.
func (t *Tap) Blind() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.blind...)
}

// Counts tell how much was read until now.
func (t *Tap) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// Close ends every connection, and returns once all that crossed has been read.
func (t *Tap) Close() {
	t.mu.Lock()
	t.closed = true
	for c := range t.open {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.wait.Wait()
}

// carry is one connection from its handshakes to its end. An error says that something may have crossed unread.
func (t *Tap) carry(from, to Gateway, raw net.Conn, dial func(context.Context) (net.Conn, error)) error {
	defer func() { _ = raw.Close() }()
	if !t.hold(raw) {
		return nil
	}
	defer t.release(raw)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shown, err := certificate(to)
	if err != nil {
		return err
	}
	near := tls.Server(&recorded{Conn: raw}, &tls.Config{
		Certificates: []tls.Certificate{shown}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config := &tls.Config{Certificates: []tls.Certificate{shown}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13,
				SessionTicketsDisabled: true}
			switch {
			case joins(hello.ServerName):
				return config, nil
			case leavesTunnel(hello.ServerName):
				config.ClientAuth = tls.RequireAnyClientCert
				return config, nil
			}
			return nil, nil
		},
	})
	if err := near.HandshakeContext(ctx); err != nil {
		return nil // nothing crossed: whoever dialled did not want this peer, or is gone
	}
	shown, err = certificate(from)
	if err != nil {
		return err
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil // nobody listens: who dialled sees its connection end
	}
	defer func() { _ = conn.Close() }()
	if !t.hold(conn) {
		return nil
	}
	defer t.release(conn)
	host := near.ConnectionState().ServerName
	dialled := &tls.Config{
		Certificates: []tls.Certificate{shown}, ServerName: host, NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the address is the test's own
	}
	switch {
	case joins(host):
		dialled.Certificates, dialled.NextProtos = nil, []string{"http/1.1"}
	case leavesTunnel(host):
		dialled.NextProtos = []string{"http/1.1"}
	}
	far := tls.Client(&recorded{Conn: conn}, dialled)
	if err := far.HandshakeContext(ctx); err != nil {
		return nil // the peer refuses who dials, or is gone
	}
	t.count(Counts{Connections: 1})
	if leavesTunnel(host) {
		return t.carryTunnel(from, to, near, far)
	}
	t.exchange(from, to, near, far, joins(host))
	return nil
}

// exchange passes on what the gateway from asks and what the gateway to answers, and reads both.
func (t *Tap) exchange(from, to Gateway, near, far *tls.Conn, join bool) {
	requests := &requests{of: map[uint32]string{}}
	asked := t.read(&reading{tap: t, requests: requests, from: from, to: to, joins: join})
	answered := t.read(&reading{tap: t, requests: requests, from: to, to: from, answers: true, joins: join})
	var both sync.WaitGroup
	both.Go(func() { pass(far, near, asked) })
	both.Go(func() { pass(near, far, answered) })
	both.Wait()
}

// read follows one direction in a goroutine of its own; it gets what is written, until it is closed.
func (t *Tap) read(r *reading) io.WriteCloser {
	out, in := io.Pipe()
	t.wait.Go(func() {
		if err := r.follow(out); err != nil {
			t.blinded(fmt.Errorf("%s -> %s: %w", r.from.Name, r.to.Name, err))
		}
		_, _ = io.Copy(io.Discard, out) // so that what passes is never held up
	})
	return in
}

// pass copies one direction until it ends; the end is passed on as well.
func pass(to, from *tls.Conn, heard io.WriteCloser) {
	defer heard.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			_, _ = heard.Write(buffer[:n]) // before it is passed on: nothing crosses unread
			if _, werr := to.Write(buffer[:n]); werr != nil {
				err = werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		case err != nil:
			_ = from.Close()
			_ = to.Close()
			return
		}
	}
}

// joins tells whether who dials is a stranger that redeems an invitation. It shows no certificate, has the one of the
// invitation's authority, which must be sent along, and asks by HTTP/1.1.
func joins(serverName string) bool { return strings.HasPrefix(serverName, names.Join+".") }

func certificate(of Gateway) (tls.Certificate, error) {
	authority, err := of.Authority()
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := authority.Issue(time.Now(), certificateLife)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(append(slices.Clone(pair.CertificatePEM), authority.Export().CertificatesPEM...), pair.KeyPEM)
}

// hold remembers what Close closes; false where it has been called.
func (t *Tap) hold(c io.Closer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close()
		return false
	}
	t.open[c] = struct{}{}
	return true
}

func (t *Tap) release(c io.Closer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

func (t *Tap) found(f Finding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known[f] {
		t.known[f] = true
		t.findings = append(t.findings, f)
	}
}

func (t *Tap) blinded(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blind = append(t.blind, err)
}

func (t *Tap) count(more Counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Connections += more.Connections
	t.counts.Streams += more.Streams
	t.counts.Joins += more.Joins
	t.counts.Tunnels += more.Tunnels
	t.counts.Bytes += more.Bytes
}
