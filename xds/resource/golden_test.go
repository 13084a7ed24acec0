package resource

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

var update = flag.Bool("update", false, "rewrite the goldens")

var (
	gateway = Gateway{
		Cluster: "east", Orchestrator: neutral.Kubernetes, ID: "spiffe://east.test/cluster/east", Peer: "0.0.0.0:15443", Edge: "127.0.0.1:15080",
		RunDir: "/run/isthmus", AccessLog: "/var/log/isthmus/access.log",
	}
	west = Peer{
		Name: "west", Addresses: []string{"192.0.2.1:15443", "192.0.2.2:15443"}, ID: "spiffe://west.test/cluster/west",
		TrustDomain: "west.test", Bundle: []byte("CA of west"), Ready: true, API: "/run/isthmus/west-api.sock",
	}
	north = Peer{
		Name: "north", Addresses: []string{"gateway.north.example:15443"}, ID: "spiffe://north.test/cluster/north",
		TrustDomain: "north.test", Bundle: []byte("CA of north"), API: "127.0.0.1:16443",
		APINames: []string{"north.example"}, APIIdentity: Identity{Certificate: []byte("certificate"), Key: []byte("key")},
	}
	inner = Peer{
		Name: "inner", Tunnels: Tunnels{Accepted: true}, ID: "spiffe://inner.test/cluster/inner", TrustDomain: "inner.test",
		Bundle: []byte("CA of inner"), Ready: true,
	}
	outer = Peer{
		Name: "outer", Addresses: []string{"outer.example:15443"}, Tunnels: Tunnels{Dialled: 8}, ID: "spiffe://outer.test/cluster/outer",
		TrustDomain: "outer.test", Bundle: []byte("CA of outer"), Ready: true,
	}
	peers = []Peer{north, west}
	web   = neutral.Service{Namespace: "shop", Name: "web", Ports: []neutral.ServicePort{
		{Name: "http", Number: 80, Protocol: "tcp", App: neutral.HTTP1, Endpoints: []netip.AddrPort{
			netip.MustParseAddrPort("10.1.0.1:8080"), netip.MustParseAddrPort("[fd00::1]:8080"),
		}},
		{Name: "grpc", Number: 9090, Protocol: "tcp", App: neutral.GRPC},
		{Name: "db", Number: 5432, Protocol: "tcp", App: neutral.TCP},
	}}
	remote = neutral.Upstream{
		Address: "10.0.0.1:6443", CA: []byte("CA"), Cert: []byte("certificate"), Key: []byte("key"),
		ServerName: "kubernetes.default.svc", Token: "token", Host: "kubernetes.default.svc",
	}
	socket = neutral.Upstream{Socket: "/var/run/docker.sock"}
	access = Access{
		Name: "db", Listen: "127.0.0.1:5432", Peer: "west", Authority: "db-0.shop.ctr.west.isthmus.internal:5432",
		Caller: "100% ci", Node: "node-1", NetworkMode: "host", Layer: "commit",
	}
)

// south is a peer of which some callers may query.
const south = "spiffe://south.test/cluster/south"

// hosts are what peers may query.
func hosts() []*routev3.VirtualHost {
	return ServiceHosts(gateway, Service{Service: web, Peers: []string{west.ID, north.ID, "spiffe://unknown"}, ByCaller: []string{south}},
		map[string]string{west.ID: west.Name, north.ID: north.Name, south: "south"})
}

