package stream

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

func exampleConfiguration() peering.Configuration {
	return peering.Configuration{
		Revision:         7,
		Identity:         peering.Identity{TrustDomain: "west.isthmus.internal", Cluster: "west"},
		Orchestrator:     peering.Orchestrator{Type: neutral.Docker, Version: "29.1.3", APIVersions: []string{"1.44", "1.54"}},
		Software:         "v1.2.3-4-gabcdef0-dirty",
		Protocol:         peering.ProtocolRange{Current: peering.ProtocolVersion{Major: 1, Minor: 4}, Oldest: peering.ProtocolVersion{Major: 1}},
		Features:         []string{"service-query", "container-access"},
		CatalogueVersion: "12",
		GatewayAddresses: []string{"gateway.example:8443", "192.0.2.1:443", "[2001:db8::1]:8443"},
		Bundle:           peering.SignedBundle{Text: "Isthmus trust bundle 1\n", Signature: []byte{1, 2}, Signers: [][]byte{{3}, {4, 5}}},
		Trusts:           []string{strings.Repeat("0f", 32), strings.Repeat("a1", 32)},
	}
}

// Each message survives the wire as it was, and keeps to the protocol's rules.
func TestMessages(t *testing.T) {
	t.Parallel()
	a := session.Epoch{Boot: strings.Repeat("0a", 16), Number: 3}
	b := session.Epoch{Boot: strings.Repeat("f9", 16), Number: 9}
	p := exampleConfiguration().Protocol
	check := func(want any, wire proto.Message, from func() any) {
		t.Helper()
		if err := validate(wire); err != nil {
			t.Errorf("%T: %v", wire, err)
		}
		data, err := proto.Marshal(wire)
		if err != nil {
			t.Fatal(err)
		}
		proto.Reset(wire)
		if err := proto.Unmarshal(data, wire); err != nil {
			t.Fatal(err)
		}
		if got := from(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v", want, got)
		}
	}
	hello := session.Hello{From: a, Sequence: 1, Cluster: "west", Protocol: p}
	helloWire := helloToWire(hello)
	check(hello, helloWire, func() any { return helloFromWire(helloWire) })
	for _, o := range []session.Outcome{session.Accepted, session.Stale, session.Refused} {
		answer := session.HelloAnswer{Sequence: 1, Outcome: o, Reason: "why", From: b, Cluster: "east", Protocol: p}
		answerWire := helloAnswerToWire(answer)
		check(answer, answerWire, func() any { return helloAnswerFromWire(answerWire) })

		configured := session.ConfigureAnswer{Sequence: 2, Outcome: o, Reason: "why", From: b, To: a}
		if o == session.Accepted {
			configured.Configuration = exampleConfiguration()
		}
		configuredWire := configureAnswerToWire(configured)
		check(configured, configuredWire, func() any { return configureAnswerFromWire(configuredWire) })

		beat := session.HeartbeatAnswer{Sequence: 3, Outcome: o, Revision: 4, Holds: 0}
		beatWire := heartbeatAnswerToWire(beat)
		check(beat, beatWire, func() any { return heartbeatAnswerFromWire(beatWire) })
	}
	configure := session.Configure{From: a, To: b, Sequence: 2, Configuration: exampleConfiguration()}
	configureWire := configureToWire(configure)
	check(configure, configureWire, func() any { return configureFromWire(configureWire) })
	heartbeat := session.Heartbeat{From: a, To: b, Sequence: 3, Revision: 4, Holds: 5}
	heartbeatWire := heartbeatToWire(heartbeat)
	check(heartbeat, heartbeatWire, func() any { return heartbeatFromWire(heartbeatWire) })
	goodbye := session.Goodbye{From: a, To: b, Sequence: 4, Reason: "upgrade"}
	goodbyeWire := goodbyeToWire(goodbye)
	check(goodbye, goodbyeWire, func() any { return goodbyeFromWire(goodbyeWire) })
}

// A reason of any kind fits the protocol, and what a newer minor version may say is a refusal.
func TestLeniency(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"", "plain", "two\nlines", "\x1b[31mred", "ünïcödé", "\xff", strings.Repeat("ü", 4000)} {
		m := goodbyeToWire(session.Goodbye{From: session.Epoch{Boot: strings.Repeat("0", 32), Number: 1},
			To: session.Epoch{Boot: strings.Repeat("0", 32), Number: 1}, Sequence: 1, Reason: reason})
		if err := m.Validate(); err != nil {
			t.Errorf("%.20q: %v", reason, err)
		}
	}
	m := heartbeatAnswerToWire(session.HeartbeatAnswer{Sequence: 1, Outcome: session.Accepted})
	m.Outcome = 77
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
	if got := heartbeatAnswerFromWire(m); got.Outcome != session.Refused {
		t.Errorf("an unknown outcome is %v", got.Outcome)
	}
}

