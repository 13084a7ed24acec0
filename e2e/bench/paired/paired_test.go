package paired

import (
	"math"
	"math/rand/v2"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestQuantile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{10, 20, 30, 40, 50}, 0, 10},
		{[]float64{10, 20, 30, 40, 50}, 1, 50},
		{[]float64{10, 20, 30, 40, 50}, 0.1, 14},
	} {
		if got := Quantile(c.values, c.q); !near(got, c.want) {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
}

// A machine that slows down threefold in the middle of a run moves both series; their ratio stays.
func TestCompareIgnoresDrift(t *testing.T) {
	t.Parallel()
	base := []float64{100, 110, 33, 35, 105, 98, 34}
	ours := make([]float64, len(base))
	for i := range base {
		ours[i] = base[i] * 0.9
	}
	r, err := Compare(ours, base)
	if err != nil {
		t.Fatal(err)
	}
	if !near(r.Ratio, 0.9) || !near(r.Low, 0.9) || !near(r.High, 0.9) || r.Base != 98 {
		t.Errorf("got %+v, want a ratio of 0.9 without spread and the base's median 98", r)
	}
}

// The interval must hold the true ratio in about 95 of 100 experiments; far fewer, and it promises too much.
func TestIntervalCoversTruth(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(7, 7))
	const experiments, truth = 100, 0.95
	covered, width := 0, 0.0
	for range experiments {
		var ours, base []float64
		for range 11 {
			b := 1000 * (1 + 0.2*random.Float64())
			base = append(base, b)
			ours = append(ours, b*truth*(1+0.04*random.NormFloat64()))
		}
		r, err := Compare(ours, base)
		if err != nil {
			t.Fatal(err)
		}
		if r.Low <= truth && truth <= r.High {
			covered++
		}
		if r.Low > r.Ratio || r.Ratio > r.High {
			t.Fatalf("the ratio is outside of its own interval: %+v", r)
		}
		width += (r.High - r.Low) / experiments
	}
	if covered < experiments*85/100 {
		t.Errorf("the interval held the truth in %d of %d experiments", covered, experiments)
	}
	if width > 0.15 {
		t.Errorf("the interval is %.3f wide on average: it says nothing", width)
	}
}

func TestCompareRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range [][2][]float64{{nil, nil}, {{1, 2}, {1}}, {{1}, {0}}} {
		if r, err := Compare(c[0], c[1]); err == nil {
			t.Errorf("Compare(%v, %v) = %+v, want an error", c[0], c[1], r)
		}
	}
}
