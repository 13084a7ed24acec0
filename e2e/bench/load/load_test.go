package load

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func target(t *testing.T, handler http.HandlerFunc) Target {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return Target{
		Request: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
		},
	}
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	options := OpenOptions{Rate: 1000, Duration: 20 * time.Second, Seed: 3}
	times := schedule(options)
	if n := float64(len(times)); math.Abs(n-20000) > 5*math.Sqrt(20000) {
		t.Errorf("%v requests in 20 s at 1000 a second", n)
	}
	// Gaps of a Poisson process are as wide spread as they are long; those of a metronome are not spread.
	var sum, squares, last float64
	for _, at := range times {
		gap := at.Seconds() - last
		if gap < 0 {
			t.Fatal("the schedule goes back in time")
		}
		sum, squares, last = sum+gap, squares+gap*gap, at.Seconds()
	}
	n := float64(len(times))
	mean := sum / n
	if spread := math.Sqrt(squares/n-mean*mean) / mean; math.Abs(spread-1) > 0.05 {
		t.Errorf("gaps have a spread of %.2f of their mean, want 1", spread)
	}
	if again := schedule(options); len(again) != len(times) || again[0] != times[0] {
		t.Error("the same seed gives another schedule")
	}
	options.Seed++
	if other := schedule(options); other[0] == times[0] {
		t.Error("another seed gives the same schedule")
	}
}

// A target that stalls once must show in the latency of all requests that were due meanwhile, which a closed loop hides.
func TestOpenCountsFromIntendedSend(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	const stall = 300 * time.Millisecond
	slow := target(t, func(http.ResponseWriter, *http.Request) {
		if served.Add(1) == 20 {
			time.Sleep(stall)
		}
	})
	r, err := Open(t.Context(), slow, OpenOptions{Connections: 1, Rate: 200, Duration: time.Second, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Errors > 0 {
		t.Fatalf("%d errors: %v", r.Errors, r.Err)
	}
	if got, want := len(r.Latencies), len(schedule(OpenOptions{Rate: 200, Duration: time.Second, Seed: 1})); got != want {
		t.Errorf("%d answers to %d requests of the schedule", got, want)
	}
	waited := 0
	for _, l := range r.Latencies {
		if l > stall/3 {
			waited++
		}
	}
	// 40 are due within the first two thirds of the stall; the one that stalled is all that a closed loop sees.
	if waited < 15 {
		t.Errorf("%d requests show the stall, want about 40", waited)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	r, err := Closed(t.Context(), target(t, func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		_, _ = w.Write([]byte(strings.Repeat("x", 100_000)))
	}), 2, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Errors > 0 || int64(len(r.Latencies)) != served.Load() || r.Rate() <= 0 {
		t.Errorf("%d answers of %d, %d errors, rate %.0f", len(r.Latencies), served.Load(), r.Errors, r.Rate())
	}
	if r.Quantile(0) > r.Quantile(0.5) || r.Quantile(0.5) > r.Quantile(1) || r.Quantile(0.5) == 0 {
		t.Errorf("quantiles are out of order: %v", r.Latencies)
	}
}

// Refusals must not pass for fast answers.
func TestErrorsHaveNoLatency(t *testing.T) {
	t.Parallel()
	refusing := target(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no upstream", http.StatusServiceUnavailable)
	})
	r, err := Open(t.Context(), refusing, OpenOptions{Connections: 2, Rate: 500, Duration: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Latencies) > 0 || r.Errors == 0 || r.Err == nil || !strings.Contains(r.Err.Error(), "no upstream") {
		t.Errorf("%d latencies, %d errors, first %v", len(r.Latencies), r.Errors, r.Err)
	}
	if _, err := Once(t.Context(), refusing); err == nil {
		t.Error("one refusal passes for an answer")
	}
}

func TestCancelEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	fine := target(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := Open(ctx, fine, OpenOptions{Connections: 1, Rate: 10, Duration: time.Hour}); err == nil {
		t.Error("a canceled load reports no error")
	}
}
