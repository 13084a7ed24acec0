package podstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// backend is a container's port; serve has each connection.
func backend(t *testing.T, serve func(conn *net.TCPConn)) Dial {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { listener.Close(); group.Wait() })
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	return func(ctx context.Context, port uint16) (io.ReadWriteCloser, error) {
		if port != 80 {
			return nil, fmt.Errorf("dial 10.0.0.7:%d: %w", port, syscall.ECONNREFUSED)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	}
}

func echo(conn *net.TCPConn) {
	_, _ = io.Copy(conn, conn)
	_ = conn.CloseWrite()
}

func forwardWorld(t *testing.T, dial Dial) *world {
	return newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		f, err := ParsePortForward(r.URL.Query())
		if err != nil {
			return err
		}
		return f.Serve(w, r, dial)
	})
}

// dialerFunc makes a client of a world.
type dialerFunc = func(host string) (httpstream.Dialer, error)

// forwarders are client-go's dialers, as kubectl makes them.
var forwarders = map[string]dialerFunc{
	"websocket": func(host string) (httpstream.Dialer, error) {
		u, err := url.Parse(host)
		if err != nil {
			return nil, err
		}
		return portforward.NewSPDYOverWebsocketDialerForStreaming(u, &rest.Config{Host: host})
	},
	"spdy": func(host string) (httpstream.Dialer, error) {
		u, err := url.Parse(host)
		if err != nil {
			return nil, err
		}
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: host})
		if err != nil {
			return nil, err
		}
		return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), nil
	},
}

// forwarded is a client's forwarding of port 80.
type forwarded struct {
	address string
	stop    func() error // gives what ForwardPorts gave
}

func forward(t *testing.T, dialerOf dialerFunc, w *world, port int) forwarded {
	t.Helper()
	dialer, err := dialerOf(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewForStreaming(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var ended error
	end := func() error {
		once.Do(func() { close(stop); ended = <-done })
		return ended
	}
	t.Cleanup(func() { _ = end() })
	return forwarded{fmt.Sprintf("127.0.0.1:%d", ports[0].Local), end}
}

func eachForwarder(t *testing.T, test func(t *testing.T, dialerOf dialerFunc)) {
	for name, dialerOf := range forwarders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, dialerOf)
		})
	}
}

func (f forwarded) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		w := forwardWorld(t, backend(t, echo))
		f := forward(t, dialerOf, w, 80)
		var group sync.WaitGroup
		for i := range 20 {
			conn := f.dial(t)
			size := 1000 * i
			if i == 0 {
				size = 10 << 20
			}
			group.Go(func() {
				data := bytesOf(size)
				group.Go(func() {
					_, _ = conn.Write(data)
					_ = conn.CloseWrite()
				})
				got, err := io.ReadAll(conn)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
				}
			})
		}
		group.Wait()
		if err := f.stop(); err != nil {
			t.Errorf("the client: %v", err)
		}
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func bytesOf(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return data
}

// Either side may end one direction first.
func TestPortForwardHalfClose(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		w := forwardWorld(t, backend(t, func(conn *net.TCPConn) {
			heard, _ := io.ReadAll(conn)
			time.Sleep(100 * time.Millisecond)
			fmt.Fprintf(conn, "heard %q", heard)
		}))
		f := forward(t, dialerOf, w, 80)
		conn := f.dial(t)
		fmt.Fprint(conn, "hello")
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != `heard "hello"` {
			t.Errorf("%q, %v", got, err)
		}
	})
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		w := forwardWorld(t, backend(t, func(conn *net.TCPConn) { fmt.Fprint(conn, "bye") }))
		conn := forward(t, dialerOf, w, 80).dial(t)
		if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A connection that its client drops is dropped here, and no other.
