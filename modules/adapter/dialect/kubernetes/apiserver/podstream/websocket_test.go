package podstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func dial(t *testing.T, w *world, protocol string, pairs ...string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{}
	if protocol != "" {
		dialer.Subprotocols = []string{"v9.channel.k8s.io", protocol}
	}
	ws, answer, err := dialer.Dial("ws"+strings.TrimPrefix(w.URL, "http")+"/?"+query(pairs...).Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if ws.Subprotocol() != protocol {
		t.Fatalf("the server speaks %q", ws.Subprotocol())
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	return ws
}

// Clients of browsers and scripts speak older protocols, and base64.
func TestWebSocketProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range socketProtocols {
		t.Run("protocol "+protocol, func(t *testing.T) {
			t.Parallel()
			text := strings.Contains(protocol, "base64")
			w := execWorld(t, process)
			ws := dial(t, w, protocol, "command=sh", "command=-c", "command=read x; echo got $x; exit 5", "stdin=1", "stdout=1", "stderr=1")
			kind, line := websocket.BinaryMessage, []byte("\x00hello\n")
			if text {
				kind, line = websocket.TextMessage, []byte("0"+base64.StdEncoding.EncodeToString([]byte("hello\n")))
			}
			for _, message := range [][]byte{nil, []byte("\x07nobody listens"), line} {
				if err := ws.WriteMessage(kind, message); err != nil {
					t.Fatal(err)
				}
			}
			got := map[byte]string{}
			for {
				_, message, err := ws.ReadMessage()
				if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
					break
				}
				if err != nil || len(message) == 0 {
					t.Fatalf("%q, %v", message, err)
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
			if got[channelStdout] != "got hello\n" {
				t.Errorf("got %q", got)
			}
			var status metav1.Status
			err := json.Unmarshal([]byte(got[channelError]), &status)
			if structured(protocol) && (err != nil || status.Reason != "NonZeroExitCode" || status.Details.Causes[0].Message != "5") {
				t.Errorf("ended with %q", got[channelError])
			}
			if !structured(protocol) && got[channelError] != "command terminated with non-zero exit code: exit code 5" {
				t.Errorf("ended with %q", got[channelError])
			}
			if err := w.wait(t); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// What breaks the protocol harms nobody.
func TestWebSocketRubbish(t *testing.T) {
	t.Parallel()
	for name, messages := range map[string][]string{
		"close signals": {"\xff", "\xff\x09", "\xff\x00", "\xff\x00", "\x00after the end"},
		"sizes":         {"\x04{", "\x04" + strings.Repeat("9", 4000), "\x04null", "\x04{\"Width\":70000}"},
		"big":           {"\x00" + strings.Repeat("x", 3<<20), "\x01" + strings.Repeat("x", 3<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := execWorld(t, func(_ context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
				_, err := io.Copy(io.Discard, session.Stdin())
				return neutral.Result{}, err
			})
			ws := dial(t, w, protocolV5, "command=x", "stdin=1", "stdout=1", "tty=1")
			for _, message := range append(messages, "\xff\x00") {
				if err := ws.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
					t.Fatal(err)
				}
			}
			for {
				_, message, err := ws.ReadMessage()
				if err != nil {
					t.Fatal(err)
				}
				if message[0] == channelError {
					break
				}
			}
			ws.Close()
			if err := w.wait(t); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// A client that types what nobody reads is told that somebody is there: its pings wait behind what it typed.
func TestWebSocketPong(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	w := execWorld(t, func(_ context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
		if err := session.Accept(); err != nil {
			return neutral.Result{}, err
		}
		<-end
		return neutral.Result{}, nil
	})
	ws := dial(t, w, protocolV5, "command=x", "stdin=1", "stdout=1")
	pongs := make(chan string, 8)
	ws.SetPongHandler(func(payload string) error { pongs <- payload; return nil })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}()
	if err := ws.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := <-pongs; got != "there?" {
		t.Errorf("pong %q", got)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("\x00nobody reads this")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pongs:
	case <-time.After(15 * time.Second):
		t.Error("no pong came")
	}
	close(end)
	if err := w.wait(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
	ws.Close()
	<-done
}
