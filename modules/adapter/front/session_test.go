package front

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack/hijacktest"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

const (
	attach    = "POST /v1.41/containers/c/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
	attachOld = "POST /v1.41/containers/c/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n"
)

func execStart(body string) string {
	return fmt.Sprintf("POST /v1.41/exec/e/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestSessionKeepsBothHalfCloses(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{"upgrade": attach, "old": attachOld} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket, _ := chain(t, Config{}, func(c hijacktest.Connection) {
				c.Accept(hijacktest.RawStream)
				typed, err := io.ReadAll(c.Reader)
				_, _ = fmt.Fprintf(c, "%d bytes, %v", len(typed), err)
			})
			c := dial(t, socket, head)
			answer := c.answer(t)
			want := http.StatusSwitchingProtocols
			if name == "old" {
				want = http.StatusOK
			}
			if answer.StatusCode != want || answer.Header.Get("Content-Type") != hijacktest.RawStream {
				t.Fatalf("answer %d %v", answer.StatusCode, answer.Header)
			}
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if said, err := io.ReadAll(c.reader); err != nil || string(said) != "1048576 bytes, <nil>" {
				t.Errorf("read %q, error %v", said, err)
			}
		})
	}
}

// A client may send before it was accepted.
func TestSessionTypedAhead(t *testing.T) {
	t.Parallel()
	socket, _ := chain(t, Config{}, func(c hijacktest.Connection) {
		time.Sleep(50 * time.Millisecond)
		c.Accept(hijacktest.RawStream)
		_, _ = io.Copy(c, c.Reader)
	})
	c := dial(t, socket, attach+"typed ahead")
	c.answer(t)
	_ = c.CloseWrite()
	if said, err := io.ReadAll(c.reader); err != nil || string(said) != "typed ahead" {
		t.Errorf("read %q, error %v", said, err)
	}
}

func TestSessionCarriesItsRequest(t *testing.T) {
	t.Parallel()
	asked := make(chan *http.Request, 1)
	edge, _ := newFakeEnvoy(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 13)
		if _, err := io.ReadFull(r.Body, body); err != nil || string(body) != `{"Tty":false}` {
			t.Errorf("body %q, error %v", body, err)
		}
		asked <- r.Clone(t.Context())
		w.Header().Set("Content-Type", hijacktest.MultiplexedStream)
		w.Header().Set("X-Isthmus-Secret", "gateways only")
		w.WriteHeader(http.StatusOK)
	}))
	socket, _ := serveFront(t, Config{Edge: edge, Admit: func(_ context.Context, c caller.Credentials) (caller.Identity, error) {
		return c.Owner, nil
	}})
	head := strings.Replace(execStart(`{"Tty":false}`), "Host: docker\r\n",
		"Host: docker\r\nX-Isthmus-Own-Peer: forged\r\nX-Isthmus-Link-Caller: root\r\nx-isthmus-link-session-body: 99\r\nUser-Agent: test\r\n", 1)
	c := dial(t, socket, head)
	answer := c.answer(t)
	if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Content-Type") != hijacktest.MultiplexedStream {
		t.Fatalf("answer %d %v", answer.StatusCode, answer.Header)
	}
	if rest, err := io.ReadAll(c.reader); err != nil || len(rest) != 0 {
		t.Errorf("read %q, error %v", rest, err)
	}
	r := <-asked
	if r.Method != http.MethodPost || r.Host != "api.east.isthmus.internal" || r.URL.RequestURI() != "/v1.41/exec/e/start" || r.ProtoMajor != 2 {
		t.Errorf("asked %s %s%s over HTTP/%d", r.Method, r.Host, r.URL, r.ProtoMajor)
	}
	want := map[string]string{names.HeaderSession: "tcp", names.HeaderSessionBody: "13", names.HeaderPeer: "", "User-Agent": "test",
		names.HeaderCaller: caller.Owner(caller.Process{User: uint32(os.Getuid())}).Name, "Upgrade": "", "Connection": ""}
	for key, value := range want {
		if r.Header.Get(key) != value {
			t.Errorf("header %s is %q, want %q", key, r.Header.Get(key), value)
		}
	}
}

