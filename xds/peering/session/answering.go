package session

// The answering side: steps 4, 5, 8 and 9, and what it hears in a session.

func (m *machine) helloReceived(e HelloReceived) {
	m.LastSeen = m.now
	m.took(4)
	answer := HelloAnswer{Sequence: e.Hello.Sequence, Outcome: Accepted, From: m.mine(),
		Cluster: m.Local.Identity.Cluster, Protocol: m.Local.Protocol}
	if kind, why := m.greetable(e.Hello.Cluster, e.Hello.Protocol); why != "" {
		answer.Outcome, answer.Reason = Refused, why
		if m.Phase == Joined { // of the session it says nothing: this hello may be of an earlier boot, and come very late
			m.fail(kind, "%s", why)
		} else {
			m.refuse(kind, why)
		}
	}
	m.do(AnswerHello{Call: e.Call, Answer: answer})
	m.took(5)
	// A hello of a new boot in a session: the peer was restarted, or this hello comes very late. A heartbeat tells.
	if m.Phase == Joined && e.Hello.From != m.Pair.Theirs && m.now.Before(m.Next) {
		m.Next = m.now
	}
}

func (m *machine) configureReceived(e ConfigureReceived) {
	msg := e.Configure
	pair := Pair{Mine: msg.To, Theirs: msg.From}
	m.LastSeen = m.now
	answer := ConfigureAnswer{Sequence: msg.Sequence, Outcome: Accepted, From: msg.To, To: msg.From}
	fresh := msg.To == m.mine()
	if !fresh && (m.Phase != Joined || pair != m.Pair) {
		answer.Outcome = Stale
		m.do(AnswerConfigure{Call: e.Call, Answer: answer})
		return
	}
	if kind, why := m.acceptable(msg.Configuration); why != "" {
		m.refuse(kind, why)
		answer.Outcome, answer.Reason = Refused, why
		m.do(AnswerConfigure{Call: e.Call, Answer: answer})
		return
	}
	switch {
	case fresh:
		m.adopt(pair, msg.Configuration)
		m.took(8)
	default:
		m.alive()
		if msg.Configuration.Revision > m.Peer.Revision {
			m.apply(msg.Configuration)
		}
	}
	answer.Configuration = m.Local
	m.do(AnswerConfigure{Call: e.Call, Answer: answer})
	// The answer brings the newest; should it be lost, the peer's next heartbeat tells.
	m.Known = m.Local.Revision
	if fresh {
		m.took(9)
	}
}

func (m *machine) heartbeatReceived(e HeartbeatReceived) {
	msg := e.Heartbeat
	pair := Pair{Mine: msg.To, Theirs: msg.From}
	m.LastSeen = m.now
	answer := HeartbeatAnswer{Sequence: msg.Sequence, Outcome: Stale, Revision: m.Local.Revision}
	switch {
	case m.Phase == Joined && pair == m.Pair:
		m.alive()
		m.Known = min(m.Known, msg.Holds)
		m.Pull = m.Pull || msg.Revision > m.Peer.Revision
		answer.Outcome, answer.Holds = Accepted, m.Peer.Revision
	case m.Phase == Configuring && pair == Pair{Mine: m.mine(), Theirs: m.Target}:
		// The peer applied our configuration, and its answer is under way or lost. Holding nothing yet makes it send
		// its own.
		answer.Outcome = Accepted
	}
	m.do(AnswerHeartbeat{Call: e.Call, Answer: answer})
}

func (m *machine) goodbyeReceived(e GoodbyeReceived) {
	msg := e.Goodbye
	m.LastSeen = m.now
	if m.Phase == Joined && m.Pair == (Pair{Mine: msg.To, Theirs: msg.From}) {
		m.leave()
		m.Departed = true
		// It says hello when it is back; asking is for a peer that cannot.
		m.Next = m.now.Add(m.rules.jittered(m.rules.Timing.BackoffMax))
	}
	m.do(AnswerGoodbye{Call: e.Call, Sequence: msg.Sequence})
}
