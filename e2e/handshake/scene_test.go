package handshake

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
)

// fault is one case: what is done to two gateways, and what must hold meanwhile. Afterwards both must be ready.
type fault struct {
	group, what string
	asking      string // who begins: "west", "east" or "both"
	holds       string // what is stated while it holds
	slow        bool   // begun first, since it takes long
	passive     bool   // east has no address of west
	run         func(*scene)
}

func (f fault) name() string { return f.group + "/" + f.what + "/" + f.asking }

// scene is a case under way.
type scene struct {
	*pair
	t         *testing.T
	fault     fault
	asker     *gateway // west where both ask
	answerer  *gateway
	recovered time.Duration // from the fault's end until both were ready in one session
}

// quiet keeps a gateway from calling its peer.
func quiet(*relay.Call) relay.Answer { return relay.Refusal() }

// hush ends both sides, and what they had said by then: a fault is for what they say when they begin.
func (s *scene) hush() {
	for _, g := range s.both() {
		g.kill()
	}
	time.Sleep(settling)
}

// treat puts a fault in the way of whoever asks, once they begin. Where one side asks, the other one only answers.
func (s *scene) treat(f func(g *gateway) relay.Fault) {
	s.hush()
	s.asker.calls.Set(f(s.asker))
	if s.fault.asking == "both" {
		s.answerer.calls.Set(f(s.answerer))
	} else {
		s.answerer.calls.Set(quiet)
	}
}

// once treats the first call of a method, and passes all others.
func once(method string, f relay.Fault) relay.Fault {
	var met atomic.Bool
	return func(c *relay.Call) relay.Answer {
		if c.Method != method || met.Swap(true) {
			return relay.Pass(c)
		}
		return f(c)
	}
}

// statement is what must hold of both sides; the asking one comes first.
type statement func(asker, answerer app.PeerState) error

// Statements that a fault's table names.
var statements = map[string]statement{
	"neither is ready": func(asker, answerer app.PeerState) error {
		return errors.Join(not("ready")(asker), not("ready")(answerer))
	},
	"who asks is not ready": func(asker, _ app.PeerState) error { return not("ready")(asker) },
	"both stay ready": func(asker, answerer app.PeerState) error {
		return errors.Join(is("ready")(asker), is("ready")(answerer))
	},
}

func is(condition string) func(app.PeerState) error {
	return func(s app.PeerState) error {
		if s.State != condition && s.State != "" {
			return fmt.Errorf("its peer is not %s: %+v", condition, s)
		}
		return nil
	}
}

func not(condition string) func(app.PeerState) error {
	return func(s app.PeerState) error {
		if s.State == condition {
			return fmt.Errorf("its peer is %s: %+v", condition, s)
		}
		return nil
	}
}

// look is both sides as they are now, the asking one first. A side that does not run has no state and makes an error.
func (s *scene) look() (asker, answerer app.PeerState, err error) {
	states, err := s.seen()
	if s.asker == s.east {
		states[0], states[1] = states[1], states[0]
	}
	return states[0], states[1], err
}

// stated holds what is stated of the fault, until it is over.
func (s *scene) stated(over <-chan struct{}) {
	s.t.Helper()
	check := statements[s.fault.holds]
	if check == nil {
		s.t.Fatalf("nothing is stated by %q", s.fault.holds)
	}
	looks := 0
	for {
		asker, answerer, _ := s.look() // a side that is dead or frozen says nothing
		select {
		case <-over:
			if looks == 0 {
				s.t.Error("the fault was over before anybody looked")
			}
			return
		default:
		}
		if asker.State != "" || answerer.State != "" {
			looks++
		}
		if err := check(asker, answerer); err != nil {
			s.t.Fatalf("%s: %v", s.fault.holds, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// after is closed when a time has passed.
func after(d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(d, func() { close(over) })
	return over
}

// becomes waits until a gateway's peer has a condition, which must be no sooner and no later than said.
func (s *scene) becomes(g *gateway, condition string, sooner, later time.Duration) app.PeerState {
	s.t.Helper()
	var state app.PeerState
	took, err := within(later, func() (err error) {
		if state, err = g.sees(); err != nil {
			return err
		}
		return is(condition)(state)
	})
	if err != nil {
		s.t.Fatalf("%s: %v", g.name, err)
	}
	if took < sooner {
		s.t.Fatalf("%s: its peer was %s after %s: %+v", g.name, condition, took, state)
	}
	return state
}

// recovers waits until both are ready, in one session.
func (s *scene) recovers() {
	s.t.Helper()
	var err error
	if s.recovered, err = within(patience, s.joined); err != nil {
		s.t.Fatal(err)
	}
}

// lasts holds that a session that both are in is still the same after what happens now.
func (s *scene) lasts(happens func()) {
	s.t.Helper()
	before, _, err := s.look()
	if err == nil {
		happens()
		time.Sleep(300 * time.Millisecond)
		err = s.joined()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if after, _, err := s.look(); err != nil || after.Session != before.Session {
		s.t.Fatalf("session %s became %s, %v", before.Session, after.Session, err)
	}
}

// says changes every message of the two gateways: what they ask, and what they answer. Nil changes nothing.
func (s *scene) says(west, east func(proto.Message)) {
	relayed := func(mine, theirs func(proto.Message)) relay.Fault {
		return func(c *relay.Call) relay.Answer {
			a := c.Pass(c.Context, edited(request(c.Method), c.Request, mine))
			if a.Message != nil {
				a.Message = edited(response(c.Method), a.Message, theirs)
			}
			return a
		}
	}
	s.west.calls.Set(relayed(west, east))
	s.east.calls.Set(relayed(east, west))
}

func request(method string) proto.Message {
	return map[string]proto.Message{"Hello": &peeringv1.HelloRequest{}, "Configure": &peeringv1.ConfigureRequest{},
		"Heartbeat": &peeringv1.HeartbeatRequest{}, "Goodbye": &peeringv1.GoodbyeRequest{}}[method]
}

func response(method string) proto.Message {
	return map[string]proto.Message{"Hello": &peeringv1.HelloResponse{}, "Configure": &peeringv1.ConfigureResponse{},
		"Heartbeat": &peeringv1.HeartbeatResponse{}, "Goodbye": &peeringv1.GoodbyeResponse{}}[method]
}

// edited is a message after an edit; one that cannot be read stays as it is.
func edited(m proto.Message, content []byte, edit func(proto.Message)) []byte {
	if err := proto.Unmarshal(content, m); err != nil || edit == nil {
		return content
	}
	edit(m)
	after, err := proto.Marshal(m)
	if err != nil {
		return content
	}
	return after
}
