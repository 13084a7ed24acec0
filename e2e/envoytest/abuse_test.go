package envoytest

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/abuse.md")

const abusePage = "../../docs/abuse.md"

// Names at the gateway that is abused.
const (
	webHost    = "web.shop.svc.east.isthmus.internal"    // exported to west
	secretHost = "secret.shop.svc.east.isthmus.internal" // exported to another peer alone
	apiHost    = "api.east.isthmus.internal"             // what the policy allows of it is in allowedPath
)

// allowedPath begins the paths of the orchestrator that the policy of these tests lets west use.
const allowedPath = "/v1/shop/"

// abuse is a row of the page: what is tried, what the sender saw, and what got through to whom.
type abuse struct {
	name, sent string
	want       string // of the sender's view
	reached    string // every request that an upstream got, "" for none
}

// brokenOff is said of a request whose body ended before its end. Its head may not even have been sent on.
const brokenOff = ", which broke off"

// row is the abuse as docs/abuse.md has it.
func (a abuse) row() string {
	reached := a.reached
	if reached == "" {
		reached = "nothing"
	}
	cells := []string{a.name, a.sent, a.want, reached}
	for i := range cells {
		cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
	}
	return "| " + strings.Join(cells, " | ") + " |\n"
}

// victim is a pair of gateways, and upstreams that tell what reached them.
type victim struct {
	t          *testing.T
	west, east *gateway
	decider    *decider
	pids       [2]int
	bystander  *bystander

	mu       sync.Mutex
	got      []string
	underWay int           // requests at upstreams
	tick     chan struct{} // lets the answer to /watch go on by a line
}

// bystander is another caller's answer that streams over the same connection between the gateways all the while.
type bystander struct {
	cancel context.CancelFunc
	lines  chan error // a line came, or the end
}

func (v *victim) ticks() chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tick
}

// watch opens it.
func (v *victim) watch() {
	v.t.Helper()
	v.mu.Lock()
	v.tick = make(chan struct{}) // the server of one that was cut may live a little longer
	v.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+webHost+"/watch", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	c := v.west.edge()
	c.Timeout = 0
	resp, err := c.Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		v.t.Fatal(resp, err)
	}
	b := &bystander{cancel, make(chan error, 1)}
	v.bystander = b
	go func() {
		defer func() { _ = resp.Body.Close() }()
		for lines := bufio.NewReader(resp.Body); err == nil && ctx.Err() == nil; {
			_, err = lines.ReadString('\n')
			b.lines <- err
		}
	}()
}

// goesOn checks that the bystander's stream does.
func (v *victim) goesOn() error {
	select {
	case v.ticks() <- struct{}{}:
	case err := <-v.bystander.lines:
		return err
	case <-time.After(waits):
		return fmt.Errorf("nothing of it within %v", waits)
	}
	select {
	case err := <-v.bystander.lines:
		return err
	case <-time.After(waits):
		return fmt.Errorf("nothing of it within %v", waits)
	}
}

// newVictim starts it. West may query web; secret is another peer's; of the orchestrator west may use allowedPath.
func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{t: t, west: newGateway(t, "west"), east: newGateway(t, "east")}
	v.west.knows(v.east)
	v.east.knows(v.west)
	v.east.knows(newGateway(t, "north"))
	v.west.model.Peers[0].API = v.west.socket("api.sock")
	v.east.export("web", neutral.HTTP1, serve(t, v.upstream("web")), id("west"))
	v.east.export("secret", neutral.HTTP1, serve(t, v.upstream("secret")), id("north"))
	v.east.orchestrator(v.upstream("orchestrator"))
	v.east.on(names.BridgeSocket, v.upstream("bridge"))
	v.east.on(names.PeeringSocket, v.upstream("peering"))
	v.west.start()
	v.east.start()
	v.west.decides(routed(names.PeerCluster("east")))
	v.decider, _ = v.east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		h := head(m.GetRequestHeaders().GetHeaders())
		if h[":authority"] == apiHost && strings.HasPrefix(h[":path"], allowedPath) {
			return routed(toOrchestrator)(m)
		}
		return refused(typev3.StatusCode_Forbidden, `{"message":"no"}`)(m)
	})
	eventually(t, waits, v.healthy)
	v.watch()
	t.Cleanup(func() { v.bystander.cancel() })
	v.pids = [2]int{v.west.supervisor.Status().PID, v.east.supervisor.Status().PID}
	return v
}

// upstream writes down every request that it gets, and what a request must not bring along.
func (v *victim) upstream(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthy":
			return
		case "/watch":
			tick := v.ticks()
			rc := http.NewResponseController(w)
			_ = rc.Flush()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick:
					_, _ = io.WriteString(w, "tick\n")
					_ = rc.Flush()
				}
			}
		}
		v.count(1)
		defer v.count(-1)
		body, err := io.ReadAll(r.Body)
		line := name + " " + r.Method + " " + r.RequestURI
		switch {
		case err != nil:
			line += brokenOff
		case len(body) > 0:
			line += fmt.Sprintf(" with %.20q", body)
		}
		if name == "web" && !strings.HasPrefix(strings.ToLower(r.Host), "web.shop.svc.east.isthmus.internal") {
			line += " as " + r.Host
		}
		line += forged(r.Header) + forged(r.Trailer)
		v.mu.Lock()
		v.got = append(v.got, line)
		v.mu.Unlock()
		if r.Header.Get("upgrade") != "" {
			http.Error(w, "no upgrade here", http.StatusBadRequest)
		}
	})
}

