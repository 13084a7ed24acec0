package podstream

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/spdystream"
	"github.com/moby/spdystream/spdy"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

const (
	spdyProtocol   = "SPDY/3.1"
	headerProtocol = "X-Stream-Protocol-Version"
	headerAccepted = "X-Accepted-Stream-Protocol-Versions"
)

// isSPDY tells whether a request asks for SPDY.
func isSPDY(r *http.Request) bool {
	return upgrades(r) && strings.EqualFold(r.Header.Get("Upgrade"), spdyProtocol)
}

// negotiateSPDY picks the protocol that is spoken over SPDY.
func negotiateSPDY(w http.ResponseWriter, r *http.Request, served []string) (string, error) {
	var asked []string
	for _, value := range r.Header.Values(headerProtocol) {
		for token := range strings.SplitSeq(value, ",") {
			if token = strings.TrimSpace(token); token != "" {
				asked = append(asked, token)
			}
		}
	}
	if len(asked) == 0 {
		return "", fault.New(fault.Invalid, "unable to upgrade: header %s is missing or empty", headerProtocol)
	}
	protocol, err := negotiate(asked, served)
	if err != nil {
		for _, s := range served {
			w.Header().Add(headerAccepted, s)
		}
	}
	return protocol, err
}

// upgradeSPDY answers 101.
func upgradeSPDY(w http.ResponseWriter, protocol string) (*line, error) {
	l, err := hijack(w)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(l, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+spdyProtocol+"\r\n"+
		headerProtocol+": "+protocol+"\r\n\r\n")
	if err != nil {
		l.Close()
		return nil, told(fault.Wrap(fault.Unavailable, err, "the caller is gone"))
	}
	return l, nil
}

// newSPDY speaks SPDY over a connection. Its Serve must be called.
func newSPDY(conn net.Conn) (*spdystream.Connection, error) {
	connection, err := spdystream.NewConnection(splitConn{Conn: conn, reader: &splitter{r: conn}}, true)
	if err != nil {
		conn.Close()
		return nil, told(fault.Wrap(fault.Internal, err, "the stream could not be made"))
	}
	return connection, nil
}

// prober pings a client from which nothing came for a while: that finds one that is gone while what it sent before fills the
// connection, so that its end cannot come through.
type prober struct {
	line  *line
	spdy  *spdystream.Connection
	group *sync.WaitGroup
	busy  atomic.Bool
}

func (p *prober) beat() {
	if time.Since(time.Unix(0, p.line.used.Load())) < stallPeriod || p.busy.Swap(true) {
		return
	}
	p.group.Go(func() {
		defer p.busy.Store(false)
		_, _ = p.spdy.Ping() // a connection that is broken says so to its reader
	})
}

// writeFrames writes data in frames of a decent size.
func writeFrames(w io.Writer, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), frameSize)
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// splitConn is a connection whose large frames come in pieces.
type splitConn struct {
	net.Conn
	reader *splitter
}

func (c splitConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// controlLimit bounds a SPDY control frame, in bytes.
const controlLimit = 64 << 10

var errFrame = errors.New("a SPDY control frame is of a wrong size or type")

// splitter reads SPDY and splits its data frames, which may have 16 MiB each: the library keeps up to fifty whole frames
// of a stream that nobody reads. It drops what the library has no use for.
type splitter struct {
	r     io.Reader
	frame [8]byte // of the present frame: its header
	head  []byte  // a header to give next
	piece int     // bytes of payload that follow it
	rest  int     // bytes of the frame after that piece
}

func (s *splitter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.head) == 0 && s.piece == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.r.Read(p[:min(len(p), s.piece)])
	s.piece -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next makes the header of the next piece.
func (s *splitter) next() error {
	for s.rest == 0 {
		if _, err := io.ReadFull(s.r, s.frame[:]); err != nil {
			return err
		}
		s.rest = int(binary.BigEndian.Uint32(s.frame[4:]) & 0xffffff)
		if s.frame[0]&0x80 == 0 {
			break
		}
		pass, err := s.control()
		if err != nil {
			return err
		}
		if pass {
			s.head, s.piece, s.rest = s.frame[:], s.rest, 0
			return nil
		}
		if _, err := io.CopyN(io.Discard, s.r, int64(s.rest)); err != nil {
			return err
		}
		s.rest = 0
	}
	s.piece = min(s.rest, frameSize)
	s.rest -= s.piece
	head := binary.BigEndian.AppendUint32(append([]byte(nil), s.frame[:4]...), uint32(s.piece))
	if s.rest == 0 {
		head[4] = s.frame[4] // the flags, which may end the stream, are the last piece's
	}
	s.head = head
	return nil
}

// control tells whether the present frame, a control frame, is one for the library. That believes some sizes and not
// others, so all of them must be right: else what it takes for a frame would be something else here.
func (s *splitter) control() (bool, error) {
	var least int
	most := controlLimit
	switch spdy.ControlFrameType(binary.BigEndian.Uint16(s.frame[2:])) {
	case spdy.TypeSynStream:
		least = 10
	case spdy.TypeSynReply, spdy.TypeHeaders:
		least = 4
	case spdy.TypeRstStream, spdy.TypeGoAway:
		least, most = 8, 8
	case spdy.TypePing:
		least, most = 4, 4
	case spdy.TypeSettings, spdy.TypeWindowUpdate:
		return false, nil
	default:
		return false, errFrame
	}
	if s.rest < least || s.rest > most {
		return false, errFrame
	}
	return true, nil
}
