package peering

import (
	"strings"
	"testing"
)

func TestParseIdentity(t *testing.T) {
	t.Parallel()
	good := Identity{TrustDomain: "west.isthmus.internal", Cluster: "west-1"}
	if got, err := ParseIdentity("spiffe://west.isthmus.internal/cluster/west-1"); err != nil || got != good {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{
		"", "west", "spiffe://", "spiffe:///cluster/west", "spiffe://d/cluster/", "spiffe://d/cluster", "spiffe://d/ns/west",
		"http://d/cluster/west", "SPIFFE://d/cluster/west", "spiffe://D/cluster/west", "spiffe://d/cluster/West",
		"spiffe://d/cluster/west/", "spiffe://d/cluster/west/x", "spiffe://d/cluster/west?x", "spiffe://d/cluster/west#x",
		"spiffe://d:8443/cluster/west", "spiffe://u@d/cluster/west", "spiffe://d/cluster/we%73t", "spiffe://d//cluster/west",
		" spiffe://d/cluster/west", "spiffe://d/cluster/west\n", "spiffe://d/cluster/west,spiffe://e/cluster/east",
		"spiffe://d/cluster/-west", "spiffe://d/cluster/west-", "spiffe://d/cluster/" + strings.Repeat("w", 64),
		"spiffe://" + strings.Repeat("d", 256) + "/cluster/west", "spiffe://d/cluster/cluster/west", "spiffe://d/cluster/a.b",
	} {
		if got, err := ParseIdentity(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestIdentityText(t *testing.T) {
	t.Parallel()
	for _, want := range []Identity{{}, {TrustDomain: "corp.example", Cluster: "west"}} {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := Identity{TrustDomain: "before", Cluster: "before"}
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%v became %q and then %v (%v)", want, text, got, err)
		}
	}
	kept := Identity{TrustDomain: "corp.example", Cluster: "west"}
	if err := kept.UnmarshalText([]byte("junk")); err == nil || kept.Cluster != "west" {
		t.Errorf("junk made %v (%v)", kept, err)
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://west.isthmus.internal/cluster/west")
	f.Add("spiffe://a/cluster/b/cluster/c")
	f.Add("spiffe://a,spiffe://b/cluster/c")
	f.Fuzz(func(t *testing.T, id string) {
		// One identity has one form: what is read is what is written.
		if got, err := ParseIdentity(id); err == nil && got.String() != id {
			t.Errorf("%q is read as %q", id, got)
		}
	})
}

func TestNegotiate(t *testing.T) {
	t.Parallel()
	v := func(major, minor uint32) ProtocolVersion { return ProtocolVersion{Major: major, Minor: minor} }
	for _, c := range []struct {
		a, b ProtocolRange
		want ProtocolVersion
		ok   bool
	}{
		{ProtocolRange{v(1, 0), v(1, 0)}, ProtocolRange{v(1, 0), v(1, 0)}, v(1, 0), true},
		{ProtocolRange{v(1, 5), v(1, 0)}, ProtocolRange{v(1, 2), v(1, 0)}, v(1, 2), true},
		{ProtocolRange{v(2, 1), v(1, 9)}, ProtocolRange{v(1, 9), v(1, 0)}, v(1, 9), true},
		{ProtocolRange{v(2, 1), v(2, 0)}, ProtocolRange{v(1, 9), v(1, 0)}, v(1, 9), false},
		{ProtocolRange{v(1, 5), v(1, 4)}, ProtocolRange{v(1, 3), v(1, 0)}, v(1, 3), false},
		{ProtocolRange{}, ProtocolRange{v(1, 0), v(1, 0)}, v(0, 0), false},
	} {
		for _, pair := range [][2]ProtocolRange{{c.a, c.b}, {c.b, c.a}} {
			if got, ok := pair[0].Negotiate(pair[1]); got != c.want || ok != c.ok {
				t.Errorf("%v with %v: %v %v, want %v %v", pair[0], pair[1], got, ok, c.want, c.ok)
			}
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	base := func() Configuration {
		return Configuration{Revision: 1, Identity: Identity{"d", "c"}, Orchestrator: Orchestrator{Type: "docker", Version: "1", APIVersions: []string{"1.44"}},
			Software: "1", Protocol: Protocol, Features: []string{"f"}, CatalogueVersion: "1", GatewayAddresses: []string{"a:1"}}
	}
	later := base()
	later.Revision = 9
	if !base().Same(later) {
		t.Error("a revision alone makes a difference")
	}
	for name, edit := range map[string]func(*Configuration){
		"identity":  func(c *Configuration) { c.Identity.Cluster = "e" },
		"type":      func(c *Configuration) { c.Orchestrator.Type = "rancher" },
		"version":   func(c *Configuration) { c.Orchestrator.Version = "2" },
		"api":       func(c *Configuration) { c.Orchestrator.APIVersions = nil },
		"software":  func(c *Configuration) { c.Software = "2" },
		"protocol":  func(c *Configuration) { c.Protocol.Current.Minor++ },
		"features":  func(c *Configuration) { c.Features = append(c.Features, "g") },
		"catalogue": func(c *Configuration) { c.CatalogueVersion = "2" },
		"addresses": func(c *Configuration) { c.GatewayAddresses = []string{"b:1"} },
	} {
		c := base()
		edit(&c)
		if base().Same(c) {
			t.Errorf("%s makes no difference", name)
		}
	}
}
