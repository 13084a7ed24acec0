package podstream

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// frameSize is how much of an output one frame carries, in bytes.
const frameSize = 32 << 10

// stallPeriod is how long nothing may come from a client, or what came may go unread, until something is sent to it.
const stallPeriod = 5 * time.Second

// isWebSocket tells whether a request asks for a WebSocket; it may ask for another upgrade.
func isWebSocket(r *http.Request) bool {
	return upgrades(r) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

func upgrades(r *http.Request) bool {
	for _, value := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// checkWebSocket finds what would be refused at the upgrade, before anything is done for the request.
func checkWebSocket(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet:
		return fault.New(fault.Invalid, "unable to upgrade: a WebSocket is asked for by GET")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return fault.New(fault.Invalid, "unable to upgrade: the WebSocket's version must be 13")
	case r.Header.Get("Sec-WebSocket-Key") == "":
		return fault.New(fault.Invalid, "unable to upgrade: Sec-WebSocket-Key is missing")
	}
	return nil
}

// negotiate picks the first of the client's protocols that is served. A client that names none speaks "", where served.
func negotiate(asked []string, served []string) (string, error) {
	if len(asked) == 0 {
		asked = []string{""}
	}
	for _, a := range asked {
		for _, s := range served {
			if a == s {
				return s, nil
			}
		}
	}
	return "", fault.New(fault.Invalid, "unable to upgrade: unable to negotiate protocol: client supports %q, server accepts %q", asked, served)
}

// socket is a WebSocket of a client. One goroutine reads, any may write.
type socket struct {
	*line
	ws       *websocket.Conn
	protocol string
	mu       sync.Mutex // of writes
	frame    []byte
	pings    chan string // to be answered
	read     chan struct{}
	stalled  atomic.Int64 // since when a message waits to be taken, in nanoseconds; 0 when none does
}

// upgradeWebSocket answers 101. Whatever is wrong with the request was found before.
func upgradeWebSocket(w http.ResponseWriter, r *http.Request, protocol string) (*socket, error) {
	var refusal error
	hijacker := &hijacker{ResponseWriter: w}
	upgrader := websocket.Upgrader{
		WriteBufferSize: 4 << 10,
		CheckOrigin:     func(*http.Request) bool { return true }, // as the API does: credentials are not a browser's
		Error: func(_ http.ResponseWriter, _ *http.Request, _ int, reason error) {
			refusal = fault.New(fault.Invalid, "unable to upgrade: %s", reason)
		},
	}
	if protocol != "" {
		upgrader.Subprotocols = []string{protocol}
	}
	ws, err := upgrader.Upgrade(hijacker, r, nil)
	switch {
	case err == nil:
	case hijacker.err != nil:
		return nil, hijacker.err
	case hijacker.line != nil:
		return nil, told(fault.Wrap(fault.Unavailable, err, "the caller is gone"))
	case refusal != nil:
		return nil, refusal
	default:
		return nil, fault.Wrap(fault.Invalid, err, "unable to upgrade")
	}
	s := &socket{line: hijacker.line, ws: ws, protocol: protocol, pings: make(chan string, 1), read: make(chan struct{})}
	ws.SetPingHandler(func(payload string) error {
		s.pong(payload)
		return nil
	})
	ws.SetCloseHandler(func(int, string) error { return nil }) // it is answered at the end
	return s, nil
}

// pong has a ping answered; one of several that wait is.
func (s *socket) pong(payload string) {
	select {
	case s.pings <- payload:
	default:
	}
}

// answerPings does so apart from the reader, which must not wait for a client that does not read.
func (s *socket) answerPings(ctx context.Context) {
	for {
		select {
		case payload := <-s.pings:
			if s.ws.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(idleLimit)) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// beat tells a client whose frames wait that somebody is there: clients give up when no pong comes, and their pings wait
// behind those frames.
func (s *socket) beat() {
	if since := s.stalled.Load(); since != 0 && time.Now().UnixNano()-since > int64(stallPeriod) {
		s.pong("")
	}
}

// receive gives each message until the connection ends.
func (s *socket) receive(take func(message io.Reader)) error {
	defer close(s.read)
	for {
		_, message, err := s.ws.NextReader()
		if err != nil {
			return err
		}
		s.stalled.Store(time.Now().UnixNano())
		take(message)
		s.stalled.Store(0)
	}
}

// send writes one message, of a prefix and data.
func (s *socket) send(kind int, prefix []byte, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frame = append(append(s.frame[:0], prefix...), data...)
	s.touch()
	return s.ws.WriteMessage(kind, s.frame)
}

// finish tells the client that nothing more comes, and closes when it has closed.
func (s *socket) finish(ctx context.Context) {
	s.mu.Lock()
	_ = s.ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")) // it may be gone
	s.mu.Unlock()
	s.linger(ctx, s.read)
}

// channels are streams in one WebSocket: the first byte of a message names its channel.
type channels struct {
	*socket
	text bool // base64
}

// closeSignal begins a message by which a client of protocol v5 closes a channel.
const closeSignal = 255

func newChannels(s *socket) channels {
	return channels{socket: s, text: strings.Contains(s.protocol, "base64.")}
}

func (c channels) write(channel byte, data []byte) error {
	if c.text {
		return c.send(websocket.TextMessage, []byte{'0' + channel}, base64.StdEncoding.AppendEncode(nil, data))
	}
	return c.send(websocket.BinaryMessage, []byte{channel}, data)
}

// output writes data in frames of a decent size.
func (c channels) output(channel byte, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), frameSize)
		if err := c.write(channel, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// listen gives what comes on each channel until the connection ends. closed is called where the client closes one.
func (c channels) listen(take func(channel byte, data io.Reader), closed func(channel byte)) error {
	return c.receive(func(message io.Reader) {
		var head [2]byte
		if _, err := io.ReadFull(message, head[:1]); err != nil {
			return // empty
		}
		if head[0] == closeSignal && c.protocol == protocolV5 {
			if _, err := io.ReadFull(message, head[1:]); err == nil {
				closed(head[1])
			}
			return
		}
		if c.text {
			take(head[0]-'0', base64.NewDecoder(base64.StdEncoding, message))
			return
		}
		take(head[0], message)
	})
}

// hijacker gives the WebSocket library a line.
type hijacker struct {
	http.ResponseWriter
	line *line
	err  error
}

func (h *hijacker) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	h.line, h.err = hijack(h.ResponseWriter)
	if h.err != nil {
		return nil, nil, h.err
	}
	return h.line, bufio.NewReadWriter(bufio.NewReaderSize(h.line, 4<<10), bufio.NewWriterSize(h.line, 4<<10)), nil
}
