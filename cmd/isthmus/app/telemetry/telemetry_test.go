package telemetry

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
	"github.com/isthmus-mesh/isthmus/xds/accesslog"
)

func newTelemetry(t *testing.T, endpoint, auditPath string) (*Telemetry, *prometheus.Registry) {
	t.Helper()
	log, err := audit.Open(audit.Config{Path: auditPath})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	registry := prometheus.NewRegistry()
	observer, err := New(t.Context(), Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Registry: registry, Collector: endpoint,
		Audit: log, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return observer, registry
}

func request() *modules.Request {
	return &modules.Request{ID: "r1", Class: modules.ContainerOperation, Peer: modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true},
		Caller: "ci-1", Method: http.MethodGet, Path: "/v1.44/containers/json?filters=secret", Header: http.Header{}, Start: time.Now()}
}

var listed = modules.Record{Verb: neutral.List, Action: neutral.ContainerList, Object: neutral.Object{Kind: neutral.KindContainer, Namespace: "shop"},
	Rule: "west/0", Upstream: "orchestrator", Losses: []neutral.Loss{{Field: "size", Change: "dropped"}}}

// TestMetrics holds the names and labels that dashboards are built on.
func TestMetrics(t *testing.T) {
	t.Parallel()
	observer, registry := newTelemetry(t, "", filepath.Join(t.TempDir(), "audit.log"))
	decide := func(record modules.Record, outcome string) {
		req := request()
		observer.Decided(observer.Begin(t.Context(), req), req, record, outcome, 0)
	}
	decide(listed, "allow")
	decide(listed, "allow")
	decide(modules.Record{Verb: neutral.Create}, Outcome(fault.New(fault.Denied, "no permission")))
	caller := &modules.Request{Class: modules.ContainerOperation, To: "west", Start: time.Now()}
	observer.Decided(observer.Begin(t.Context(), caller), caller, modules.Record{}, "unauthenticated", 401)
	bridge := observer.Bridge()
	req := request()
	ctx, err := bridge.Begin(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	bridge.Ended(ctx, req, listed, nil)

	const want = `
# HELP isthmus_callers_total Requests of this cluster's own callers whose credential was looked at, by class and outcome (allow or a fault's kind).
# TYPE isthmus_callers_total counter
isthmus_callers_total{class="container-operation",outcome="unauthenticated"} 1
# HELP isthmus_requests_total Requests that the gateway decided about, by class, verb, dialects and outcome (allow or a fault's kind).
# TYPE isthmus_requests_total counter
isthmus_requests_total{class="container-operation",executor="none",from="docker",outcome="denied",to="kubernetes",verb="create"} 1
isthmus_requests_total{class="container-operation",executor="orchestrator",from="docker",outcome="allow",to="kubernetes",verb="list"} 2
# HELP isthmus_translation_losses_total Fields that a translation changed or could not carry, as told to callers.
# TYPE isthmus_translation_losses_total counter
isthmus_translation_losses_total{from="docker",to="kubernetes"} 3
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "isthmus_callers_total", "isthmus_requests_total", "isthmus_translation_losses_total"); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil {
				counts[family.GetName()+" "+m.GetLabel()[0].GetName()+"="+m.GetLabel()[0].GetValue()] = h.GetSampleCount()
			}
		}
	}
	if counts["isthmus_decision_duration_seconds class=container-operation"] != 3 || counts["isthmus_bridge_duration_seconds verb=list"] != 1 {
		t.Errorf("the histograms hold %v", counts)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if _, err := New(t.Context(), Config{Registry: registry, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("two of them share a registry")
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"allow": nil, "denied": fault.New(fault.Denied, "x"), "internal": errors.New("x"), "timeout": context.DeadlineExceeded,
		"unavailable": errors.Join(errors.New("write"), fault.New(fault.Unavailable, "x")),
	} {
		if got := Outcome(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// fakeCollector takes spans.
type fakeCollector struct {
	collector.UnimplementedTraceServiceServer
	got chan *tracepb.ResourceSpans
}

func (c *fakeCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, spans := range r.GetResourceSpans() {
		c.got <- spans
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// TestNobodyTakesSpans ends while the collector is away.
func TestNobodyTakesSpans(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // it answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	observer, _ := newTelemetry(t, listener.Addr().String(), filepath.Join(t.TempDir(), "audit.log"))
	req := request()
	req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	observer.Decided(observer.Begin(t.Context(), req), req, listed, "allow", 0)
	begun := time.Now()
	if err := observer.Shutdown(t.Context()); err == nil {
		t.Error("a span that nobody took is not told of")
	}
	if took := time.Since(begun); took > 3*flushTime {
		t.Errorf("it took %v", took)
	}
}

// TestTraces holds that a decision is a span of the trace that Envoy began, and that what Envoy did not sample makes
// none.
func TestTraces(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, fake := grpc.NewServer(), &fakeCollector{got: make(chan *tracepb.ResourceSpans, 16)}
	collector.RegisterTraceServiceServer(server, fake)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	observer, _ := newTelemetry(t, listener.Addr().String(), filepath.Join(t.TempDir(), "audit.log"))
	const traceID, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, flags := range []string{"01", "00"} {
		req := request()
		req.Header.Set("Traceparent", "00-"+traceID+"-"+parent+"-"+flags)
		ctx := observer.Begin(t.Context(), req)
		onward := http.Header{}
		observer.Inject(ctx, onward)
		if got := onward.Get("Traceparent"); !strings.HasPrefix(got, "00-"+traceID+"-") || strings.Contains(got, parent) || !strings.HasSuffix(got, flags) {
			t.Errorf("sampled %s: what goes on carries %q", flags, got)
		}
		observer.Decided(ctx, req, listed, "denied", 403)
	}
	observer.Decided(observer.Begin(t.Context(), request()), request(), listed, "allow", 0) // no trace at all
	if err := observer.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(fake.got)
	var spans []*tracepb.Span
	for r := range fake.got {
		if text(r.GetResource().GetAttributes())["service.name"] != "isthmus" || text(r.GetResource().GetAttributes())["isthmus.cluster"] != "east" {
			t.Errorf("the resource is %v", r.GetResource())
		}
		for _, scope := range r.GetScopeSpans() {
			spans = append(spans, scope.GetSpans()...)
		}
	}
	if len(spans) != 1 {
		t.Fatalf("%d spans: %v", len(spans), spans)
	}
	span := spans[0]
	if hex.EncodeToString(span.GetTraceId()) != traceID || hex.EncodeToString(span.GetParentSpanId()) != parent || span.GetName() != "isthmus.decide" {
		t.Errorf("the span %s is of trace %x under %x", span.GetName(), span.GetTraceId(), span.GetParentSpanId())
	}
	if span.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || span.GetEndTimeUnixNano() < span.GetStartTimeUnixNano() {
		t.Errorf("the span ends with %v at %d, from %d", span.GetStatus(), span.GetEndTimeUnixNano(), span.GetStartTimeUnixNano())
	}
	attributes := text(span.GetAttributes())
	for key, want := range map[string]string{"isthmus.peer": "west", "isthmus.class": "container-operation", "isthmus.request_id": "r1",
		"isthmus.verb": "list", "isthmus.outcome": "denied", "isthmus.object": "container/shop/", "isthmus.upstream": "orchestrator"} {
		if attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, attributes[key], want)
		}
	}
	for key, value := range attributes {
		if strings.Contains(value, "secret") {
			t.Errorf("%s tells the caller's query: %s", key, value)
		}
	}
}

func text(attributes []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return all
}

// fakeModule decides as its fields say.
type fakeModule struct {
	modules.Module
	verdict modules.Verdict
	err     error
}

func (m fakeModule) Decide(context.Context, *modules.Request) (modules.Verdict, error) {
	return m.verdict, m.err
}

// fakeExchange is an exchange whose steps give what its fields say.
type fakeExchange struct {
	other       *modules.Verdict
	requestErr  error
	responseErr error
}

func (fakeExchange) NeedBody() bool { return false }

func (fakeExchange) End() {}

func (e fakeExchange) Request(context.Context, []byte) (modules.Rewrite, *modules.Verdict, error) {
	return modules.Rewrite{Route: modules.Route{Upstream: "orchestrator"}}, e.other, e.requestErr
}

func (e fakeExchange) Response(context.Context, modules.Answer) (modules.Answer, error) {
	return modules.Answer{Status: http.StatusOK}, e.responseErr
}

func (fakeExchange) Record() modules.Record { return listed }

// TestAudited holds that each decision is one line before it is carried out, and each exchange's end another.
func TestAudited(t *testing.T) {
	t.Parallel()
	secret := fault.Wrap(fault.Denied, errors.New("policy team-b, rule 3"), "no permission: no policy allows it")
	for _, c := range []struct {
		name   string
		module fakeModule
		lines  []string // what each line must hold
	}{
		{"a route", fakeModule{verdict: modules.Verdict{Route: &modules.Route{}, Record: listed}}, []string{`"phase":"decided" "decision":"allow" "rule":"west/0" "verb":"list" "peer":"west" "caller":"ci-1" "id":"r1"`}},
		{"an answer", fakeModule{verdict: modules.Verdict{Answer: &modules.Answer{Status: 200}, Record: listed}}, []string{`"phase":"decided" "decision":"allow"`}},
		{"a refusal", fakeModule{verdict: modules.Verdict{Record: listed}, err: secret}, []string{`"decision":"deny" "status":403 "reason": policy team-b, rule 3`}},
		{"an exchange", fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{}, Record: listed}}, []string{`"phase":"decided" "decision":"allow" "follows":true`, `"phase":"done" "decision":"allow" "status":200`}},
		{"an exchange that is refused once its body is known", fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{requestErr: secret}}}, []string{`"phase":"decided" "decision":"deny" "status":403`}},
		{"an exchange that became a route", fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{other: &modules.Verdict{Route: &modules.Route{Upstream: "bridge"}, Record: modules.Record{Upstream: "bridge"}}}}}, []string{`"phase":"decided" "decision":"allow" "upstream":"bridge" "follows":true`}},
		{"an exchange that is denied by its answer", fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{responseErr: secret}}}, []string{`"phase":"decided" "decision":"allow"`, `"phase":"done" "decision":"deny" "status":403`}},
		{"an exchange whose answer cannot be read", fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{responseErr: fault.New(fault.Unavailable, "garbage")}}}, []string{`"phase":"decided"`, `"phase":"done" "decision":"allow" "status":503 garbage`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "audit.log")
			log, err := audit.Open(audit.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			lines := func() []string {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Split(strings.TrimSpace(string(data)), "\n")
			}
			req := request()
			verdict, err := Audited{Module: c.module, Log: log}.Decide(t.Context(), req)
			if !errors.Is(err, c.module.err) {
				t.Fatal(err)
			}
			if verdict.Exchange != nil {
				if got := lines(); got[0] != "" {
					t.Errorf("a decision is recorded before it is made: %v", got)
				}
				_, other, err := verdict.Exchange.Request(t.Context(), nil)
				if got := lines(); len(got) != 1 || got[0] == "" {
					t.Errorf("the decision is not recorded before it is carried out: %v", got)
				}
				if err == nil && other == nil {
					_, _ = verdict.Exchange.Response(t.Context(), modules.Answer{})
				}
			}
			got := lines()
			if len(got) != len(c.lines) {
				t.Fatalf("%d lines, want %d:\n%s", len(got), len(c.lines), strings.Join(got, "\n"))
			}
			for i, want := range c.lines {
				for _, word := range strings.Fields(want) {
					if !strings.Contains(got[i], word) {
						t.Errorf("line %d has no %s: %s", i, word, got[i])
					}
				}
				if strings.Contains(got[i], "filters") {
					t.Errorf("line %d tells the caller's query: %s", i, got[i])
				}
			}
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnauditedByChoice holds that an admin can have done what cannot be recorded, and is told of it.
func TestUnauditedByChoice(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full here")
	}
	var told []error
	log, err := audit.Open(audit.Config{Path: "/dev/full", Lenient: true, Report: func(err error) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for range 3 {
		_, err = Audited{Module: fakeModule{verdict: modules.Verdict{Route: &modules.Route{}, Record: listed}}, Log: log}.Decide(t.Context(), request())
		if err != nil {
			t.Errorf("a route: %v", err)
		}
	}
	if _, failed := log.Stats(); failed != 3 || len(told) != 1 || told[0] == nil {
		t.Errorf("%d lines failed, and the admin was told %v", failed, told)
	}
}

// TestPanicIsAudited holds that a decision that panicked is in the log as a refusal.
func TestPanicIsAudited(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is swallowed")
			}
		}()
		_, _ = Audited{Module: panicking{}, Log: log}.Decide(t.Context(), request())
	}()
	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"decision":"deny"`) || !strings.Contains(string(data), `"status":500`) {
		t.Errorf("the log is %q, %v", data, err)
	}
}

