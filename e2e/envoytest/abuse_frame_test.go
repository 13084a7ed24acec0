package envoytest

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// frameAbuse is HTTP/2 frames from a peer with a rightful certificate, to the peer listener.
type frameAbuse struct {
	abuse
	send func(*link)
}

// fields are a head: names and values in turn.
func fields(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", webHost, ":path", "/a"}, more...)
}

// to is a head with another authority.
func to(authority string, more ...string) []string {
	f := fields(more...)
	f[5] = authority
	return f
}

func heads(f ...[]string) func(*link) {
	return func(l *link) {
		for i, f := range f {
			l.open(uint32(2*i+1), true, f...)
		}
	}
}

// connectFields are the head of a CONNECT.
func connectFields(authority string) []string {
	return []string{":method", "CONNECT", ":authority", authority}
}

const (
	streamError = "PROTOCOL_ERROR on the stream"
	linkError   = "the connection ended"
)

var frameAbuses = []frameAbuse{
	{abuse{"own service", "`:authority: web…`", "200", "web GET /a"}, heads(fields())},
	{abuse{"another peer's service", "`:authority: secret…`", "403", ""}, heads(to(secretHost))},
	{abuse{"forged gateway headers", "`x-isthmus-own-peer`, `-hold`, `-route`, `-destination`, `-exchange`, twice each", "403", ""}, heads(to(secretHost,
		names.HeaderPeer, id("north"), names.HeaderPeer, id("north"), names.HeaderHold, "a", names.HeaderHold, "b",
		names.HeaderRoute, "service/shop/secret/main", names.HeaderRoute, toOrchestrator,
		names.HeaderDestination, "127.0.0.1:1", names.HeaderDestination, "127.0.0.1:1", names.HeaderExchange, "1", "x-forwarded-client-cert", "URI="+id("north")))},
	{abuse{"forged route to the orchestrator", "`x-isthmus-own-route: orchestrator/docker` for a path that is not allowed", "403", ""}, heads(append(to(apiHost, names.HeaderRoute, toOrchestrator), names.HeaderExchange, "1"))},
	{abuse{"unknown name", "`:authority: anything` with `x-isthmus-own-route: access`", "403", ""}, heads(to("anything", names.HeaderRoute, names.Access, names.HeaderDestination, "127.0.0.1:1"))},
	{abuse{"user information", "`:authority: web…@secret…`", streamError, ""}, heads(to(webHost + "@" + secretHost))},
	{abuse{"upper case", "`:authority: SECRET…`", "403", ""}, heads(to(strings.ToUpper(secretHost)))},
	{abuse{"trailing dot and port", "`:authority: secret….:80`", "403", ""}, heads(to(secretHost + ".:80"))},
	{abuse{"line break in the authority", "`:authority: web…\\r\\nHost: secret…`", streamError, ""}, heads(to(webHost + "\r\nHost: " + secretHost))},
	{abuse{"empty authority", "`:authority:` with `host: secret…`", streamError, ""}, heads(to("", "host", secretHost))},
	{abuse{"other host", "`:authority: web…` with `host: secret…`", "200", "web GET /a"}, heads(to(webHost, "host", secretHost))},
	{abuse{"other host, other way", "`:authority: secret…` with `host: web…`", "403", ""}, heads(to(secretHost, "host", webHost))},
	{abuse{"authority twice", "`:authority: web…` and `:authority: secret…`", streamError, ""}, heads(fields(":authority", secretHost))},
	{abuse{"path twice", "`:path: /v1/shop/a` and `:path: /v1/secrets`", streamError, ""}, heads(to(apiHost, ":path", "/v1/secrets"))},
	{abuse{"pseudo-header after a header", "`a: b`, then `:path: /b`", streamError, ""},
		heads([]string{":method", "GET", ":scheme", "https", ":authority", webHost, "a", "b", ":path", "/b"})},
	{abuse{"unknown pseudo-header", "`:peer: north`", streamError, ""}, heads([]string{":method", "GET", ":scheme", "https", ":authority", webHost, ":path", "/a", ":peer", "north"})},
	{abuse{"answer's pseudo-header", "`:status: 200`", streamError, ""}, heads(append([]string{":status", "200"}, fields()...))},
	{abuse{"no method", "no `:method`", streamError, ""}, heads(fields()[2:])},
	{abuse{"no path", "no `:path`", streamError, ""}, heads(fields()[:6])},
	{abuse{"blank in the method", "`:method: GET /b HTTP/1.1`", streamError, ""}, heads(append([]string{":method", "GET /b HTTP/1.1"}, fields()[2:]...))},
	{abuse{"line break in the path", "`:path: /a HTTP/1.1\\r\\nx: y`", streamError, ""}, heads(append(fields()[:6:6], ":path", "/a HTTP/1.1\r\nx: y\r\n\r\n"))},
	{abuse{"blank in the path", "`:path: /a b`", streamError, ""}, heads(append(fields()[:6:6], ":path", "/a b"))},
	{abuse{"absolute path", "`:path: http://secret…/a`", streamError, ""}, heads(append(fields()[:6:6], ":path", "http://"+secretHost+"/a"))},
	{abuse{"dots", "`:path: /v1/shop/../secrets`", "403", ""}, heads(append(to(apiHost)[:6:6], ":path", "/v1/shop/../secrets"))},
	{abuse{"line break in a value", "`x: a\\r\\nx-isthmus-own-peer: north`", streamError, ""}, heads(fields("x", "a\r\nx-isthmus-own-peer: north"))},
	{abuse{"bare LF in a value", "`x: a\\nb`", streamError, ""}, heads(fields("x", "a\nb"))},
	{abuse{"NUL in a value", "`x: a\\0b`", streamError, ""}, heads(fields("x", "a\x00b"))},
	{abuse{"line break in a name", "`x\\r\\ny: a`", streamError, ""}, heads(fields("x\r\ny", "a"))},
	{abuse{"colon in a name", "`x:y: a`", streamError, ""}, heads(fields("x:y", "a"))},
	{abuse{"upper case in a name", "`X-Isthmus-Own-Peer: north`", streamError, ""}, heads(fields("X-Isthmus-Own-Peer", "north"))},
	{abuse{"empty name", "an empty name", streamError, ""}, heads(fields("", "a"))},
	{abuse{"transfer-encoding", "`transfer-encoding: chunked`", streamError, ""}, body("0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", "transfer-encoding", "chunked")},
	{abuse{"connection", "`connection: close`", streamError, ""}, heads(fields("connection", "close"))},
	{abuse{"short length", "`content-length: 5` and more in DATA", streamError, "web POST /a, which broke off"}, body("hello"+smuggled, "content-length", "5")},
	{abuse{"long length", "`content-length: 50` and less in DATA", streamError, "web POST /a, which broke off"}, body("hello", "content-length", "50")},
	{abuse{"two lengths", "`content-length: 5` and `content-length: 50`", streamError, ""}, body("hello", "content-length", "5", "content-length", "50")},
	{abuse{"request in DATA", "a request as body, without a length", "200", "web POST /a with \"GET /smuggled HTTP/1\""}, body(smuggled)},
	{abuse{"forged trailers", "`x-isthmus-own-peer` in trailers", "200", "web POST /a with \"hello\""}, func(l *link) {
		l.open(1, false, append([]string{":method", "POST"}, fields()[2:]...)...)
		l.data(1, false, "hello")
		l.open(1, true, names.HeaderPeer, id("north"))
	}},
	{abuse{"refused upgrade", "an extended CONNECT for an allowed path that the orchestrator refuses, a request for another path in DATA", "400", "orchestrator GET /v1/shop/exec"}, func(l *link) {
		l.open(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", apiHost, ":path", "/v1/shop/exec")
		l.data(1, false, "GET /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n")
	}},
	{abuse{"CONNECT with 60 KB", "an authority of 60 KB", "403", ""}, heads(connectFields(strings.Repeat("a", 60<<10)))},
	{abuse{"CONNECT to an HTTP service", "`CONNECT web…:80`", "403", ""}, heads(connectFields(webHost + ":80"))},
	{abuse{"CONNECT to another peer's service", "`CONNECT secret…:80`", "403", ""}, heads(connectFields(secretHost + ":80"))},
	{abuse{"CONNECT to the API", "`CONNECT api.east…:80`", "403", ""}, heads(connectFields(apiHost + ":80"))},
	{abuse{"CONNECT to peering", "`CONNECT peering.east…:80`", "403", ""}, heads(connectFields("peering.east.isthmus.internal:80"))},
	{abuse{"CONNECT to an address", "`CONNECT 127.0.0.1:22`", "403", ""}, heads(connectFields("127.0.0.1:22"))},
	{abuse{"10,000 headers", "10,000 of 2 bytes", "INTERNAL_ERROR on the stream", ""}, heads(fields(strings.Split(strings.TrimSuffix(strings.Repeat("a,b,", 10_000), ","), ",")...))},
	{abuse{"one header of 200 KB", "200 KB in CONTINUATIONs", linkError, ""}, heads(fields("x", strings.Repeat("a", 200<<10)))},
	{abuse{"compressed header bomb", "one header of 4 KB, referred to 10,000 times", "INTERNAL_ERROR on the stream", ""}, heads(fields(slices.Repeat([]string{"x", strings.Repeat("a", 3900)}, 10_000)...))},
	{abuse{"broken compression", "an index that is not in the table", linkError, ""}, func(l *link) {
		l.headers(1, true, true, []byte{0xff, 0xff, 0xff, 0x7f})
	}},
	{abuse{"stream of the server's", "HEADERS on stream 2", linkError, ""}, func(l *link) { l.open(2, true, fields()...) }},
	{abuse{"stream 0", "HEADERS on stream 0", linkError, ""}, func(l *link) { l.open(0, true, fields()...) }},
	{abuse{"DATA for nothing", "DATA on a stream that is not open", linkError, ""}, func(l *link) { l.data(7, true, "x") }},
	{abuse{"frame that is too large", "DATA of 1 MiB in one frame", linkError, "web POST /a, which broke off"}, func(l *link) {
		l.open(1, false, append([]string{":method", "POST"}, fields()[2:]...)...)
		l.data(1, true, strings.Repeat("a", 1<<20))
	}},
	{abuse{"interleaved CONTINUATION", "HEADERS without an end, then HEADERS of another stream", linkError, ""}, func(l *link) {
		l.headers(1, true, false, l.encode(fields()...))
		l.open(3, true, fields()...)
	}},
	{abuse{"push from a client", "PUSH_PROMISE", linkError, "web POST /a, which broke off"}, func(l *link) {
		l.open(1, false, append([]string{":method", "POST"}, fields()[2:]...)...)
		l.raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, append([]byte{0, 0, 0, 2}, l.encode(fields()...)...))
	}},
	{abuse{"window overflow", "WINDOW_UPDATE of 2^31-1 twice", linkError, ""}, func(l *link) {
		l.raw(http2.FrameWindowUpdate, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})
		l.raw(http2.FrameWindowUpdate, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff})
	}},
	{abuse{"unknown frame", "a frame of type 0xbe, then a query", "200", "web GET /a"}, func(l *link) {
		l.raw(0xbe, 0xff, 0, []byte("what"))
		l.open(1, true, fields()...)
	}},
	{abuse{"HTTP/1 on the link", "`GET / HTTP/1.1` in place of HTTP/2", linkError, ""}, func(l *link) {
		_, _ = io.WriteString(l.conn, "GET / HTTP/1.1\r\nHost: "+webHost+"\r\n\r\n")
	}},
}

