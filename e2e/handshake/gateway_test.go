package handshake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// isthmusEnv makes this test's process an isthmus.
const isthmusEnv = "ISTHMUS_TEST_MAIN"

// other is an isthmus of another version, for east.
var other = flag.String("other", "", "an isthmus binary that east runs, in place of the one under test")

func TestMain(m *testing.M) {
	if os.Getenv(isthmusEnv) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := app.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// gateway is isthmus and Envoy as processes, of a cluster whose engine is a fake that runs nothing. What it says goes
// through relays.
type gateway struct {
	name, dir    string
	orchestrator neutral.Orchestrator

	peer, edge, admin string       // addresses
	link              *relay.Link  // between this gateway's Envoy and the peer's
	calls             *relay.Calls // between isthmus and this gateway's Envoy

	envoy   string // the binary
	process *exec.Cmd
	ended   chan struct{}
}

// newGateway makes the folder of a gateway, which goes with root; nothing runs yet.
func newGateway(t, root *testing.T, name string) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-"+name) // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	host := loopback.NewHost()
	g := &gateway{name: name, dir: dir, orchestrator: neutral.Docker, envoy: loopback.Envoy(t),
		peer: loopback.Address(t, host), edge: loopback.Address(t, host), admin: loopback.Address(t, host)}
	root.Cleanup(func() { _ = os.RemoveAll(dir) })
	engine, err := net.Listen("unix", filepath.Join(dir, "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(fakeEngine), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(engine) }()
	root.Cleanup(func() { _ = server.Close() })
	return g
}

// declare writes the gateway's own document.
func (g *gateway) declare(t *testing.T) {
	t.Helper()
	orchestrator := fmt.Sprintf(`{type: docker, docker: {endpoint: "unix://%s/engine.sock"}}`, g.dir)
	if g.orchestrator == neutral.Kubernetes {
		// Its API is away. That tells nothing against shaking hands as one.
		orchestrator = fmt.Sprintf(`{type: kubernetes, kubernetes: {kubeconfig: %q, namespace: default}}`, filepath.Join(g.dir, "kubeconfig"))
		g.write(t, filepath.Join(g.dir, "kubeconfig"), `apiVersion: v1
kind: Config
current-context: away
contexts: [{name: away, context: {cluster: away, user: nobody}}]
clusters: [{name: away, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
`)
	}
	g.write(t, filepath.Join(g.config(), "gateway.yaml"), fmt.Sprintf(`apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: %s}
spec:
  stateDir: %s/state
  runDir: %s/run
  orchestrator: %s
  listeners: {peer: %q, http: %q, admin: %q}
  envoy: {concurrency: 1}
`, g.name, g.dir, g.dir, orchestrator, g.peer, g.edge, g.admin))
}

// knows makes other a peer, by way of this gateway's link, or a passive one that cannot be dialled.
func (g *gateway) knows(t *testing.T, other *gateway, passive bool) {
	t.Helper()
	addresses := fmt.Sprintf("addresses: [%q]", g.link.Address())
	if passive {
		addresses = ""
	}
	g.write(t, filepath.Join(g.config(), "peer.yaml"), fmt.Sprintf(`apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: %s}
spec: {%s}
`, other.name, addresses))
	bundle := filepath.Join(g.dir, "bundle")
	g.write(t, bundle, other.command(t, "trust", "export", "--config", other.config()))
	g.command(t, "trust", "import", "--config", g.config(), "--peer", other.name, bundle)
}

func (g *gateway) config() string { return filepath.Join(g.dir, "config") }

func (g *gateway) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// command runs a command of isthmus that must succeed.
func (g *gateway) command(t *testing.T, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	if code := app.Main(t.Context(), args, &out, &complaints); code != 0 {
		t.Fatalf("isthmus %v of %s: %s", args, g.name, complaints.String())
	}
	return out.String()
}

// start runs isthmus, which runs Envoy or takes over the one that runs.
func (g *gateway) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(g.dir, "isthmus.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	binary := os.Args[0]
	if g.name == "east" && *other != "" {
		binary = *other
	}
	process := exec.Command(binary, "gateway", "--config", g.config(), "--envoy", g.envoy, "--log-level", "debug")
	process.Env = append(os.Environ(), isthmusEnv+"=1")
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = process.Wait() }()
	g.process, g.ended = process, ended
}

// kill is kill -9 of isthmus; its Envoy goes on.
func (g *gateway) kill() {
	_ = g.process.Process.Kill() // fails for one that is dead
	<-g.ended
}

// stop is kill -15: isthmus says goodbye and ends its Envoy.
func (g *gateway) stop() { _ = g.process.Process.Signal(syscall.SIGTERM) } // fails for one that is dead

// end kills both of a gateway; to drain would take longer than most faults.
func (g *gateway) end() {
	g.kill()
	if pid, err := g.envoyProcess(); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // fails for one that is dead
	}
	if g.calls != nil {
		_ = g.calls.Close()
	}
}

