package front

import (
	"bufio"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// newFakeEnvoy stands for both Envoys: HTTP/2 without TLS on a Unix socket, in front of handler. It gives the socket and
// a function that kills it.
func newFakeEnvoy(t *testing.T, handler http.Handler) (socket string, kill func()) {
	t.Helper()
	socket = filepath.Join(hijacktest.SocketDir(t), "edge.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: time.Minute, ErrorLog: quiet()}
	ended := make(chan struct{})
	go func() {
		_ = server.Serve(listener)
		close(ended)
	}()
	kill = func() {
		_ = server.Close()
		<-ended
	}
	t.Cleanup(kill)
	return socket, kill
}

func quiet() *log.Logger { return slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) }

// farGateway is the far gateway in front of an engine: sessions are hijacked, everything else passes through.
func farGateway(t *testing.T, upstream neutral.Upstream) http.Handler {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return hijack.Dial(ctx, upstream)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "docker", "docker"
		},
		Transport: transport, FlushInterval: -1, ErrorLog: quiet(),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(names.HeaderSession) == "" {
			proxy.ServeHTTP(w, r)
			return
		}
		if err := hijack.Serve(w, r, upstream); err != nil {
			refuse(w, http.StatusServiceUnavailable, err.Error())
		}
	})
}

// serveFront starts an edge in front of an Envoy's socket. stop ends it and waits.
func serveFront(t *testing.T, config Config) (socket string, stop func()) {
	t.Helper()
	if config.Admit == nil {
		config.Admit = func(context.Context, caller.Credentials) (caller.Identity, error) { return caller.Identity{}, nil }
	}
	config.Peer, config.Authority = "east", "api.east.isthmus.internal"
	socket = filepath.Join(hijacktest.SocketDir(t), "east.sock")
	listener, err := Listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(config).Serve(ctx, listener) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return socket, stop
}

// chain is an edge, a fake Envoy, a far gateway and a fake engine.
func chain(t *testing.T, config Config, serve func(hijacktest.Connection)) (socket string, kill func()) {
	t.Helper()
	config.Edge, kill = newFakeEnvoy(t, farGateway(t, hijacktest.Engine(t, serve)))
	socket, _ = serveFront(t, config)
	return socket, kill
}

// client is a docker client's connection with its raw bytes.
type client struct {
	*net.UnixConn
	reader *bufio.Reader
}

// dial opens a connection and sends head.
func dial(t *testing.T, socket, head string) client {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	return client{UnixConn: conn, reader: bufio.NewReader(conn)}
}

// answer reads the head of an answer.
func (c client) answer(t *testing.T) *http.Response {
	t.Helper()
	answer, err := http.ReadResponse(c.reader, &http.Request{Method: http.MethodPost})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

// body reads an answer's body and its end.
func body(t *testing.T, answer *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// httpClient is an ordinary client of an edge.
func httpClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// waitReleased fails the test when goroutines that serve sessions outlive it.
func waitReleased(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := servingGoroutines()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// servingGoroutines are those inside a request or a session, of any edge.
func servingGoroutines() []string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var left []string
	for _, stack := range strings.Split(string(buffer), "\n\n") {
		for _, name := range []string{"front.(*Server).serve(", "front.watch(", "front.(*input)", "hijack.Serve(", "hijack.send("} {
			if strings.Contains(stack, name) {
				left = append(left, stack)
				break
			}
		}
	}
	return left
}