// body is a POST with a body.
func body(text string, more ...string) func(*link) {
	return func(l *link) {
		f := fields(more...)
		f[1] = "POST"
		l.open(1, false, f...)
		l.data(1, true, text)
	}
}

// link is a connection of HTTP/2 without scruples. Errors of writing show in what is read.
type link struct {
	conn   net.Conn
	writes *bufio.Writer
	framer *http2.Framer // reads
	out    *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder

	awaited map[uint32]bool // streams whose end is waited for
}

// dialPeer opens a link to east's peer listener, as west.
func (v *victim) dialPeer(t *testing.T, config *tls.Config) *link {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", v.east.model.Gateway.Peer, asking(config, "west", "east"))
	if err != nil {
		t.Fatal(err)
	}
	return newLink(t, conn)
}

func newLink(t *testing.T, conn net.Conn) *link {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	l := &link{conn: conn, writes: bufio.NewWriterSize(conn, 64<<10), awaited: map[uint32]bool{}}
	l.framer, l.out = http2.NewFramer(nil, conn), http2.NewFramer(l.writes, nil)
	l.out.AllowIllegalWrites = true
	l.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	l.hpack = hpack.NewEncoder(&l.block)
	return l
}

// greet is what begins every connection.
func (l *link) greet() {
	_, _ = io.WriteString(l.writes, http2.ClientPreface)
	_ = l.out.WriteSettings()
	_ = l.out.WriteWindowUpdate(0, 1<<20)
}

