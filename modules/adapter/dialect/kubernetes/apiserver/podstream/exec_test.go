package podstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

type executorOf = func(w *world, pairs ...string) remotecommand.Executor

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestExecOutput(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := execWorld(t, process)
		var stdout, stderr bytes.Buffer
		err := executor(w, "command=sh", "command=-c", "command=echo out; echo err >&2; exit 7", "stdout=true", "stderr=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("ended with %v, want exit code 7", err)
		}
		if stdout.String() != "out\n" || stderr.String() != "err\n" {
			t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
		}
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestExecBothWays(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := execWorld(t, process)
		data := make([]byte, 10<<20)
		_, _ = rand.Read(data)
		sum := sha256.New()
		err := executor(w, "command=cat", "stdin=true", "stdout=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: bytes.NewReader(data), Stdout: sum})
		if err != nil {
			t.Fatal(err)
		}
		if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
			t.Error("what came back differs")
		}
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// After its half-close a client still gets what comes.
func TestExecHalfClose(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := execWorld(t, process)
		var stdout bytes.Buffer
		err := executor(w, "command=sh", "command=-c", "command=wc -c; sleep 0.2; echo late", "stdin=true", "stdout=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: strings.NewReader("12345"), Stdout: &stdout})
		if err != nil || strings.Join(strings.Fields(stdout.String()), " ") != "5 late" {
			t.Errorf("%q, %v", stdout.String(), err)
		}
	})
}

// A command that ends without reading what is typed loses none of its output.
func TestExecUnreadStdin(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := execWorld(t, func(_ context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
			for range 64 {
				if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: bytes.Repeat([]byte("x"), 64<<10)}); err != nil {
					return neutral.Result{}, err
				}
			}
			return neutral.Result{ExitCode: 3}, nil
		})
		var stdout counter
		err := executor(w, "command=x", "stdin=true", "stdout=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: endless{}, Stdout: &stdout})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 3 || stdout.Load() != 64*64<<10 {
			t.Errorf("%d bytes, %v", stdout.Load(), err)
		}
		if err := w.wait(t); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.Add(int64(len(p))); return len(p), nil }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestExecResize(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := execWorld(t, func(ctx context.Context, spec neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
			if !spec.TTY || spec.Stderr {
				return neutral.Result{}, fmt.Errorf("spec %+v", spec)
			}
			if err := session.Accept(); err != nil {
				return neutral.Result{}, err
			}
			for {
				select {
				case size := <-session.Resizes():
					fmt.Fprintf(writer{session, neutral.Stdout}, "%dx%d ", size.Columns, size.Rows)
					if size.Rows == 50 {
						return neutral.Result{}, nil
					}
				case <-ctx.Done():
					return neutral.Result{}, ctx.Err()
				}
			}
		})
		sizes := make(sizes, 3)
		sizes <- remotecommand.TerminalSize{Width: 80, Height: 24}
		var stdout bytes.Buffer
		first := writeFunc(func(p []byte) (int, error) {
			if stdout.Len() == 0 {
				sizes <- remotecommand.TerminalSize{Width: 132, Height: 50}
			}
			return stdout.Write(p)
		})
		err := executor(w, "command=sh", "stdin=true", "stdout=true", "stderr=true", "tty=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: silent{t.Context()}, Stdout: first, Tty: true, TerminalSizeQueue: sizes})
		close(sizes)
		if err != nil || stdout.String() != "80x24 132x50 " {
			t.Errorf("%q, %v", stdout.String(), err)
		}
	})
}

type writeFunc func(p []byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, open := <-s
	if !open {
		return nil
	}
	return &size
}

// silent is somebody who types nothing.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, io.EOF }

// A failure before the stream began is a plain answer, one after it ends the stream.
func TestExecFailure(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{true, false} {
		each(t, func(t *testing.T, executor executorOf) {
			w := execWorld(t, func(_ context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
				if !early {
					if err := session.Accept(); err != nil {
						return neutral.Result{}, err
					}
				}
				return neutral.Result{}, fault.Wrap(fault.Conflict, errors.New("at 10.0.0.7"), "the container is paused")
			})
			err := executor(w, "command=x", "stdout=true").StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: io.Discard})
			text := fmt.Sprint(err)
			var failure *httpstream.UpgradeFailureError
			if errors.As(err, &failure) {
				text = fmt.Sprint(failure.Cause)
			}
			if !strings.Contains(text, "the container is paused") || strings.Contains(text, "10.0.0.7") {
				t.Errorf("got %v", text)
			}
			var told *Told
			if err := w.wait(t); errors.As(err, &told) == early || !fault.Is(err, fault.Conflict) {
				t.Errorf("Serve: %#v", err)
			}
		})
	}
}