// goldens are the resources as they are sent.
func goldens() map[string]proto.Message {
	traced := gateway
	traced.Tracing = Tracing{Collector: "127.0.0.1:4317", Percent: 10}
	traced.AccessLog = ""
	limited := gateway
	limited.Limits = []Limit{{Peer: west.Name, Rate: Rate{PerSecond: 100, Burst: 200}, Caller: Rate{PerSecond: 10}, Requests: 500}}
	joining := gateway
	joining.Joining = true
	asking := gateway
	asking.Callers = Callers{Authorities: "CA of callers", Services: true}
	all := map[string]proto.Message{
		"listener_peer":         PeerListener(gateway, peers),
		"listener_peer_joining": PeerListener(joining, peers),
		"listener_peer_first":   PeerListener(joining, nil),
		"listener_peer_tunnels": PeerListener(gateway, []Peer{inner, outer}),
		"listener_tunnel":       TunnelListener(gateway, outer),
		"cluster_tunnel":        TunnelCluster(gateway, outer),
		"cluster_peer_tunnels":  PeerCluster(gateway, inner),
		"limit_peer":            PeerLimit(limited, west),
		"limit_peer_none":       PeerLimit(limited, north),
		"concurrency_peer":      PeerConcurrency(limited, west),
		"concurrency_peer_none": PeerConcurrency(limited, north),
		"routes_peer_limited": PeerRoutes(limited, ServiceHosts(limited, Service{Service: web, Peers: []string{west.ID, north.ID}},
			map[string]string{west.ID: west.Name, north.ID: north.Name}), remote),
		"listener_edge":            EdgeListener(gateway),
		"listener_edge_traced":     EdgeListener(traced),
		"listener_local":           LocalListener(gateway),
		"listener_api":             PeerAPIListener(gateway, west),
		"listener_api_tls":         PeerAPIListener(gateway, north),
		"listener_api_clients":     PeerAPIListener(asking, north),
		"listener_access":          ContainerListener(gateway, access),
		"routes_peer":              PeerRoutes(gateway, hosts(), remote),
		"routes_peer_nothing":      PeerRoutes(gateway, nil, neutral.Upstream{}),
		"routes_edge":              EdgeRoutes(gateway, peers),
		"routes_edge_services":     EdgeRoutes(asking, peers),
		"routes_local":             LocalRoutes(gateway, peers),
		"routes_api":               PeerAPIRoutes(gateway, west),
		"routes_api_not_joined":    PeerAPIRoutes(gateway, north),
		"cluster_peer":             PeerCluster(gateway, west),
		"cluster_peer_named":       PeerCluster(gateway, north),
		"cluster_orchestrator":     OrchestratorCluster(remote),
		"cluster_orchestrator_ip":  OrchestratorCluster(neutral.Upstream{Address: "10.0.0.1:6443", CA: []byte("CA")}),
		"cluster_orchestrator_tcp": OrchestratorCluster(neutral.Upstream{Address: "10.0.0.1:2375"}),
		"cluster_engine":           OrchestratorCluster(socket),
		"cluster_access":           AccessCluster(),
		"cluster_extproc":          LocalCluster(gateway, names.ExtProc, names.ExtProcSocket),
		"cluster_tracing":          TracingCluster(traced),
		"secret_identity":          Certificate(SecretIdentity, []byte("certificate"), []byte("key")),
		"secret_callers":           CallerTrust("CA of callers"),
		"secret_peer":              Trust(west),
	}
	for _, p := range web.Ports {
		all["cluster_service_"+p.Name] = ServiceCluster(web, p)
		all["endpoints_service_"+p.Name] = Endpoints(web, p)
	}
	for _, s := range OrchestratorSecrets(remote) {
		all["secret_"+strings.ReplaceAll(s.GetName(), "/", "_")] = s
	}
	return all
}

func TestGoldens(t *testing.T) {
	t.Parallel()
	all := goldens()
	for name, m := range all {
		if v, ok := m.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		path := filepath.Join("testdata", name+".json")
		got := indented(t, m)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil { //nolint:gosec // testdata is for all to read
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from its golden; run with -update and review:\n%s", name, got)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if all[strings.TrimSuffix(filepath.Base(path), ".json")] != nil {
			continue
		}
		if !*update {
			t.Errorf("no input makes %s", path)
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// indented renders a message the same way each time, which protojson does not.
func indented(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
