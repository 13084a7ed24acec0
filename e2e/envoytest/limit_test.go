package envoytest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/envoy"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// tally counts answers by status.
func tally(t *testing.T, n int, ask func() answer) map[int]int {
	t.Helper()
	codes := map[int]int{}
	for range n {
		codes[ask().code]++
	}
	return codes
}

// TestRequestLimit holds one peer to its requests a second, of whatever kind, while another one's pass; what is under way
// goes on when the limit comes, changes and goes.
func TestRequestLimit(t *testing.T) {
	t.Parallel()
	west, north, east := newGateway(t, "west"), newGateway(t, "north"), newGateway(t, "east")
	for _, g := range []*gateway{west, north} {
		g.knows(east)
		east.knows(g)
	}
	var decided atomic.Int32
	east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"), id("north"))
	lines := make(chan string)
	east.export("stream", neutral.HTTP1, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-lines:
				_, _ = io.WriteString(w, line+"\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})), id("west"))
	east.orchestrator(http.HandlerFunc(echo))
	east.on(names.PeeringSocket, http.HandlerFunc(echo))
	east.decides(func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
		decided.Add(1)
		return routed(toOrchestrator)(m)
	})
	for _, g := range []*gateway{west, north, east} {
		g.start()
	}
	ask := func(from *gateway, url, caller string) func() answer {
		client := from.local()
		return func() answer {
			r := request(t, http.MethodGet, url, nil)
			if caller != "" {
				r.Header.Set(names.HeaderCaller, caller)
			}
			return call(t, client, r)
		}
	}
	web, api := "http://"+east.host("web", "shop", "svc")+"/", "http://"+east.host("api")+"/v1/x"
	fromWest, fromNorth := ask(west, web, ""), ask(north, web, "")
	for _, from := range []func() answer{fromWest, fromNorth} {
		if codes := tally(t, 60, from); codes[200] != 60 {
			t.Fatalf("without a limit: %v", codes)
		}
	}
	opened := request(t, http.MethodGet, "http://"+east.host("stream", "shop", "svc")+"/", nil)
	go func() { lines <- "first" }()
	stream, err := west.local().Do(opened)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Body.Close() }()
	reader := bufio.NewReader(stream.Body)
	flows := func(word string) {
		t.Helper()
		select {
		case lines <- word:
		case <-time.After(waits):
			t.Fatalf("nobody reads the stream any more, %s", word)
		}
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream that was open is cut, %s: %v", word, err)
			}
			if strings.TrimSpace(line) == word {
				return
			}
		}
	}

	limit := func(l ...snapshot.Limit) {
		east.model.Gateway.Limits = l
		east.set()
	}
	limit(snapshot.Limit{Peer: "west", Rate: snapshot.Rate{PerSecond: 1, Burst: 20}})
	var refused answer
	eventually(t, waits, func() error {
		for range 40 {
			if a := fromWest(); a.code == http.StatusTooManyRequests {
				refused = a
				return nil
			}
		}
		return fmt.Errorf("nothing is refused")
	})
	refusal(t, refused, http.StatusTooManyRequests, "too many requests")
	if !strings.Contains(refused.body, `"reason":"TooManyRequests"`) || refused.header.Get("retry-after") != "1" {
		t.Errorf("the refusal is %v %s", refused.header, refused.body)
	}
	flows("limited")
	before, began := decided.Load(), time.Now()
	codes := tally(t, 30, ask(west, api, ""))
	let := int(time.Since(began).Seconds()) + 3 // one a second, and what was left
	if codes[429] < 30-let {
		t.Errorf("operations are not of the same limit: %v", codes)
	}
	if n := decided.Load() - before; int(n) > let {
		t.Errorf("external processing was asked %d times", n)
	}
	if codes := tally(t, 30, ask(west, "http://"+east.host("peering")+"/x", "")); codes[429] != 0 {
		t.Errorf("the peering is limited: %v", codes)
	}
	if codes := tally(t, 60, fromNorth); codes[200] != 60 {
		t.Errorf("the other peer: %v", codes)
	}

	limit(snapshot.Limit{Peer: "west", Caller: snapshot.Rate{PerSecond: 1, Burst: 5}})
	greedy, modest := ask(west, web, "greedy"), ask(west, web, "modest")
	eventually(t, waits, func() error {
		codes := tally(t, 20, greedy)
		if codes[429] >= 12 && codes[200] > 0 {
			return nil
		}
		time.Sleep(time.Second)
		return fmt.Errorf("20 of one caller: %v", codes)
	})
	if codes := tally(t, 4, modest); codes[200] != 4 {
		t.Errorf("another caller: %v", codes)
	}
	if codes := tally(t, 30, fromWest); codes[200] != 30 {
		t.Errorf("callers without a name: %v", codes)
	}
	flows("another limit")

	limit()
	eventually(t, waits, func() error {
		if codes := tally(t, 60, greedy); codes[200] != 60 {
			return fmt.Errorf("the limit is gone: %v", codes)
		}
		return nil
	})
	flows("no limit")
	stats, err := east.supervisor.Stats(t.Context())
	if err != nil || !strings.Contains(string(stats), "http_local_rate_limit") {
		t.Errorf("Envoy does not count what it refused: %v", err)
	}
	n, err := east.supervisor.Limited(t.Context())
	if err != nil || n.PerSecond < 12 || n.UnderWay != 0 {
		t.Errorf("%+v requests were refused, %v", n, err)
	}
}

// TestAccessLogRotates holds that no line of the access log is lost while it is rotated again and again under load.
func TestAccessLogRotates(t *testing.T) {
	t.Parallel()
	const requests, keep = 3000, 500
	west, east := pair(t, func(east *gateway) {
		east.export("web", neutral.HTTP1, serve(t, http.HandlerFunc(echo)), id("west"))
	})
	path := east.model.Gateway.AccessLog
	run(t, envoy.Rotation{RunDir: east.model.Gateway.RunDir, Path: path, MaxSize: 8 << 10, Keep: keep, Every: 20 * time.Millisecond,
		Log: logger(t)}.Run)
	client := west.edge()
	for i := range requests {
		r := request(t, http.MethodGet, "http://"+east.host("web", "shop", "svc")+"/", nil)
		r.Header.Set(names.HeaderRequestID, fmt.Sprintf("rotated-%d", i))
		if a := call(t, client, r); a.code != http.StatusOK {
			t.Fatalf("%d %s", a.code, a.body)
		}
	}
	rotated := 0
	eventually(t, waits, func() error {
		files, err := filepath.Glob(path + "*")
		if err != nil {
			return err
		}
		rotated = len(files) - 1
		seen := map[string]int{}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(data)) {
				var l struct {
					ID string `json:"request_id"`
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					return fmt.Errorf("%s: %w: %q", file, err, line)
				}
				seen[l.ID]++
			}
		}
		for i := range requests {
			if n := seen[fmt.Sprintf("rotated-%d", i)]; n != 1 {
				return fmt.Errorf("request %d has %d lines", i, n)
			}
		}
		return nil
	})
	if rotated < 5 {
		t.Errorf("the log was rotated %d times only", rotated)
	}
	t.Logf("%d lines in %d files", requests, rotated+1)
}
