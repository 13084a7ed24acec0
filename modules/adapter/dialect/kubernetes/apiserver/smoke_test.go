package apiserver

import (
	"crypto/sha256"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/signal"
	"testing"
)

func TestServe(t *testing.T) {
	if os.Getenv("SERVE") == "" {
		t.Skip()
	}
	same := func(b []byte) ([]byte, error) { return b, nil }
	s := New(Config{Cluster: "west", Orchestrator: newFakeOrchestrator(), Seal: same, Unseal: same, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	_ = sha256.New
	server := httptest.NewUnstartedServer(s)
	server.Start()
	os.WriteFile(os.Getenv("SERVE"), []byte(server.URL), 0o644)
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	<-c
}
