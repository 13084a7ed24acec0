package snapshot

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var (
	certificate = []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	key         = []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
)

func peer(name string) Peer {
	return Peer{
		Name: name, Addresses: []string{"192.0.2.1:15443"}, ID: "spiffe://" + name + ".test/cluster/" + name,
		TrustDomain: name + ".test", Bundle: certificate, Ready: true, API: "/run/isthmus/" + name + ".sock",
	}
}

func service(name string, peers ...string) Service {
	s := Service{Service: neutral.Service{Namespace: "shop", Name: name, Ports: []neutral.ServicePort{
		{Number: 80, Protocol: "tcp", App: neutral.HTTP1, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80")}},
		{Number: 53, Protocol: "udp"},
		{Number: 5432, Protocol: "tcp", App: neutral.TCP},
	}}}
	for _, p := range peers {
		s.Peers = append(s.Peers, "spiffe://"+p+".test/cluster/"+p)
	}
	return s
}

// model has one of everything.
func model() Model {
	m := plainModel()
	m.Gateway.Callers.Authorities = string(certificate)
	m.Peers[1].API, m.Peers[1].APINames = "0.0.0.0:16443", []string{"gateway.example", "10.0.0.1"}
	m.Peers[1].APIIdentity = Identity{Certificate: certificate, Key: key}
	m.Peers[1].Tunnels.Dialled = 2
	m.Peers[2].Addresses, m.Peers[2].Tunnels.Accepted = nil, true
	return m
}

func plainModel() Model {
	return Model{
		Gateway: Gateway{
			Cluster: "east", Orchestrator: neutral.Kubernetes, ID: "spiffe://east.test/cluster/east", Peer: "0.0.0.0:15443", Edge: "127.0.0.1:15080",
			RunDir: "/run/isthmus", AccessLog: "/var/log/access.log", Tracing: Tracing{Collector: "127.0.0.1:4317", Percent: 1},
		},
		Identity: Identity{Certificate: certificate, Key: key},
		Peers:    []Peer{peer("west"), peer("north"), peer("south")},
		Services: []Service{service("web", "west", "north"), service("api", "north"), service("nobodys"), service("strange", "elsewhere")},
		Accesses: []Access{
			{Name: "db", Listen: "127.0.0.1:5432", Peer: "west", Authority: "db.shop.ctr.west.isthmus.internal:5432"},
			{Name: "cache", Listen: "/run/isthmus/cache.sock", Peer: "north", Authority: "redis.shop.svc.north.isthmus.internal:6379"},
		},
		Upstream: neutral.Upstream{Address: "10.0.0.1:6443", CA: certificate, Cert: certificate, Key: key, Token: "token"},
	}
}

func build(t *testing.T, m Model) *Snapshot {
	t.Helper()
	s, err := Build(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConsistent(t *testing.T) {
	t.Parallel()
	models := map[string]func(*Model){
		"everything":      func(*Model) {},
		"no peers":        func(m *Model) { m.Peers, m.Accesses = nil, nil },
		"no services":     func(m *Model) { m.Services = nil },
		"no orchestrator": func(m *Model) { m.Upstream = neutral.Upstream{} },
		"engine socket":   func(m *Model) { m.Upstream = neutral.Upstream{Socket: "/var/run/docker.sock"} },
		"no peer listener": func(m *Model) {
			m.Gateway.Peer, m.Peers[1].Tunnels = "", Tunnels{}
		},
		"no edge, no logs, no spans": func(m *Model) {
			m.Gateway.Edge, m.Gateway.AccessLog, m.Gateway.Tracing = "", "", Tracing{}
		},
		"not joined": func(m *Model) {
			for i := range m.Peers {
				m.Peers[i].Ready, m.Peers[i].Addresses, m.Peers[i].Tunnels.Dialled = false, nil, 0
			}
			m.Accesses = nil
		},
	}
	for name, change := range models {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := model()
			change(&m)
			s := build(t, m)
			if err := s.Consistent(); err != nil {
				t.Error(err)
			}
			if len(s.Rejected) > 0 {
				t.Error(s.Rejected)
			}
			for _, typeURL := range Types {
				if !slices.IsSortedFunc(s.Resources(typeURL), func(a, b Resource) int { return strings.Compare(a.Name, b.Name) }) {
					t.Errorf("%s is not sorted", typeURL)
				}
			}
		})
	}
}

// TestConsistentSees makes sure that the check would see what it is for.
func TestConsistentSees(t *testing.T) {
	t.Parallel()
	for _, typeURL := range Types {
		s := build(t, model())
		all := s.resources[typeURL]
		for i, r := range all {
			s.resources[typeURL] = slices.Delete(slices.Clone(all), i, i+1)
			err := s.Consistent()
			if typeURL == resourcev3.ListenerType && strings.HasPrefix(r.Name, "access/") {
				continue // refers to a peer's cluster, as others do
			}
			if err == nil {
				t.Errorf("nobody misses %s %s", typeURL, r.Name)
			}
		}
	}
}

// TestSameBytes builds one model in many orders.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	want := build(t, model())
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any order will do
	for range 10 {
		m := model()
		random.Shuffle(len(m.Peers), func(i, j int) { m.Peers[i], m.Peers[j] = m.Peers[j], m.Peers[i] })
		random.Shuffle(len(m.Services), func(i, j int) { m.Services[i], m.Services[j] = m.Services[j], m.Services[i] })
		random.Shuffle(len(m.Accesses), func(i, j int) { m.Accesses[i], m.Accesses[j] = m.Accesses[j], m.Accesses[i] })
		if got := build(t, m); got.Version != want.Version {
			t.Fatalf("changed by order alone: %v", changed(want, got))
		}
	}
}

