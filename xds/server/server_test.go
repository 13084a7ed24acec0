package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/server"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

const westID = "spiffe://west.test/cluster/west"

// model is a gateway with one peer and one service.
func model() snapshot.Model {
	certificate := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	key := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	return snapshot.Model{
		Gateway:  snapshot.Gateway{Cluster: "east", ID: "spiffe://east.test/cluster/east", Peer: "0.0.0.0:15443", Edge: "127.0.0.1:15080", RunDir: "/run/isthmus"},
		Identity: snapshot.Identity{Certificate: certificate, Key: key},
		Peers: []snapshot.Peer{{
			Name: "west", Addresses: []string{"192.0.2.1:15443"}, ID: westID, TrustDomain: "west.test", Bundle: certificate, Ready: true,
		}},
		Services: []snapshot.Service{service("web", "10.0.0.1:80")},
	}
}

func service(name, endpoint string) snapshot.Service {
	return snapshot.Service{
		Service: neutral.Service{Namespace: "shop", Name: name, Ports: []neutral.ServicePort{
			{Number: 80, Protocol: "tcp", App: neutral.HTTP1, Endpoints: []netip.AddrPort{netip.MustParseAddrPort(endpoint)}},
		}},
		Peers: []string{westID},
	}
}

func build(t *testing.T, m snapshot.Model) *snapshot.Snapshot {
	t.Helper()
	s, err := snapshot.Build(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Consistent(); err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs a server and gives the socket on which it serves.
func start(t *testing.T) (*server.Server, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-xds") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "xds.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, socket
}

// client is an Envoy as far as the control plane sees.
type client struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	pushes chan *discoveryv3.DeltaDiscoveryResponse
	named  bool
}

func connect(t *testing.T, socket string) *client {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, stream: stream, pushes: make(chan *discoveryv3.DeltaDiscoveryResponse, 100)}
	go func() {
		defer close(c.pushes)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			c.pushes <- r
		}
	}()
	return c
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if !c.named {
		c.named = true
		r.Node = &corev3.Node{Id: "east-1", UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}},
		}}
	}
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next push, which is taken.
func (c *client) next() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	r := c.peek()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
	return r
}

// peek is the next push, which is not answered.
func (c *client) peek() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case r, ok := <-c.pushes:
		if !ok {
			c.t.Fatal("the stream ended")
		}
		return r
	case <-time.After(5 * time.Second):
		c.t.Fatal("no push came")
	}
	return nil
}

// quiet checks that nothing is pushed.
func (c *client) quiet() {
	c.t.Helper()
	select {
	case r := <-c.pushes:
		c.t.Fatalf("pushed: %s", short(r))
	case <-time.After(200 * time.Millisecond):
	}
}

// short is a push in a line: type, what is new, what is gone.
func short(r *discoveryv3.DeltaDiscoveryResponse) string {
	var names []string
	for _, n := range r.GetResources() {
		names = append(names, "+"+n.GetName())
	}
	for _, n := range r.GetRemovedResources() {
		names = append(names, "-"+n)
	}
	return r.GetTypeUrl()[strings.LastIndexByte(r.GetTypeUrl(), '.')+1:] + " " + strings.Join(names, " ")
}

// subscribe asks for all that the model above has, as Envoy does when it starts.
func (c *client) subscribe() {
	c.t.Helper()
	for _, r := range []struct {
		typeURL string
		names   []string
	}{
		{resourcev3.ClusterType, nil},
		{resourcev3.EndpointType, []string{"service/shop/web/80"}},
		{resourcev3.ListenerType, nil},
		{resourcev3.RouteType, []string{"peer", "edge", "edge-local"}},
		{resourcev3.SecretType, []string{"identity", "trust/peer/west"}},
	} {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResourceNamesSubscribe: r.names})
		if got := c.next(); len(got.GetResources()) == 0 || got.GetTypeUrl() != r.typeURL {
			c.t.Fatalf("asked for %s, got %s", r.typeURL, short(got))
		}
	}
	c.quiet()
}

// expect checks the pushes that come, each of which is taken.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := short(c.next()); got != w {
			c.t.Fatalf("pushed %q, want %q", got, w)
		}
	}
	c.quiet()
}

