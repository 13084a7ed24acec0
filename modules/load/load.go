// Package load counts what is under way for each peer and each of its callers, and holds them to their limits.
package load

import (
	"crypto/rand"
	"sync"
	"time"

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

func (s *Share) of(stream bool) *int {
	if stream {
		return &s.Streams
	}
	return &s.Operations
}

// Names of the limits, for metrics.
const (
	limitOperations       = "operations"
	limitStreams          = "streams"
	limitCallerOperations = "caller-operations"
	limitCallerStreams    = "caller-streams"
	limitBody             = "body"
)

// Config is what a Load needs.
type Config struct {
	Limits func(peer string) Limits // nil has none
	// Limited is told of each request that a limit refused, by the limit's name; nil is told nothing.
	Limited func(peer, limit string)
}

// Load counts what is under way. A peer, and a caller, is there only as long as it has something. It is safe for
// concurrent use.
type Load struct {
	config Config
	mu     sync.Mutex
	peers  map[string]*peerLoad
	held   map[string]*hold
}

type peerLoad struct {
	Share
	callers map[string]*Share
}

// hold is a part of the load whose end somebody else tells.
type hold struct {
	leave   func()
	forgets *time.Timer
}

// unfollowed is how long a hold is kept that nobody follows: its caller had gone before the request was sent on.
const unfollowed = 10 * time.Second

// New makes a Load.
func New(config Config) *Load {
	if config.Limits == nil {
		config.Limits = func(string) Limits { return Limits{} }
	}
	if config.Limited == nil {
		config.Limited = func(string, string) {}
	}
	return &Load{config: config, peers: map[string]*peerLoad{}, held: map[string]*hold{}}
}

// Enter lets something begin that its peer and its caller have room for, until leave is called.
func (l *Load) Enter(peer, caller string, stream bool) (leave func(), err error) {
	leave, limit := l.enter(peer, caller, stream, l.config.Limits(peer))
	if limit == "" {
		return leave, nil
	}
	l.config.Limited(peer, limit)
	who, what := "peer "+peer, "operations"
	if limit == limitCallerOperations || limit == limitCallerStreams {
		who = "caller " + caller + " of peer " + peer
	}
	if stream {
		what = "streams"
	}
	return nil, fault.New(fault.Exhausted, "too many %s of %s are under way; try again when some have ended", what, who)
}

// enter counts one more; limit names the one that is reached.
func (l *Load) enter(peer, caller string, stream bool, limits Limits) (leave func(), limit string) {
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

// Hold is Enter for what goes on without this process: who tells of its end names it by the token. also is called at the
// end as well.
func (l *Load) Hold(peer, caller string, stream bool, also ...func()) (token string, err error) {
	leave, err := l.Enter(peer, caller, stream)
	if err != nil {
		return "", err
	}
	token = rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[token] = &hold{leave: func() {
		leave()
		for _, end := range also {
			end()
		}
	}, forgets: time.AfterFunc(unfollowed, func() {
		if leave, ok := l.take(token); ok {
			leave()
		}
	})}
	return token, nil
}

// Follow takes over what is held under a token, once; leave ends it.
func (l *Load) Follow(token string) (leave func(), ok bool) { return l.take(token) }

func (l *Load) take(token string) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.held[token]
	if !ok {
		return nil, false
	}
	delete(l.held, token)
	h.forgets.Stop()
	return h.leave, true
}

// TooLarge refuses a body that the peer's limit does not let in. A length that is not known yet is -1.
func (l *Load) TooLarge(peer string, length int64) error {
	most := l.config.Limits(peer).Body
	if most == 0 || length <= most {
		return nil
	}
	l.config.Limited(peer, limitBody)
	return fault.New(fault.TooLarge, "the request's body passes %d bytes", most)
}