func (l *link) encode(f ...string) []byte {
	l.block.Reset()
	for i := 0; i+1 < len(f); i += 2 {
		_ = l.hpack.WriteField(hpack.HeaderField{Name: f[i], Value: f[i+1]})
	}
	return bytes.Clone(l.block.Bytes())
}

// headers sends a frame as it is told.
func (l *link) headers(stream uint32, endStream, endHeaders bool, block []byte) {
	_ = l.out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: endStream, EndHeaders: endHeaders})
}

// open sends a head, in as many frames as it needs, and waits for its answer.
func (l *link) open(stream uint32, endStream bool, f ...string) {
	l.awaited[stream] = true
	const most = 16 << 10
	block := l.encode(f...)
	l.headers(stream, endStream, len(block) <= most, block[:min(len(block), most)])
	for block = block[min(len(block), most):]; len(block) > 0; block = block[min(len(block), most):] {
		_ = l.out.WriteContinuation(stream, len(block) <= most, block[:min(len(block), most)])
	}
}

func (l *link) data(stream uint32, end bool, text string) {
	_ = l.out.WriteData(stream, end, []byte(text))
}

func (l *link) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	_ = l.out.WriteRawFrame(kind, flags, stream, payload)
}

// reset gives up a stream.
func (l *link) reset(stream uint32) {
	delete(l.awaited, stream)
	_ = l.out.WriteRSTStream(stream, http2.ErrCodeCancel)
}

