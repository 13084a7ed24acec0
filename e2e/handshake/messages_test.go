package handshake

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/relay"
)

// messageFaults are what a network does to one message of the handshake.
func messageFaults() []fault {
	var all []fault
	for i, m := range []struct{ what, method string }{{"hello", "Hello"}, {"configuration", "Configure"}} {
		for j, x := range []struct {
			what  string
			run   func(*scene, string)
			holds bool
		}{
			{"lost", lost, true}, {"3 s late", delayed, true}, {"6 s late, when it was given up", late, false}, {"twice at once", twice, false},
			{"twice, the second in session", again, false}, {"overtaken by the next", overtaken, false}, {"cut short", cutRequest, false},
			{"garbled", garbledRequest, false}, {"refused on the way", refused, false},
		} {
			holds := ""
			if x.holds {
				holds = "neither is ready"
			}
			all = append(all, sides("message", m.what+" "+x.what, holds, i+j, func(s *scene) { x.run(s, m.method) })...)
		}
		for j, x := range []struct {
			what  string
			run   func(*scene, string)
			holds bool
		}{
			{"lost", answerLost, true}, {"3 s late", answerDelayed, true}, {"cut short", answerCut, false}, {"garbled", answerGarbled, false},
		} {
			holds := ""
			if x.holds {
				holds = []string{"neither is ready", "who asks is not ready"}[i]
			}
			both := sides("message", "the answer to the "+m.what+" "+x.what, holds, i+j, func(s *scene) { x.run(s, m.method) })
			if i == 1 {
				both[1].holds = "" // each side has applied what the other asked it to
			}
			all = append(all, both...)
		}
	}
	return all
}

// sides are the cases in which one side asks, west and east by turns, and in which both do.
func sides(group, what, holds string, turn int, run func(*scene)) []fault {
	one := []string{"west", "east"}[turn%2]
	return []fault{{group: group, what: what, asking: one, holds: holds, run: run}, {group: group, what: what, asking: "both", holds: holds, run: run}}
}

// hold lets the first call of a method of everybody who asks meet a fault, and holds what is stated until the fault
// has returned for one of them.
func (s *scene) hold(method string, f relay.Fault) {
	s.t.Helper()
	s.holdUntil(method, func(c *relay.Call, _ func()) relay.Answer { return f(c) })
}

// holdUntil is hold for a fault that is over before it returns.
func (s *scene) holdUntil(method string, f func(c *relay.Call, over func()) relay.Answer) {
	s.t.Helper()
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	s.treat(func(*gateway) relay.Fault {
		return once(method, func(c *relay.Call) relay.Answer {
			defer end()
			return f(c, end)
		})
	})
	s.begin(s.t)
	if s.fault.holds != "" {
		s.stated(over)
	}
	select {
	case <-over:
	case <-time.After(patience):
		s.t.Fatal("the fault met nothing")
	}
	s.recovers()
}

// silence is a message that never comes.
func silence(c *relay.Call) relay.Answer {
	<-c.Context.Done()
	return relay.Answer{}
}

func lost(s *scene, method string) { s.hold(method, silence) }

func answerLost(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer {
		relay.Pass(c)
		return silence(c)
	})
}

const delay = 3 * time.Second

func delayed(s *scene, method string) {
	s.holdUntil(method, func(c *relay.Call, over func()) relay.Answer {
		time.Sleep(delay)
		over()
		return relay.Pass(c)
	})
}

func answerDelayed(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer {
		a := relay.Pass(c)
		time.Sleep(delay)
		return a
	})
}

// straggler is a call that is passed when its caller is gone.
func straggler(c *relay.Call) relay.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Pass(ctx, c.Request)
}

// late lets the call arrive after it was given up and said again.
func late(s *scene, method string) {
	arrived := make(chan relay.Answer, 2)
	s.treat(func(*gateway) relay.Fault {
		return once(method, func(c *relay.Call) relay.Answer {
			time.Sleep(2 * delay)
			arrived <- straggler(c)
			return relay.Answer{}
		})
	})
	s.begin(s.t)
	s.recovers()
	if s.fault.asking == "both" {
		return // one of the two may come when it makes another session; that both end in one is the statement
	}
	s.lasts(func() { s.answered(arrived) })
}

// answered waits for a straggler and holds that the peer answered it.
func (s *scene) answered(arrived <-chan relay.Answer) {
	s.t.Helper()
	select {
	case a := <-arrived:
		if a.Broken {
			s.t.Error("nothing came of a straggler")
		}
	case <-time.After(patience):
		s.t.Fatal("the fault met nothing")
	}
}

func twice(s *scene, method string) {
	arrived := make(chan relay.Answer, 2)
	s.hold(method, func(c *relay.Call) relay.Answer {
		go func() { arrived <- straggler(c) }()
		return relay.Pass(c)
	})
	s.lasts(func() { s.answered(arrived) })
}

// again lets a message that made a session arrive once more when the session is there.
func again(s *scene, method string) {
	var repeat atomic.Pointer[relay.Call]
	s.hold(method, func(c *relay.Call) relay.Answer {
		repeat.Store(c)
		return relay.Pass(c)
	})
	s.lasts(func() {
		if a := straggler(repeat.Load()); a.Message == nil {
			s.t.Errorf("a message that came again was answered %+v", a)
		}
	})
}

// overtaken keeps a call back until one that was sent after it has passed.
func overtaken(s *scene, method string) {
	next := map[string]string{"Hello": "Configure", "Configure": "Configure"}[method]
	arrived := make(chan relay.Answer, 2)
	s.treat(func(*gateway) relay.Fault {
		var calls atomic.Int32
		passed := make(chan struct{})
		var once sync.Once
		return func(c *relay.Call) relay.Answer {
			switch {
			case c.Method == method && calls.Add(1) == 1:
				go func() { // the caller gives it up and goes on
					<-passed
					arrived <- straggler(c)
				}()
				return relay.Refusal()
			case c.Method == next:
				defer once.Do(func() { close(passed) })
			}
			return relay.Pass(c)
		}
	})
	s.begin(s.t)
	s.recovers()
	s.lasts(func() { s.answered(arrived) })
}

func refused(s *scene, method string) {
	s.hold(method, func(*relay.Call) relay.Answer { return relay.Refusal() })
}

func cutRequest(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer { return c.Pass(c.Context, c.Request[:len(c.Request)/2]) })
}

// garble spoils a message without changing its length.
func garble(message []byte) []byte {
	spoilt := make([]byte, len(message))
	for i, b := range message {
		spoilt[i] = b
		if i%7 == 0 {
			spoilt[i] ^= 0xa5
		}
	}
	return spoilt
}

func garbledRequest(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer { return c.Pass(c.Context, garble(c.Request)) })
}

func answerCut(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer {
		a := relay.Pass(c)
		a.Whole = len(a.Message) / 2
		return a
	})
}

func answerGarbled(s *scene, method string) {
	s.hold(method, func(c *relay.Call) relay.Answer {
		a := relay.Pass(c)
		a.Message = garble(a.Message)
		return a
	})
}

// seconds is a time as the table has it.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