// Where a configuration contradicts itself there is no identity in it.
func TestContradictingIdentity(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*peeringv1.Configuration){
		"cluster":      func(c *peeringv1.Configuration) { c.Cluster = "east" },
		"trust domain": func(c *peeringv1.Configuration) { c.TrustDomain = "east.isthmus.internal" },
		"id":           func(c *peeringv1.Configuration) { c.SpiffeId = "spiffe://west.isthmus.internal/cluster/east" },
		"no id":        func(c *peeringv1.Configuration) { c.SpiffeId = "" },
	} {
		c := configurationToWire(exampleConfiguration())
		edit(c)
		if got := configurationFromWire(c).Identity; got != (peering.Identity{}) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestConfigurationRules(t *testing.T) {
	t.Parallel()
	if err := configurationToWire(exampleConfiguration()).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*peering.Configuration){
		"revision":         func(c *peering.Configuration) { c.Revision = 0 },
		"cluster":          func(c *peering.Configuration) { c.Identity.Cluster = "we.st" },
		"trust domain":     func(c *peering.Configuration) { c.Identity.TrustDomain = "We" },
		"type":             func(c *peering.Configuration) { c.Orchestrator.Type = "" },
		"type's letters":   func(c *peering.Configuration) { c.Orchestrator.Type = "docker\n" },
		"version":          func(c *peering.Configuration) { c.Orchestrator.Version = "1 2" },
		"api versions":     func(c *peering.Configuration) { c.Orchestrator.APIVersions = make([]string, 65) },
		"an api version":   func(c *peering.Configuration) { c.Orchestrator.APIVersions = []string{"../v1"} },
		"software":         func(c *peering.Configuration) { c.Software = strings.Repeat("1", 65) },
		"no protocol":      func(c *peering.Configuration) { c.Protocol = peering.ProtocolRange{} },
		"a feature":        func(c *peering.Configuration) { c.Features = []string{"Feature"} },
		"a feature twice":  func(c *peering.Configuration) { c.Features = []string{"a", "a"} },
		"catalogue":        func(c *peering.Configuration) { c.CatalogueVersion = strings.Repeat("1", 129) },
		"an address":       func(c *peering.Configuration) { c.GatewayAddresses = []string{"http://x:1"} },
		"a bare address":   func(c *peering.Configuration) { c.GatewayAddresses = []string{"192.0.2.1"} },
		"too many to dial": func(c *peering.Configuration) { c.GatewayAddresses = make([]string, 17) },
		"no signature":     func(c *peering.Configuration) { c.Bundle.Signature = nil },
		"a long bundle":    func(c *peering.Configuration) { c.Bundle.Text = strings.Repeat("1", 65537) },
		"many signers":     func(c *peering.Configuration) { c.Bundle.Signers = [][]byte{{1}, {2}, {3}, {4}, {5}} },
		"a fingerprint":    func(c *peering.Configuration) { c.Trusts = []string{"0F"} },
		"too many trusted": func(c *peering.Configuration) { c.Trusts = make([]string, 9) },
	} {
		c := exampleConfiguration()
		edit(&c)
		if err := configurationToWire(c).Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzMessage reads bytes as each message. What passes the protocol's rules can be given to the machine and back
// without a loss that the other side would see.
func FuzzMessage(f *testing.F) {
	a := session.Epoch{Boot: strings.Repeat("0a", 16), Number: 3}
	for i, m := range []proto.Message{
		helloToWire(session.Hello{From: a, Sequence: 1, Cluster: "west", Protocol: peering.Protocol}),
		helloAnswerToWire(session.HelloAnswer{From: a, Sequence: 1, Outcome: session.Refused, Cluster: "west", Protocol: peering.Protocol}),
		configureToWire(session.Configure{From: a, To: a, Sequence: 1, Configuration: exampleConfiguration()}),
		configureAnswerToWire(session.ConfigureAnswer{From: a, To: a, Sequence: 1, Outcome: session.Accepted, Configuration: exampleConfiguration()}),
		heartbeatToWire(session.Heartbeat{From: a, To: a, Sequence: 1, Revision: 1, Holds: 1}),
		heartbeatAnswerToWire(session.HeartbeatAnswer{Sequence: 1, Outcome: session.Stale}),
		goodbyeToWire(session.Goodbye{From: a, To: a, Sequence: 1, Reason: "r"}),
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), data)
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		var m proto.Message
		var again func() proto.Message
		switch kind % 7 {
		case 0:
			w := &peeringv1.HelloRequest{}
			m, again = w, func() proto.Message { return helloToWire(helloFromWire(w)) }
		case 1:
			w := &peeringv1.HelloResponse{}
			m, again = w, func() proto.Message { return helloAnswerToWire(helloAnswerFromWire(w)) }
		case 2:
			w := &peeringv1.ConfigureRequest{}
			m, again = w, func() proto.Message { return configureToWire(configureFromWire(w)) }
		case 3:
			w := &peeringv1.ConfigureResponse{}
			m, again = w, func() proto.Message { return configureAnswerToWire(configureAnswerFromWire(w)) }
		case 4:
			w := &peeringv1.HeartbeatRequest{}
			m, again = w, func() proto.Message { return heartbeatToWire(heartbeatFromWire(w)) }
		case 5:
			w := &peeringv1.HeartbeatResponse{}
			m, again = w, func() proto.Message { return heartbeatAnswerToWire(heartbeatAnswerFromWire(w)) }
		case 6:
			w := &peeringv1.GoodbyeRequest{}
			m, again = w, func() proto.Message { return goodbyeToWire(goodbyeFromWire(w)) }
		}
		if proto.Unmarshal(data, m) != nil || validate(m) != nil {
			return
		}
		got := again()
		if consistent(m) {
			if err := validate(got); err != nil {
				t.Fatalf("%v passed, and %v does not: %v", m, got, err)
			}
		}
	})
}

// consistent tells whether a message's configuration has one identity and its outcome goes with it; another one is
// taken for having none, which no rule passes.
func consistent(m proto.Message) bool {
	switch m := m.(type) {
	case *peeringv1.ConfigureRequest:
		return configurationFromWire(m.GetConfiguration()).Identity != peering.Identity{}
	case *peeringv1.ConfigureResponse:
		return m.GetOutcome() != peeringv1.Outcome_OUTCOME_ACCEPTED ||
			configurationFromWire(m.GetConfiguration()).Identity != peering.Identity{}
	}
	return true
}