// A client that goes away ends the run, also while it has typed what nobody reads.
func TestExecClientGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stdin   io.Reader
		network string
	}{"silent": {silent{t.Context()}, "unix"}, "typing": {endless{}, "unix"}, "typing over TCP": {endless{}, "tcp"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, executor executorOf) {
				begun := make(chan struct{})
				w := execWorld(t, func(ctx context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
					if err := session.Accept(); err != nil {
						return neutral.Result{}, err
					}
					close(begun)
					<-ctx.Done()
					if session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("x")}) == nil {
						_ = session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("x")})
					}
					if n, err := session.Stdin().Read(make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
						return neutral.Result{}, errors.New("a client that went away is taken for one that has typed all")
					}
					return neutral.Result{}, ctx.Err()
				})
				ctx, cancel := context.WithCancel(limited(t))
				done := make(chan error, 1)
				relay := newRelay(t, w, test.network)
				e := executor(relay.world, "command=x", "stdin=true", "stdout=true")
				go func() {
					done <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: test.stdin, Stdout: io.Discard})
				}()
				<-begun
				time.Sleep(200 * time.Millisecond)
				relay.cut() // a client of SPDY that types cannot even be cancelled
				cancel()
				<-done
				if err := w.wait(t); !errors.Is(err, errGone) {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}

// A run whose server ends tells so.
func TestExecServerEnds(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			e, err := ParseExec(r.URL.Query())
			if err != nil {
				return err
			}
			return e.Serve(w, r.WithContext(ctx), func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
				if err := session.Accept(); err != nil {
					return neutral.Result{}, err
				}
				cancel()
				<-ctx.Done()
				return neutral.Result{}, ctx.Err()
			})
		})
		err := executor(w, "command=x", "stdin=true", "stdout=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: silent{t.Context()}, Stdout: io.Discard})
		if err == nil {
			t.Error("a run that was cancelled seems to have succeeded")
		}
		if err := w.wait(t); err == nil {
			t.Error("Serve says nothing")
		}
	})
}

// A client that reads nothing holds the run up, and its output nowhere.
func TestExecSlowReader(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		var written atomic.Int64
		w := execWorld(t, func(ctx context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
			for ctx.Err() == nil {
				if err := session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: make([]byte, 256<<10)}); err != nil {
					return neutral.Result{}, err
				}
				written.Add(256 << 10)
			}
			return neutral.Result{}, ctx.Err()
		})
		ctx, cancel := context.WithCancel(limited(t))
		done := make(chan error, 1)
		e := executor(w, "command=x", "stdout=true")
		go func() {
			done <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: writeFunc(func([]byte) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})})
		}()
		before := int64(-1)
		for written.Load() != before || before == 0 {
			before = written.Load()
			time.Sleep(500 * time.Millisecond)
		}
		if before > 32<<20 {
			t.Errorf("%d bytes went out, and nobody read", before)
		}
		cancel()
		<-done
		if err := w.wait(t); err == nil {
			t.Error("Serve says nothing")
		}
	})
}

// What is typed and not read takes no memory, and its client stays.
func TestExecSlowStdin(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		var typed counter
		w := execWorld(t, func(_ context.Context, _ neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
			if err := session.Accept(); err != nil {
				return neutral.Result{}, err
			}
			before := int64(-1)
			for typed.Load() != before || before == 0 {
				before = typed.Load()
				time.Sleep(500 * time.Millisecond)
			}
			if before > 32<<20 {
				t.Errorf("%d bytes came in, and nobody read", before)
			}
			return neutral.Result{}, nil
		})
		err := executor(w, "command=x", "stdin=true", "stdout=true").
			StreamWithContext(limited(t), remotecommand.StreamOptions{Stdin: io.TeeReader(endless{}, &typed), Stdout: io.Discard})
		if err != nil {
			t.Error(err)
		}
	})
}

