package tracker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/xds/peering"
)

// metrics are the counters of the link. What can be read from a Status is not kept twice: Collect derives it.
type metrics struct {
	steps    *prometheus.CounterVec
	failures *prometheus.CounterVec
	rtt      *prometheus.HistogramVec

	condition *prometheus.Desc
	lastSeen  *prometheus.Desc
	info      *prometheus.Desc
}

func newMetrics() metrics {
	return metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_peering_steps_total",
			Help: "Steps of the handshake taken, of the ten.",
		}, []string{"peer", "step"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_peering_failures_total",
			Help: "Calls and messages that failed, by reason.",
		}, []string{"peer", "reason"}),
		rtt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "isthmus_peering_heartbeat_seconds",
			Help:    "Round trip of a heartbeat, gateway to gateway.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}, []string{"peer"}),
		condition: prometheus.NewDesc("isthmus_peering_condition",
			"1 for the condition that the peer is in, 0 for the others.", []string{"peer", "condition"}, nil),
		lastSeen: prometheus.NewDesc("isthmus_peering_last_seen_timestamp_seconds",
			"When the peer last said anything; absent before it ever did.", []string{"peer"}, nil),
		info: prometheus.NewDesc("isthmus_peering_peer_info",
			"What the peer said of itself; always 1.", []string{"peer", "orchestrator", "version", "software", "protocol"}, nil),
	}
}

func (m metrics) forget(peer string) {
	of := prometheus.Labels{"peer": peer}
	m.steps.DeletePartialMatch(of)
	m.failures.DeletePartialMatch(of)
	m.rtt.DeletePartialMatch(of)
}

var _ prometheus.Collector = (*Tracker)(nil)

// Describe is the metrics' names.
func (t *Tracker) Describe(ch chan<- *prometheus.Desc) {
	t.metrics.steps.Describe(ch)
	t.metrics.failures.Describe(ch)
	t.metrics.rtt.Describe(ch)
	ch <- t.metrics.condition
	ch <- t.metrics.lastSeen
	ch <- t.metrics.info
}

// Collect is the metrics' values now.
func (t *Tracker) Collect(ch chan<- prometheus.Metric) {
	t.metrics.steps.Collect(ch)
	t.metrics.failures.Collect(ch)
	t.metrics.rtt.Collect(ch)
	for _, s := range t.Peers() {
		for _, c := range peering.Conditions {
			value := 0.0
			if c == s.Condition {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(t.metrics.condition, prometheus.GaugeValue, value, s.Peer, string(c))
		}
		if !s.LastSeen.IsZero() {
			seen := float64(s.LastSeen.UnixNano()) / float64(time.Second)
			ch <- prometheus.MustNewConstMetric(t.metrics.lastSeen, prometheus.GaugeValue, seen, s.Peer)
		}
		if c := s.Configuration; c != nil {
			ch <- prometheus.MustNewConstMetric(t.metrics.info, prometheus.GaugeValue, 1, s.Peer,
				string(c.Orchestrator.Type), c.Orchestrator.Version, c.Software, s.Protocol.String())
		}
	}
}
