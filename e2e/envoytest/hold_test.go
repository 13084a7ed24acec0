package envoytest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/extproc"
	"github.com/isthmus-mesh/isthmus/modules"
	underway "github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// handingOn lets everything through to the orchestrator, unread, as far as the load has room.
type handingOn struct{ load *underway.Load }

func (handingOn) Class() modules.Class { return modules.ContainerOperation }
func (handingOn) Refuse(_ *modules.Request, err error) modules.Answer {
	return modules.Refusal(err)
}
func (h handingOn) Decide(_ context.Context, req *modules.Request) (modules.Verdict, error) {
	record := modules.Record{Verb: neutral.Logs, Upstream: names.Orchestrator}
	token, err := h.load.Hold(req.Peer.Name, req.Caller, true)
	if err != nil {
		return modules.Verdict{Record: record}, err
	}
	set := http.Header{names.HeaderHold: {token}}
	if hide := req.Header.Get("hide"); hide != "" {
		set.Set(names.HeaderHide, hide)
	}
	return modules.Verdict{Record: record, Route: &modules.Route{Upstream: toOrchestrator, Set: set}}, nil
}

// holding runs the real external processing beside the gateway's Envoy; the returned function kills it.
func (g *gateway) holding(l *underway.Load) (kill func()) {
	g.t.Helper()
	decider := extproc.New(extproc.Config{
		Zone: extproc.NewZone("east", names.DefaultSuffix), Modules: []modules.Module{handingOn{l}}, Fallback: handingOn{l}, Follow: l.Follow,
		Peer: func(string) modules.Peer { return modules.Peer{Name: "west"} }, Deadline: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	socket := g.socket(names.ExtProcSocket)
	_ = os.Remove(socket)
	s := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(s, decider)
	listener := listen(g.t, "unix", socket)
	go func() { _ = s.Serve(listener) }()
	g.t.Cleanup(s.Stop)
	return s.Stop
}

// TestHold holds a peer to its streams where Envoy alone carries them: each counts until it ends, whoever ends it, and one
// that is open goes on when external processing is gone.
func TestHold(t *testing.T) {
	t.Parallel()
	const most = 2
	l := underway.New(underway.Config{Limits: func(string) underway.Limits { return underway.Limits{Share: underway.Share{Streams: most}} }})
	end := make(chan struct{})
	forwarded := make(chan string, 4096)
	var kill func()
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
		east.orchestrator(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			forwarded <- r.Header.Get(names.HeaderHold)
			ended := end
			if r.URL.Path != "/follow/ended" {
				ended = nil // it ends with its caller
			}
			for i := 0; strings.HasPrefix(r.URL.Path, "/follow"); i++ {
				_, _ = fmt.Fprintln(w, i)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-ended:
					return
				case <-r.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		}))
		kill = east.holding(l)
	})
	client := west.local()
	ask := func(path, hide string) (*http.Response, func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+east.host("api")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(names.HeaderHold, "forged")
		if hide != "" {
			r.Header.Set("hide", hide)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer, func() {
			cancel()
			_ = answer.Body.Close()
		}
	}
	// room is how many more streams are let in; those that are opened to find out end at once.
	room := func() int {
		var close []func()
		defer func() {
			for _, f := range close {
				f()
			}
		}()
		for {
			answer, hangUp := ask("/follow", "")
			close = append(close, hangUp)
			if answer.StatusCode == http.StatusOK {
				continue
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "too many streams of peer west") {
				t.Fatalf("the refusal is %d %v %s", answer.StatusCode, answer.Header, body)
			}
			return len(close) - 1
		}
	}
	wants := func(want int, when string) {
		t.Helper()
		eventually(t, waits, func() error {
			if n := room(); n != want {
				return fmt.Errorf("%s there is room for %d streams, not for %d", when, n, want)
			}
			return nil
		})
	}
	// opened is a stream that was let in; those before it may have ended a moment ago.
	opened := func(path, hide string) (answer *http.Response, hangUp func()) {
		t.Helper()
		eventually(t, waits, func() error {
			if answer, hangUp = ask(path, hide); answer.StatusCode == http.StatusOK {
				return nil
			}
			hangUp()
			return fmt.Errorf("a stream is answered with %d", answer.StatusCode)
		})
		return answer, hangUp
	}
	wants(most, "at first")
	for _, hide := range []string{"", names.HideFailures, names.HideUnreachable} {
		_, hangUp := opened("/follow", hide)
		wants(most-1, "while one is open, "+hide)
		hangUp()
		wants(most, "when its caller has hung up, "+hide)
		answer, _ := opened("/follow/ended", hide)
		wants(most-1, "while another is open, "+hide)
		end <- struct{}{}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatal(err)
		}
		wants(most, "when the orchestrator has ended it, "+hide)
	}
	for range 50 {
		answer, hangUp := ask("/short", "")
		if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusTooManyRequests {
			t.Fatalf("a short one: %d", answer.StatusCode)
		}
		hangUp()
	}
	wants(most, "after many short ones")
	for len(forwarded) > 0 {
		if header := <-forwarded; header != "" {
			t.Fatalf("the orchestrator is told %q", header)
		}
	}
	before := streams(t, east)
	for range 5 {
		if a := call(t, client, request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/", nil)); a.code != http.StatusOK {
			t.Fatalf("a query: %d", a.code)
		}
	}
	if after := streams(t, east); after != before {
		t.Errorf("queries opened streams of external processing: %s, then %s", before, after)
	}

	open, hangUp := opened("/follow", "")
	defer hangUp()
	lines := bufio.NewReader(open.Body)
	kill()
	for range 20 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("the open stream broke off with external processing: %v", err)
		}
	}
	again := underway.New(underway.Config{Limits: func(string) underway.Limits { return underway.Limits{Share: underway.Share{Streams: 1}} }})
	east.holding(again)
	eventually(t, waits, func() error {
		answer, hangUp := ask("/short", "")
		defer hangUp()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("after a restart: %d", answer.StatusCode)
		}
		return nil
	})
	if _, err := lines.ReadString('\n'); err != nil {
		t.Errorf("the open stream broke off afterwards: %v", err)
	}
}

// streams is Envoy's count of the requests that it made of external processing.
func streams(t *testing.T, g *gateway) string {
	t.Helper()
	stats, err := g.supervisor.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(stats)) {
		if strings.HasPrefix(line, `envoy_cluster_upstream_rq_total{envoy_cluster_name="`+names.ExtProc+`"}`) {
			return strings.TrimSpace(line)
		}
	}
	t.Fatal("Envoy counts no requests of external processing")
	return ""
}
