package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// fakeEnvoy stands for both Envoys and the far gateway: HTTP/2 without TLS on a Unix socket. Sessions go to
// hijack.Serve as the far bridge does it, everything else to the engine.
type fakeEnvoy struct {
	socket string
	server *http.Server
}

func newFakeEnvoy(t *testing.T, handler http.Handler) *fakeEnvoy {
	t.Helper()
	socket := filepath.Join(socketDir(t), "edge.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	e := &fakeEnvoy{socket: socket, server: &http.Server{
		Handler: handler, Protocols: protocols, ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}}
	ended := make(chan struct{})
	go func() {
		_ = e.server.Serve(listener)
		close(ended)
	}()
	t.Cleanup(func() {
		_ = e.server.Close()
		<-ended
	})
	return e
}

// socketDir is short: a Unix socket's path has 108 bytes.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "front")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// engineHandler is the far gateway in front of an engine.
func engineHandler(upstream neutral.Upstream) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "docker", "docker"
		},
		Transport: &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return hijack.Dial(ctx, upstream)
		}},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(names.HeaderSession) != "" {
			if err := hijack.Serve(w, r, upstream); err != nil {
				refuse(w, http.StatusServiceUnavailable, err.Error())
			}
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// serveFront starts an edge in front of an Envoy's socket and gives its own.
func serveFront(t *testing.T, config Config) string {
	t.Helper()
	if config.Peer == "" {
		config.Peer, config.Authority = "east", "api.east.isthmus.internal"
	}
	if config.Log == nil {
		config.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	socket := filepath.Join(socketDir(t), "east.sock")
	listener, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(config).Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return socket
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// fakeEngine is a server of raw connections that reads a request's head and body itself.
func fakeEngine(t *testing.T, serve func(conn *net.UnixConn, r *http.Request, reader io.Reader)) neutral.Upstream {
	t.Helper()
	socket := filepath.Join(socketDir(t), "engine.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serveEngine(conn, serve)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return neutral.Upstream{Socket: socket}
}

// leakCheck fails the test when goroutines of this project outlive it. It runs after every other cleanup.
func leakCheck(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for {
			stacks := ownGoroutines()
			if len(stacks) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines outlive the test:\n%s", len(stacks), strings.Join(stacks, "\n\n"))
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// ownGoroutines are those that run this module's code outside of tests that still run.
func ownGoroutines() []string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var own []string
	for _, stack := range strings.Split(string(buffer), "\n\n") {
		if strings.Contains(stack, "isthmus/modules/adapter") && !strings.Contains(stack, "testing.tRunner") {
			own = append(own, stack)
		}
	}
	return own
}

var errEmpty = errors.New("empty")

// request writes a raw request and gives the connection back.
func request(t *testing.T, socket, head string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(conn, bytes.NewReader([]byte(head))); err != nil {
		t.Fatal(err)
	}
	return conn
}
