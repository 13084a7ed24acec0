package envoytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// tcpServer serves connections until the test ends.
func tcpServer(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				handle(c.(*net.TCPConn)) //nolint:forcetypeassert // a TCP listener's
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// dialTCP connects with a deadline on all that follows.
func dialTCP(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn) //nolint:forcetypeassert // "tcp" was dialled
}

// access opens a listener in west that leads to an authority of east.
func (g *gateway) access(name, authority string) string {
	at := loopback.Address(g.t, g.address)
	g.model.Accesses = append(g.model.Accesses, snapshot.Access{
		Name: name, Listen: at, Peer: "east", Authority: authority, Caller: "ci", Node: "node-1", NetworkMode: "host", Layer: "discard",
	})
	return at
}

// TestTunnel carries raw TCP to a container; external processing decides once a connection, and then is not needed.
func TestTunnel(t *testing.T) {
	t.Parallel()
	// What a stream's window holds arrives whole whatever the reader's pace; of more, a slow reader may miss the end.
	const size, large = 12 << 20, 48 << 20
	upper := tcpServer(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c) // until the client's half-close
		if err == nil {
			_, _ = c.Write(bytes.ToUpper(b))
		}
	})
	first := tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "bye\n")
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	download := tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.CopyN(c, zeros{}, size)
	})
	endless := tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.CopyN(c, zeros{}, large)
	})
	echoing := tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	targets := map[string]netip.AddrPort{"upper": upper, "first": first, "download": download, "large": endless, "echo": echoing}

	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	at := map[string]string{}
	for name := range targets {
		at[name] = west.access(name, east.host(name, "shop", "ctr")+":5432")
	}
	at["denied"] = west.access("denied", east.host("denied", "shop", "ctr")+":5432")
	at["service"] = west.access("service", east.host("redis", "shop", "svc")+":80")
	east.export("redis", neutral.TCP, echoing, id("west"))
	west.start()
	east.start()
	d, kill := east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		container, _, _ := strings.Cut(head(m.GetRequestHeaders().GetHeaders())[":authority"], ".")
		target, ok := targets[container]
		if !ok {
			return refused(typev3.StatusCode_Forbidden, `{}`)(m)
		}
		return routed(names.Access, names.HeaderDestination, target.String())(m)
	})
	t.Run("the client ends first", func(t *testing.T) {
		c := dialTCP(t, at["upper"])
		_, _ = io.WriteString(c, "hello")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "HELLO" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("the server ends first", func(t *testing.T) {
		c := dialTCP(t, at["first"])
		if b, err := io.ReadAll(c); err != nil || string(b) != "bye\n" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("a download", func(t *testing.T) {
		c := dialTCP(t, at["download"])
		if n, err := io.Copy(io.Discard, c); err != nil || n != size {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
	})
	t.Run("a download to a slow reader", func(t *testing.T) {
		if n, err := readSlowly(dialTCP(t, at["download"])); err != nil || n != size {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
	})
	t.Run("a download that is cut says so", func(t *testing.T) {
		if n, err := readSlowly(dialTCP(t, at["large"])); err == nil && n != large {
			t.Errorf("a clean end after %d bytes of %d", n, large)
		}
	})
	t.Run("a slow download after the client's half-close", func(t *testing.T) {
		c := dialTCP(t, at["download"])
		_ = c.CloseWrite()
		time.Sleep(300 * time.Millisecond)
		if n, err := io.Copy(io.Discard, c); err != nil || n != size {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
	})
	t.Run("what external processing sees", func(t *testing.T) {
		for _, seen := range d.requests() {
			if seen[":method"] != "CONNECT" || seen[names.HeaderPeer] != id("west") || seen[names.HeaderCaller] != "ci" ||
				seen[names.HeaderNode] != "node-1" || seen[names.HeaderNetworkMode] != "host" || seen[names.HeaderLayer] != "discard" {
				t.Errorf("%v", seen)
			}
		}
	})
	t.Run("denied", func(t *testing.T) {
		c := dialTCP(t, at["denied"])
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("a killed external processing breaks nothing", func(t *testing.T) {
		c := dialTCP(t, at["echo"])
		chat(t, c, "before")
		kill()
		chat(t, c, "after")
		other := dialTCP(t, at["echo"])
		if b, err := io.ReadAll(other); len(b) > 0 {
			t.Errorf("a new tunnel opened: %q %v", b, err)
		}
	})
	t.Run("a TCP service needs no external processing", func(t *testing.T) {
		chat(t, dialTCP(t, at["service"]), "hello")
	})
}

// readSlowly reads to the end with pauses.
func readSlowly(r io.Reader) (int64, error) {
	var n int64
	for {
		m, err := io.CopyN(io.Discard, r, 256<<10)
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// chat sends a line and wants it back.
func chat(t *testing.T, c net.Conn, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(line)+1)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != line+"\n" {
		t.Fatalf("%q %v", b, err)
	}
}

// zeros reads zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
