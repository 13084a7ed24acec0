package handshake

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
)

// each does something to a message and to all that it holds.
func each(m protoreflect.Message, do func(protoreflect.Message)) {
	do(m)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() != nil && !f.IsList() {
			each(v.Message(), do)
		}
		return true
	})
}

// unknown adds fields that no version has yet, of each kind of the wire, to a message and to all that it holds.
func unknown(m proto.Message) {
	each(m.ProtoReflect(), func(m protoreflect.Message) {
		b := protowire.AppendTag(nil, 1000, protowire.BytesType)
		b = protowire.AppendString(b, strings.Repeat("newer", 20))
		b = protowire.AppendTag(b, 1001, protowire.VarintType)
		b = protowire.AppendVarint(b, 7)
		b = protowire.AppendTag(b, 1002, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, 7)
		m.SetUnknown(append(m.GetUnknown(), b...))
	})
}

// speaks changes which versions of the protocol a gateway says that it speaks.
func speaks(oldest, current [2]uint32) func(proto.Message) {
	version := func(v [2]uint32) *peeringv1.ProtocolVersion {
		return &peeringv1.ProtocolVersion{Major: v[0], Minor: v[1]}
	}
	return func(m proto.Message) {
		each(m.ProtoReflect(), func(m protoreflect.Message) {
			if r, ok := m.Interface().(*peeringv1.ProtocolRange); ok {
				r.Oldest, r.Current = version(oldest), version(current)
			}
		})
	}
}

// newer is a gateway of a newer minor version, with all that such a one may add.
func newer(m proto.Message) {
	speaks([2]uint32{1, 0}, [2]uint32{1, 7})(m)
	unknown(m)
	each(m.ProtoReflect(), func(m protoreflect.Message) {
		if c, ok := m.Interface().(*peeringv1.Configuration); ok {
			c.Features = append(c.Features, "teleport")
			c.Software = "v9.9.9"
		}
	})
}

// older is a gateway of before everything that is optional.
func older(m proto.Message) {
	each(m.ProtoReflect(), func(m protoreflect.Message) {
		if c, ok := m.Interface().(*peeringv1.Configuration); ok {
			c.TrustBundle, c.TrustedAuthorities, c.Features, c.GatewayAddresses, c.CatalogueVersion = nil, nil, nil, nil, ""
		}
	})
}

// peerFaults are peers that are not what they were, or not what they say.
func peerFaults() []fault {
	return append(skews(), append(types(), lies()...)...)
}

// skews are versions apart. One that can be bridged makes a session at once.
func skews() []fault {
	bridged := func(what string, west, east func(proto.Message)) fault {
		return fault{group: "versions", what: what, asking: "both", holds: "both are ready", run: func(s *scene) {
			s.says(west, east)
			s.begin(s.t)
			s.recovers()
			s.lasts(func() { time.Sleep(between + time.Second) }) // and a heartbeat
		}}
	}
	apart := func(what string, edit func(proto.Message), why string) fault {
		return fault{group: "versions", what: what, asking: "both", holds: "both say refused, and why", run: func(s *scene) {
			s.refusedWhile(nil, edit, why)
		}}
	}
	return []fault{
		bridged("east is of a newer minor version, with fields, features and values nobody knows", nil, newer),
		bridged("both are", newer, newer),
		bridged("east is of an older one, without optional fields", nil, older),
		bridged("west is older, east newer", older, newer),
		bridged("east is of the next major version and speaks ours", nil, speaks([2]uint32{1, 0}, [2]uint32{2, 3})),
		apart("east is of a newer minor version and does not speak ours any more", speaks([2]uint32{1, 1}, [2]uint32{1, 7}), "no common protocol version"),
		apart("east is of the next major version and does not speak ours", speaks([2]uint32{2, 0}, [2]uint32{2, 3}), "no common protocol version"),
		{group: "versions", what: "east answers with an outcome nobody knows", asking: "west", holds: "west says refused, and why", run: func(s *scene) {
			s.says(nil, func(m proto.Message) {
				if a, ok := m.(*peeringv1.HelloResponse); ok {
					a.Outcome, a.Reason = 77, "for reasons of version 7"
				}
			})
			s.east.calls.Set(quiet)
			s.begin(s.t)
			if state := s.becomes(s.west, "refused", 0, patience); !strings.Contains(state.LastError, "reasons of version 7") {
				s.t.Errorf("the reason is %q", state.LastError)
			}
			s.calm(s.t)
			s.recovers() // by east's hello
		}},
	}
}