func TestNothingBeforeSet(t *testing.T) {
	t.Parallel()
	s, socket := start(t)
	c := connect(t, socket)
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, InitialResourceVersions: map[string]string{"service/shop/old/80": "1"}})
	c.quiet()
	s.Set(build(t, model()))
	if got := short(c.next()); !strings.Contains(got, "+service/shop/web/80") || !strings.HasSuffix(got, "-service/shop/old/80") {
		t.Error(got)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	s, socket := start(t)
	m := model()
	s.Set(build(t, m))
	c := connect(t, socket)
	c.subscribe()

	t.Run("nothing", func(t *testing.T) {
		s.Set(build(t, m))
		c.quiet()
	})
	t.Run("an endpoint", func(t *testing.T) {
		m.Services = []snapshot.Service{service("web", "10.0.0.2:80")}
		s.Set(build(t, m))
		c.expect("ClusterLoadAssignment +service/shop/web/80")
	})
	t.Run("a service comes", func(t *testing.T) {
		m.Services = append(m.Services, service("api", "10.0.0.3:80"))
		s.Set(build(t, m))
		// Its route must wait for its cluster, and that for its endpoints.
		if got := short(c.next()); got != "Cluster +service/shop/api/80" {
			t.Fatal(got)
		}
		c.quiet()
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{"service/shop/api/80"}})
		c.expect("ClusterLoadAssignment +service/shop/api/80", "RouteConfiguration +peer")
	})
	t.Run("a cluster changes", func(t *testing.T) {
		m.Services[1].Ports[0].App = neutral.GRPC
		s.Set(build(t, m))
		c.expect("Cluster +service/shop/api/80", "ClusterLoadAssignment +service/shop/api/80")
	})
	t.Run("a service goes", func(t *testing.T) {
		m.Services = m.Services[:1]
		s.Set(build(t, m))
		// Its cluster must wait for its route.
		r := c.peek()
		if got := short(r); got != "RouteConfiguration +peer" {
			t.Fatal(got)
		}
		c.quiet()
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		c.expect("Cluster -service/shop/api/80", "ClusterLoadAssignment -service/shop/api/80")
	})
	t.Run("a certificate", func(t *testing.T) {
		m.Identity.Certificate = []byte("-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n")
		s.Set(build(t, m))
		c.expect("Secret +identity")
	})
	t.Run("a peer joins", func(t *testing.T) {
		m.Peers[0].Ready = false
		s.Set(build(t, m))
		c.expect("RouteConfiguration +edge +edge-local")
	})
	t.Run("an access", func(t *testing.T) {
		m.Accesses = []snapshot.Access{{Name: "db", Listen: "127.0.0.1:5432", Peer: "west", Authority: "db.shop.ctr.west.isthmus.internal:5432"}}
		s.Set(build(t, m))
		c.expect("Listener +access/db")
	})
	t.Run("an envoy that takes nothing, while changes go on", func(t *testing.T) {
		m.Services = append(m.Services, service("api", "10.0.0.3:80"))
		s.Set(build(t, m))
		for _, want := range []string{"Cluster +service/shop/api/80", "ClusterLoadAssignment +service/shop/api/80"} {
			if got := short(c.peek()); got != want {
				t.Fatalf("pushed %q, want %q", got, want)
			}
		}
		for i := range 100 {
			select {
			case r := <-c.pushes:
				if got := short(r); got != "RouteConfiguration +peer" {
					t.Fatalf("pushed %q", got)
				}
				return
			case <-time.After(100 * time.Millisecond):
			}
			m.Services[0] = service("web", fmt.Sprintf("10.0.1.%d:80", i))
			s.Set(build(t, m))
		}
		t.Fatal("the route was never pushed")
	})
}

