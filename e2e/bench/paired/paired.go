// Package paired compares two series that were measured in turns: the i-th values of both were taken close together, so
// what the machine did meanwhile is in both.
package paired

import (
	"errors"
	"math/rand/v2"
	"slices"
)

// Ratio is how ours relates to base, with the interval that holds it with 95 % confidence.
type Ratio struct {
	Ours, Base       float64 // medians
	Ratio, Low, High float64
}

// resamples is how often the bootstrap draws.
const resamples = 2000

// errUnpaired is given for series that cannot be compared pair by pair.
var errUnpaired = errors.New("want two series of the same length, not empty, with a base above zero")

// Compare gives the median of the pairs' ratios. The interval is a percentile bootstrap: pairs are drawn again and again
// with replacement, each draw's median is taken, and the middle 95 % of those medians is the interval. The draws are the
// same for the same series.
func Compare(ours, base []float64) (Ratio, error) {
	if len(ours) == 0 || len(ours) != len(base) {
		return Ratio{}, errUnpaired
	}
	ratios := make([]float64, len(ours))
	for i := range ours {
		if base[i] <= 0 {
			return Ratio{}, errUnpaired
		}
		ratios[i] = ours[i] / base[i]
	}
	draw := rand.New(rand.NewPCG(1, uint64(len(ratios))))
	medians, sample := make([]float64, resamples), make([]float64, len(ratios))
	for i := range medians {
		for j := range sample {
			sample[j] = ratios[draw.IntN(len(ratios))]
		}
		medians[i] = Median(sample)
	}
	return Ratio{
		Ours: Median(ours), Base: Median(base), Ratio: Median(ratios),
		Low: Quantile(medians, 0.025), High: Quantile(medians, 0.975),
	}, nil
}

// Median is the middle value, 0 of none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile is the value below which the share q of all values lies, interpolated between neighbours; 0 of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}
