package envoytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestAPIListener calls a peer's orchestrator, behind TLS with a client certificate, by a listener of its own.
func TestAPIListener(t *testing.T) {
	t.Parallel()
	west, east := newGateway(t, "west"), newGateway(t, "east")
	west.knows(east)
	east.knows(west)
	west.model.Peers[0].API = west.socket("api.sock")

	ca := newAuthority(t, "orchestrator")
	serverPair, err := tls.X509KeyPair(ca.issueDNS("kubernetes.default.svc"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	l := listen(t, "tcp", "127.0.0.1:0")
	s := &http.Server{ReadHeaderTimeout: time.Second, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{serverPair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12,
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("upgrade") != "" {
			shout(w, r)
			return
		}
		w.Header().Set("who", r.TLS.PeerCertificates[0].URIs[0].String())
		echo(w, r)
	})}
	go func() { _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close() })
	certificate, key := ca.issue("spiffe://orchestrator/client")
	east.model.Upstream = neutral.Upstream{
		Address: l.Addr().String(), CA: ca.bundle, Cert: certificate, Key: key, ServerName: "kubernetes.default.svc",
	}
	west.start()
	east.start()
	east.decides(routed(toOrchestrator))
	west.decides(routed(names.PeerCluster("east")))

	c := clientTo(t, "unix", west.socket("api.sock"), false)
	t.Run("request", func(t *testing.T) {
		r := request(t, http.MethodGet, "http://localhost/api/v1/pods?watch=1", nil)
		r.Header.Set("authorization", "Bearer of-west")
		a := call(t, c, r)
		if a.code != http.StatusOK || !strings.HasPrefix(a.body, "GET "+east.host("api")+" /api/v1/pods?watch=1 HTTP/1.1") ||
			a.header.Get("who") != "spiffe://orchestrator/client" || strings.Contains(a.body, "of-west") {
			t.Errorf("%d %v\n%s", a.code, a.header, a.body)
		}
	})
	for _, protocol := range []string{"websocket", "WebSocket"} {
		t.Run("upgrade "+protocol, func(t *testing.T) {
			conn, err := net.Dial("unix", west.socket("api.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = fmt.Fprintf(conn, "GET /exec HTTP/1.1\r\nHost: 127.0.0.1:4321\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
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
	t.Run("another orchestrator's certificate", func(t *testing.T) {
		east.model.Upstream.ServerName = "another.example"
		east.set()
		eventually(t, waits, func() error {
			if a := call(t, c, request(t, http.MethodGet, "http://localhost/", nil)); a.code != http.StatusBadGateway {
				return fmt.Errorf("%d %s", a.code, a.body)
			}
			return nil
		})
		refusal(t, call(t, c, request(t, http.MethodGet, "http://localhost/", nil)), http.StatusBadGateway, "the target could not be reached")
	})
}

// TestForeignUpgrades passes an upgrade that Envoy does not know through to an engine.
func TestForeignUpgrades(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("upgrade"))
			line, _ := buf.ReadString('\n')
			_, _ = io.WriteString(conn, strings.ToUpper(line))
		}))
		east.decides(routed(toOrchestrator))
	})
	for _, protocol := range []string{"SPDY/3.1", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			conn, err := net.Dial("unix", west.socket(names.EdgeSocket))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = fmt.Fprintf(conn, "GET /exec HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", east.host("api"), protocol)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("upgrade") != protocol {
				t.Fatalf("%v %v", resp, err)
			}
			_, _ = io.WriteString(conn, "hello\n")
			if line, err := r.ReadString('\n'); err != nil || line != "HELLO\n" {
				t.Errorf("%q %v", line, err)
			}
		})
	}
}

// TestConnect asks the HTTP edge for a tunnel, as clients of a forward proxy do.
func TestConnect(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		target := tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		east.decides(routed(names.Access, names.HeaderDestination, target.String()))
	})
	c := dialTCP(t, west.model.Gateway.Edge)
	authority := east.host("db", "shop", "ctr") + ":5432"
	_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	chat(t, c, "hello")
}