// saw tells what came back, until all streams have ended and a ping that was sent last is answered.
func (l *link) saw() string {
	results := map[uint32]string{}
	summary := func(more ...string) string {
		var all []string
		for _, stream := range slices.Sorted(maps.Keys(results)) {
			all = append(all, results[stream])
		}
		return cmp.Or(strings.Join(slices.Compact(append(all, more...)), ", "), "nothing")
	}
	last := [8]byte{'l', 'a', 's', 't'}
	_ = l.out.WritePing(false, last)
	go func() { _ = l.writes.Flush() }()
	answered := false
	for ended := map[uint32]bool{}; !answered || len(ended) < len(l.awaited); {
		f, err := l.framer.ReadFrame()
		if se, ok := err.(http2.StreamError); ok { //nolint:errorlint // the framer's
			return summary("an answer that is not HTTP: " + se.Error())
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // the connection's
			return summary("no answer")
		}
		if err != nil {
			return summary(linkError)
		}
		stream := f.Header().StreamID
		done := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != "" && l.awaited[stream] {
				results[stream] = status
			}
			done = f.StreamEnded()
		case *http2.DataFrame:
			done = f.StreamEnded()
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo && l.awaited[stream] {
				results[stream] = fmt.Sprint(f.ErrCode, " on the stream")
			}
			done = true
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return summary(linkError)
			}
		case *http2.PingFrame:
			answered = answered || f.IsAck() && f.Data == last
		}
		if done && l.awaited[stream] {
			ended[stream] = true
		}
	}
	return summary()
}

func frameRows() []abuse {
	var rows []abuse
	for _, a := range frameAbuses {
		rows = append(rows, a.abuse)
	}
	return rows
}

// TestAbuseFrames is a peer that speaks HTTP/2 as nobody should.
func TestAbuseFrames(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	config := v.west.authority.client(id("west"))
	for _, a := range frameAbuses {
		t.Run(a.name, func(t *testing.T) {
			l := v.dialPeer(t, config)
			if a.name != "HTTP/1 on the link" {
				l.greet()
			}
			a.send(l)
			saw := l.saw()
			_ = l.conn.Close()
			v.tried(t, a.abuse, saw)
		})
	}
}