type panicking struct{ modules.Module }

func (panicking) Decide(context.Context, *modules.Request) (modules.Verdict, error) { panic("a bug") }

// TestHandedOn holds that a request that went on by itself has a line of its end.
func TestHandedOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	observer, _ := newTelemetry(t, "", path)
	observer.HandedOn(accesslog.End{ID: "r1", Trace: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", Peer: "west", Caller: "ci-1",
		Class: "container-operation", Verb: "list", Kind: "container", Namespace: "shop", Upstream: "orchestrator", Status: 200,
		Broke: "the caller went away", Duration: 1500 * time.Millisecond})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"phase":"done"`, `"id":"r1"`, `"trace":"0123456789abcdef0123456789abcdef"`, `"caller":"ci-1"`, `"status":200`,
		`"reason":"the caller went away"`, `"durationMs":1500`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the line has no %s: %s", want, data)
		}
	}
}

// TestUnaudited holds that nothing is done that cannot be recorded, and that a refusal stays one.
func TestUnaudited(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full here")
	}
	log, err := audit.Open(audit.Config{Path: "/dev/full"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	req := request()
	_, err = Audited{Module: fakeModule{verdict: modules.Verdict{Route: &modules.Route{}, Record: listed}}, Log: log}.Decide(t.Context(), req)
	if !fault.Is(err, fault.Unavailable) || fault.Of(err).Message != "the decision could not be recorded, so nothing was done" {
		t.Errorf("a route: %v", err)
	}
	_, err = Audited{Module: fakeModule{err: fault.New(fault.Denied, "no permission")}, Log: log}.Decide(t.Context(), req)
	if !fault.Is(err, fault.Denied) {
		t.Errorf("a refusal: %v", err)
	}
	verdict, err := Audited{Module: fakeModule{verdict: modules.Verdict{Exchange: fakeExchange{}}}, Log: log}.Decide(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := verdict.Exchange.Request(t.Context(), nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an exchange: %v", err)
	}
	if answer, err := verdict.Exchange.Response(t.Context(), modules.Answer{}); err != nil || answer.Status != http.StatusOK {
		t.Errorf("what was done is not answered: %+v, %v", answer, err)
	}
}