func TestPortForwardDropped(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		ended := make(chan error, 1)
		w := forwardWorld(t, backend(t, func(conn *net.TCPConn) {
			first := make([]byte, 1)
			if _, _ = io.ReadFull(conn, first); first[0] == 'e' {
				echo(conn)
				return
			}
			for { // whatever its client says
				if _, err := conn.Write(bytes.Repeat([]byte("x"), 100)); err != nil {
					ended <- err
					return
				}
				time.Sleep(time.Millisecond)
			}
		}))
		dialer, err := dialerOf(w.URL)
		if err != nil {
			t.Fatal(err)
		}
		conn, _, err := dialer.Dial(protocolForward)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, dropped := streamsOf(t, conn, "1")
		_, other := streamsOf(t, conn, "2")
		fmt.Fprint(dropped, "x")
		fmt.Fprint(other, "e")
		if _, err := io.ReadFull(dropped, bytesOf(1000)); err != nil {
			t.Fatal(err)
		}
		_ = dropped.Reset()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("the container's connection stays")
		}
		fmt.Fprint(other, "still here")
		if _, err := io.ReadFull(other, bytesOf(10)); err != nil {
			t.Error(err)
		}
	})
}

// streamsOf are the streams of a connection.
func streamsOf(t *testing.T, conn httpstream.Connection, id string) (failures, data httpstream.Stream) {
	t.Helper()
	var streams [2]httpstream.Stream
	for i, kind := range []string{"error", "data"} {
		var err error
		streams[i], err = conn.CreateStream(http.Header{"Port": {"80"}, "Requestid": {id}, "Streamtype": {kind}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return streams[0], streams[1]
}

// What goes wrong with a connection is told, without addresses.
func TestPortForwardFailure(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		w := forwardWorld(t, backend(t, echo))
		dialer, err := dialerOf(w.URL)
		if err != nil {
			t.Fatal(err)
		}
		conn, _, err := dialer.Dial(protocolForward)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for port, want := range map[string]string{"81": "error forwarding port 81: connection refused", "80": ""} {
			headers := http.Header{"Port": {port}, "Requestid": {port}, "Streamtype": {"error"}}
			failures, err := conn.CreateStream(headers)
			if err != nil {
				t.Fatal(err)
			}
			failures.Close()
			headers = http.Header{"Port": {port}, "Requestid": {port}, "Streamtype": {"data"}}
			data, err := conn.CreateStream(headers)
			if err != nil {
				t.Fatal(err)
			}
			data.Close()
			if got, err := io.ReadAll(failures); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		}
		for _, headers := range []http.Header{{"Streamtype": {"data"}}, {"Streamtype": {"data"}, "Port": {"0"}}, {"Streamtype": {"x"}, "Port": {"1"}}, {"Port": {"1"}}} {
			if stream, err := conn.CreateStream(headers); err == nil {
				t.Errorf("%v is taken: %v", headers, stream)
			}
		}
	})
}

// Clients without ids of connections create the two streams one after the other.
func TestPortForwardWithoutID(t *testing.T) {
	t.Parallel()
	w := forwardWorld(t, backend(t, echo))
	dialer, err := forwarders["spdy"](w.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := dialer.Dial(protocolForward)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		var streams []httpstream.Stream
		for _, kind := range []string{"error", "data"} {
			stream, err := conn.CreateStream(http.Header{"Port": {"80"}, "Streamtype": {kind}})
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, stream)
		}
		fmt.Fprint(streams[1], "hi")
		streams[1].Close()
		if got, err := io.ReadAll(streams[1]); err != nil || string(got) != "hi" {
			t.Errorf("%q, %v", got, err)
		}
	}
	// Halves of pairs are let go of at the end.
	if _, err := conn.CreateStream(http.Header{"Port": {"80"}, "Streamtype": {"error"}}); err != nil {
		t.Fatal(err)
	}
}

// The end of the request ends all connections, also those that stand still.
func TestPortForwardServerEnds(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		dial := backend(t, func(conn *net.TCPConn) { _, _ = io.ReadFull(conn, bytesOf(1)); <-t.Context().Done() })
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
			return PortForward{}.Serve(w, r.WithContext(ctx), dial)
		})
		f := forward(t, dialerOf, w, 80)
		conn := f.dial(t)
		go func() { _, _ = io.Copy(conn, endless{}) }() // until nobody takes more
		time.Sleep(500 * time.Millisecond)
		cancel()
		var told *Told
		if err := w.wait(t); !errors.As(err, &told) {
			t.Errorf("Serve: %v", err)
		}
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

