package envoytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// echo answers with the request's head.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-isthmus-own-route", "orchestrator")
	_, _ = fmt.Fprintf(w, "%s %s %s %s\n", r.Method, r.Host, r.URL.RequestURI(), r.Proto)
	_ = r.Header.Write(w)
}

// shout is a WebSocket server as far as a proxy sees: an upgrade, then bytes both ways, in capitals back.
func shout(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("upgrade"), "websocket") {
		http.Error(w, "upgrade wanted", http.StatusUpgradeRequired)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	for {
		line, err := buf.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, strings.ToUpper(line)); err != nil {
			return
		}
	}
}

// grpcServer runs the standard health service.
func grpcServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestServiceQuery queries services while no external-processing server runs at all.
func TestServiceQuery(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
		east.export("api", neutral.HTTP2, serve(t, http.HandlerFunc(echo)), id("west"))
		east.export("rpc", neutral.GRPC, grpcServer(t), id("west"))
		east.export("chat", neutral.HTTP1, serve(t, http.HandlerFunc(shout)), id("west"))
		east.model.Services = append(east.model.Services, snapshot.Service{
			Service: neutral.Service{Namespace: "shop", Name: "two", Ports: []neutral.ServicePort{
				{Number: 8080, Protocol: "tcp", App: neutral.HTTP1, Endpoints: []netip.AddrPort{serve(t, http.HandlerFunc(echo))}},
				{Number: 9090, Protocol: "tcp", App: neutral.HTTP1, Endpoints: []netip.AddrPort{
					serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "second") }))}},
				{Number: 7070, Protocol: "tcp", App: neutral.HTTP1},
			}},
			Peers: []string{id("west")},
		})
	})
	get := func(t *testing.T, c *http.Client, authority, path string) answer {
		t.Helper()
		r := request(t, http.MethodGet, "http://"+authority+path, nil)
		r.Header.Set("x-forwarded-for", "10.9.8.7")
		r.Header.Set("x-real-ip", "10.9.8.7")
		r.Header.Set("forwarded", "for=10.9.8.7")
		r.Header.Set("x-envoy-upstream-rq-timeout-ms", "1")
		r.Header.Set("authorization", "Bearer of-the-application")
		for _, h := range []string{names.HeaderNode, names.HeaderPeer, names.HeaderCaller, names.HeaderRoute, "x-isthmus-of-tomorrow"} {
			r.Header.Set(h, "outside")
		}
		return call(t, c, r)
	}
	http1, http2 := west.edge(), clientTo(t, "tcp", west.model.Gateway.Edge, true)
	web := east.host("web", "shop", "svc")

	t.Run("HTTP/1.1", func(t *testing.T) {
		a := get(t, http1, web, "/a%2Fb//c?d=e")
		if a.code != http.StatusOK || !strings.HasPrefix(a.body, "GET "+web+" /a%2Fb//c?d=e HTTP/1.1\n") {
			t.Errorf("%d %s", a.code, a.body)
		}
		body := strings.ToLower(a.body)
		for _, word := range []string{names.HeaderPrefix, "10.9.8.7", "127.", "x-envoy"} {
			if strings.Contains(body, word) {
				t.Errorf("the service sees %q:\n%s", word, a.body)
			}
		}
		if !strings.Contains(body, "of-the-application") {
			t.Error("the application's own credential is lost")
		}
		for h := range a.header {
			if l := strings.ToLower(h); strings.HasPrefix(l, names.HeaderPrefix) || strings.HasPrefix(l, "x-envoy") || l == "server" {
				t.Errorf("the caller sees header %s", h)
			}
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		a := get(t, http2, east.host("api", "shop", "svc"), "/x")
		if a.code != http.StatusOK || !strings.Contains(a.body, "HTTP/2.0") {
			t.Errorf("%d %s", a.code, a.body)
		}
	})
	t.Run("HTTP/2 edge to HTTP/1.1 service", func(t *testing.T) {
		if a := get(t, http2, web, "/x"); a.code != http.StatusOK || !strings.Contains(a.body, "HTTP/1.1") {
			t.Errorf("%d %s", a.code, a.body)
		}
	})
	t.Run("names", func(t *testing.T) {
		for authority, want := range map[string]string{
			web + ":80": "GET " + web + ":80 ", strings.ToUpper(web): "GET ", web + ".": "GET " + web,
			east.host("two", "shop", "svc"): "GET ", east.host("two", "shop", "svc") + ":8080": "GET ",
			east.host("two", "shop", "svc") + ":9090": "second",
		} {
			if a := get(t, http1, authority, "/x"); a.code != http.StatusOK || !strings.HasPrefix(a.body, want) {
				t.Errorf("%s: %d %s", authority, a.code, a.body)
			}
		}
	})
	t.Run("nothing ready", func(t *testing.T) {
		refusal(t, get(t, http1, east.host("two", "shop", "svc")+":7070", "/"), http.StatusServiceUnavailable, "nothing ready")
	})
	t.Run("gRPC", func(t *testing.T) {
		conn, err := grpc.NewClient("passthrough:///"+east.host("rpc", "shop", "svc"),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", west.model.Gateway.Edge)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		r, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		if err != nil || r.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%v %v", r, err)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn, err := net.Dial("tcp", west.model.Gateway.Edge)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", east.host("chat", "shop", "svc"))
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
}

// TestQueryRefused is about peers that may not query, and names that are not there.
func TestQueryRefused(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("secret", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("north"))
		north := newGateway(t, "north")
		east.knows(north)
	})
	secret := east.host("secret", "shop", "svc")
	ask := func(authority string) answer {
		r := request(t, http.MethodGet, "http://"+authority+"/", nil)
		r.Header.Set(names.HeaderPeer, id("north"))
		return call(t, west.edge(), r)
	}
	t.Run("external processing down", func(t *testing.T) {
		refusal(t, ask(secret), http.StatusServiceUnavailable, "cannot decide")
	})
	t.Run("external processing refuses", func(t *testing.T) {
		d, kill := east.decides(refused(typev3.StatusCode_Forbidden, `{"message":"no"}`))
		defer func() { kill(); east.undecided() }()
		if a := ask(secret); a.code != http.StatusForbidden || a.body != `{"message":"no"}` {
			t.Errorf("%d %s", a.code, a.body)
		}
		if seen := d.requests(); len(seen) != 1 || seen[0][names.HeaderPeer] != id("west") {
			t.Errorf("external processing saw %v", seen)
		}
	})
	t.Run("external processing agrees by mistake", func(t *testing.T) {
		_, kill := east.decides(routed("service/shop/secret/80"))
		defer kill()
		refusal(t, ask(secret), http.StatusServiceUnavailable, "no decision")
	})
	t.Run("no such peer", func(t *testing.T) {
		refusal(t, ask("web.shop.svc.south.isthmus.internal"), http.StatusNotFound, "no peer has this name")
		refusal(t, ask(names.PeeringHost("east", names.DefaultSuffix)), http.StatusNotFound, "no peer has this name")
	})
	t.Run("peer not joined", func(t *testing.T) {
		west.model.Peers[0].Ready = false
		west.set()
		eventually(t, waits, func() error {
			if a := ask(secret); a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, `peer \"east\" is not joined`) {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
		refusal(t, ask(secret), http.StatusServiceUnavailable, `peer "east" is not joined`)
	})
}
