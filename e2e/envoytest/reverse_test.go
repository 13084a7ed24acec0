package envoytest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// leavesTunnels makes other a peer that cannot dial this gateway: this one leaves tunnels with it, so many by each worker.
func (g *gateway) leavesTunnels(other *gateway, number int) {
	g.knows(other)
	g.model.Peers[len(g.model.Peers)-1].Tunnels = snapshot.Tunnels{Dialled: number}
	name := g.model.Gateway.Cluster
	other.model.Peers = append(other.model.Peers, snapshot.Peer{
		Name: name, ID: id(name), TrustDomain: name + ".test", Bundle: g.authority.bundle, Ready: true,
		Tunnels: snapshot.Tunnels{Accepted: true},
	})
}

// queries asks a service of another gateway through this one, by a connection of its own and so on any worker.
func (g *gateway) queries(of *gateway, service string) (answer, error) {
	c := g.edge()
	// Envoy 1.40 forgets a connection that takes the descriptor of a tunnel that ended in the same moment: it is never read.
	c.Timeout = 2 * time.Second
	resp, err := c.Do(request(g.t, http.MethodGet, "http://"+of.host(service, "shop", "svc")+"/", nil))
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s asks %s: %d %s", g.model.Gateway.Cluster, of.model.Gateway.Cluster, resp.StatusCode, body)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// reaches waits until a service answers on every worker, which is a matter of luck for one request.
func (g *gateway) reaches(of *gateway, service string) {
	g.t.Helper()
	eventually(g.t, 2*waits, func() error {
		for range 20 {
			if _, err := g.queries(of, service); err != nil {
				return err
			}
		}
		return nil
	})
}

// behind is a gateway behind NAT, inner, and the one that it dials, outer; each exports a service to the other.
func behind(t *testing.T) (inner, outer *gateway) {
	t.Helper()
	inner, outer = newGateway(t, "inner"), newGateway(t, "outer")
	inner.workers, outer.workers = 2, 2
	inner.leavesTunnels(outer, 2)
	for _, g := range []*gateway{inner, outer} {
		g.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("inner"), id("outer"))
		g.export("web-endless", neutral.HTTP1, serve(t, http.HandlerFunc(endless)), id("inner"), id("outer"))
	}
	return inner, outer
}

// TestReverse has requests in both directions where one side alone dials.
func TestReverse(t *testing.T) {
	t.Parallel()
	inner, outer := behind(t)
	echoing := tcpServer(t, func(c *net.TCPConn) { _, _ = c.ReadFrom(c) })
	inner.export("redis", neutral.TCP, echoing, id("outer"))
	raw := loopback.Address(t, outer.address)
	outer.model.Accesses = append(outer.model.Accesses, snapshot.Access{
		Name: "redis", Listen: raw, Peer: "inner", Authority: inner.host("redis", "shop", "svc") + ":80",
	})
	inner.start()
	outer.start()
	inner.reaches(outer, "web")
	outer.reaches(inner, "web")
	t.Run("raw TCP", func(t *testing.T) { chat(t, dialTCP(t, raw), "hello") })
	t.Run("who asks", func(t *testing.T) {
		inner.model.Upstream = neutral.Upstream{}
		d, kill := inner.decides(routed(""))
		defer kill()
		call(t, outer.local(), request(t, http.MethodGet, "http://"+inner.host("api")+"/containers/json", nil))
		seen := d.requests()
		if len(seen) != 1 || seen[0][names.HeaderPeer] != id("outer") {
			t.Errorf("external processing took the peer for %v", seen)
		}
	})
	t.Run("more at once than a connection carries", func(t *testing.T) {
		var all []download
		for range 150 {
			all = append(all, downloads(t, outer.edge(), "http://"+inner.host("web-endless", "shop", "svc")+"/endless"))
		}
		all[0].running(t, "a download by a tunnel")
	})
}

// TestReverseSeveral has a gateway behind NAT with two peers, one of which is behind NAT of a third itself.
func TestReverseSeveral(t *testing.T) {
	t.Parallel()
	inner, outer := behind(t)
	far := newGateway(t, "far")
	far.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("inner"))
	inner.leavesTunnels(far, 1)
	outer.leavesTunnels(far, 1)
	for _, g := range []*gateway{inner, outer, far} {
		g.start()
	}
	outer.reaches(inner, "web")
	inner.reaches(far, "web")
	inner.model.Services[0].Peers = append(inner.model.Services[0].Peers, id("far"))
	inner.set()
	far.reaches(inner, "web")
	// One is given up; the other stays.
	inner.model.Peers = inner.model.Peers[:1]
	inner.set()
	eventually(t, waits, func() error {
		if a, err := far.queries(inner, "web"); a.code != http.StatusBadGateway {
			return fmt.Errorf("answered with %d: %w", a.code, err)
		}
		return nil
	})
	outer.reaches(inner, "web")
}

