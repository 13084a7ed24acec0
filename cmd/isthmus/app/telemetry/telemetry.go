// Package telemetry turns what the gateway's parts tell into metrics, traces and audit lines.
package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Config is what a Telemetry needs. All fields but Collector are required.
type Config struct {
	Cluster      string
	Orchestrator neutral.Orchestrator
	Registry     prometheus.Registerer
	Collector    string // host:port of an OTLP collector over gRPC; "" makes no traces
	Audit        *audit.Log
	Log          *slog.Logger
}

// Telemetry observes the external-processing server and the bridge.
type Telemetry struct {
	config    Config
	requests  *prometheus.CounterVec
	decisions *prometheus.HistogramVec
	durations *prometheus.HistogramVec
	losses    *prometheus.CounterVec
	limited   *prometheus.CounterVec
	callers   *prometheus.CounterVec
	switches  *prometheus.HistogramVec
	tracer    trace.Tracer
	provider  *sdktrace.TracerProvider
	context   propagation.TextMapPropagator
}

// New registers the metrics and, with a collector, opens the exporter. Shutdown ends it.
func New(ctx context.Context, config Config) (*Telemetry, error) {
	t := &Telemetry{
		config: config,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_requests_total",
			Help: "Requests that the gateway decided about, by class, verb, dialects and outcome (allow or a fault's kind)."},
			[]string{"class", "verb", "from", "to", "executor", "outcome"}),
		decisions: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "isthmus_decision_duration_seconds",
			Help:    "Time from a request's head to the decision about it.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18)}, []string{"class"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "isthmus_bridge_duration_seconds",
			Help:    "Time that an operation spent in the bridge; streams count as long as they are open.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 16)}, []string{"verb"}),
		losses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_translation_losses_total",
			Help: "Fields that a translation changed or could not carry, as told to callers."}, []string{"from", "to"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_limited_total",
			Help: "Operations that were refused because a limit of their peer was reached, by the limit."}, []string{"peer", "limit"}),
		callers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_callers_total",
			Help: "Requests of this cluster's own callers whose credential was looked at, by class and outcome (allow or a fault's kind)."},
			[]string{"class", "outcome"}),
		switches: newSwitches(),
		context:  propagation.TraceContext{},
	}
	for _, c := range []prometheus.Collector{t.requests, t.decisions, t.durations, t.losses, t.limited, t.callers, t.switches} {
		if err := config.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "isthmus"), attribute.String("isthmus.cluster", config.Cluster)))}
	if config.Collector != "" {
		exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(config.Collector), otlptracegrpc.WithInsecure())
		if err != nil {
			return nil, fmt.Errorf("open the trace exporter: %w", err)
		}
		// Envoy samples; a request that it did not sample makes no spans here either.
		options = append(options, sdktrace.WithBatcher(exporter), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	} else {
		options = append(options, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.tracer = t.provider.Tracer("github.com/isthmus-mesh/isthmus")
	return t, nil
}

// flushTime is what the collector has to take what spans are left.
const flushTime = 2 * time.Second

// Shutdown sends what spans are left. A collector that does not take them holds nobody up.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// Begin starts a decision's span.
func (t *Telemetry) Begin(ctx context.Context, req *modules.Request) context.Context {
	return t.span(ctx, req, "decide")
}

func (t *Telemetry) span(ctx context.Context, req *modules.Request, name string) context.Context {
	ctx = t.context.Extract(ctx, propagation.HeaderCarrier(req.Header))
	ctx, _ = t.tracer.Start(ctx, "isthmus."+name, trace.WithTimestamp(req.Start), trace.WithAttributes(
		attribute.String("isthmus.class", string(req.Class)), attribute.String("isthmus.peer", req.Peer.Name),
		attribute.String("isthmus.request_id", req.ID)))
	return ctx
}

// Limited counts an operation that a limit refused.
func (t *Telemetry) Limited(peer, limit string) { t.limited.WithLabelValues(peer, limit).Inc() }

// Decided counts a decision and ends its span.
func (t *Telemetry) Decided(ctx context.Context, req *modules.Request, record modules.Record, outcome string, _ int) {
	if req.To != "" { // what is asked is the peer's to decide, and to count
		t.callers.WithLabelValues(string(req.Class), outcome).Inc()
		t.end(ctx, record, outcome)
		return
	}
	executor := record.Upstream
	if executor == "" {
		executor = "none"
	}
	from, to := string(req.Peer.Orchestrator), string(t.config.Orchestrator)
	t.requests.WithLabelValues(string(req.Class), string(record.Verb), from, to, executor, outcome).Inc()
	t.decisions.WithLabelValues(string(req.Class)).Observe(time.Since(req.Start).Seconds())
	if n := len(record.Losses); n > 0 && record.Upstream != names.Bridge { // the bridge tells its own when it is done
		t.losses.WithLabelValues(from, to).Add(float64(n))
	}
	t.end(ctx, record, outcome)
}

func (t *Telemetry) end(ctx context.Context, record modules.Record, outcome string) {
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(attribute.String("isthmus.verb", string(record.Verb)), attribute.String("isthmus.outcome", outcome),
		attribute.String("isthmus.object", string(record.Object.Kind)+"/"+record.Object.Namespace+"/"+record.Object.Name),
		attribute.String("isthmus.upstream", record.Upstream))
	if outcome != allowed {
		span.SetStatus(codes.Error, outcome)
	}
	span.End()
}

const allowed = "allow"

// Outcome is the word for how a request ended.
func Outcome(err error) string {
	if err == nil {
		return allowed
	}
	return fault.Of(err).Kind.String()
}

// Bridge observes the bridge, whose requests were decided, counted and audited once already: it times them and writes
// the audit's second line.
func (t *Telemetry) Bridge() BridgeObserver { return BridgeObserver{t} }

// BridgeObserver is Telemetry as the bridge sees it.
type BridgeObserver struct{ *Telemetry }

// Begin starts the operation's span.
func (b BridgeObserver) Begin(ctx context.Context, req *modules.Request) (context.Context, error) {
	return b.span(ctx, req, "bridge"), nil
}

// Ended times the operation and writes how it ended.
func (b BridgeObserver) Ended(ctx context.Context, req *modules.Request, record modules.Record, err error) {
	outcome := Outcome(err)
	took := time.Since(req.Start)
	if n := len(record.Losses); n > 0 {
		b.losses.WithLabelValues(string(req.Peer.Orchestrator), string(b.config.Orchestrator)).Add(float64(n))
	}
	b.durations.WithLabelValues(string(record.Verb)).Observe(took.Seconds())
	if err := b.config.Audit.Write(done(req, record, err, took, record.Status)); err != nil {
		b.config.Log.Error("the audit line of an ended operation could not be written", "id", req.ID, "err", err)
	}
	b.end(ctx, record, outcome)
}

// Inject carries the span of ctx on in a request's headers.
func (t *Telemetry) Inject(ctx context.Context, header http.Header) {
	t.context.Inject(ctx, propagation.HeaderCarrier(header))
}
