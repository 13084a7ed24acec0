package session

// The asking side: steps 1 to 3, 6, 7 and 10, and what it says in a session.

func (m *machine) hello() {
	seq := m.await(callHello)
	if m.Attempt == 0 {
		m.took(1)
	} else {
		m.took(3)
	}
	m.do(SendHello{Hello{From: m.mine(), Sequence: seq, Cluster: m.Local.Identity.Cluster, Protocol: m.Local.Protocol}})
	m.took(2)
}

// configure sends the own configuration: to what the peer offers, or in the session.
func (m *machine) configure() {
	seq := m.await(callConfigure)
	msg := Configure{From: m.mine(), To: m.Target, Sequence: seq, Configuration: m.Local}
	if m.Phase == Joined {
		msg.From, msg.To = m.Pair.Mine, m.Pair.Theirs
	} else {
		m.took(7)
	}
	m.do(SendConfigure{msg})
}

func (m *machine) heartbeat() {
	seq := m.await(callHeartbeat)
	m.do(SendHeartbeat{Heartbeat{From: m.Pair.Mine, To: m.Pair.Theirs, Sequence: seq,
		Revision: m.Local.Revision, Holds: m.Peer.Revision}})
}

// answers tells whether an answer belongs to the call that is under way, and ends that call if so. Any other answer is
// a late one, of a call that was given up.
func (m *machine) answers(c call, sequence uint64) (Awaited, bool) {
	a := m.Awaited
	if a.call != c || a.Sequence != sequence {
		return Awaited{}, false
	}
	m.Awaited = Awaited{}
	m.LastSeen = m.now
	return a, true
}

func (m *machine) helloAnswered(a HelloAnswer) {
	if _, ok := m.answers(callHello, a.Sequence); !ok {
		return
	}
	if a.Outcome != Accepted {
		m.refuse(FailedRefused, "the peer refuses: "+a.Reason)
		return
	}
	if kind, why := m.greetable(a.Cluster, a.Protocol); why != "" {
		m.refuse(kind, why)
		return
	}
	m.took(6)
	m.Phase, m.Target, m.Resent = Configuring, a.From, 0
	m.configure()
}

func (m *machine) configureAnswered(a ConfigureAnswer) {
	sent, ok := m.answers(callConfigure, a.Sequence)
	if !ok {
		return
	}
	pair := Pair{Mine: m.mine(), Theirs: m.Target}
	if m.Phase == Joined {
		pair = m.Pair
	}
	switch {
	case a.Outcome == Stale:
		m.stale("configure")
	case a.Outcome != Accepted:
		m.refuse(FailedRefused, "the peer refuses: "+a.Reason)
	case a.From != pair.Theirs || a.To != pair.Mine:
		m.fail(FailedMalformed, "configure: the answer is of another session")
		m.retry()
	default:
		m.configured(pair, a, sent.revision)
	}
}

// configured applies the configuration that the peer answered with.
func (m *machine) configured(pair Pair, a ConfigureAnswer, told uint64) {
	if kind, why := m.acceptable(a.Configuration); why != "" {
		m.refuse(kind, why)
		return
	}
	if m.Phase == Joined {
		m.Pull, m.Changed = false, m.now.Add(m.rules.Timing.Settle)
		m.Attempt = 0
		m.alive()
		if a.Configuration.Revision > m.Peer.Revision {
			m.apply(a.Configuration)
		}
	} else {
		m.adopt(pair, a.Configuration)
		m.took(10)
	}
	m.Known = max(m.Known, told)
}

func (m *machine) heartbeatAnswered(a HeartbeatAnswer) {
	if _, ok := m.answers(callHeartbeat, a.Sequence); !ok {
		return
	}
	if a.Outcome != Accepted {
		m.stale("heartbeat")
		return
	}
	m.alive()
	m.Attempt = 0
	m.Next = m.now.Add(m.rules.jittered(m.rules.Timing.Heartbeat))
	m.Known = a.Holds
	m.Pull = a.Revision > m.Peer.Revision
}

// stale begins again: the peer holds no such session, for example because it was restarted.
func (m *machine) stale(what string) {
	m.fail(FailedStale, "%s: the peer holds no such session", what)
	m.retry()
}

// retry says hello again: at once after a session, later each time within a handshake, so that two sides that begin
// again and again do not keep in step.
func (m *machine) retry() {
	if m.Phase == Joined {
		m.leave()
		return
	}
	attempt := m.Attempt + 1
	m.leave()
	m.Attempt, m.Next = attempt, m.now.Add(m.rules.backoff(attempt))
}
