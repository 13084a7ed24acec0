package app

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

const peerNorth = `apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: north}
spec: {addresses: ["192.0.2.4:15443"]}
`

// testView is what a compilation of documents looks at, with trust in some peers.
func testView(t *testing.T, orchestrator neutral.Orchestrator, trusted []string, more ...string) view {
	t.Helper()
	set := documentsOf(t, t.TempDir(), more...)
	engine, err := policy.Compile(set.Policies)
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity(set)
	if err != nil {
		t.Fatal(err)
	}
	apis := map[string]snapshot.Identity{"east": {Certificate: []byte("certificate"), Key: []byte("key")}}
	v := view{set: set, apis: apis, engine: engine, self: self, orchestrator: orchestrator, ready: func(peer string) bool { return peer == "east" }}
	for _, peer := range trusted {
		v.bundles = append(v.bundles, trust.PeerBundle{Peer: peer, Bundle: trust.Bundle{
			Identity:        peering.Identity{TrustDomain: peer + ".isthmus.internal", Cluster: peer},
			CertificatesPEM: []byte("the certificates of " + peer)}})
	}
	return v
}

// TestCompilePeers holds that only peers that are trusted, by the trust domain of their document, are served.
func TestCompilePeers(t *testing.T) {
	t.Parallel()
	foreign := `apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: foreign}
spec: {addresses: ["192.0.2.5:15443"], trustDomain: other.example}
`
	v := testView(t, neutral.Kubernetes, []string{"east", "south", "foreign", "nobody"}, peerEast, peerSouth, peerNorth, foreign)
	model, untrusted := v.compile()
	if want := []string{"foreign", "north"}; !slices.Equal(slices.Sorted(slices.Values(untrusted)), want) {
		t.Errorf("untrusted are %v, want %v", untrusted, want)
	}
	if len(model.Peers) != 1 || model.Peers[0].Name != "east" {
		t.Fatalf("served are %+v", model.Peers)
	}
	east := model.Peers[0]
	if east.ID != "spiffe://east.isthmus.internal/cluster/east" || string(east.Bundle) != "the certificates of east" || !east.Ready ||
		east.TrustDomain != "east.isthmus.internal" || !slices.Equal(east.Addresses, []string{"192.0.2.2:15443"}) {
		t.Errorf("east is served as %+v", east)
	}
}

