package app

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
)

// TestCopyPrints holds that a peer's words do nothing to a terminal.
func TestCopyPrints(t *testing.T) {
	t.Parallel()
	var plan replica.Report
	if err := json.Unmarshal([]byte(`{"left":[{"object":"east/default/container/web","field":"Labels[a\u001b[2K\rb]","reason":"it says \"no\""}]}`), &plan); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printCopyPlan(&out, plan)
	if !strings.Contains(out.String(), `Labels[a\x1b[2K\rb]`) || !strings.Contains(out.String(), `"no"`) || strings.Contains(out.String(), "\x1b") {
		t.Errorf("printed is %q", out.String())
	}
}

// TestCopiesAreAskedFor serves no copy unless the Gateway document says so, and none at a peer that an anonymous caller
// may not ask.
func TestCopiesAreAskedFor(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t, peerEast)
	var log bytes.Buffer
	handler := (&admin{gateway: g, registry: g.registry, log: slog.New(slog.NewTextHandler(&log, nil))}).handler()
	ask := func(says string) {
		t.Helper()
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/copies",
			strings.NewReader(`{"from":"east/default/container/web","to":"west/default"}`))
		request.Host = "127.0.0.1:15000"
		request.Header.Set(adminHeader, "1")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), says) {
			t.Errorf("answered with %d %s, and not with %s", w.Code, w.Body, says)
		}
		if !strings.Contains(log.String(), "a copy was refused") || !strings.Contains(log.String(), says) {
			t.Errorf("logged is %s", &log)
		}
	}
	ask("spec.admin.copies")
	set := *g.set.Load()
	set.Gateway.Spec.Admin.Copies, set.Gateway.Spec.Callers.Unauthenticated = true, nil
	g.set.Store(&set)
	ask("spec.callers.unauthenticated")
}