// A client that is gone while all stands still is found.
func TestPortForwardClientGone(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		dial := backend(t, func(*net.TCPConn) { <-t.Context().Done() })
		w := forwardWorld(t, dial)
		relay := newRelay(t, w, "unix")
		f := forward(t, dialerOf, relay.world, 80)
		conn := f.dial(t)
		go func() { _, _ = io.Copy(conn, endless{}) }()
		time.Sleep(500 * time.Millisecond)
		relay.cut()
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A client that reads nothing holds a container up, and what it says nowhere.
func TestPortForwardSlowReader(t *testing.T) {
	t.Parallel()
	eachForwarder(t, func(t *testing.T, dialerOf dialerFunc) {
		var said atomic.Int64
		w := forwardWorld(t, backend(t, func(conn *net.TCPConn) {
			for {
				n, err := conn.Write(bytesOf(256 << 10))
				said.Add(int64(n))
				if err != nil {
					return
				}
			}
		}))
		f := forward(t, dialerOf, w, 80)
		conn := f.dial(t)
		before := int64(-1)
		for said.Load() != before || before == 0 {
			before = said.Load()
			time.Sleep(500 * time.Millisecond)
		}
		if before > 64<<20 {
			t.Errorf("%d bytes were said, and nobody read", before)
		}
		conn.Close()
		_ = f.stop()
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// Scripts forward one connection to each port in channels of a WebSocket.
func TestPortForwardChannels(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""} {
		t.Run("protocol "+protocol, func(t *testing.T) {
			t.Parallel()
			w := forwardWorld(t, backend(t, func(conn *net.TCPConn) {
				got := make([]byte, 4)
				_, _ = io.ReadFull(conn, got)
				fmt.Fprintf(conn, "got %s", got)
			}))
			ws := dial(t, w, protocol, "ports=80,81", "ports=80")
			text := strings.Contains(protocol, "base64")
			encode := func(channel byte, data string) (int, []byte) {
				if text {
					return websocket.TextMessage, []byte(string('0'+channel) + base64.StdEncoding.EncodeToString([]byte(data)))
				}
				return websocket.BinaryMessage, append([]byte{channel}, data...)
			}
			for _, channel := range []byte{0, 4, 1, 9} {
				if err := ws.WriteMessage(encode(channel, "ping")); err != nil {
					t.Fatal(err)
				}
			}
			got := map[byte]string{}
			for {
				_, message, err := ws.ReadMessage()
				if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				channel, data := message[0], message[1:]
				if text {
					channel -= '0'
					if data, err = base64.StdEncoding.DecodeString(string(data)); err != nil {
						t.Fatal(err)
					}
				}
				got[channel] += string(data)
			}
			ws.Close()
			for channel, want := range map[byte]string{
				0: "P\x00got ping", 1: "P\x00", 2: "Q\x00", 3: "Q\x00error forwarding port 81: connection refused", 4: "P\x00got ping", 5: "P\x00",
			} {
				if got[channel] != want {
					t.Errorf("channel %d: %q", channel, got[channel])
				}
			}
			if err := w.wait(t); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// The end of a script ends its connections.
func TestPortForwardChannelsGone(t *testing.T) {
	t.Parallel()
	w := forwardWorld(t, backend(t, func(*net.TCPConn) { <-t.Context().Done() }))
	ws := dial(t, w, "v4.channel.k8s.io", "ports=80")
	if _, _, err := ws.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ws.Close()
	if err := w.wait(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestParsePortForward(t *testing.T) {
	t.Parallel()
	f, err := ParsePortForward(query("ports=80,443", "ports=1"))
	if err != nil || fmt.Sprint(f.Ports) != "[80 443 1]" {
		t.Errorf("%v, %v", f, err)
	}
	for _, bad := range []string{"", "0", "65536", "x", "80,", strings.Repeat("1,", 50) + "1"} {
		if _, err := ParsePortForward(query("ports=" + bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPortForwardRefusals(t *testing.T) {
	t.Parallel()
	w := forwardWorld(t, backend(t, echo))
	for name, header := range map[string]map[string]string{
		"Upgrade request required":      nil,
		"unable to negotiate protocol":  {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"},
		`query parameter \"ports\" is`:  {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="},
		"the WebSocket's version must ": {"Connection": "Upgrade", "Upgrade": "websocket"},
	} {
		r, err := http.NewRequest(http.MethodGet, w.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range header {
			r.Header.Set(key, value)
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), name) {
			t.Errorf("%d %s, want %s", answer.StatusCode, body, name)
		}
	}
}
