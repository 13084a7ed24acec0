package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"
)

func TestParseUsage(t *testing.T) {
	t.Parallel()
	got, err := parseUsage([]byte("4242 (wrk:worker (1) x) S 1 2 3 0 -1 4194560 5 6 7 8 150 25 9 9 20 0 4 0 777 1 2\n"))
	if err != nil || got != 1750*time.Millisecond {
		t.Errorf("got %v, %v, want 150 and 25 ticks", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "no stat at all", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if got, err := parseUsage([]byte(bad)); err == nil {
			t.Errorf("parseUsage(%q) = %v, want an error", bad, got)
		}
	}
}

// What is burnt must be seen.
func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	before, err := usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		after, err := usage(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a busy process takes no time")
		}
	}
}

const wrkReport = `Running 2s test @ http://127.0.0.1:15080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.04ms    1.50ms  20.75ms   76.10%
    Req/Sec     7.97k   302.16     8.35k    90.48%
  16654 requests in 2.10s, 3.92MB read
Requests/sec:   7930.72
Transfer/sec:      1.87MB
`

func TestParseWrk(t *testing.T) {
	t.Parallel()
	got, err := parseWrk(wrkReport)
	if err != nil || got.requests != 16654 || got.rate != 7930.72 {
		t.Errorf("got %+v, %v", got, err)
	}
	failed := strings.Replace(wrkReport, "Requests/sec:", "  Non-2xx or 3xx responses: 3\nRequests/sec:", 1)
	if _, err := parseWrk(failed); err == nil || !strings.Contains(err.Error(), "responses: 3") {
		t.Errorf("refusals pass for answers: %v", err)
	}
	broken := strings.Replace(wrkReport, "Requests/sec:", "  Socket errors: connect 0, read 5, write 0, timeout 0\nRequests/sec:", 1)
	for _, bad := range []string{broken, "", strings.Replace(wrkReport, "16654 requests", "0 requests", 1)} {
		if got, err := parseWrk(bad); err == nil {
			t.Errorf("got %+v of %q, want an error", got, bad)
		}
	}
}

func measured(name string, rates, costs, latencies []float64) *arm {
	return &arm{
		name: name, rates: rates, p50: latencies, p99: latencies,
		costs: map[string][]float64{"": costs, roleEnvoyEast: costs},
	}
}

