package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// collectorAddress is where the gateways under test send traces, each within its own namespace.
const collectorAddress = "127.0.0.1:4317"

// collector keeps the spans that it is sent, by trace.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string][]string
}

func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		service := "?"
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				id := hex.EncodeToString(s.GetTraceId())
				c.spans[id] = append(c.spans[id], service+" "+s.GetName())
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (c *collector) trace(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.spans[id], "\n")
}

// A caller's trace goes on through both Envoys and isthmus to the upstream.
func TestTraces(t *testing.T) {
	scripting(t)
	defer turn("traces")()
	spans := &collector{spans: map[string][]string{}}
	for _, cluster := range []string{"west", "east"} {
		listener, err := running.Bed.Cluster(cluster).ListenIn(t.Context(), "tcp", collectorAddress)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		collectorv1.RegisterTraceServiceServer(server, spans)
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		t.Cleanup(func() { server.Stop(); <-done })
	}
	id := fmt.Sprintf("%032x", time.Now().UnixNano())
	deadline := time.Now().Add(40 * time.Second)
	for {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+running.Mesh.Gateway("west").Edge+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "hello.default.ctr.east.isthmus.internal:8080"
		request.Header.Set("traceparent", "00-"+id+"-00f067aa0ba902b7-01")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("status %d", response.StatusCode)
		}
		got := spans.trace(id)
		if strings.Contains(got, "isthmus isthmus.decide") && strings.Count(got, "\n") >= 2 && strings.Contains(got, "west") && strings.Contains(got, "east") {
			t.Logf("one trace:\n%s", got)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the trace is not whole:\n%s", got)
		}
		time.Sleep(time.Second)
	}
}