// TestPeering talks to a peer's peering service over isthmus' own socket, with no external processing.
func TestPeering(t *testing.T) {
	t.Parallel()
	seen := make(chan metadata.MD, 1)
	west, _ := pair(t, func(east *gateway) {
		l := listen(t, "unix", east.socket(names.PeeringSocket))
		s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			seen <- md
			return h(ctx, req)
		}))
		healthv1.RegisterHealthServer(s, health.NewServer())
		go func() { _ = s.Serve(l) }()
		t.Cleanup(s.Stop)
	})
	for _, authority := range []string{names.PeeringHost("east", names.DefaultSuffix), names.PeeringHost("east", names.DefaultSuffix) + ":443"} {
		conn, err := grpc.NewClient("passthrough:///"+authority, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", west.socket(names.EdgeSocket))
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ctx := metadata.AppendToOutgoingContext(t.Context(), names.HeaderPeer, id("east"), names.HeaderRoute, "bridge")
		if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
			t.Fatalf("%s: %v", authority, err)
		}
		if md := <-seen; strings.Join(md.Get(names.HeaderPeer), ",") != id("west") || len(md.Get(names.HeaderRoute)) > 0 {
			t.Errorf("the peering service saw %v", md)
		}
	}
}

// TestEdgeHeaders compares what callers and isthmus may say to a peer.
func TestEdgeHeaders(t *testing.T) {
	t.Parallel()
	const ownOfTomorrow, linkOfTomorrow = names.OwnPrefix + "of-tomorrow", names.LinkPrefix + "of-tomorrow"
	ofCallers := []string{names.HeaderNode, names.HeaderNetworkMode, names.HeaderLayer, names.HeaderPlan}
	ofGateways := []string{names.HeaderCaller, names.HeaderGroups, names.HeaderOrchestrator, names.HeaderSession, names.HeaderSessionBody,
		names.HeaderRoute, names.HeaderDestination, names.HeaderHold, ownOfTomorrow, linkOfTomorrow}
	west, east := pair(t, func(east *gateway) {
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		east.decides(routed(names.Bridge))
	})
	ask := func(c *http.Client) string {
		r := request(t, http.MethodGet, "http://"+east.host("db", "shop", "ctr")+"/", nil)
		for _, h := range slices.Concat(ofCallers, ofGateways) {
			r.Header.Set(h, "said")
		}
		return strings.ToLower(call(t, c, r).body)
	}
	for _, test := range []struct {
		name      string
		client    *http.Client
		kept, not []string
	}{
		{"a caller", west.edge(), ofCallers, ofGateways},
		{"isthmus", west.local(), []string{names.HeaderCaller, names.HeaderSession}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := ask(test.client)
			for _, h := range test.kept {
				if !strings.Contains(body, h+": said") {
					t.Errorf("%s is lost", h)
				}
			}
			for _, h := range test.not {
				if strings.Contains(body, h+": said") { // the target's gateway says some of them itself
					t.Errorf("%s crossed", h)
				}
			}
		})
	}
}

// TestEdgeTellsType holds that a container operation says which orchestrator its cluster runs, whatever the client said.
func TestEdgeTellsType(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		east.decides(routed(names.Bridge))
	})
	r := request(t, http.MethodGet, "http://"+east.host("api")+"/", nil)
	r.Header.Set(names.HeaderOrchestrator, "said")
	a := call(t, west.local(), r)
	if body := strings.ToLower(a.body); !strings.Contains(body, names.HeaderOrchestrator+": docker") || strings.Contains(body, "said") {
		t.Errorf("%d %s", a.code, a.body)
	}
}

