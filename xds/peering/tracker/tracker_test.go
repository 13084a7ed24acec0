package tracker

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/peering"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func ready(seen time.Time) Status {
	return Status{Condition: peering.Ready, Step: 10, LastSeen: seen, Protocol: peering.Protocol.Current,
		Configuration: &peering.Configuration{Orchestrator: peering.Orchestrator{Type: neutral.Docker, Version: "29.1.3"}, Software: "1.0"}}
}

func told(s *Subscription) bool {
	select {
	case <-s.Changes():
		return true
	default:
		return false
	}
}

func TestTracker(t *testing.T) {
	t.Parallel()
	tr := New()
	sub := tr.Subscribe()
	west := tr.Track("west", start)
	east := tr.Track("east", start)
	if !told(sub) || told(sub) {
		t.Error("two new peers are not told once")
	}
	if got := tr.Peers(); len(got) != 2 || got[0].Peer != "east" || got[1].Peer != "west" || got[0].Condition != peering.Connecting {
		t.Errorf("peers %+v", got)
	}

	east.Update(ready(start), start.Add(time.Second))
	if !told(sub) {
		t.Error("a change of condition is not told")
	}
	east.Answered(3 * time.Millisecond)
	east.Update(ready(start.Add(time.Minute)), start.Add(time.Minute))
	if told(sub) {
		t.Error("a heartbeat is told")
	}
	s, ok := tr.Peer("east")
	if !ok || s.Peer != "east" || !s.Since.Equal(start.Add(time.Second)) || s.RTT != 3*time.Millisecond || !s.LastSeen.Equal(start.Add(time.Minute)) || !s.InSession() {
		t.Errorf("status %+v", s)
	}

	changed := ready(start)
	changed.Configuration.CatalogueVersion = "2"
	east.Update(changed, start)
	if !told(sub) {
		t.Error("a change of the configuration is not told")
	}

	// Once a name is another entry's, the old one writes nowhere.
	again := tr.Track("east", start)
	told(sub)
	east.Update(ready(start), start)
	east.Took(1)
	east.Close()
	if s, ok := tr.Peer("east"); !ok || s.Condition != peering.Connecting || told(sub) {
		t.Errorf("an entry that was replaced wrote %+v", s)
	}
	again.Close()
	if _, ok := tr.Peer("east"); ok || !told(sub) {
		t.Error("a closed entry stays, or is not told")
	}
	sub.Close()
	west.Close()
	if told(sub) {
		t.Error("a closed subscription is told")
	}
}

func TestRoutable(t *testing.T) {
	t.Parallel()
	for _, c := range peering.Conditions {
		known, unknown := ready(start), Status{}
		known.Condition, unknown.Condition = c, c
		if got, want := known.Routable(), c != peering.Refused; got != want {
			t.Errorf("a known peer that is %s: %v", c, got)
		}
		if unknown.Routable() {
			t.Errorf("an unknown peer that is %s is routable", c)
		}
		if got, want := known.InSession(), c == peering.Ready || c == peering.Stale; got != want {
			t.Errorf("%s is in session: %v", c, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	tr := New()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(tr)
	east := tr.Track("east", start)
	gone := tr.Track("gone", start)
	gone.Took(1)
	gone.Failed("no-answer")
	gone.Answered(time.Second)
	for _, step := range []int{1, 2, 3, 3} {
		east.Took(step)
	}
	east.Failed("no-answer")
	east.Update(ready(time.Unix(1700000000, 5e8)), start)
	gone.Close()
	want := `
# HELP isthmus_peering_condition 1 for the condition that the peer is in, 0 for the others.
# TYPE isthmus_peering_condition gauge
isthmus_peering_condition{condition="connecting",peer="east"} 0
isthmus_peering_condition{condition="departed",peer="east"} 0
isthmus_peering_condition{condition="down",peer="east"} 0
isthmus_peering_condition{condition="ready",peer="east"} 1
isthmus_peering_condition{condition="refused",peer="east"} 0
isthmus_peering_condition{condition="stale",peer="east"} 0
isthmus_peering_condition{condition="stopped",peer="east"} 0
# HELP isthmus_peering_failures_total Calls and messages that failed, by reason.
# TYPE isthmus_peering_failures_total counter
isthmus_peering_failures_total{peer="east",reason="no-answer"} 1
# HELP isthmus_peering_last_seen_timestamp_seconds When the peer last said anything; absent before it ever did.
# TYPE isthmus_peering_last_seen_timestamp_seconds gauge
isthmus_peering_last_seen_timestamp_seconds{peer="east"} 1.7000000005e+09
# HELP isthmus_peering_peer_info What the peer said of itself; always 1.
# TYPE isthmus_peering_peer_info gauge
isthmus_peering_peer_info{orchestrator="docker",peer="east",protocol="1.0",software="1.0",version="29.1.3"} 1
# HELP isthmus_peering_steps_total Steps of the handshake taken, of the ten.
# TYPE isthmus_peering_steps_total counter
isthmus_peering_steps_total{peer="east",step="1"} 1
isthmus_peering_steps_total{peer="east",step="2"} 1
isthmus_peering_steps_total{peer="east",step="3"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestAtOnce(t *testing.T) {
	t.Parallel()
	tr := New()
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "a", "b"} {
		group.Go(func() {
			for range 200 {
				e := tr.Track(name, start)
				e.Update(ready(start), start)
				e.Took(1)
				e.Close()
			}
		})
	}
	group.Go(func() {
		for range 200 {
			s := tr.Subscribe()
			tr.Peers()
			testutil.CollectAndCount(tr)
			s.Close()
		}
	})
	group.Wait()
	if got := tr.Peers(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
}
