package envoytest

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// floodAbuse is more of something than anybody needs; it tells what the sender saw.
type floodAbuse struct {
	abuse
	do func(*testing.T, *victim) string
}

const (
	borne     = "nothing, or the connection ended"
	held      = "left open, others are served"
	manyWebs  = "web GET /a, any number"
	halfHead  = "GET /a HTTP/1.1\r\nHost: " + webHost + "\r\nx: "
	halfQuery = "POST /a HTTP/1.1\r\nHost: " + webHost + "\r\nContent-Length: 100\r\n\r\nx"
)

var floodAbuses = []floodAbuse{
	{abuse{"rapid reset by a peer", "2,000 queries, each given up at once, on one connection", borne, manyWebs}, bearing(byPeer(rapidReset(2_000)))},
	{abuse{"rapid reset by a caller", "50,000 over HTTP/2 to the edge", borne, manyWebs}, bearing(func(t *testing.T, v *victim) string {
		return v.floodEdge(t, rapidReset(50_000))
	})},
	{abuse{"rapid reset by callers, a few each", "400 queries given up at once, on each of 10 connections to the edge", borne, manyWebs}, bearing(func(t *testing.T, v *victim) string {
		for range 9 {
			v.floodEdge(t, rapidReset(400))
		}
		return v.floodEdge(t, rapidReset(400))
	})},
	{abuse{"callers that hang up", "1,500 queries over HTTP/1, each hung up on at once", "nothing", manyWebs}, func(t *testing.T, v *victim) string {
		for range 1_500 {
			c := dialTCP(t, v.west.model.Gateway.Edge)
			_, _ = io.WriteString(c, strings.ReplaceAll(get("/a", webHost), "\n", "\r\n"))
			_ = c.Close()
		}
		return "nothing"
	}},
	{abuse{"made to reset", "2,000 queries with a wrong length, each reset by the gateway", "each stream reset", manyWebs}, func(t *testing.T, v *victim) string {
		saw := byPeer(func(l *link) {
			for i := range uint32(2_000) {
				l.open(2*i+1, true, fields("content-length", "5")...)
			}
		})(t, v)
		// Above the limit of streams under way, some are refused before they are looked at.
		for _, s := range strings.Split(saw, ", ") {
			if s != streamError && s != "REFUSED_STREAM on the stream" {
				return saw
			}
		}
		return "each stream reset"
	}},
	{abuse{"CONTINUATION flood", "a head of 20,000 CONTINUATIONs without an end", linkError, ""}, byPeer(func(l *link) {
		l.headers(1, true, false, l.encode(fields()...))
		block := l.encode("x", strings.Repeat("a", 20))
		for range 20_000 {
			_ = l.out.WriteContinuation(1, false, block)
		}
	})},
	{abuse{"empty CONTINUATION flood", "the same, each empty", linkError, ""}, byPeer(func(l *link) {
		l.headers(1, true, false, l.encode(fields()...))
		for range 20_000 {
			_ = l.out.WriteContinuation(1, false, nil)
		}
	})},
	// Whether answers that nobody reads pile up in Envoy, which ends the connection then, or in the kernel is the machine's.
	{abuse{"SETTINGS flood", "100,000 SETTINGS whose acknowledgements are not read", borne, ""}, bearing(byPeer(func(l *link) {
		for range 100_000 {
			_ = l.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65_535})
		}
	}))},
	{abuse{"PING flood", "500,000 PINGs whose answers are not read", borne, ""}, bearing(byPeer(func(l *link) {
		for range 500_000 {
			_ = l.out.WritePing(false, [8]byte{})
		}
	}))},
	{abuse{"PRIORITY flood", "20,000 PRIORITYs", linkError, ""}, byPeer(func(l *link) {
		for range 20_000 {
			_ = l.out.WritePriority(1, http2.PriorityParam{StreamDep: 3, Weight: 1})
		}
	})},
	{abuse{"WINDOW_UPDATE flood", "20,000 WINDOW_UPDATEs by 1", linkError, ""}, byPeer(func(l *link) {
		for range 20_000 {
			_ = l.out.WriteWindowUpdate(0, 1)
		}
	})},
	{abuse{"empty DATA flood", "20,000 empty DATA of one stream", linkError, "web POST /a" + brokenOff}, byPeer(func(l *link) {
		f := fields()
		f[1] = "POST"
		l.open(1, false, f...)
		for range 20_000 {
			l.data(1, false, "")
		}
	})},
	{abuse{"too many streams", "500 bodies that do not end, on one connection", "REFUSED_STREAM on the stream", "web POST /a" + brokenOff}, byPeer(func(l *link) {
		f := fields()
		f[1] = "POST"
		for i := range uint32(500) {
			l.open(2*i+1, false, f...)
			if i < 127 {
				delete(l.awaited, 2*i+1) // these are taken
			}
		}
	})},
	{abuse{"slow heads", "half a head on each of 500 connections to the edge", held, ""}, slowly(halfHead, 500)},
	{abuse{"slow bodies", "a byte of a body on each of 300 connections to the edge", held, "web POST /a" + brokenOff}, slowly(halfQuery, 300)},
	{abuse{"silent connections to the edge", "500 connections", held, ""}, slowly("", 500)},
	{abuse{"silent connections to the link", "500 connections without a word of TLS", held, ""}, func(t *testing.T, v *victim) string {
		return v.hold(t, v.east.model.Gateway.Peer, "", 500)
	}},
	{abuse{"slow head on the link", "HEADERS without an end on each of 50 connections of a peer", held, ""}, func(t *testing.T, v *victim) string {
		for range 50 {
			l := v.dialPeer(t, v.west.authority.client(id("west")))
			l.greet()
			l.headers(1, true, false, l.encode(fields()...))
			_ = l.writes.Flush()
		}
		return v.serving()
	}},
	{abuse{"pipelined requests", "1,000 on one connection, 500 of them to another peer's service", "200, 403, closed", "web GET /a"}, func(t *testing.T, v *victim) string {
		pair := strings.ReplaceAll(get("/a", webHost)+get("/a", secretHost), "Connection: close\n", "")
		text := strings.Repeat(pair, 500) + get("/a", secretHost)
		saw := strings.Split(say(t, "tcp", v.west.model.Gateway.Edge, strings.ReplaceAll(text, "\n", "\r\n"), waits), ", ")
		if len(saw) != 1_002 {
			return fmt.Sprint(len(saw), " answers: ", saw[max(0, len(saw)-5):])
		}
		for i, code := range saw[:1_000] {
			if code != saw[i%2] {
				return fmt.Sprint("answer ", i, " is ", code)
			}
		}
		return strings.Join([]string{saw[0], saw[1], saw[1_001]}, ", ")
	}},
}

