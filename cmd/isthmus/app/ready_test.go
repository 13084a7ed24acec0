package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHealth wants of the health listener what probes need, under whatever name, and nothing else.
func TestHealth(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t)
	server := httptest.NewServer((&admin{gateway: g, registry: g.registry, log: g.log}).health())
	defer server.Close()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/healthz", 200}, {"GET", "/readyz", 503}, {"GET", "/metrics", 200}, {"HEAD", "/healthz", 200},
		{"GET", "/status", 404}, {"GET", "/peers", 404}, {"POST", "/invitations", 404}, {"POST", "/healthz", 405}, {"GET", "/", 404},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "isthmus-health.isthmus.svc"
		request.Header.Set(adminHeader, "1")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, response.StatusCode, c.status)
		}
	}
	at := strings.TrimPrefix(server.URL, "http://")
	if _, err := outcome(t, "ready", "--admin", at); err == nil || !strings.Contains(err.Error(), "the orchestrator does not answer") {
		t.Errorf("isthmus ready: %v", err)
	}
}

func TestReadyWithin(t *testing.T) {
	t.Parallel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"ready": false, "message": "no Envoy is connected"}`))
		}
	}))
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "http://")
	if _, err := outcome(t, "ready", "--admin", at); err == nil || !strings.Contains(err.Error(), "no Envoy is connected") {
		t.Errorf("at once: %v", err)
	}
	if _, err := outcome(t, "ready", "--admin", at, "--within", "20s"); err != nil || asked != 3 {
		t.Errorf("within 20s, asked %d times: %v", asked, err)
	}
}

// Files are their admin's to remove.
func TestStateRemoveOfFiles(t *testing.T) {
	t.Parallel()
	config := documents(t, t.TempDir())
	if _, err := outcome(t, "state", "remove", "--config", config); err == nil || !strings.Contains(err.Error(), "spec.state.home is file") {
		t.Error(err)
	}
}
