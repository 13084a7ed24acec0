package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestLogGoesToMain holds that a gateway logs to the standard error that Main was given, and to no other.
func TestLogGoesToMain(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "west.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: west}
spec:
  stateDir: %s/state
  runDir: %s/run
  orchestrator: {type: docker, docker: {endpoint: "unix://%s/docker.sock"}}
  listeners: {admin: %q}
`, dir, dir, dir, free.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "trust", "init", "--config", config); code != 0 {
		t.Fatal(stderr)
	}
	free.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var log lines
	ended := make(chan int, 1)
	go func() { ended <- Main(ctx, []string{"gateway", "--config", config}, os.Stdout, &log) }()
	for ctx.Err() == nil && !strings.Contains(log.String(), `"msg":"the gateway runs"`) {
		time.Sleep(10 * time.Millisecond)
	}
	runs := ctx.Err() == nil
	cancel()
	if code := <-ended; code != 0 || !runs || !strings.Contains(log.String(), `"msg":"the gateway has ended"`) {
		t.Errorf("exit status %d, log %s", code, log.String())
	}
}