// An exec that is detached answers at once and hijacks nothing; one that cannot be read gets the engine's own error.
func TestExecThatIsNoSession(t *testing.T) {
	t.Parallel()
	for body, status := range map[string]int{`{"Detach":true,"Tty":false}`: http.StatusOK, `{"Detach":`: http.StatusBadRequest} {
		socket, _ := chain(t, Config{}, func(c hijacktest.Connection) {
			if string(c.Body) != body || c.Request.Header.Get("Upgrade") != "" {
				t.Errorf("the engine was asked with %q, upgrade %q", c.Body, c.Request.Header.Get("Upgrade"))
			}
			c.Answer(status, "application/json", "{}")
		})
		if answer := dial(t, socket, execStart(body)).answer(t); answer.StatusCode != status {
			t.Errorf("%s: answer %d, want %d", body, answer.StatusCode, status)
		}
	}
}

func TestSessionThatIsRefused(t *testing.T) {
	t.Parallel()
	socket, _ := chain(t, Config{}, func(c hijacktest.Connection) {
		c.Answer(http.StatusNotFound, "application/json", `{"message":"No such container: c"}`)
	})
	c := dial(t, socket, attach)
	answer := c.answer(t)
	if got := body(t, answer); answer.StatusCode != http.StatusNotFound || answer.Header.Get("Content-Type") != "application/json" ||
		got != `{"message":"No such container: c"}` {
		t.Errorf("answer %d %q %q", answer.StatusCode, answer.Header.Get("Content-Type"), got)
	}
	// The connection goes on as an ordinary one.
	if _, err := io.WriteString(c, attach); err != nil {
		t.Fatal(err)
	}
	if answer := c.answer(t); answer.StatusCode != http.StatusNotFound {
		t.Errorf("second answer %d", answer.StatusCode)
	}
}

// A session that is cut must not look as if it had ended.
func TestSessionCut(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, head, mediaType string
		raw                   bool
	}{
		{name: "multiplexed", head: execStart("{}"), mediaType: hijacktest.MultiplexedStream},
		{name: "exec of an old API", head: execStart("{}"), mediaType: hijacktest.RawStream},
		{name: "attach of an old API", head: attach, mediaType: hijacktest.RawStream},
		{name: "terminal", head: execStart(`{"Tty":true}`), mediaType: hijacktest.RawStream, raw: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			defer close(release)
			socket, kill := chain(t, Config{}, func(c hijacktest.Connection) {
				c.Accept(tt.mediaType)
				if tt.raw {
					_, _ = io.WriteString(c, "$ ")
				} else {
					_, _ = c.Write(append(frame(1, "whole"), 1, 0, 0, 0, 0, 0, 0, 9, 'h', 'a', 'l', 'f')) // half of nine bytes
				}
				<-release
			})
			c := dial(t, socket, tt.head)
			c.answer(t)
			begin := make([]byte, 2)
			if _, err := io.ReadFull(c.reader, begin); err != nil {
				t.Fatal(err)
			}
			kill()
			rest, err := io.ReadAll(c.reader)
			if err != nil {
				t.Fatal(err)
			}
			if tt.raw {
				if string(begin)+string(rest) != "$ " {
					t.Errorf("read %q", string(begin)+string(rest))
				}
				return
			}
			frames := split(t, append(begin, rest...))
			if len(frames) != 3 || frames[0] != "1:whole" || frames[1] != "1:half" || frames[2] != "3:stream from peer east was cut\n" {
				t.Errorf("frames %q", frames)
			}
		})
	}
}

// split reads frames as a docker client does.
func split(t *testing.T, stream []byte) (frames []string) {
	t.Helper()
	for len(stream) > 0 {
		if len(stream) < frameHead {
			t.Fatalf("a frame's head is cut: %q", stream)
		}
		n := int(binary.BigEndian.Uint32(stream[4:]))
		if len(stream) < frameHead+n {
			t.Fatalf("a frame is cut: %q", stream)
		}
		frames = append(frames, fmt.Sprintf("%d:%s", stream[0], stream[frameHead:frameHead+n]))
		stream = stream[frameHead+n:]
	}
	return frames
}

func TestSessionWithoutEnvoy(t *testing.T) {
	t.Parallel()
	socket, _ := serveFront(t, Config{Edge: "/nonexistent/edge.sock"})
	for _, head := range []string{attach, "GET /v1.41/info HTTP/1.1\r\nHost: docker\r\n\r\n"} {
		answer := dial(t, socket, head).answer(t)
		got := body(t, answer)
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Content-Type") != "application/json" ||
			!strings.Contains(got, "the gateway's Envoy is not reachable") || strings.Contains(got, "edge.sock") {
			t.Errorf("answer %d %q", answer.StatusCode, got)
		}
	}
}

