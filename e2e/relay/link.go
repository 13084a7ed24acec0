// Package relay stands between gateways and does to what they say to each other what networks and peers do: a Link
// carries the encrypted connections of two Envoys, Calls the messages between isthmus and its own Envoy.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Direction is a way through a Link.
type Direction int

// The directions: from whoever dials the Link to its target, and back.
const (
	Out Direction = iota
	Back
)

// Weather is what a Link does to its connections, those that are open among them. The zero one does nothing.
type Weather struct {
	Refuse bool          // connections are reset as they come
	Hold   [2]bool       // by direction: what is sent waits for better weather, as where every packet is lost
	Delay  time.Duration // each piece arrives so much later
	Rate   int           // bytes a second in each direction; 0 for no limit
	Cut    int           // a connection is reset after so many bytes from the dialling side; 0 for never
}

// Hole is the weather in which nothing passes and nothing ends.
var Hole = Weather{Hold: [2]bool{true, true}}

// Link is a TCP relay.
type Link struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	wait     sync.WaitGroup

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed when the weather changes
	open    map[*connection]struct{}
	closed  bool
}

// NewLink listens on a loopback address of its own; what connects is brought to target.
func NewLink(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it waits for nothing
	if err != nil {
		return nil, err
	}
	return LinkBetween(listener, func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", target) }), nil
}

// LinkBetween brings what connects to a listener to what is dialled for it.
func LinkBetween(listener net.Listener, dial func(context.Context) (net.Conn, error)) *Link {
	l := &Link{listener: listener, dial: dial, changed: make(chan struct{}), open: map[*connection]struct{}{}}
	l.wait.Go(l.accept)
	return l
}

// Address is where the Link listens.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Set changes the weather.
func (l *Link) Set(w Weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.weather = w
	close(l.changed)
	l.changed = make(chan struct{})
}

// Reset resets every open connection and tells how many there were.
func (l *Link) Reset() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.reset()
	}
	return len(l.open)
}

// Close ends the Link and all its connections.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	for c := range l.open {
		c.reset()
	}
	l.mu.Unlock()
	err := l.listener.Close()
	l.wait.Wait()
	return err
}

func (l *Link) now() (Weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.weather, l.changed
}

func (l *Link) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		l.wait.Go(func() { l.carry(conn) })
	}
}

func (l *Link) carry(near net.Conn) {
	c := &connection{link: l, ends: [2]net.Conn{near}, over: make(chan struct{})}
	if weather, _ := l.now(); weather.Refuse {
		c.reset()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	far, err := l.dial(ctx)
	cancel()
	if err != nil {
		c.reset()
		return
	}
	c.ends[1] = far
	l.mu.Lock()
	refuse := l.closed
	l.open[c] = struct{}{}
	l.mu.Unlock()
	if refuse {
		c.reset()
	}
	var ways sync.WaitGroup
	ways.Go(func() { c.carry(Out) })
	ways.Go(func() { c.carry(Back) })
	ways.Wait()
	c.reset()
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// connection is one connection through a Link: the dialling end and the target's.
type connection struct {
	link *Link
	ends [2]net.Conn
	once sync.Once
	over chan struct{} // closed by reset
}

// reset ends both ends without a farewell.
func (c *connection) reset() {
	c.once.Do(func() {
		close(c.over)
		for _, end := range c.ends {
			if tcp, ok := end.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // fails for an end that is gone
				_ = tcp.Close()
			}
		}
	})
}

// piece is what was read at once; none is the end of a direction.
type piece struct {
	content []byte
	at      time.Time
}

// carry brings one direction over, until it ends or the connection is reset.
func (c *connection) carry(way Direction) {
	from, to := c.ends[way], c.ends[1-way]
	pieces := make(chan piece, 64)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			p := piece{b[:n], time.Now()}
			for _, p := range []piece{p, {at: p.at}} {
				if len(p.content) == 0 && err == nil {
					continue
				}
				select {
				case pieces <- p:
				case <-c.over:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	passed := 0
	for p := range pieces {
		weather, ok := c.await(way, p)
		if !ok {
			return
		}
		if len(p.content) == 0 {
			_ = to.(*net.TCPConn).CloseWrite() // fails for an end that is gone
			return
		}
		if weather.Cut > 0 && way == Out && passed+len(p.content) >= weather.Cut {
			_, _ = to.Write(p.content[:max(0, weather.Cut-passed)]) // it ends now in any case
			time.Sleep(10 * time.Millisecond)                       // a reset overtakes what is under way
			c.reset()
			return
		}
		passed += len(p.content)
		if _, err := to.Write(p.content); err != nil {
			c.reset()
			return
		}
	}
}

// await waits until a piece is due in the weather as it is by then; false once the connection is reset.
func (c *connection) await(way Direction, p piece) (Weather, bool) {
	begun := time.Now()
	for {
		weather, changed := c.link.now()
		due := p.at.Add(weather.Delay)
		if weather.Rate > 0 {
			if slow := begun.Add(time.Duration(len(p.content)) * time.Second / time.Duration(weather.Rate)); slow.After(due) {
				due = slow
			}
		}
		wait := time.Until(due)
		if weather.Hold[way] {
			wait = time.Hour
		}
		if wait <= 0 {
			return weather, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-c.over:
			timer.Stop()
			return weather, false
		}
		timer.Stop()
	}
}
