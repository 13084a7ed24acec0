package tap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// leavesTunnel tells whether who dials leaves a reverse tunnel: it says so by HTTP/1.1, and takes the TLS off then. On the
// bare connection who was dialled begins TLS anew, as the client.
func leavesTunnel(serverName string) bool { return strings.HasPrefix(serverName, "tunnel.") }

const (
	// ping tries a tunnel that waits for its use, both ways.
	ping = "RPING"
	// recordHead is the head of a record of TLS, of which the first byte tells the kind and the last two the length.
	recordHead   = 5
	kindOfRecord = 0x16 // a handshake
)

// patience is how long a handshake may take.
const patience = 20 * time.Second

// carryTunnel is a tunnel from its handshakes, which are done, to its end: from is the gateway that left it, and near and
// far are the connection's ends before the TLS is taken off. An error says that something may have crossed unread.
func (t *Tap) carryTunnel(from, to Gateway, near, far *tls.Conn) error {
	if !t.leave(from, to, near, far) {
		return nil // who was dialled did not take it, or one of them is gone
	}
	inner, outer := bare(near), bare(far)
	head, err := untilUsed(inner, outer)
	if err != nil || head == nil {
		return err
	}
	return t.use(from, to, &resumed{Conn: inner, skip: []byte(ping)}, &resumed{Conn: outer, head: head})
}

// leave passes on the request that leaves the tunnel, and its answer, and tells whether it was taken.
func (t *Tap) leave(from, to Gateway, near, far *tls.Conn) bool {
	var asked, answered bytes.Buffer
	requests := &requests{of: map[uint32]string{0: "a tunnel"}}
	request, err := http.ReadRequest(bufio.NewReader(io.TeeReader(near, &asked)))
	if err != nil || drain(request.Body) != nil {
		return false
	}
	(&reading{tap: t, requests: requests, from: from, to: to}).look(0, asked.Bytes())
	if _, err := far.Write(asked.Bytes()); err != nil {
		return false
	}
	response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(far, &answered)), request) //nolint:bodyclose // drain closes it
	if err != nil || drain(response.Body) != nil {
		return false
	}
	(&reading{tap: t, requests: requests, from: to, to: from, answers: true}).look(0, answered.Bytes())
	t.count(Counts{Bytes: int64(asked.Len() + answered.Len())})
	_, err = near.Write(answered.Bytes())
	return err == nil && response.StatusCode == http.StatusOK
}

func drain(body io.ReadCloser) error {
	_, err := io.Copy(io.Discard, body)
	return errors.Join(err, body.Close())
}

// untilUsed passes on the pings of a tunnel that waits for its use, and gives the head of the first record of its use; nil
// where it ends before.
func untilUsed(inner, outer net.Conn) (head []byte, err error) {
	var back sync.WaitGroup
	back.Go(func() { // its answers
		_, err := io.Copy(outer, inner)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			_ = outer.Close() // inner is gone
		}
	})
	defer func() {
		_ = inner.SetReadDeadline(time.Unix(1, 0))
		back.Wait()
		_ = inner.SetReadDeadline(time.Time{})
	}()
	for {
		head := make([]byte, recordHead)
		if _, err := io.ReadFull(outer, head); err != nil {
			return nil, nil
		}
		switch {
		case string(head) == ping:
			if _, err := inner.Write(head); err != nil {
				return nil, nil
			}
		case head[0] == kindOfRecord:
			return head, nil
		default:
			return nil, fmt.Errorf("on a tunnel crosses %q, which is no TLS", head)
		}
	}
}

// use carries what the gateway outer asks of inner by a tunnel.
func (t *Tap) use(inner, outer Gateway, toInner, fromOuter net.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shown, err := certificate(inner)
	if err != nil {
		return err
	}
	near := tls.Server(fromOuter, &tls.Config{
		Certificates: []tls.Certificate{shown}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	})
	if err := near.HandshakeContext(ctx); err != nil {
		return nil // outer did not want this peer, or is gone
	}
	if shown, err = certificate(outer); err != nil {
		return err
	}
	far := tls.Client(toInner, &tls.Config{
		Certificates: []tls.Certificate{shown}, ServerName: near.ConnectionState().ServerName, NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // it is the test's own
	})
	if err := far.HandshakeContext(ctx); err != nil {
		return nil // inner refuses outer, or is gone
	}
	t.count(Counts{Tunnels: 1})
	t.exchange(outer, inner, near, far, false)
	return nil
}

// recorded gives what it reads record by record of TLS, so that nobody takes more than what belongs to it.
type recorded struct {
	net.Conn
	rest []byte // of a record's head that was read
	left int    // of its body
}

// bare is what is left of a connection of records when its TLS is taken off, between two of them.
func bare(c *tls.Conn) net.Conn { return c.NetConn().(*recorded).Conn }

// Read reads no further than to the end of a record.
func (r *recorded) Read(p []byte) (int, error) {
	if len(r.rest) == 0 && r.left == 0 {
		head := make([]byte, recordHead)
		if n, err := io.ReadFull(r.Conn, head); err != nil {
			return copy(p, head[:n]), err
		}
		r.rest, r.left = head, int(head[3])<<8|int(head[4])
	}
	if len(r.rest) > 0 {
		n := copy(p, r.rest)
		r.rest = r.rest[n:]
		return n, nil
	}
	n, err := r.Conn.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// resumed is a bare connection of which something was read already, or has something first that is not its reader's.
type resumed struct {
	net.Conn
	head, skip []byte
}

// Read reads the head first, and skips what comes before all else, as often as it comes.
func (r *resumed) Read(p []byte) (int, error) {
	for r.skip != nil {
		first := make([]byte, len(r.skip))
		if _, err := io.ReadFull(r.Conn, first); err != nil {
			return 0, err
		}
		if !bytes.Equal(first, r.skip) {
			r.head, r.skip = first, nil
		}
	}
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}