// Clients that do not keep to the protocol, or vanish in any of its phases, leave nothing behind.
//
//nolint:paralleltest // it counts goroutines
func TestSessionsAreReleased(t *testing.T) {
	accepted := make(chan struct{}, 100)
	socket, _ := chain(t, Config{}, func(c hijacktest.Connection) {
		if strings.Contains(c.Request.URL.Path, "busy") {
			time.Sleep(100 * time.Millisecond)
		}
		c.Accept(hijacktest.RawStream)
		accepted <- struct{}{}
		_, _ = io.Copy(io.Discard, c.Reader)
		buffer := make([]byte, 1) // silent until the connection is gone
		for {
			if _, err := c.Write(buffer[:0]); err != nil {
				return
			}
			if hungUpConn(c.UnixConn) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Run("vanishes", func(t *testing.T) {
		for range 10 {
			c := dial(t, socket, attach)
			c.answer(t)
			<-accepted
			_ = c.Close()
		}
	})
	t.Run("half-closes, then vanishes", func(t *testing.T) {
		for range 5 {
			c := dial(t, socket, attach)
			c.answer(t)
			<-accepted
			_ = c.CloseWrite()
			time.Sleep(10 * time.Millisecond)
			_ = c.Close()
		}
	})
	t.Run("vanishes before the answer", func(t *testing.T) {
		for range 5 {
			c := dial(t, socket, strings.Replace(attach, "/c/", "/busy/", 1))
			time.Sleep(20 * time.Millisecond)
			_ = c.Close()
		}
	})
	t.Run("truncated", func(t *testing.T) {
		for _, head := range []string{"POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 100\r\n\r\n{",
			"POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConn", "\x16\x03\x01\x02\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""} {
			c := dial(t, socket, head)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c.reader)
			_ = c.Close()
		}
	})
	waitReleased(t)
}

func TestSessionBodyTooLarge(t *testing.T) {
	t.Parallel()
	socket, _ := chain(t, Config{}, func(hijacktest.Connection) { t.Error("the engine was asked") })
	c := dial(t, socket, "POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2000000\r\n\r\n")
	go func() { _, _ = c.Write(bytes.Repeat([]byte(" "), 2000000)) }()
	if answer := c.answer(t); answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("answer %d", answer.StatusCode)
	}
}

// The drain lets sessions end, and breaks those that do not.
func TestDrain(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	edge, _ := newFakeEnvoy(t, farGateway(t, hijacktest.Engine(t, func(c hijacktest.Connection) {
		if c.Request.Method == http.MethodGet {
			c.Answer(http.StatusTeapot, "application/json", "{}")
			return
		}
		c.Accept(hijacktest.MultiplexedStream)
		c.Say(1, "begun")
		if strings.Contains(c.Request.URL.Path, "short") {
			<-release
			c.Say(1, "done")
			return
		}
		_, _ = io.Copy(io.Discard, c.Reader)
	})))
	socket, stop := serveFront(t, Config{Edge: edge, Drain: 2 * time.Second})
	short, long := dial(t, socket, strings.Replace(attach, "/c/", "/short/", 1)), dial(t, socket, attach)
	for _, c := range []client{short, long} {
		c.answer(t)
		if _, err := c.reader.Peek(1); err != nil {
			t.Fatal(err)
		}
	}
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	// New sessions are refused, ordinary requests are not: the short one's client will ask for its exit code.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answer := dial(t, socket, attach).answer(t)
		if answer.StatusCode == http.StatusServiceUnavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a new session in the drain: answer %d", answer.StatusCode)
		}
	}
	if answer := dial(t, socket, "GET /v1.41/exec/e/json HTTP/1.1\r\nHost: docker\r\n\r\n").answer(t); answer.StatusCode != http.StatusTeapot {
		t.Errorf("an ordinary request in the drain: answer %d", answer.StatusCode)
	}
	close(release)
	if said, err := io.ReadAll(short.reader); err != nil || strings.Join(split(t, said), " ") != "1:begun 1:done" {
		t.Errorf("the short one read %q, error %v", said, err)
	}
	_ = short.Close()
	said, err := io.ReadAll(long.reader)
	if frames := split(t, said); err != nil || len(frames) != 2 || !strings.HasPrefix(frames[1], "3:") {
		t.Errorf("the long one read %q, error %v", said, err)
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Error("the edge did not stop")
	}
}