// changed lists what differs.
func changed(a, b *Snapshot) []string {
	var names []string
	for _, typeURL := range Types {
		had := map[string]string{}
		for _, r := range a.Resources(typeURL) {
			had[r.Name] = r.Version
		}
		for _, r := range b.Resources(typeURL) {
			if had[r.Name] != r.Version {
				names = append(names, typeURL[strings.LastIndexByte(typeURL, '.')+1:]+" "+r.Name)
			}
			delete(had, r.Name)
		}
		for name := range had {
			names = append(names, "no "+typeURL[strings.LastIndexByte(typeURL, '.')+1:]+" "+name)
		}
	}
	slices.Sort(names)
	return names
}

func TestWhatChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*Model)
		want   []string
	}{
		{"an endpoint", func(m *Model) {
			m.Services[0].Ports[0].Endpoints = nil
		}, []string{"ClusterLoadAssignment service/shop/web/80"}},
		{"an application protocol", func(m *Model) {
			m.Services[0].Ports[0].App = neutral.GRPC
		}, []string{"Cluster service/shop/web/80", "ClusterLoadAssignment service/shop/web/80"}},
		{"a permission", func(m *Model) {
			m.Services[0].Peers = m.Services[0].Peers[:1]
		}, []string{"RouteConfiguration peer"}},
		{"the last permission", func(m *Model) {
			m.Services[1].Peers = nil
		}, []string{
			"RouteConfiguration peer", "no Cluster service/shop/api/5432", "no Cluster service/shop/api/80",
			"no ClusterLoadAssignment service/shop/api/5432", "no ClusterLoadAssignment service/shop/api/80",
		}},
		{"a peer's addresses", func(m *Model) {
			m.Peers[0].Addresses = []string{"192.0.2.9:15443"}
		}, []string{"Cluster peer/west"}},
		{"a peer's bundle", func(m *Model) {
			m.Peers[0].Bundle = append(slices.Clone(certificate), certificate...)
		}, []string{"Secret trust/peer/west"}},
		{"a new certificate", func(m *Model) {
			m.Identity.Certificate = append(slices.Clone(certificate), certificate...)
		}, []string{"Secret identity"}},
		{"a peer's name", func(m *Model) {
			m.Peers[2].Name = "southern"
		}, []string{
			"Cluster peer/southern", "Listener api/southern", "Listener peer", "RouteConfiguration api/southern",
			"RouteConfiguration edge", "RouteConfiguration edge-local", "Secret trust/peer/southern",
			"TypedExtensionConfig concurrency/southern", "TypedExtensionConfig limit/southern", "no Cluster peer/south", "no Listener api/south",
			"no RouteConfiguration api/south", "no Secret trust/peer/south", "no TypedExtensionConfig concurrency/south",
			"no TypedExtensionConfig limit/south",
		}},
		{"a peer's limit", func(m *Model) {
			m.Gateway.Limits = []Limit{{Peer: m.Peers[0].Name, Rate: Rate{PerSecond: 5}}}
		}, []string{"RouteConfiguration peer", "TypedExtensionConfig limit/west"}},
		{"a peer's requests at a time", func(m *Model) {
			m.Gateway.Limits = []Limit{{Peer: m.Peers[0].Name, Requests: 5}}
		}, []string{"RouteConfiguration peer", "TypedExtensionConfig concurrency/west"}},
		{"the orchestrator's host", func(m *Model) {
			m.Upstream.Host = "other.example"
		}, []string{"RouteConfiguration peer"}},
		{"the orchestrator's type", func(m *Model) {
			m.Gateway.Orchestrator = neutral.Docker
		}, []string{"Listener api/north", "Listener api/south", "Listener api/west", "RouteConfiguration api/north", "RouteConfiguration api/south",
			"RouteConfiguration api/west", "RouteConfiguration edge-local", "RouteConfiguration peer"}},
		{"the suffix", func(m *Model) {
			m.Gateway.Suffix = "mesh.example"
			m.Peers, m.Accesses = m.Peers[:1], m.Accesses[:1]
			m.Peers[0].API = ""
		}, nil},
		{"a token", func(m *Model) { m.Upstream.Token = "other" }, []string{"Secret orchestrator/token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := model()
			test.change(&m)
			if got := changed(build(t, model()), build(t, m)); test.want != nil && !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			// A builder that made the model before, and makes it again after, gives the same.
			var b Builder
			for _, m := range []Model{model(), m, model()} {
				s, err := b.Build(m)
				if err != nil {
					t.Fatal(err)
				}
				if got := changed(build(t, m), s); len(got) > 0 {
					t.Errorf("built one after the other, %q differ", got)
				}
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Model){
		"is not a DNS label":             func(m *Model) { m.Gateway.Cluster = "East" },
		"is not a DNS name":              func(m *Model) { m.Gateway.Suffix = "a..b" },
		"is not an absolute path":        func(m *Model) { m.Gateway.RunDir = "run" },
		"the kernel takes 107":           func(m *Model) { m.Gateway.RunDir = "/" + strings.Repeat("x", 100) },
		"peer listener":                  func(m *Model) { m.Gateway.Peer = ":15443" },
		"edge listener":                  func(m *Model) { m.Gateway.Edge = "x" },
		"tracing of":                     func(m *Model) { m.Gateway.Tracing.Percent = 101 },
		"needs a certificate":            func(m *Model) { m.Identity.Key = []byte("x") },
		"the name is taken":              func(m *Model) { m.Peers[1].Name = "west" },
		`peer "east": the name is taken`: func(m *Model) { m.Peers[1].Name = "east" },
		"has the SPIFFE id of":           func(m *Model) { m.Peers[1].ID, m.Peers[1].TrustDomain = m.Peers[0].ID, m.Peers[0].TrustDomain },
		"is not a SPIFFE id":             func(m *Model) { m.Peers[1].ID = "spiffe://west.test/cluster/north" },
		"is peer \"west\"'s already": func(m *Model) {
			m.Peers[1].ID, m.Peers[1].TrustDomain, m.Peers[1].Bundle = "spiffe://west.test/cluster/north", "west.test", append(slices.Clone(certificate), '\n')
		},
		"the trust bundle is not":           func(m *Model) { m.Peers[1].Bundle = nil },
		`address "/x" is not host:port`:     func(m *Model) { m.Peers[1].Addresses = []string{"/x"} },
		"tunnels need":                      func(m *Model) { m.Peers[1].Addresses = nil },
		"only one side dials tunnels":       func(m *Model) { m.Peers[1].Tunnels.Accepted = true },
		"API listener":                      func(m *Model) { m.Peers[1].API = "x" },
		"both listen on":                    func(m *Model) { m.Peers[1].API = m.Gateway.Edge },
		"would be read on its way":          func(m *Model) { m.Peers[1].APIIdentity = Identity{} },
		"certificate and its key are not":   func(m *Model) { m.Peers[1].APIIdentity.Key = nil },
		`"*" is no name`:                    func(m *Model) { m.Peers[1].APINames = []string{"*"} },
		"the authorities of callers":        func(m *Model) { m.Gateway.Callers.Authorities = "x" },
		"edge's socket and":                 func(m *Model) { m.Accesses[1].Listen = "/run/isthmus/edge.sock" },
		"the name is taken or not usable":   func(m *Model) { m.Accesses[1].Name = "db" },
		`there is no peer "nobody"`:         func(m *Model) { m.Accesses[1].Peer = "nobody" },
		"is not name:port":                  func(m *Model) { m.Accesses[1].Authority = "x" },
		"a header's value is not printable": func(m *Model) { m.Accesses[1].Caller = "a\r\nx-isthmus-own-route: b" },
		"orchestrator: it has no type":      func(m *Model) { m.Gateway.Orchestrator = "" },
		"a socket and an address":           func(m *Model) { m.Upstream.Socket = "/x" },
		"the CA is not PEM":                 func(m *Model) { m.Upstream.CA = []byte("x") },
		"the client certificate":            func(m *Model) { m.Upstream.Key = nil },
		"token is not printable":            func(m *Model) { m.Upstream.Token = "a\n" },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			m := model()
			change(&m)
			if _, err := Build(m); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// TestBadServices makes sure that a bad service harms no other.
func TestBadServices(t *testing.T) {
	t.Parallel()
	good := build(t, model())
	m := model()
	for _, name := range []string{"", "a b", "web.", "-web", "wéb", "x:80", "*", strings.Repeat("x", 300)} {
		m.Services = append(m.Services, service(name, "west"))
	}
	m.Services = append(m.Services, service("WEB", "west"))
	m.Services[0].Ports = append(m.Services[0].Ports, neutral.ServicePort{Number: 80, Protocol: "tcp"}, neutral.ServicePort{})
	s := build(t, m)
	if len(s.Rejected) != 9 {
		t.Errorf("%d rejected: %v", len(s.Rejected), s.Rejected)
	}
	if got := changed(good, s); len(got) > 0 {
		t.Errorf("changed: %q", got)
	}
}

// FuzzServices builds whatever services call themselves.
func FuzzServices(f *testing.F) {
	f.Add("web", "shop", "http")
	f.Add("a.b", "c", "tcp")
	f.Add("\xff", "x:1", "grpc")
	f.Fuzz(func(t *testing.T, name, namespace, app string) {
		m := model()
		s := service(name, "west")
		s.Namespace, s.Ports[0].App = namespace, neutral.AppProtocol(app)
		m.Services = append(m.Services, s)
		snap, err := Build(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := snap.Consistent(); err != nil {
			t.Fatal(err)
		}
	})
}