// TestCompileTunnels holds that each worker of Envoy gets its share of the tunnels that are dialled, and none less than one.
func TestCompileTunnels(t *testing.T) {
	t.Parallel()
	tunnels := `apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: outer}
spec: {addresses: ["192.0.2.4:15443"], reverseTunnel: {role: dial, connections: 5}}
---
apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: inner}
spec: {reverseTunnel: {role: accept}}
`
	model, _ := testView(t, neutral.Docker, []string{"east", "outer", "inner"}, peerEast, tunnels).compile()
	got := map[string]snapshot.Tunnels{}
	for _, p := range model.Peers {
		got[p.Name] = p.Tunnels
	}
	want := map[string]snapshot.Tunnels{"east": {}, "outer": {Dialled: 3}, "inner": {Accepted: true}} // of two workers
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestReachedSpec holds that what is kept of a peer that joined can be read again, and says what was meant.
func TestReachedSpec(t *testing.T) {
	t.Parallel()
	addresses := []string{"192.0.2.4:15443"}
	for _, want := range []manifest.PeerSpec{
		reachedSpec(addresses, false, manifest.TunnelDial), reachedSpec(addresses, true, manifest.TunnelDial),
		reachedSpec(nil, true, manifest.TunnelAccept), reachedSpec(nil, false, manifest.TunnelAccept),
	} {
		p := manifest.Peer{Metadata: manifest.Metadata{Name: "east"}, Spec: want}
		p.Spec.TrustDomain = "east.isthmus.internal"
		text, err := (&manifest.Set{Peers: []manifest.Peer{p}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		read, err := manifest.ParsePeers(manifest.Source{Name: "joined.yaml", Data: text})
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if want.ReverseTunnel == (manifest.ReverseTunnel{}) {
			want.ReverseTunnel = manifest.ReverseTunnel{Role: manifest.TunnelNone, Connections: manifest.DefaultTunnels}
		}
		if got := read[0].Spec; got.ReverseTunnel != want.ReverseTunnel || !slices.Equal(got.Addresses, want.Addresses) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestUnreached holds that a peer in session that this gateway does not reach is told with what to do.
func TestUnreached(t *testing.T) {
	t.Parallel()
	for want, spec := range map[string]manifest.PeerSpec{
		"cannot be reached at 192.0.2.4:15443 (if nobody can dial it: isthmus peer join --behind-nat there): why": {Addresses: []string{"192.0.2.4:15443"}},
		"none of its reverse tunnels answers: why":                                                                {ReverseTunnel: manifest.ReverseTunnel{Role: manifest.TunnelAccept}},
	} {
		if got := unreached(spec, "why"); !strings.HasSuffix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCompileAPI holds that Envoy listens for a peer's API unless callers are docker's, who have their front.
func TestCompileAPI(t *testing.T) {
	t.Parallel()
	for orchestrator, want := range map[neutral.Orchestrator]string{neutral.Kubernetes: "127.0.0.1:16443", neutral.Docker: ""} {
		model, _ := testView(t, orchestrator, []string{"east"}, peerEast).compile()
		if len(model.Peers) != 1 || model.Peers[0].API != want {
			t.Errorf("%s: %+v, want %q", orchestrator, model.Peers, want)
		}
	}
}

// TestCompileServices holds that a service is granted to the peers that policy permits it to and that are trusted.
func TestCompileServices(t *testing.T) {
	t.Parallel()
	everybody := `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: everybody}
spec:
  from: [{peer: "*"}]
  allow:
  - verbs: [query]
    objects: [{kind: service, namespace: shop, name: open}]
`
	one := `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: one-caller}
spec:
  from: [{peer: east, caller: "ci-*"}]
  allow:
  - verbs: [query]
    objects: [{kind: service, namespace: shop, name: for-ci}]
`
	v := testView(t, neutral.Docker, []string{"east", "south"}, peerEast, peerSouth, peerNorth, policyEast, everybody, one)
	for _, name := range []string{"web", "open", "closed", "for-ci"} {
		v.services = append(v.services, neutral.Service{Namespace: "shop", Name: name})
	}
	v.services = append(v.services, neutral.Service{Namespace: "other", Name: "web"})
	model, _ := v.compile()
	east := []string{"spiffe://east.isthmus.internal/cluster/east"}
	for i, s := range model.Services {
		if byCaller := i == 3; byCaller != slices.Equal(s.ByCaller, east) || !byCaller && len(s.ByCaller) > 0 {
			t.Errorf("%s is decided by the caller for %v", s.ID(), s.ByCaller)
		}
	}
	for i, want := range [][]string{
		east, // web: to east by name
		east, // open: to everybody, of whom south is suspended and north not trusted
		nil,  // closed: nobody
		nil,  // for-ci: it depends on the caller, which a route cannot tell
		nil,  // web of another namespace
	} {
		s := model.Services[i]
		if !slices.Equal(s.Peers, want) {
			t.Errorf("%s is granted to %v, want %v", s.ID(), s.Peers, want)
		}
	}
}

// TestCompileAccesses holds that an access leads to a container of its peer, and ends with the trust in it.
func TestCompileAccesses(t *testing.T) {
	t.Parallel()
	v := testView(t, neutral.Docker, []string{"east"}, peerEast, peerNorth)
	v.accesses = []AccessState{
		{Name: "15432", Listen: "127.0.0.1:15432", Peer: "east", Target: "web.main.shop", Port: 5432, Node: "n1", NetworkMode: "host"},
		{Name: "15433", Listen: "127.0.0.1:15433", Peer: "north", Target: "db.shop", Port: 5432},
		{Name: "15434", Listen: "127.0.0.1:15434", Peer: "forgotten", Target: "db.shop", Port: 5432},
	}
	v.set.Gateway.Spec.Callers.Unauthenticated = nil
	if model, _ := v.compile(); len(model.Accesses) != 0 {
		t.Errorf("accesses are open to callers without a credential, and no document says so: %+v", model.Accesses)
	}
	v.set.Gateway.Spec.Callers.Unauthenticated = []manifest.CallerPlace{manifest.CallersOfAccesses}
	model, _ := v.compile()
	if len(model.Accesses) != 1 {
		t.Fatalf("accesses are %+v", model.Accesses)
	}
	a := model.Accesses[0]
	if a.Authority != "web.main.shop.ctr.east.isthmus.internal:5432" || a.Listen != "127.0.0.1:15432" || a.Node != "n1" || a.NetworkMode != "host" {
		t.Errorf("the access is %+v", a)
	}
}
