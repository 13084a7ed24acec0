package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/isthmus-mesh/isthmus/e2e/bench/paired"
)

// Result is one comparison of one measure. Low and High hold the true ratio with 95 % confidence.
type Result struct {
	Name  string  `json:"name"`
	Ours  float64 `json:"ours"`
	Base  float64 `json:"base"`
	Unit  string  `json:"unit"`
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Report is what a measurement found.
type Report struct {
	Results []Result
	Notes   []string

	groups []*group
}

const (
	// same is how far E may be from itself for the rest to be believed.
	same = 0.05
	// mostLate is the share of late sends above which latencies are in doubt.
	mostLate = 0.01
)

func newReport(divided bool, groups ...*group) (Report, error) {
	r := Report{groups: groups}
	if !divided {
		r.Notes = append(r.Notes, "only one processor: gateways and load shared it")
	}
	for _, g := range groups {
		for _, c := range g.comparisons {
			if err := r.compare(c); err != nil {
				return Report{}, fmt.Errorf("%s: %w", c.name, err)
			}
		}
		for _, a := range g.arms {
			if a.late > mostLate {
				r.Notes = append(r.Notes, fmt.Sprintf("IN DOUBT: latencies of %s, %s: up to %.1f %% of a round's requests "+
					"were sent more than a millisecond late", g.name, a.name, 100*a.late))
			}
		}
	}
	return r, nil
}

func (r *Report) compare(c comparison) error {
	add := func(name, unit string, ours, base []float64) error {
		if paired.Median(ours) == 0 && paired.Median(base) == 0 {
			return nil // no such process on this way
		}
		p, err := paired.Compare(ours, base)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		result := Result{Name: c.name + ": " + name, Unit: unit, Ours: p.Ours, Base: p.Base, Ratio: p.Ratio, Low: p.Low, High: p.High}
		r.Results = append(r.Results, result)
		if c.ours.name == armAgain && math.Abs(p.Ratio-1) > same {
			r.Notes = append(r.Notes, fmt.Sprintf("IN DOUBT: %s differs by %.1f %%: the machine is not quiet",
				result.Name, 100*math.Abs(p.Ratio-1)))
		}
		return nil
	}
	if err := add("throughput", "req/s", c.ours.rates, c.base.rates); err != nil {
		return err
	}
	if err := add("CPU, all processes", "us/req", c.ours.costs[""], c.base.costs[""]); err != nil {
		return err
	}
	for _, role := range roles {
		ours, base := c.ours.costs[role], c.base.costs[role]
		if len(ours) == 0 || len(base) == 0 {
			continue
		}
		if err := add("CPU, "+role, "us/req", ours, base); err != nil {
			return err
		}
	}
	if err := add("latency p50", "ms", c.ours.p50, c.base.p50); err != nil {
		return err
	}
	return add("latency p99", "ms", c.ours.p99, c.base.p99)
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "measure\tours\tbase\tunit\tratio\t95 % interval")
	for _, x := range r.Results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.3f\t%.3f - %.3f\n", x.Name, number(x.Ours), number(x.Base), x.Unit, x.Ratio, x.Low, x.High)
	}
	for _, g := range r.groups {
		fmt.Fprintf(table, "\n%s, CPU us/req\t", g.name)
		for _, a := range g.arms {
			fmt.Fprintf(table, "%s\t", a.name)
		}
		fmt.Fprintln(table)
		for _, role := range roles {
			row, there := role+"\t", false
			for _, a := range g.arms {
				if costs, ok := a.costs[role]; ok {
					row, there = row+number(paired.Median(costs)), true
				}
				row += "\t"
			}
			if there {
				fmt.Fprintln(table, row)
			}
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	for _, g := range r.groups {
		fmt.Fprintf(w, "\n%s: latencies at %s requests a second, open loop", g.name, number(g.rate))
	}
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	return nil
}

func number(f float64) string {
	switch {
	case math.Abs(f) >= 100:
		return fmt.Sprintf("%.0f", f)
	case math.Abs(f) >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// Write writes the results as JSON.
func (r Report) Write(path string) error {
	data, err := json.MarshalIndent(r.Results, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
