package handshake

import (
	"fmt"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
)

// When a silent peer is marked, and how much sooner that may be for whoever did not know when it spoke last.
const (
	staleAfter = 15 * time.Second
	downAfter  = 30 * time.Second
	between    = 5 * time.Second // heartbeats
	leeway     = 2 * time.Second
)

// linkFaults are what a network does to the connections between the two Envoys.
func linkFaults() []fault {
	one := func(what, holds string, run func(*scene)) fault {
		return fault{group: "link", what: what, asking: "both", holds: holds, run: run}
	}
	all := []fault{
		one("nobody is reached", "neither is ready", func(s *scene) { s.weather(relay.Weather{Refuse: true}) }),
		one("everything vanishes", "neither is ready", func(s *scene) { s.weather(relay.Hole) }),
		one("connections break within TLS's handshake", "neither is ready", func(s *scene) { s.weather(relay.Weather{Cut: 200}) }),
		one("every connection is cut after 3000 bytes", "", func(s *scene) { s.weather(relay.Weather{Cut: 3000}) }),
		one("1 s of delay each way", "", func(s *scene) { s.weather(relay.Weather{Delay: time.Second}) }),
		one("2000 bytes a second", "", func(s *scene) { s.weather(relay.Weather{Rate: 2000}) }),
		{group: "link", what: "connections are reset in session, three times", asking: "both", holds: "both stay ready", slow: true, run: func(s *scene) {
			s.session()
			for range 3 {
				if s.west.link.Reset()+s.east.link.Reset() == 0 {
					s.t.Error("there was nothing to reset")
				}
				s.stated(after(between + time.Second)) // until a heartbeat has made another one
			}
			s.recovers()
		}},
	}
	for i, g := range []string{"west", "east"} {
		all = append(all,
			fault{group: "link", what: "what " + g + " sends vanishes, answers pass", asking: "both", run: func(s *scene) {
				s.oneWay(i, relay.Weather{Hold: [2]bool{relay.Out: true}})
			}},
			fault{group: "link", what: "what " + g + " sends passes, answers vanish", asking: "both", run: func(s *scene) {
				s.oneWay(i, relay.Weather{Hold: [2]bool{relay.Back: true}})
			}},
			fault{group: "link", what: "only the other dials: " + g + " reaches nobody", asking: "both", run: func(s *scene) {
				s.both()[i].link.Set(relay.Weather{Refuse: true})
				s.begin(s.t)
				s.recovers() // while it holds
			}},
			fault{group: "link", what: g + "'s Envoy is killed in session", asking: "both", run: func(s *scene) { s.killEnvoy(s.both()[i]) }},
		)
	}
	return all
}

// weather begins the handshake in a weather that holds for a few seconds.
func (s *scene) weather(w relay.Weather) {
	for _, g := range s.both() {
		g.link.Set(w)
		g.link.Reset()
	}
	s.begin(s.t)
	if over := after(5 * time.Second); s.fault.holds != "" {
		s.stated(over)
	} else {
		<-over
	}
	s.calm(s.t)
	s.recovers()
}

// oneWay is weather at one of the two links only.
func (s *scene) oneWay(of int, w relay.Weather) {
	g := s.both()[of]
	g.link.Set(w)
	s.begin(s.t)
	time.Sleep(5 * time.Second)
	g.link.Set(relay.Weather{})
	s.recovers()
}

// session begins the handshake and waits until both are ready.
func (s *scene) session() {
	s.t.Helper()
	s.begin(s.t)
	if _, err := within(patience, s.joined); err != nil {
		s.t.Fatal(err)
	}
}