// TestSecondAddress reaches a peer whose first address is dead.
func TestSecondAddress(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
	})
	west.model.Peers[0].Addresses = []string{loopback.Address(t, loopback.NewHost()), east.model.Gateway.Peer}
	west.set()
	for range 20 {
		a := call(t, west.edge(), request(t, http.MethodPost, "http://"+east.host("web", "shop", "svc")+"/", strings.NewReader("x")))
		if a.code != http.StatusOK {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
}

// TestAccessLog reads what the target's Envoy writes of a query and of a decision, and the caller's of a failure alone.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
		east.on(names.BridgeSocket, http.HandlerFunc(echo))
		east.decides(routed(names.Bridge))
	})
	for _, to := range []struct {
		client *http.Client
		host   string
	}{{west.edge(), east.host("web", "shop", "svc")}, {west.local(), east.host("api")}} {
		if a := call(t, to.client, request(t, http.MethodGet, "http://"+to.host+"/", nil)); a.code != http.StatusOK {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	type line struct {
		Time, Edge, Kind, Peer, Verb, Object, Decision, Upstream, Flags string
		RequestID                                                       string `json:"request_id"`
		Code, Duration                                                  int
	}
	if a := call(t, west.edge(), request(t, http.MethodGet, "http://web.shop.svc.nowhere.isthmus.internal/", nil)); a.code != http.StatusNotFound {
		t.Fatalf("a name of nobody: %d %s", a.code, a.body)
	}
	lines := func(g *gateway, want int) []line {
		var all []line
		eventually(t, waits, func() error {
			all = nil
			f, err := os.Open(g.model.Gateway.AccessLog)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			for d := json.NewDecoder(f); d.More(); {
				var l line
				if err := d.Decode(&l); err != nil {
					return err
				}
				all = append(all, l)
			}
			if len(all) != want {
				return fmt.Errorf("%d lines", len(all))
			}
			return nil
		})
		return all
	}
	for _, test := range []struct {
		gateway *gateway
		want    []line
	}{
		{west, []line{{Edge: "edge", Flags: "-", Code: 404}}},
		{east, []line{
			{Edge: "peer", Kind: "service-query", Peer: "west", Verb: "query", Object: "service shop/web", Decision: "allow", Flags: "-", Code: 200},
			{Edge: "peer", Kind: "container-operation", Peer: "west", Verb: "list", Object: "container", Decision: "allow", Upstream: "bridge", Flags: "-", Code: 200},
		}},
	} {
		for i, l := range lines(test.gateway, len(test.want)) {
			if _, err := time.Parse(time.RFC3339, l.Time); err != nil {
				t.Error(err)
			}
			if l.RequestID == "" {
				t.Error("a line has no request id")
			}
			l.Time, l.RequestID, l.Duration = "", "", 0
			if l != test.want[i] {
				t.Errorf("logged %+v, want %+v", l, test.want[i])
			}
		}
	}
}

// TestAccessLogUndecided holds that a request which is given up before anybody has decided about it is not recorded as
// allowed.
func TestAccessLogUndecided(t *testing.T) {
	t.Parallel()
	asked, end := make(chan struct{}, 1), make(chan struct{})
	west, east := pair(t, func(east *gateway) {
		east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
			asked <- struct{}{}
			<-end
			return routed(names.Bridge)(m)
		})
	})
	t.Cleanup(func() { close(end) })
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		<-asked
		giveUp()
	}()
	r := request(t, http.MethodGet, "http://"+east.host("api")+"/", nil).WithContext(ctx)
	if answer, err := west.local().Do(r); err == nil {
		_ = answer.Body.Close()
		t.Fatalf("answered %d", answer.StatusCode)
	}
	eventually(t, waits, func() error {
		b, err := os.ReadFile(east.model.Gateway.AccessLog)
		if err != nil {
			return err
		}
		var line struct {
			Authority, Kind, Decision string
			Code                      int
		}
		if err := json.Unmarshal(b, &line); err != nil {
			return err
		}
		if line.Authority != east.host("api") || line.Kind != "" || line.Decision != "" || line.Code != 0 {
			t.Fatalf("logged %s", b)
		}
		return nil
	})
}
