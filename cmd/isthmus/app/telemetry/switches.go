package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
)

func newSwitches() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "isthmus_network_switch_duration_seconds",
		Help: "Time that a container was on its way into another network mode for an access (switching), or back (restoring), by outcome " +
			"(ok or a fault's kind).", Buckets: prometheus.ExponentialBuckets(0.01, 2, 15)}, []string{"phase", "outcome"})
}

// Switched logs, counts and records the end of a switch of a network mode, or of a way back.
func (t *Telemetry) Switched(e lease.Event) {
	l, outcome := e.Lease, "ok"
	entry := audit.Entry{Phase: audit.Done, ID: l.ID, Peer: l.Peer, Caller: l.Caller, Class: modules.ContainerAccess, Verb: neutral.SwitchNetwork,
		Kind: l.Plan.Object.Kind, Resource: l.Plan.Object.Resource, Namespace: l.Plan.Object.Namespace, Name: l.Plan.Object.Name,
		Decision: audit.Allow, Duration: e.Away, Reason: string(e.Phase) + " from " + string(l.Plan.From) + " to " + string(l.Plan.To)}
	if e.Phase == lease.Restoring {
		entry.Reason = string(e.Phase) + " from " + string(l.Plan.To) + " to " + string(l.Plan.From)
	}
	log := t.config.Log.With("lease", l.ID, "target", l.Target, "phase", e.Phase, "from", l.Plan.From, "to", l.Plan.To, "peer", l.Peer,
		"took", e.Away.Round(time.Millisecond))
	if e.Err != nil {
		f := fault.Of(e.Err)
		outcome, entry.Status = f.Kind.String(), f.Kind.Status()
		entry.Reason += ": " + f.Message
		log.Warn("a network mode was not switched as it was to be", "err", e.Err)
	} else {
		log.Info("a network mode was switched")
	}
	t.switches.WithLabelValues(string(e.Phase), outcome).Observe(e.Away.Seconds())
	if err := t.config.Audit.Write(entry); err != nil {
		t.config.Log.Error("the audit line of a switched network mode could not be written", "lease", l.ID, "err", err)
	}
}
