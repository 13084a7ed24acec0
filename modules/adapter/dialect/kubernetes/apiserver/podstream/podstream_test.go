package podstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftovers(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers are goroutines of this package, and of what it started, that do not end.
func leftovers() string {
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		left = nil
		stacks := make([]byte, 8<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, stack := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(stack, "podstream.TestMain") {
				continue
			}
			if strings.Contains(stack, "apiserver/podstream.") || strings.Contains(stack, "moby/spdystream.") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}

// world is a server of one Pod's streams.
type world struct {
	*httptest.Server
	ended chan error // what Serve gave
}

func newWorld(t *testing.T, serve func(w http.ResponseWriter, r *http.Request) error) *world {
	t.Helper()
	world := &world{ended: make(chan error, 16)}
	world.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := serve(w, r)
		var told *Told
		if err != nil && !errors.As(err, &told) {
			f := fault.Of(err)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(f.Kind.Status())
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status: metav1.StatusFailure, Message: f.Message, Code: int32(f.Kind.Status())})
		}
		select {
		case world.ended <- err:
		default: // nobody asks for so many
		}
	}))
	t.Cleanup(world.Close)
	return world
}

func execWorld(t *testing.T, run func(ctx context.Context, spec neutral.ExecSpec, session neutral.Session) (neutral.Result, error)) *world {
	return newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		e, err := ParseExec(r.URL.Query())
		if err != nil {
			return err
		}
		return e.Serve(w, r, func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
			return run(ctx, e.Spec, session)
		})
	})
}

// wait gives what Serve gave, and fails when it hangs.
func (w *world) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(20 * time.Second):
		stacks := make([]byte, 1<<20)
		t.Fatalf("the server hangs\n%s", stacks[:runtime.Stack(stacks, true)])
		return nil
	}
}

// relay is a world behind a relay that can be cut. Between the two is a Unix socket, as in a gateway, or TCP.
type relay struct {
	*world
	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, w *world, network string) *relay {
	address := w.Listener.Addr().String()
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
		inner, err := net.Listen("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: w.Config.Handler}
		go func() { _ = server.Serve(inner) }()
		t.Cleanup(func() { server.Close() })
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{world: &world{Server: &httptest.Server{URL: "http://" + listener.Addr().String(), Listener: listener}, ended: w.ended}}
	t.Cleanup(func() { listener.Close(); r.cut() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial(network, address)
			if err != nil {
				near.Close()
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			go func() { _, _ = io.Copy(far, near) }()
			go func() { _, _ = io.Copy(near, far) }()
		}
	}()
	return r
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		conn.Close()
	}
}

// process runs the command on this machine, as a container would.
func process(ctx context.Context, spec neutral.ExecSpec, session neutral.Session) (neutral.Result, error) {
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	command := exec.CommandContext(ctx, spec.Command[0], spec.Command[1:]...)
	command.Stdout, command.Stderr = writer{session, neutral.Stdout}, writer{session, neutral.Stderr}
	if stdin := session.Stdin(); stdin != nil {
		pipe, err := command.StdinPipe()
		if err != nil {
			return neutral.Result{}, err
		}
		go func() { // ends with the session
			_, _ = io.Copy(pipe, stdin)
			pipe.Close()
		}()
	}
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return neutral.Result{ExitCode: exit.ExitCode()}, nil
	}
	return neutral.Result{}, err
}

type writer struct {
	session neutral.Session
	stream  neutral.Stream
}

func (w writer) Write(p []byte) (int, error) {
	if err := w.session.Output(neutral.Chunk{Stream: w.stream, Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func query(pairs ...string) url.Values {
	values := url.Values{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		values.Add(name, value)
	}
	return values
}

// executors are client-go's, by what they speak.
var executors = map[string]func(host string, query url.Values) (remotecommand.Executor, error){
	"websocket": func(host string, query url.Values) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{Host: host}, "GET", host+"/?"+query.Encode())
	},
	"spdy": func(host string, query url.Values) (remotecommand.Executor, error) {
		u, err := url.Parse(host + "/?" + query.Encode())
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutor(&rest.Config{Host: host}, "POST", u)
	},
	"spdy by GET": func(host string, query url.Values) (remotecommand.Executor, error) { // as Envoy makes it
		u, err := url.Parse(host + "/?" + query.Encode())
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutor(&rest.Config{Host: host}, "GET", u)
	},
}

// each runs a test with every executor.
func each(t *testing.T, test func(t *testing.T, executor func(w *world, pairs ...string) remotecommand.Executor)) {
	for name, executorOf := range executors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, func(w *world, pairs ...string) remotecommand.Executor {
				t.Helper()
				e, err := executorOf(w.URL, query(pairs...))
				if err != nil {
					t.Fatal(err)
				}
				return e
			})
		})
	}
}
