package server

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	xdsserverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// Status is what the control plane knows of its Envoys.
type Status struct {
	Version string // of what is served; "" before anything is
	Envoys  []Envoy
	Types   []TypeStatus
}

// Envoy is one that is connected.
type Envoy struct {
	Node    string
	Version string
	Since   time.Time
}

// TypeStatus is how it goes with one type of resources.
type TypeStatus struct {
	Type      string // "Cluster", "Listener" ...
	Resources int
	Pushes    uint64
	NACKs     uint64
	LastNACK  *NACK // nil when there was none
	// Rejected tells that the last push was not accepted: Envoy goes on with what it had before.
	Rejected bool
}

// NACK is Envoy's refusal of a push.
type NACK struct {
	Time    time.Time
	Node    string
	Message string
}

// observer counts and remembers. It hears of all that go-control-plane does on streams.
type observer struct {
	xdsserverv3.CallbackFuncs // of the protocol that is not served
	log                       *slog.Logger

	mu      sync.Mutex
	version string
	streams map[int64]*Envoy
	types   map[string]*TypeStatus

	pushes, nacks *prometheus.CounterVec
	resources     *prometheus.GaugeVec
	envoys        prometheus.GaugeFunc
}

var _ xdsserverv3.Callbacks = (*observer)(nil)

func newObserver(log *slog.Logger) *observer {
	o := &observer{
		log: log, streams: map[int64]*Envoy{}, types: map[string]*TypeStatus{},
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_xds_pushes_total", Help: "Configuration pushes to Envoy.",
		}, []string{"type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_xds_nacks_total", Help: "Configuration pushes that Envoy refused.",
		}, []string{"type"}),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_xds_resources", Help: "Resources that are served.",
		}, []string{"type"}),
	}
	o.envoys = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "isthmus_xds_envoys", Help: "Envoys that are connected to the control plane.",
	}, func() float64 {
		o.mu.Lock()
		defer o.mu.Unlock()
		return float64(len(o.streams))
	})
	for _, typeURL := range snapshot.Types {
		o.types[typeURL] = &TypeStatus{Type: short(typeURL)}
		o.pushes.WithLabelValues(short(typeURL))
		o.nacks.WithLabelValues(short(typeURL))
	}
	return o
}

// short is a type's last word.
func short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

func shortAll(typeURLs []string) []string {
	s := make([]string, len(typeURLs))
	for i, t := range typeURLs {
		s[i] = short(t)
	}
	return s
}

func (o *observer) set(s *snapshot.Snapshot, changed []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.version = s.Version
	for _, typeURL := range changed {
		n := len(s.Resources(typeURL))
		o.types[typeURL].Resources = n
		o.resources.WithLabelValues(short(typeURL)).Set(float64(n))
	}
}

// OnDeltaStreamOpen is called when an Envoy comes.
func (o *observer) OnDeltaStreamOpen(_ context.Context, id int64, _ string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams[id] = &Envoy{Since: time.Now()}
	return nil
}

// OnDeltaStreamClosed is called when one goes.
func (o *observer) OnDeltaStreamClosed(id int64, node *corev3.Node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.streams, id)
	o.log.Info("envoy left the control plane", "node", node.GetId())
}

// OnStreamDeltaRequest is called with each message of an Envoy: a subscription, an ACK or a NACK.
func (o *observer) OnStreamDeltaRequest(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	envoy := o.streams[id]
	if envoy == nil {
		return nil
	}
	if n := r.GetNode(); n != nil && envoy.Node == "" {
		envoy.Node, envoy.Version = n.GetId(), version(n)
		o.log.Info("envoy joined the control plane", "node", envoy.Node, "version", envoy.Version)
	}
	t := o.types[r.GetTypeUrl()]
	switch {
	case t == nil || r.GetResponseNonce() == "":
	case r.GetErrorDetail() == nil:
		t.Rejected = false
	default:
		t.NACKs++
		t.Rejected = true
		t.LastNACK = &NACK{Time: time.Now(), Node: envoy.Node, Message: r.GetErrorDetail().GetMessage()}
		o.nacks.WithLabelValues(t.Type).Inc()
		o.log.Error("envoy refused configuration", "type", t.Type, "node", envoy.Node, "error", t.LastNACK.Message)
	}
	return nil
}

// OnStreamDeltaResponse is called with each push.
func (o *observer) OnStreamDeltaResponse(_ int64, r *discoveryv3.DeltaDiscoveryRequest, a *discoveryv3.DeltaDiscoveryResponse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.types[r.GetTypeUrl()]; t != nil {
		t.Pushes++
		o.pushes.WithLabelValues(t.Type).Inc()
	}
	o.log.Debug("configuration pushed", "type", short(r.GetTypeUrl()), "updated", len(a.GetResources()),
		"removed", len(a.GetRemovedResources()), "version", a.GetSystemVersionInfo())
}

func version(n *corev3.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return ""
	}
	return strings.Join([]string{number(v.GetMajorNumber()), number(v.GetMinorNumber()), number(v.GetPatch())}, ".")
}

// Status tells how it goes.
func (s *Server) Status() Status {
	o := s.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	status := Status{Version: o.version}
	for _, e := range o.streams {
		status.Envoys = append(status.Envoys, *e)
	}
	slices.SortFunc(status.Envoys, func(a, b Envoy) int { return a.Since.Compare(b.Since) })
	for _, typeURL := range snapshot.Types {
		status.Types = append(status.Types, *o.types[typeURL])
	}
	return status
}

// rejected tells whether the last push of secrets was refused.
func (o *observer) rejected() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.types[resourcev3.SecretType].Rejected
}

// Refusal is what Envoy said when it last refused a listener of this name, since the given time; "" if it did not.
func (s *Server) Refusal(listener string, since time.Time) string {
	o := s.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	nack := o.types[resourcev3.ListenerType].LastNACK
	if nack == nil || nack.Time.Before(since) {
		return ""
	}
	// Envoy tells of all listeners of a push that it could not take, a line for each that begins with its name.
	for line := range strings.Lines(nack.Message) {
		if _, why, ok := strings.Cut(line, listener+": "); ok {
			return strings.TrimSpace(why)
		}
	}
	return ""
}

// Describe makes the server a Prometheus collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.observer.collectors() {
		c.Describe(ch)
	}
}

// Collect makes the server a Prometheus collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.observer.collectors() {
		c.Collect(ch)
	}
}

func (o *observer) collectors() []prometheus.Collector {
	return []prometheus.Collector{o.pushes, o.nacks, o.resources, o.envoys}
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