// Clients fall back from one upgrade to the other by the answer.
func TestExecFallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		if isWebSocket(r) {
			return fault.New(fault.Invalid, "no WebSocket today")
		}
		return Exec{Spec: neutral.ExecSpec{Stdout: true}}.Serve(w, r, func(_ context.Context, session neutral.Session) (neutral.Result, error) {
			return neutral.Result{}, session.Output(neutral.Chunk{Stream: neutral.Stdout, Data: []byte("hi")})
		})
	})
	socket, err := executors["websocket"](w.URL, query("stdout=true"))
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := executors["spdy"](w.URL, query("stdout=true"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewFallbackExecutor(socket, spdy, httpstream.IsUpgradeFailure)
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	if err := e.StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &stdout}); err != nil || stdout.String() != "hi" {
		t.Errorf("%q, %v", stdout.String(), err)
	}
}

// Old clients speak old protocols.
func TestExecProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range spdyProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := execWorld(t, process)
			u := w.URL + "/?" + query("command=sh", "command=-c", "command=echo out; echo err >&2; exit 7", "stdout=true", "stderr=true").Encode()
			e := spdyExecutor(t, w, u, protocol)
			var stdout, stderr bytes.Buffer
			err := e.StreamWithContext(limited(t), remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
			if stdout.String() != "out\n" || stderr.String() != "err\n" {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			if want := "exit code 7"; protocol != protocolV1 && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("ended with %v", err) // the client of v1 does not wait for its error stream
			}
			_ = w.wait(t)
		})
	}
}

func TestExecRefusals(t *testing.T) {
	t.Parallel()
	w := execWorld(t, process)
	q := "/?" + query("command=true", "stdout=true").Encode()
	for name, test := range map[string]struct {
		method, path string
		header       map[string]string
		want         string
	}{
		"plain":              {"POST", q, nil, "Upgrade request required"},
		"other upgrade":      {"POST", q, map[string]string{"Connection": "Upgrade", "Upgrade": "tcp"}, "Upgrade request required"},
		"no command":         {"POST", "/?stdout=true", nil, "you must specify at least one command for exec"},
		"no stream":          {"POST", "/?command=x", nil, "you must specify at least 1 of stdin, stdout, stderr"},
		"spdy, no protocol":  {"POST", q, map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}, "X-Stream-Protocol-Version is missing"},
		"spdy, protocol":     {"POST", q, map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v9"}, "unable to negotiate protocol"},
		"websocket by POST":  {"POST", q, map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"}, "by GET"},
		"websocket, version": {"GET", q, map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"}, "version must be 13"},
		"websocket, key":     {"GET", q, map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}, "Sec-WebSocket-Key"},
		"websocket, protocol": {"GET", q, map[string]string{"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Protocol": "v9.channel.k8s.io"}, "unable to negotiate protocol"},
		"websocket, bad key": {"GET", q, map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "x", "Sec-WebSocket-Protocol": "v5.channel.k8s.io"}, "Sec-WebSocket-Key"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(test.method, w.URL+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range test.header {
				r.Header.Set(key, value)
			}
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), test.want) {
				t.Errorf("%d %s", answer.StatusCode, body)
			}
		})
	}
}

// A client that announces streams and creates none is let go.
func TestExecClientStalls(t *testing.T) {
	t.Parallel()
	w := execWorld(t, process)
	conn, err := net.Dial("tcp", w.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /?command=true&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")
	if _, err := io.ReadAtLeast(conn, make([]byte, 64), 12); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	var told *Told
	if err := w.wait(t); !errors.As(err, &told) {
		t.Errorf("Serve: %v", err)
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, executor executorOf) {
		w := newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
			a, err := ParseAttach(r.URL.Query())
			if err != nil {
				return err
			}
			return a.Serve(w, r, func(_ context.Context, session neutral.Session) (neutral.Result, error) {
				_, err := io.Copy(writer{session, neutral.Stderr}, session.Stdin())
				return neutral.Result{ExitCode: 9}, err // which attach does not tell
			})
		})
		var stderr bytes.Buffer
		err := executor(w, "container=web", "stdin=1", "stdout=1", "stderr=1").StreamWithContext(limited(t),
			remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: io.Discard, Stderr: &stderr})
		if err != nil || stderr.String() != "hello" {
			t.Errorf("%q, %v", stderr.String(), err)
		}
	})
}

func spdyExecutor(t *testing.T, w *world, address string, protocols ...string) remotecommand.Executor {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: w.URL})
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", u, protocols...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