// freeze stops isthmus where it stands; what is sent to it waits.
func (g *gateway) freeze() { _ = g.process.Process.Signal(syscall.SIGSTOP) }

// thaw lets it go on.
func (g *gateway) thaw() { _ = g.process.Process.Signal(syscall.SIGCONT) }

// envoyProcess is the process of Envoy.
func (g *gateway) envoyProcess() (int, error) {
	content, err := os.ReadFile(filepath.Join(g.dir, "run", "envoy-process.json"))
	if err != nil {
		return 0, err
	}
	var process struct{ PID int }
	if err := json.Unmarshal(content, &process); err != nil || process.PID == 0 {
		return 0, fmt.Errorf("%s: %w", content, err)
	}
	return process.PID, nil
}

// interpose puts a relay between isthmus and Envoy, as soon as Envoy is there.
func (g *gateway) interpose(t *testing.T) {
	t.Helper()
	if g.calls != nil {
		_ = g.calls.Close()
	}
	path := filepath.Join(g.dir, "run", names.EdgeSocket)
	if _, err := within(patience, func() error {
		conn, err := net.Dial("unix", path) // what is left of the relay or the Envoy before does not answer
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.calls, err = relay.Interpose(path); err != nil {
		t.Fatal(err)
	}
}

// asks is a client of the admin interface.
var asks = &http.Client{Timeout: 2 * time.Second}

// sees is how this gateway sees its peer.
func (g *gateway) sees() (app.PeerState, error) {
	response, err := asks.Get("http://" + g.admin + "/peers")
	if err != nil {
		return app.PeerState{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var peers []app.PeerState
	if err := json.NewDecoder(response.Body).Decode(&peers); err != nil {
		return app.PeerState{}, err
	}
	if len(peers) != 1 {
		return app.PeerState{}, fmt.Errorf("%d peers", len(peers))
	}
	return peers[0], nil
}

// tail is the end of the gateway's log.
func (g *gateway) tail() string {
	content, err := os.ReadFile(filepath.Join(g.dir, "isthmus.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(content), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// fakeEngine is as much of a Docker engine as a gateway asks that has no containers.
func fakeEngine(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.48")
	w.Header().Set("Content-Type", "application/json")
	switch strings.TrimPrefix(r.URL.Path, "/v1.48") {
	case "/_ping":
		fmt.Fprint(w, "OK")
	case "/containers/json", "/networks":
		fmt.Fprint(w, "[]")
	case "/version":
		fmt.Fprint(w, `{"Version":"28.0.0","ApiVersion":"1.48","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64"}`)
	case "/info":
		fmt.Fprint(w, `{"Name":"node-1","NCPU":2,"MemTotal":1073741824,"Swarm":{"LocalNodeState":"inactive"}}`)
	case "/events":
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"message":"This node is not a swarm manager."}`)
	}
}

// within waits for a condition that says what is missing, and tells how long it took.
func within(limit time.Duration, condition func() error) (time.Duration, error) {
	begun := time.Now()
	for {
		err := condition()
		if err == nil {
			return time.Since(begun), nil
		}
		if time.Since(begun) > limit {
			return 0, errors.Join(fmt.Errorf("not within %s", limit), err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}