// refusedWhile holds that both sides say refused, and why, while a gateway says what it must not; then it is mended,
// which takes a restart.
func (s *scene) refusedWhile(west, east func(proto.Message), why string) {
	s.says(west, east)
	s.begin(s.t)
	for _, g := range s.both() {
		state := s.becomes(g, "refused", 0, patience)
		if !strings.Contains(state.LastError, why) {
			s.t.Errorf("%s: the reason is %q, not %q", g.name, state.LastError, why)
		}
	}
	s.fault.holds = "neither is ready"
	s.stated(after(2 * time.Second))
	s.calm(s.t)
	s.east.kill()
	s.east.start(s.t)
	s.recovers()
}

// types are peers that become another orchestrator.
func types() []fault {
	one := func(what string, run func(*scene)) fault {
		return fault{group: "type", what: what, asking: "both", run: run}
	}
	becomes := func(s *scene, all ...*gateway) {
		for _, g := range all {
			g.kill()
			g.orchestrator = neutral.Kubernetes
			g.declare(s.t)
			g.start(s.t)
		}
	}
	return []fault{
		one("east comes back as kubernetes", func(s *scene) {
			s.session()
			becomes(s, s.east)
			s.recovers()
		}),
		one("both do", func(s *scene) {
			s.session()
			becomes(s, s.both()...)
			s.recovers()
		}),
		one("east does while the link brings nothing over", func(s *scene) {
			s.session()
			for _, g := range s.both() {
				g.link.Set(relay.Hole)
			}
			becomes(s, s.east)
			time.Sleep(5 * time.Second)
			for _, g := range s.both() {
				g.link.Set(relay.Weather{})
			}
			s.recovers()
		}),
		one("east does, and back, three times", func(s *scene) {
			s.session()
			for range 3 {
				becomes(s, s.east)
				s.recovers()
				s.east.orchestrator = neutral.Docker
				s.east.declare(s.t)
				s.east.kill()
				s.east.start(s.t)
				s.recovers()
			}
		}),
	}
}

// lies are of a peer whose certificate proves another name than the one it gives.
func lies() []fault {
	hello := func(m proto.Message) {
		switch m := m.(type) {
		case *peeringv1.HelloRequest:
			m.Cluster = "prod"
		case *peeringv1.HelloResponse:
			m.Cluster = "prod"
		}
	}
	configuration := func(do func(*peeringv1.Configuration)) func(proto.Message) {
		return func(m proto.Message) {
			each(m.ProtoReflect(), func(m protoreflect.Message) {
				if c, ok := m.Interface().(*peeringv1.Configuration); ok {
					do(c)
				}
			})
		}
	}
	prod := configuration(func(c *peeringv1.Configuration) {
		c.Cluster, c.SpiffeId = "prod", strings.Replace(c.GetSpiffeId(), "/cluster/east", "/cluster/prod", 1)
	})
	foreign := configuration(func(c *peeringv1.Configuration) {
		c.SpiffeId = strings.Replace(c.GetSpiffeId(), c.GetTrustDomain(), "prod.isthmus.internal", 1)
		c.TrustDomain = "prod.isthmus.internal"
	})
	torn := configuration(func(c *peeringv1.Configuration) { c.Cluster = "prod" })
	var all []fault
	for _, x := range []struct {
		what string
		edit func(proto.Message)
	}{
		{"its hello names another cluster", hello},
		{"its configuration is of another cluster", prod},
		{"its configuration is of another trust domain", foreign},
		{"its configuration contradicts itself", torn},
		{"everything it says is of another cluster", func(m proto.Message) { hello(m); prod(m) }},
	} {
		all = append(all,
			fault{group: "lies", what: "east lies: " + x.what, asking: "both", holds: "both say refused, and why", run: func(s *scene) {
				s.refusedWhile(nil, x.edit, "the certificate proves")
			}},
			fault{group: "lies", what: "east restarts in session and lies: " + x.what, asking: "both", holds: "both say refused, and why", run: func(s *scene) {
				s.session()
				s.says(nil, x.edit)
				s.east.kill()
				s.east.start(s.t)
				for _, g := range s.both() {
					state := s.becomes(g, "refused", 0, patience)
					if !strings.Contains(state.LastError, "the certificate proves") {
						s.t.Errorf("%s: the reason is %q", g.name, state.LastError)
					}
				}
				s.calm(s.t)
				s.east.kill()
				s.east.start(s.t)
				s.recovers()
			}})
	}
	return append(all, fault{group: "lies", what: "west lies, and east never asks: its hello names another cluster", asking: "west", passive: true,
		holds: "both say refused, and why", run: func(s *scene) {
			s.says(func(m proto.Message) {
				if m, ok := m.(*peeringv1.HelloRequest); ok {
					m.Cluster = "prod"
				}
			}, nil)
			s.begin(s.t)
			for _, g := range s.both() {
				if state := s.becomes(g, "refused", 0, patience); !strings.Contains(state.LastError, "the certificate proves") {
					s.t.Errorf("%s: the reason is %q", g.name, state.LastError)
				}
			}
			s.calm(s.t)
			s.west.kill()
			s.west.start(s.t)
			s.recovers()
		}})
}