// forged are the headers that nothing has outside the link between gateways.
func forged(header http.Header) string {
	var all string
	for h := range header {
		if l := strings.ToLower(h); strings.HasPrefix(l, names.HeaderPrefix) || strings.HasPrefix(l, "x-envoy-") {
			all += " and " + l
		}
	}
	return all
}

func (v *victim) count(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.underWay += n
}

// settled tells that no request is at an upstream.
func (v *victim) settled() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.underWay > 0 {
		return fmt.Errorf("%d requests are at upstreams yet", v.underWay)
	}
	return nil
}

// healthy queries web as a caller would; it may take a second.
func (v *victim) healthy() error {
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+webHost+"/healthy", nil)
	if err != nil {
		return err
	}
	resp, err := v.west.edge().Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a legitimate query is answered with %s", resp.Status)
	}
	return nil
}

// survives checks after an abuse that both gateways are the same processes as before and serve, that nobody spoke for
// another, and gives what reached upstreams.
func (v *victim) survives(t *testing.T) string {
	t.Helper()
	if err := v.healthy(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	eventually(t, waits, v.settled)
	if err := v.goesOn(); err != nil {
		t.Errorf("another caller's stream was cut: %v", err)
		v.bystander.cancel()
		v.watch()
	}
	for i, g := range []*gateway{v.west, v.east} {
		if s := g.supervisor.Status(); s.PID != v.pids[i] || s.Restarts != 0 {
			t.Errorf("the gateway of %s went down: %s", g.model.Gateway.Cluster, s.LastExit)
			v.pids[i] = s.PID
		}
	}
	for _, h := range v.decider.requests() {
		if h[names.HeaderPeer] != id("west") || h[names.HeaderRoute] != "" || h[names.HeaderDestination] != "" || h[names.HeaderHold] != "" {
			t.Errorf("external processing saw %v", h)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	got := v.got
	v.got = nil
	slices.Sort(got)
	return strings.Join(slices.Compact(got), ", ")
}

// tried compares what happened with what should.
func (v *victim) tried(t *testing.T, a abuse, saw string) {
	t.Helper()
	if saw != a.want {
		t.Errorf("the sender saw %q, want %q", saw, a.want)
	}
	reached := v.survives(t)
	if reached == "" && strings.HasSuffix(a.reached, brokenOff) {
		return // the end was faster than the beginning
	}
	if a.reached == manyWebs && reached == "" {
		return
	}
	if a.reached == manyWebs {
		a.reached = "web GET /a"
	}
	if reached != a.reached {
		t.Errorf("upstreams got %q, want %q", reached, a.reached)
	}
}

// say sends bytes and tells the codes of the answers to them.
func say(t *testing.T, network, address, text string, patience time.Duration) string {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	go func() { _, _ = io.WriteString(c, text) }() // it may be refused before all is sent
	var saw []string
	r := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := r.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			if len(saw) == 0 {
				return "no answer"
			}
			return strings.Join(saw, ", ")
		} else if err != nil {
			return strings.Join(append(saw, "closed"), ", ")
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		method := http.MethodGet
		if strings.HasPrefix(text, http.MethodConnect) {
			method = http.MethodConnect
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return strings.Join(append(saw, "not HTTP"), ", ")
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		saw = append(saw, fmt.Sprint(resp.StatusCode)+forged(resp.Header))
		if resp.Close {
			return strings.Join(append(saw, "closed"), ", ")
		}
	}
}

// TestAbusePage holds docs/abuse.md to the tests: its tables are theirs.
func TestAbusePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(abusePage)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, table := range []struct {
		name string
		rows []abuse
	}{{"requests", requestRows()}, {"frames", frameRows()}, {"answers", answerRows()}, {"floods", floodRows()}} {
		begin, end := "<!-- "+table.name+" -->\n", "<!-- end of "+table.name+" -->"
		before, rest, ok := strings.Cut(text, begin)
		_, after, ended := strings.Cut(rest, end)
		if !ok || !ended {
			t.Fatalf("%s has no place for %s", abusePage, table.name)
		}
		var b strings.Builder
		b.WriteString("\n| case | sent | the sender saw | upstreams got |\n|---|---|---|---|\n")
		for _, a := range table.rows {
			b.WriteString(a.row())
		}
		text = before + begin + b.String() + "\n" + end + after
	}
	if text == string(page) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the tests try; run with -update", abusePage)
	}
	if err := os.WriteFile(abusePage, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