// The file is what other tools read: a list of objects with exactly these fields.
func TestResultsFile(t *testing.T) {
	t.Parallel()
	ours := measured("ours", []float64{90, 95, 93}, []float64{110, 120, 115}, []float64{2, 2, 2})
	base := measured("base", []float64{100, 100, 100}, []float64{100, 100, 100}, []float64{1, 1, 1})
	report, err := newReport(true, &group{name: "g", arms: []*arm{ours, base}, comparisons: []comparison{{"a to b", ours, base}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "made", "results.json")
	if err := report.Write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Name, Unit                   *string
		Ours, Base, Ratio, Low, High *float64
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 5 {
		t.Fatalf("%d rows, want throughput, CPU twice and latency twice:\n%s", len(rows), data)
	}
	for i, r := range rows {
		if r.Name == nil || r.Unit == nil || r.Ours == nil || r.Base == nil || r.Ratio == nil || r.Low == nil || r.High == nil {
			t.Errorf("row %d lacks a field:\n%s", i, data)
		}
	}
	first := rows[0]
	if *first.Name != "a to b: throughput" || *first.Ours != 93 || *first.Base != 100 || *first.Ratio != 0.93 || *first.Low < 0.9 || *first.High > 0.95 {
		t.Errorf("the first row is wrong:\n%s", data)
	}
	var table strings.Builder
	if err := report.Print(&table); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "a to b: throughput") || strings.Contains(table.String(), "IN DOUBT") {
		t.Errorf("the table is wrong:\n%s", table.String())
	}
}

// Nobody may take a loaded machine's numbers for true.
func TestReportDoubtsItself(t *testing.T) {
	t.Parallel()
	same := []float64{1, 1, 1}
	base := measured(armPlain, []float64{100, 100, 100}, same, same)
	again := measured(armAgain, []float64{80, 85, 90}, same, same)
	again.late = 0.2
	report, err := newReport(true, &group{name: "g", arms: []*arm{base, again}, comparisons: []comparison{{"E to itself", again, base}}})
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(report.Notes, "\n")
	if !strings.Contains(notes, "throughput differs by 15.0 %") || !strings.Contains(notes, "late") || strings.Contains(notes, "CPU") {
		t.Errorf("notes:\n%s", notes)
	}
}

func TestTurns(t *testing.T) {
	t.Parallel()
	a, b := &arm{name: "a"}, &arm{name: "b"}
	g := &group{arms: []*arm{a, b}}
	if first, second := g.turns(0), g.turns(1); first[0] != a || first[1] != b || second[0] != b || second[1] != a || g.arms[0] != a {
		t.Error("rounds do not go forward and backward by turns")
	}
}

func TestBackend(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- answer(server, backendBody) }()
	reader := bufio.NewReader(client)
	// One request in two pieces; two requests in one.
	for _, sent := range [][]string{{"GET / HTTP/1.1\r\nHost:", " x\r\n\r\n"}, {"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n"}} {
		go func() {
			for _, piece := range sent {
				_, _ = client.Write([]byte(piece))
			}
		}()
		for range strings.Count(strings.Join(sent, ""), "GET ") {
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			var body bytes.Buffer
			if _, err := body.ReadFrom(response.Body); err != nil || !bytes.Equal(body.Bytes(), backendBody) {
				t.Fatalf("body %q, %v", body.String(), err)
			}
		}
	}
	go func() { _, _ = client.Write([]byte("POST / HTTP/1.1\r\n\r\n")) }()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "GET only") {
		t.Errorf("a POST ended with %v", err)
	}
}

func TestNoop(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "noop") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	socket := filepath.Join(dir, "s")
	go func() { served <- ServeNoop(ctx, socket) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := extprocv3.NewExternalProcessorClient(conn).Process(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestHeaders{
		RequestHeaders: &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{}},
	}}); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if set := response.GetRequestHeaders().GetResponse().GetHeaderMutation().GetSetHeaders(); len(set) != 1 {
		t.Errorf("%d headers are set, want one", len(set))
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The configurations differ in what an arm is about, and in nothing else.
func TestPlainEnvoy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, err := writeKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	render := func(e plainEnvoy) (text string, document map[string]any) {
		path := filepath.Join(dir, "envoy.yaml")
		if err := e.write(path); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &document); err != nil {
			t.Fatalf("%v:\n%s", err, data)
		}
		return string(data), document
	}
	far := plainEnvoy{Address: "10.0.0.1", Port: 1, OutAddress: "10.0.0.2", OutPort: 2, Far: true, Certificate: keys.east, Key: keys.eastKey, Authority: keys.authority, Peer: westID}
	text, document := render(far)
	if strings.Contains(text, "ext_proc") || !strings.Contains(text, "DownstreamTlsContext") || strings.Contains(text, "UpstreamTlsContext") {
		t.Errorf("far Envoy of E:\n%s", text)
	}
	if n := len(document["static_resources"].(map[string]any)["clusters"].([]any)); n != 1 {
		t.Errorf("%d clusters", n)
	}
	far.Processor = "/run/noop.sock"
	if text, _ := render(far); !strings.Contains(text, "ext_proc") || !strings.Contains(text, "/run/noop.sock") {
		t.Errorf("far Envoy of S:\n%s", text)
	}
	near := plainEnvoy{Address: "127.0.0.1", Port: 1, OutAddress: "10.0.0.1", OutPort: 1, Certificate: keys.west, Key: keys.westKey, Authority: keys.authority, Peer: eastID}
	if text, _ := render(near); strings.Contains(text, "DownstreamTlsContext") || !strings.Contains(text, "UpstreamTlsContext") {
		t.Errorf("near Envoy:\n%s", text)
	}
}