// TestReverseStrangers leaves tunnels under names that are not one's own.
func TestReverseStrangers(t *testing.T) {
	t.Parallel()
	inner, outer := behind(t)
	other := newGateway(t, "other")
	other.leavesTunnels(outer, 1)
	// dials, but leaves no tunnels
	plain := newGateway(t, "plain")
	outer.knows(plain)
	outer.start()
	leave := func(config *tls.Config, host, node, group, tenant string) (net.Conn, int, error) {
		config = config.Clone()
		config.ServerName, config.NextProtos = host, []string{"http/1.1"}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", outer.model.Gateway.Peer, config)
		if err != nil {
			return nil, 0, err
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := fmt.Fprintf(conn, "GET /reverse_connections/request HTTP/1.1\r\nHost: outer\r\n"+
			"x-envoy-reverse-tunnel-node-id: %s\r\nx-envoy-reverse-tunnel-cluster-id: %s\r\nx-envoy-reverse-tunnel-tenant-id: %s\r\n"+
			"Content-Length: 0\r\n\r\n", node, group, tenant); err != nil {
			return nil, 0, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return nil, 0, err
		}
		return conn.NetConn(), resp.StatusCode, resp.Body.Close()
	}
	const domain = "outer.test"
	own := func(name string) (host, node, group, tenant string) {
		return names.TunnelHost(name, domain), names.TunnelNode(name), names.TunnelGroup(name), name
	}
	host, node, group, tenant := own("inner")
	// As inner does it, and as somebody who holds the bare connection then and has another certificate.
	for _, c := range []struct {
		by    *authority
		as    string
		comes bool
	}{{inner.authority, "inner", true}, {other.authority, "other", false}, {newAuthority(t, "inner.test"), "inner", false}} {
		conn, code, err := leave(inner.authority.client(id("inner")), host, node, group, tenant)
		if code != http.StatusOK {
			t.Fatalf("inner itself: %d, %v", code, err)
		}
		config := c.by.client(id(c.as))
		server := tls.Server(&waiting{Conn: conn}, &tls.Config{
			Certificates: config.Certificates, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		})
		met := make(chan error, 1)
		go func() { met <- server.HandshakeContext(t.Context()) }()
		eventually(t, waits, func() error {
			_, _ = outer.queries(inner, "web") // by any worker; nobody answers it
			select {
			case err = <-met:
				return nil
			default:
				return fmt.Errorf("nothing comes by the tunnel")
			}
		})
		if (err == nil) != c.comes {
			t.Errorf("a tunnel of inner's on which %s answers: %v", c.as, err)
		} else if err == nil && server.ConnectionState().PeerCertificates[0].URIs[0].String() != id("outer") {
			t.Error("another one than outer asks")
		}
		_ = conn.Close()
	}
	of := other.authority.client(id("other"))
	otherHost, _, _, _ := own("other")
	for name, c := range map[string]struct {
		config                    *tls.Config
		host, node, group, tenant string
	}{
		"another peer, in inner's place":     {of, host, node, group, tenant},
		"another peer, as inner":             {of, otherHost, node, group, tenant},
		"another peer, half as inner":        {of, otherHost, "other", group, "other"},
		"another peer, inner's group":        {of, otherHost, names.TunnelGroup("inner"), names.TunnelGroup("other"), "other"},
		"another peer, nobody's node":        {of, otherHost, "", names.TunnelGroup("other"), "other"},
		"inner's domain, another name":       {inner.authority.client("spiffe://inner.test/cluster/x"), host, node, group, tenant},
		"inner's name, of another authority": {newAuthority(t, "inner.test").client(id("inner")), host, node, group, tenant},
		"no certificate":                     {&tls.Config{InsecureSkipVerify: true}, host, node, group, tenant}, //nolint:gosec // the server refuses
		"a peer that leaves no tunnels":      {plain.authority.client(id("plain")), names.TunnelHost("plain", domain), "plain", names.TunnelGroup("plain"), "plain"},
		"by the link of a peer without any":  {plain.authority.client(id("plain")), names.LinkHost("plain", domain), "plain", names.TunnelGroup("plain"), "plain"},
	} {
		t.Run(name, func(t *testing.T) {
			_, code, err := leave(c.config, c.host, c.node, c.group, c.tenant)
			if code == http.StatusOK {
				t.Error("the tunnel was taken")
			}
			t.Logf("%d, %v", code, err)
		})
	}
}

// waiting is a tunnel that waits for its use: it answers what tries it.
type waiting struct {
	net.Conn
	used bool
}

func (w *waiting) Read(p []byte) (int, error) {
	for !w.used {
		const ping = "RPING"
		first := make([]byte, len(ping))
		if n, err := io.ReadFull(w.Conn, first); err != nil {
			return copy(p, first[:n]), err
		}
		if string(first) == ping {
			if _, err := io.WriteString(w.Conn, ping); err != nil {
				return 0, err
			}
			continue
		}
		w.used = true
		return copy(p, first), nil // a record of TLS has a head of five bytes
	}
	return w.Conn.Read(p)
}

// TestReverseRemoved has a peer removed that left tunnels: what callers have under way by them ends, and nothing of others.
func TestReverseRemoved(t *testing.T) {
	t.Parallel()
	inner, outer := behind(t)
	other := newGateway(t, "other")
	other.leavesTunnels(outer, 2)
	other.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(endless)), id("outer"))
	for _, g := range []*gateway{inner, outer, other} {
		g.start()
	}
	outer.reaches(inner, "web")
	outer.reaches(other, "web")
	ofInner := downloads(t, outer.edge(), "http://"+inner.host("web-endless", "shop", "svc")+"/endless")
	ofOther := downloads(t, outer.edge(), "http://"+other.host("web", "shop", "svc")+"/endless")
	removed := outer.model.Peers[0]
	outer.model.Peers = slices.DeleteFunc(outer.model.Peers, func(p snapshot.Peer) bool { return p.Name == "inner" })
	outer.set()
	time.Sleep(500 * time.Millisecond)
	if n, err := outer.supervisor.Sever(nil, names.TunnelMark("inner")); n == 0 || err != nil {
		t.Fatalf("severed %d, %v", n, err)
	}
	select {
	case <-ofInner.end:
	case <-time.After(waits): // nothing comes any more at once; Envoy closes the client's connection a second later
		t.Error("the removed peer's download goes on")
	}
	ofOther.running(t, "a download of another peer's tunnel")
	outer.model.Peers = append(outer.model.Peers, removed)
	outer.set()
	outer.reaches(inner, "web")

	// The other way round: the gateway that dials ends what comes in by the tunnels that it left.
	again := downloads(t, outer.edge(), "http://"+inner.host("web-endless", "shop", "svc")+"/endless")
	inner.model.Peers = nil
	inner.set()
	select {
	case <-again.end:
	case <-time.After(waits):
		t.Error("a download goes on by a tunnel that its gateway has given up")
	}
	ofOther.running(t, "a download of another peer's tunnel")
}