// killEnvoy kills Envoy; isthmus starts another one, and the relay takes its place again.
func (s *scene) killEnvoy(g *gateway) {
	s.session()
	pid, err := g.envoyProcess()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err == nil {
		_, err = within(patience, func() error {
			next, err := g.envoyProcess()
			if err == nil && next == pid {
				err = fmt.Errorf("still process %d", pid)
			}
			return err
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	g.interpose(s.t)
	s.recovers()
	s.lasts(func() {})
}

// silenceFaults keep two gateways in session from hearing each other.
func silenceFaults() []fault {
	hole := func(s *scene) {
		for _, g := range s.both() {
			g.link.Set(relay.Hole)
		}
	}
	unheard := func(s *scene) {
		for _, g := range s.both() {
			g.calls.Set(silence)
		}
	}
	frozen := func(s *scene) { s.east.freeze() }
	var all []fault
	for _, x := range []struct {
		what  string
		begin func(*scene)
		marks func(*scene) []*gateway // who notices
	}{
		{"the link brings nothing over", hole, (*scene).each},
		{"heartbeats are lost", unheard, (*scene).each},
		{"east is frozen", frozen, func(s *scene) []*gateway { return []*gateway{s.west} }},
	} {
		all = append(all,
			fault{group: "silence", what: x.what + " for 9 s", asking: "both", holds: "both stay ready", run: func(s *scene) {
				s.session()
				x.begin(s)
				s.stated(after(9 * time.Second))
				s.calm(s.t)
				s.recovers()
			}},
			fault{group: "silence", what: x.what + " for 20 s", asking: "both", holds: "marked stale after 15 s", slow: true, run: func(s *scene) {
				s.silent(x.begin, x.marks(s), false)
			}},
			fault{group: "silence", what: x.what + " for 35 s", asking: "both", holds: "marked stale after 15 s, down after 30 s", slow: true, run: func(s *scene) {
				s.silent(x.begin, x.marks(s), true)
			}},
		)
	}
	return append(all,
		fault{group: "silence", what: "west's heartbeats are lost, east's pass, for 35 s", asking: "both", holds: "both stay ready", slow: true, run: func(s *scene) {
			s.session()
			s.west.calls.Set(silence)
			s.stated(after(35 * time.Second))
			s.calm(s.t)
			s.recovers()
		}},
		fault{group: "silence", what: "the link brings nothing over for 35 s", asking: "west", holds: "marked stale after 15 s, down after 30 s", slow: true, passive: true,
			run: func(s *scene) { s.silent(hole, s.each(), true) }},
		fault{group: "silence", what: "east says goodbye, and comes back", asking: "both", holds: "marked departed at once", slow: true, run: func(s *scene) {
			s.session()
			s.east.stop()
			s.becomes(s.west, "departed", 0, 2*time.Second)
			<-s.east.ended
			s.back(s.east)
		}},
		fault{group: "silence", what: "east's goodbye is lost, and it comes back", asking: "both", holds: "not marked departed", slow: true, run: func(s *scene) {
			s.session()
			s.east.calls.Set(once("Goodbye", silence))
			s.east.stop()
			<-s.east.ended
			if state, err := s.west.sees(); err != nil || state.State == "departed" {
				s.t.Errorf("%+v, %v", state, err)
			}
			s.back(s.east)
		}},
	)
}

func (s *scene) each() []*gateway { return s.both() }

// back starts a gateway whose Envoy has ended too.
func (s *scene) back(g *gateway) {
	s.t.Helper()
	_ = g.calls.Close() // the next Envoy listens in its place
	g.start(s.t)
	s.recovers()
	g.interpose(s.t)
	s.session()
}

// silent lets a silence last until it was marked as it must be, and holds what becomes of the session.
func (s *scene) silent(begin func(*scene), marks []*gateway, down bool) {
	s.session()
	before, _, err := s.look()
	if err != nil {
		s.t.Fatal(err)
	}
	begun := time.Now()
	begin(s)
	for _, g := range marks {
		gone := time.Since(begun)
		s.becomes(g, "stale", staleAfter-between-leeway-gone, staleAfter+leeway-gone)
	}
	if down {
		for _, g := range marks {
			gone := time.Since(begun)
			s.becomes(g, "down", downAfter-between-leeway-gone, downAfter+leeway-gone)
		}
	}
	time.Sleep(time.Until(begun.Add(20 * time.Second)))
	if down {
		time.Sleep(time.Until(begun.Add(35 * time.Second)))
	}
	s.calm(s.t)
	s.recovers()
	if after, _, err := s.look(); err != nil || (after.Session == before.Session) == down {
		s.t.Errorf("session %s became %s, %v", before.Session, after.Session, err)
	}
}
