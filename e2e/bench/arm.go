package bench

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/bench/paired"
)

// Roles of the processes on a request's way, whose processor time is counted.
const (
	roleEnvoyWest   = "Envoy west"
	roleEnvoyEast   = "Envoy east"
	roleIsthmusWest = "isthmus west"
	roleServer      = "isthmus east, or ext_proc server"
	roleAPIServer   = "kube-apiserver"
)

// roles in the order in which a request meets them.
var roles = []string{roleIsthmusWest, roleEnvoyWest, roleEnvoyEast, roleServer, roleAPIServer}

// arm is one way to make a request.
type arm struct {
	name   string
	target load.Target
	want   []byte // in every answer
	// saturate asks as fast as answers come, and tells how many came and at what rate.
	saturate func(ctx context.Context, duration time.Duration) (requests int, rate float64, err error)
	roles    map[string][]int // process ids

	rates    []float64            // requests a second, by round
	costs    map[string][]float64 // microseconds of processor time a request, by role and round; "" is all roles
	p50, p99 []float64            // milliseconds, by round
	late     float64              // the largest share of late sends
}

// group is arms that are measured in turns, and which of them are compared.
type group struct {
	name        string
	arms        []*arm
	comparisons []comparison
	connections int // of the open-loop load
	rate        float64
}

// comparison is of two arms of a group.
type comparison struct {
	name       string
	ours, base *arm
}

// check makes each arm's request once, and wants the answer to be true.
func (g *group) check(ctx context.Context) error {
	for _, a := range g.arms {
		var last error
		for deadline := time.Now().Add(20 * time.Second); ; {
			body, err := load.Once(ctx, a.target)
			if err == nil && !bytes.Contains(body, a.want) {
				err = fmt.Errorf("the answer lacks %q: %s", a.want, body[:min(len(body), 512)])
			}
			if last = err; err == nil || time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
		if last != nil {
			return fmt.Errorf("%s, %s: %w", g.name, a.name, last)
		}
	}
	return nil
}

// turns gives the arms in the order of a round: forward and backward by turns, so that what drifts hits all alike.
func (g *group) turns(round int) []*arm {
	order := slices.Clone(g.arms)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// measure finds each arm's saturation, and then the latencies at half of that of the slowest.
func (g *group) measure(ctx context.Context, options Options) error {
	for _, a := range g.arms { // warm up
		if _, _, err := a.saturate(ctx, time.Second); err != nil {
			return fmt.Errorf("%s, %s: %w", g.name, a.name, err)
		}
	}
	for round := range options.Rounds {
		for _, a := range g.turns(round) {
			if err := a.measureSaturation(ctx, options.Saturation); err != nil {
				return fmt.Errorf("%s, %s: %w", g.name, a.name, err)
			}
		}
		g.progress(options.Log, "saturation", round, options.Rounds, func(a *arm) string {
			return fmt.Sprintf("%.0f/s", a.rates[round])
		})
	}
	for _, a := range g.arms {
		if rate := paired.Median(a.rates) / 2; g.rate == 0 || rate < g.rate {
			g.rate = rate
		}
	}
	for round := range options.Rounds {
		for _, a := range g.turns(round) {
			if err := a.measureLatency(ctx, g.connections, g.rate, options.Latency, uint64(round)); err != nil {
				return fmt.Errorf("%s, %s: %w", g.name, a.name, err)
			}
		}
		g.progress(options.Log, "latency", round, options.Rounds, func(a *arm) string {
			return fmt.Sprintf("%.2f/%.2fms", a.p50[round], a.p99[round])
		})
	}
	return nil
}

func (g *group) progress(log *slog.Logger, what string, round, rounds int, told func(*arm) string) {
	values := make([]any, 0, 2*len(g.arms))
	for _, a := range g.arms {
		values = append(values, a.name, told(a))
	}
	log.Info(fmt.Sprintf("%s: %s, round %d of %d", g.name, what, round+1, rounds), values...)
}

func (a *arm) measureSaturation(ctx context.Context, duration time.Duration) error {
	before, err := usages(a.roles)
	if err != nil {
		return err
	}
	requests, rate, err := a.saturate(ctx, duration)
	if err != nil {
		return err
	}
	after, err := usages(a.roles)
	if err != nil {
		return err
	}
	a.rates = append(a.rates, rate)
	if a.costs == nil {
		a.costs = make(map[string][]float64)
	}
	all := 0.0
	for role := range a.roles {
		cost := float64((after[role] - before[role]).Microseconds()) / float64(requests)
		a.costs[role] = append(a.costs[role], cost)
		all += cost
	}
	a.costs[""] = append(a.costs[""], all)
	return nil
}

func (a *arm) measureLatency(ctx context.Context, connections int, rate float64, duration time.Duration, seed uint64) error {
	r, err := load.Open(ctx, a.target, load.OpenOptions{Connections: connections, Rate: rate, Duration: duration, Seed: seed})
	if err != nil {
		return err
	}
	if r.Errors > 0 {
		return fmt.Errorf("%d of %d requests failed; the first: %w", r.Errors, r.Errors+len(r.Latencies), r.Err)
	}
	if len(r.Latencies) == 0 {
		return fmt.Errorf("no request in %v at %.1f a second", duration, rate)
	}
	a.p50 = append(a.p50, r.Quantile(0.5).Seconds()*1e3)
	a.p99 = append(a.p99, r.Quantile(0.99).Seconds()*1e3)
	a.late = max(a.late, float64(r.Late)/float64(len(r.Latencies)))
	return nil
}