// TestComeBack is an Envoy that reconnects to another control plane with the same model.
func TestComeBack(t *testing.T) {
	t.Parallel()
	m := model()
	versions := map[string]map[string]string{}
	for _, typeURL := range snapshot.Types {
		versions[typeURL] = map[string]string{}
		for _, r := range build(t, m).Resources(typeURL) {
			versions[typeURL][r.Name] = r.Version
		}
	}
	s, socket := start(t)
	s.Set(build(t, m))
	c := connect(t, socket)
	for _, typeURL := range snapshot.Types {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, InitialResourceVersions: versions[typeURL]}
		if typeURL != resourcev3.ClusterType && typeURL != resourcev3.ListenerType {
			for name := range versions[typeURL] {
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
			}
			slices.Sort(r.ResourceNamesSubscribe)
		}
		c.send(r)
	}
	c.quiet()
	t.Run("asked for by name", func(*testing.T) {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{"service/shop/web/80"}})
		c.expect("ClusterLoadAssignment +service/shop/web/80")
	})
	t.Run("not asked for any more", func(t *testing.T) {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesUnsubscribe: []string{"service/shop/web/80"}})
		// Requests are read in order: once this one is answered, the one before has been read.
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.RouteType, ResourceNamesSubscribe: []string{"peer"}})
		c.expect("RouteConfiguration +peer")
		m.Services = []snapshot.Service{service("web", "10.0.0.9:80")}
		s.Set(build(t, m))
		c.quiet()
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s, socket := start(t)
	snap := build(t, model())
	s.Set(snap)
	c := connect(t, socket)
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ListenerType})
	r := c.peek()
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &statuspb.Status{Code: 13, Message: "listener is nonsense"},
	})
	listeners := func() server.TypeStatus {
		for _, ts := range s.Status().Types {
			if ts.Type == "Listener" {
				return ts
			}
		}
		return server.TypeStatus{}
	}
	await(t, func() error {
		l := listeners()
		if l.Pushes != 1 || l.NACKs != 1 || !l.Rejected || l.LastNACK == nil || l.LastNACK.Message != "listener is nonsense" ||
			l.LastNACK.Node != "east-1" || l.Resources != 3 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	st := s.Status()
	if st.Version != snap.Version || len(st.Envoys) != 1 || st.Envoys[0].Node != "east-1" || st.Envoys[0].Version != "1.40.0" {
		t.Errorf("%+v", st)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range metrics {
		for _, m := range family.GetMetric() {
			key := family.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"isthmus_xds_pushes_total Listener": 1, "isthmus_xds_nacks_total Listener": 1, "isthmus_xds_nacks_total Cluster": 0,
		"isthmus_xds_resources Listener": 3, "isthmus_xds_envoys": 1,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v, want %v", key, v, want)
		}
	}
	// The next one is taken, and the refusal stays readable.
	m := model()
	m.Gateway.Edge = ""
	s.Set(build(t, m))
	c.next()
	await(t, func() error {
		if l := listeners(); l.Rejected || l.LastNACK == nil || l.Resources != 2 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if n := len(s.Status().Envoys); n != 0 {
			return fmt.Errorf("%d envoys", n)
		}
		return nil
	})
}

// await waits for a condition that says what is missing.
func await(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// What a snapshot holds is taken when every Envoy has told so, secrets included.
func TestTook(t *testing.T) {
	t.Parallel()
	s, socket := start(t)
	m := model()
	first := build(t, m)
	s.Set(first)
	if s.Took(first.Version) {
		t.Error("taken without an Envoy")
	}
	c := connect(t, socket)
	c.subscribe()
	if s.Took(first.Version) {
		t.Error("taken without the limits of peers")
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ExtensionConfigType, ResourceNamesSubscribe: []string{"limit/west"}})
	c.next()
	took := func(version string, want bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); s.Took(version) != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("taken: %v", !want)
			}
		}
	}
	took(first.Version, true)
	m.Identity.Certificate = append([]byte(nil), append(m.Identity.Certificate, '\n')...)
	second := build(t, m)
	s.Set(second)
	push := c.peek()
	if s.Took(second.Version) || s.Took(first.Version) {
		t.Error("taken before Envoy said so")
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: push.GetTypeUrl(), ResponseNonce: push.GetNonce(),
		ErrorDetail: &statuspb.Status{Message: "no certificate"}})
	time.Sleep(100 * time.Millisecond)
	if s.Took(second.Version) {
		t.Error("what Envoy refused counts as taken")
	}
	s.Set(first)
	c.next()
	took(first.Version, true)
	if s.Took(second.Version) {
		t.Error("what is served no more counts as taken")
	}
}
