package envoytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// hanging answers with a line and then a line for every 20 milliseconds, until its caller is gone or end is closed.
func hanging(end <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for {
			_, _ = fmt.Fprintln(w, "line")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-end:
				return
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// opened is an answer that streams.
type opened struct {
	lines *bufio.Reader
	end   func()
}

func (o opened) flows(t *testing.T, when string) {
	t.Helper()
	read := make(chan error, 1)
	go func() {
		for range 20 { // more than may be on its way
			if _, err := o.lines.ReadString('\n'); err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Errorf("a stream that was open is cut, %s: %v", when, err)
		}
	case <-time.After(waits):
		t.Errorf("a stream that was open stands still, %s", when)
	}
}

// TestConcurrentRequests holds one peer to its requests under way, queries, accesses and operations alike, while another
// one's pass. Each counts until it ends, whoever ends it, and what is open goes on when the limit comes, changes and goes.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	const most = 4
	west, north, east := newGateway(t, "west"), newGateway(t, "north"), newGateway(t, "east")
	for _, g := range []*gateway{west, north} {
		g.knows(east)
		east.knows(g)
	}
	end := make(chan struct{})
	hangs := serve(t, hanging(nil))
	east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"), id("north"))
	east.export("hangs", neutral.HTTP1, hangs, id("west"), id("north"))
	east.export("ends", neutral.HTTP1, serve(t, hanging(end)), id("west"))
	east.export("raw", neutral.TCP, tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), id("west"))
	east.orchestrator(hanging(nil))
	east.on(names.PeeringSocket, http.HandlerFunc(echo))
	east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		for _, h := range m.GetRequestHeaders().GetHeaders().GetHeaders() {
			if h.GetKey() == ":authority" && strings.Contains(string(h.GetRawValue()), ".ctr.") {
				return routed(names.Access, names.HeaderDestination, hangs.String())(m)
			}
		}
		return routed(toOrchestrator)(m)
	})
	for _, g := range []*gateway{west, north, east} {
		g.start()
	}
	clients := map[*gateway]*http.Client{west: west.local(), north: north.local()}
	service := func(name string) string { return "http://" + east.host(name, "shop", "svc") + "/" }
	access, api := "http://"+east.host("db-0", "shop", "ctr")+":8080/", "http://"+east.host("api")+"/v1/events"
	// open begins a request; what was refused has no stream.
	open := func(from *gateway, url string) (stream *opened, refused answer) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := clients[from].Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			defer cancel()
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			return nil, answer{resp.StatusCode, resp.Header, string(body)}
		}
		return &opened{bufio.NewReader(resp.Body), func() { cancel(); _ = resp.Body.Close() }}, answer{}
	}
	// room opens streams until one is refused, and ends all of them.
	room := func() (n int, refused answer) {
		var streams []*opened
		for range 3 * most {
			s, no := open(west, service("hangs"))
			if s == nil {
				refused = no
				break
			}
			streams = append(streams, s)
		}
		for _, s := range streams {
			s.end()
		}
		return len(streams), refused
	}
	roomFor := func(want int) {
		t.Helper()
		eventually(t, waits, func() error {
			if n, _ := room(); n != want {
				return fmt.Errorf("there is room for %d, not %d", n, want)
			}
			return nil
		})
	}
	limit := func(l ...snapshot.Limit) {
		east.model.Gateway.Limits = l
		east.set()
	}

	before, _ := open(west, service("hangs"))
	roomFor(3 * most)
	limit(snapshot.Limit{Peer: "west", Requests: most})
	roomFor(most) // what was open before the limit came does not count
	before.flows(t, "limited")

	var streams []*opened
	for _, url := range []string{service("ends"), access, api} {
		s, refused := open(west, url)
		if s == nil {
			t.Fatalf("%s: %d %s", url, refused.code, refused.body)
		}
		streams = append(streams, s)
	}
	raw, err := net.Dial("tcp", west.model.Gateway.Edge)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	_, _ = fmt.Fprintf(raw, "CONNECT %[1]s:80 HTTP/1.1\r\nHost: %[1]s:80\r\n\r\n", east.host("raw", "shop", "svc"))
	if resp, err := http.ReadResponse(bufio.NewReader(raw), &http.Request{Method: http.MethodConnect}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a raw connection: %v %v", resp, err)
	}
	chat(t, raw, "counted")
	for _, url := range []string{service("web"), access, api} {
		s, refused := open(west, url)
		if s != nil {
			t.Fatalf("%s passes, over the limit", url)
		}
		refusal(t, refused, http.StatusTooManyRequests, "too many requests of this peer are under way")
		if !strings.Contains(refused.body, `"reason":"TooManyRequests"`) || refused.header.Get("retry-after") != "1" {
			t.Errorf("the refusal is %v %s", refused.header, refused.body)
		}
	}
	for range 2 * most {
		if a := call(t, clients[west], request(t, http.MethodGet, "http://"+east.host("peering")+"/x", nil)); a.code != http.StatusOK {
			t.Fatalf("the peering is limited: %d %s", a.code, a.body)
		}
		s, refused := open(north, service("hangs"))
		if s == nil {
			t.Fatalf("the other peer: %d %s", refused.code, refused.body)
		}
		defer s.end()
	}
	close(end) // by the service
	roomFor(1)
	streams[1].end() // by the caller
	roomFor(2)
	streams[2].flows(t, "beside others that ended")
	_ = raw.Close()
	roomFor(3)

	limit(snapshot.Limit{Peer: "west", Requests: most / 2})
	roomFor(most / 2)
	streams[2].flows(t, "with another limit")
	limit()
	roomFor(3 * most)
	before.flows(t, "with no limit")
	streams[2].flows(t, "with no limit")

	n, err := east.supervisor.Limited(t.Context())
	if err != nil || n.UnderWay < most || n.PerSecond != 0 {
		t.Errorf("%+v requests were refused, %v", n, err)
	}
}
