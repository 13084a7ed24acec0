package adapter

import (
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Limits bound what is under way for a peer; 0 is no limit. Of a peer's callers each has Caller; those that it does not
// name share the peer's alone.
type Limits struct {
	Share
	Caller Share
	Body   int64 // bytes of a request that is read whole
}

// Share is how much may be under way at a time.
type Share struct{ Operations, Streams int }

// Names of the limits, for metrics.
const (
	limitOperations       = "operations"
	limitStreams          = "streams"
	limitCallerOperations = "caller-operations"
	limitCallerStreams    = "caller-streams"
	limitBody             = "body"
)

// load counts what is under way. A peer, and a caller, is there only as long as it has something.
type load struct {
	mu    sync.Mutex
	peers map[string]*peerLoad
}

type peerLoad struct {
	Share
	callers map[string]*Share
}

func (s *Share) of(stream bool) *int {
	if stream {
		return &s.Streams
	}
	return &s.Operations
}

// enter counts one more for a peer and its caller, until leave is called; limit names the one that is reached.
func (l *load) enter(peer, caller string, stream bool, limits Limits) (leave func(), limit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[peer]
	if p == nil {
		p = &peerLoad{callers: map[string]*Share{}}
	}
	c := p.callers[caller]
	if c == nil {
		c = &Share{}
	}
	switch most := *limits.of(stream); {
	case most == 0 || *p.of(stream) < most:
	case stream:
		return nil, limitStreams
	default:
		return nil, limitOperations
	}
	switch most := *limits.Caller.of(stream); {
	case caller == "" || most == 0 || *c.of(stream) < most:
	case stream:
		return nil, limitCallerStreams
	default:
		return nil, limitCallerOperations
	}
	if l.peers == nil {
		l.peers = map[string]*peerLoad{}
	}
	l.peers[peer], p.callers[caller] = p, c
	*p.of(stream)++
	*c.of(stream)++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		*p.of(stream)--
		*c.of(stream)--
		if *c == (Share{}) {
			delete(p.callers, caller)
		}
		if p.Share == (Share{}) {
			delete(l.peers, peer)
		}
	}), ""
}

// enter lets an operation begin that its peer has room for; leave ends it.
func (m *Module) enter(peer, caller string, stream bool) (leave func(), err error) {
	leave, limit := m.load.enter(peer, caller, stream, m.config.Limits(peer))
	if limit == "" {
		return leave, nil
	}
	m.config.Limited(peer, limit)
	who, what := "peer "+peer, "operations"
	if limit == limitCallerOperations || limit == limitCallerStreams {
		who = "caller " + caller + " of peer " + peer
	}
	if stream {
		what = "streams"
	}
	return nil, fault.New(fault.Exhausted, "too many %s of %s are under way; try again when some have ended", what, who)
}

// tooLarge refuses a body that the peer's limit does not let in. A length that is not known yet is -1.
func (m *Module) tooLarge(peer string, length int64) error {
	most := m.config.Limits(peer).Body
	if most == 0 || length <= most {
		return nil
	}
	m.config.Limited(peer, limitBody)
	return fault.New(fault.TooLarge, "the request's body passes %d bytes", most)
}