// TestReverseMended breaks tunnels in each way; they come back by themselves.
func TestReverseMended(t *testing.T) {
	t.Parallel()
	inner, outer := behind(t)
	// outer first: a gateway may wait for one that is not there yet.
	outer.start()
	if _, err := outer.queries(inner, "web"); err == nil {
		t.Fatal("answered before the tunnel was there")
	}
	inner.start()
	outer.reaches(inner, "web")
	kill := func(g *gateway) {
		t.Helper()
		pid := g.supervisor.Status().PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, waits, func() error {
			if s := g.supervisor.Status(); s.PID == pid || s.PID == 0 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	for _, g := range []*gateway{inner, outer, inner, outer} {
		t.Run("the Envoy of "+g.model.Gateway.Cluster+" dies", func(t *testing.T) {
			began := time.Now()
			kill(g)
			outer.reaches(inner, "web")
			inner.reaches(outer, "web")
			t.Logf("mended after %v", time.Since(began).Round(time.Millisecond))
		})
	}
	for range 3 {
		t.Run("the link is cut", func(t *testing.T) {
			at := netip.MustParseAddrPort(outer.model.Gateway.Peer)
			if n, err := inner.supervisor.Sever([]netip.AddrPort{at}); n == 0 || err != nil {
				t.Fatalf("severed %d, %v", n, err)
			}
			began := time.Now()
			outer.reaches(inner, "web")
			t.Logf("mended after %v", time.Since(began).Round(time.Millisecond))
		})
	}
	t.Run("inner is gone", func(t *testing.T) {
		inner.model.Peers = nil
		inner.set()
		eventually(t, waits, func() error {
			a, err := outer.queries(inner, "web")
			if err == nil {
				return fmt.Errorf("still answered")
			}
			if a.code != http.StatusBadGateway || strings.Contains(a.body, "127.") {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
	})
}
