package front

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// edgeOf serves a handler behind an edge and gives a client of it.
func edgeOf(t *testing.T, handler http.HandlerFunc) *http.Client {
	t.Helper()
	edge, _ := newFakeEnvoy(t, handler)
	socket, _ := serveFront(t, Config{Edge: edge})
	return httpClient(t, socket)
}

func TestForward(t *testing.T) {
	t.Parallel()
	c := edgeOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "api.east.isthmus.internal" || r.Header.Get(names.HeaderPeer) != "" || r.Header.Get("X-Registry-Auth") != "secret" {
			t.Errorf("asked host %q, header %v", r.Host, r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("X-Isthmus-Own-Route", "orchestrator")
		w.Header().Set("X-Envoy-Upstream-Service-Time", "3")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI())
	})
	// A query that cannot be parsed is the engine's to refuse; an escaped name stays escaped.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://docker/v1.41/images/a%2Fb/json?x=%zz;y", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Registry-Auth", "secret")
	r.Header.Set(names.HeaderPeer, "forged")
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if got := body(t, answer); answer.StatusCode != http.StatusCreated || got != "PUT /v1.41/images/a%2Fb/json?x=%zz;y" {
		t.Errorf("answer %d %q", answer.StatusCode, got)
	}
	if h := answer.Header; h.Get("Api-Version") != "1.41" || h.Get("X-Isthmus-Own-Route") != "" || h.Get("X-Envoy-Upstream-Service-Time") != "" ||
		h.Get("Content-Type") != "application/json" {
		t.Errorf("header %v", h)
	}
}

// The CLI waits for the head of a wait's answer before it starts the container.
func TestForwardFlushesTheHeadAtOnce(t *testing.T) {
	t.Parallel()
	exit := make(chan struct{})
	c := edgeOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		select {
		case <-exit:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, `{"StatusCode":3}`)
	})
	answer, err := c.Post("http://docker/v1.41/containers/c/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	close(exit)
	if got := body(t, answer); got != `{"StatusCode":3}` {
		t.Errorf("body %q", got)
	}
}

// A build's context goes up while its output comes down.
func TestForwardStreamsBothWays(t *testing.T) {
	t.Parallel()
	c := edgeOf(t, func(w http.ResponseWriter, r *http.Request) {
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintln(w, "got", lines.Text())
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}
	})
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker/build", in)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(out, "one\n") }()
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	said := bufio.NewReader(answer.Body)
	for _, word := range []string{"one", "two", "three"} {
		if line, err := said.ReadString('\n'); err != nil || line != "got "+word+"\n" {
			t.Fatalf("line %q, error %v", line, err)
		}
		next := map[string]string{"one": "two\n", "two": "three\n"}[word]
		if _, err := io.WriteString(out, next); err != nil {
			t.Fatal(err)
		}
	}
	_ = out.Close()
	if rest, err := io.ReadAll(said); err != nil || len(rest) != 0 {
		t.Errorf("rest %q, error %v", rest, err)
	}
}

// A log that breaks off says so in its own framing, and its end is no end.
func TestForwardedStreamIsCut(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, path, mediaType, sent, want string }{
		{"multiplexed", "/containers/c/logs", hijacktest.MultiplexedStream, string(frame(1, "line")),
			string(frame(1, "line")) + string(frame(3, "stream from peer east was cut\n"))},
		{"logs of an old API", "/v1.41/services/s/logs", "application/octet-stream", string(frame(2, "line")),
			string(frame(2, "line")) + string(frame(3, "stream from peer east was cut\n"))},
		{"logs of a terminal", "/containers/c/logs", "text/plain; charset=utf-8", "line", "line"},
		{"events", "/events", "application/json", `{"status":"start"}`, `{"status":"start"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{})
			c := edgeOf(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.mediaType)
				_, _ = io.WriteString(w, tt.sent)
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
				<-read
				panic(http.ErrAbortHandler)
			})
			answer, err := c.Get("http://docker" + tt.path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			begin := make([]byte, len(tt.sent))
			if _, err := io.ReadFull(answer.Body, begin); err != nil {
				t.Fatal(err)
			}
			close(read)
			rest, err := io.ReadAll(answer.Body)
			if !errors.Is(err, io.ErrUnexpectedEOF) || string(begin)+string(rest) != tt.want {
				t.Errorf("read %q, error %v; want %q", string(begin)+string(rest), err, tt.want)
			}
		})
	}
}

func TestForwardEnvoyGaveUp(t *testing.T) {
	t.Parallel()
	c := edgeOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Server", "envoy")
		if r.URL.Path == "/teapot" {
			w.WriteHeader(http.StatusTeapot)
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, "upstream connect error 10.0.0.7:15443")
	})
	for path, status := range map[string]int{"/info": http.StatusServiceUnavailable, "/teapot": http.StatusTeapot} {
		answer, err := c.Get("http://docker" + path)
		if err != nil {
			t.Fatal(err)
		}
		got := body(t, answer)
		_ = answer.Body.Close()
		if answer.StatusCode != status || (status == http.StatusServiceUnavailable) !=
			(answer.Header.Get("Content-Type") == "application/json" && strings.Contains(got, "peer east is not reachable") && !strings.Contains(got, "10.0.0.7")) {
			t.Errorf("answer %d %q %q", answer.StatusCode, answer.Header.Get("Content-Type"), got)
		}
	}
}

func TestUnservedUpgrades(t *testing.T) {
	t.Parallel()
	edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/info" || r.Header.Get("Upgrade") != "" {
			t.Errorf("asked %s with upgrade %q", r.URL, r.Header.Get("Upgrade"))
		}
	}))
	socket, _ := serveFront(t, Config{Edge: edge})
	tests := map[string]int{
		"POST /session HTTP/1.1\r\nUpgrade: h2c":                      http.StatusNotImplemented,
		"POST /v1.49/grpc HTTP/1.1\r\nUpgrade: h2c":                   http.StatusNotImplemented,
		"POST /session HTTP/1.1\r\nX-Docker-Expose-Session-Uuid: abc": http.StatusNotImplemented,
		"GET /containers/c/attach/ws HTTP/1.1\r\nUpgrade: websocket":  http.StatusNotImplemented,
		"GET /info HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM":   http.StatusOK,
	}
	for head, status := range tests {
		answer := dial(t, socket, head+"\r\nHost: docker\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n").answer(t)
		if answer.StatusCode != status {
			t.Errorf("%q: answer %d, want %d", head, answer.StatusCode, status)
		}
	}
}

// A client that goes away takes its request with it.
func TestForwardClientVanishes(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	socket, _ := serveFront(t, Config{Edge: edge})
	c := dial(t, socket, "GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
	c.answer(t)
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the far side still serves a client that is gone")
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	if got := errorBody("a \"quoted\" word"); !bytes.Equal(got, []byte("{\"message\":\"a \\\"quoted\\\" word\"}\n")) {
		t.Errorf("body %s", got)
	}
}

// A client that ends what it sends in the middle of a body may hear that this was its own doing, or find the connection
// closed, and never that a gateway failed.
func TestForwardTruncated(t *testing.T) {
	t.Parallel()
	for range 20 {
		edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusBadGateway) // what a gateway makes of it
		}))
		socket, _ := serveFront(t, Config{Edge: edge})
		c := dial(t, socket, "POST /v1.49/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"Cm")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(c.reader, nil)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, answer); answer.StatusCode != http.StatusBadRequest || !strings.Contains(got, "the request ended before its body did") {
			t.Fatalf("answer %d %q", answer.StatusCode, got)
		}
	}
}