// byPeer floods the peer listener with a rightful certificate.
func byPeer(send func(*link)) func(*testing.T, *victim) string {
	return func(t *testing.T, v *victim) string {
		l := v.dialPeer(t, v.west.authority.client(id("west")))
		l.greet()
		send(l)
		defer func() { _ = l.conn.Close() }()
		return l.saw()
	}
}

// floodEdge floods the edge over HTTP/2.
func (v *victim) floodEdge(t *testing.T, send func(*link)) string {
	t.Helper()
	l := newLink(t, dialTCP(t, v.west.model.Gateway.Edge))
	l.greet()
	send(l)
	defer func() { _ = l.conn.Close() }()
	return l.saw()
}

// bearing says one thing for the two ways in which a gateway bears it.
func bearing(do func(*testing.T, *victim) string) func(*testing.T, *victim) string {
	return func(t *testing.T, v *victim) string {
		saw := do(t, v)
		if saw == "nothing" || saw == linkError {
			return borne
		}
		return saw
	}
}

func rapidReset(streams uint32) func(*link) {
	return func(l *link) {
		for i := range streams {
			l.open(2*i+1, true, fields()...)
			l.reset(2*i + 1)
		}
	}
}

// slowly leaves connections to the edge open in the middle of a text.
func slowly(text string, connections int) func(*testing.T, *victim) string {
	return func(t *testing.T, v *victim) string { return v.hold(t, v.west.model.Gateway.Edge, text, connections) }
}

// hold opens connections that say a text and no more, and looks how others fare meanwhile.
func (v *victim) hold(t *testing.T, address, text string, connections int) string {
	t.Helper()
	var all sync.WaitGroup
	for range connections {
		c := dialTCP(t, address)
		defer func() { _ = c.Close() }()
		all.Go(func() { _, _ = io.WriteString(c, text) })
	}
	all.Wait()
	return v.serving()
}

// serving tells how others fare.
func (v *victim) serving() string {
	if err := v.healthy(); err != nil {
		return err.Error()
	}
	return held
}

func floodRows() []abuse {
	var rows []abuse
	for _, a := range floodAbuses {
		rows = append(rows, a.abuse)
	}
	return rows
}

// TestAbuseFloods sends too much, too slowly and too often. Envoy takes a second to end a connection, so halves of the
// cases have a victim each.
func TestAbuseFloods(t *testing.T) {
	t.Parallel()
	const victims = 2
	for first := range victims {
		t.Run(fmt.Sprint("victim ", first), func(t *testing.T) {
			t.Parallel()
			v := newVictim(t)
			for i := first; i < len(floodAbuses); i += victims {
				t.Run(floodAbuses[i].name, func(t *testing.T) {
					v.tried(t, floodAbuses[i].abuse, floodAbuses[i].do(t, v))
				})
			}
		})
	}
}
