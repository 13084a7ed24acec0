package envoytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app"
	"github.com/isthmus-mesh/isthmus/e2e/loopback"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// isthmusEnv makes this test's process an isthmus.
const isthmusEnv = "ISTHMUS_TEST_MAIN"

// site is a whole gateway, isthmus and Envoy as processes, of a cluster whose engine is a fake that runs services on
// this machine.
type site struct {
	t                 *testing.T
	name, dir         string
	peer, edge, admin string                     // addresses
	issue             func() (trust.Pair, error) // a certificate as the gateway would be issued at that moment
	process           *exec.Cmd
	ended             chan struct{}
	log               *os.File
}

// service is what the fake engine runs: a container in the host's network.
type service struct {
	name string
	at   netip.AddrPort
	app  string
}

// newSite writes the documents of a gateway; nothing runs yet.
func newSite(t *testing.T, name string, services ...service) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-"+name) // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	host := loopback.NewHost()
	s := &site{t: t, name: name, dir: dir,
		peer: loopback.Address(t, host), edge: loopback.Address(t, host), admin: loopback.Address(t, host)}
	s.issue = func() (trust.Pair, error) {
		authority, err := trust.Open(s.trustDir())
		if err != nil {
			return trust.Pair{}, err
		}
		return authority.Issue(time.Now(), time.Hour)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, file := range []string{"isthmus.log", "state/envoy.log"} {
				if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil && len(b) > 0 {
					t.Logf("%s of %s:\n%s", file, name, b[max(0, len(b)-6000):])
				}
			}
		}
		_ = os.RemoveAll(dir)
	})
	engine := filepath.Join(dir, "engine.sock")
	serveOn(t, listen(t, "unix", engine), fakeEngine(services))
	s.write("gateway.yaml", fmt.Sprintf(`apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: %s}
spec:
  stateDir: %s/state
  runDir: %s/run
  orchestrator: {type: docker, docker: {endpoint: "unix://%s"}}
  listeners: {peer: %q, http: %q, admin: %q}
  callers: {unauthenticated: [services]}
`, name, dir, dir, engine, s.peer, s.edge, s.admin))
	return s
}

// knows makes other a peer that may query everything; what it exports now is trusted.
func (s *site) knows(other *site) {
	s.t.Helper()
	s.write("peer-"+other.name+".yaml", fmt.Sprintf(`apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: %s}
spec: {addresses: [%q]}
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: %s}
spec:
  from: [{peer: %s}]
  allow: [{verbs: [query], objects: [{kind: service}]}]
`, other.name, other.peer, other.name, other.name))
	file := filepath.Join(s.dir, other.name+".bundle")
	if err := os.WriteFile(file, []byte(other.isthmus("trust", "export", "--config", other.config())), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.isthmus("trust", "import", "--config", s.config(), "--peer", other.name, file)
}

func (s *site) write(file, content string) {
	s.t.Helper()
	if err := os.MkdirAll(s.config(), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.config(), file), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(file string) []byte {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.config(), file))
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

func (s *site) config() string { return filepath.Join(s.dir, "config") }

// trustDir is where the gateway keeps its authority.
func (s *site) trustDir() string { return filepath.Join(s.dir, "state", "trust") }

// isthmus runs a command that must succeed.
func (s *site) isthmus(args ...string) string {
	s.t.Helper()
	var out, complaints bytes.Buffer
	if code := app.Main(s.t.Context(), args, &out, &complaints); code != 0 {
		s.t.Fatalf("isthmus %v of %s: %s", args, s.name, complaints.String())
	}
	return out.String()
}

// ask runs a command that asks the gateway.
func (s *site) ask(args ...string) string {
	s.t.Helper()
	return s.isthmus(append(args, "--admin", s.admin)...)
}

// start runs isthmus, which runs Envoy or takes over the one that runs.
func (s *site) start() {
	s.t.Helper()
	var err error
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "isthmus.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		s.t.Fatal(err)
	}
	process := exec.Command(os.Args[0], "gateway", "--config", s.config(), "--envoy", loopback.Envoy(s.t))
	process.Env = append(os.Environ(), isthmusEnv+"=1")
	process.Stdout, process.Stderr = s.log, s.log
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = process.Wait() }()
	s.process, s.ended = process, ended
	s.t.Cleanup(func() { s.stop(process, ended) })
}

func (s *site) stop(process *exec.Cmd, ended <-chan struct{}) {
	_ = process.Process.Signal(syscall.SIGTERM) // fails for one that was killed
	select {
	case <-ended:
	case <-time.After(40 * time.Second):
		s.t.Errorf("isthmus of %s does not end", s.name)
		_ = process.Process.Kill()
	}
}

// kill kills isthmus and leaves its Envoy.
func (s *site) kill() {
	s.t.Helper()
	if err := s.process.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.ended
}

// get reads one of the admin interface's answers.
func (s *site) get(path string, into any) error {
	resp, err := http.Get("http://" + s.admin + path)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *site) trust() (state app.TrustState, err error) { return state, s.get("/trust", &state) }

// joined waits until the gateway and its peer have shaken hands.
func (s *site) joined(peer string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, func() error {
		var peers []app.PeerState
		if err := s.get("/peers", &peers); err != nil {
			return err
		}
		for _, p := range peers {
			if p.Name == peer && p.State == "ready" {
				return nil
			}
		}
		return fmt.Errorf("%s: %+v", s.name, peers)
	})
}

// host is the name of one of this site's services.
func (s *site) host(service string) string {
	return service + ".default.svc." + s.name + "." + names.DefaultSuffix
}

// fakeEngine is as much of a Docker engine as the catalogue reads.
func fakeEngine(services []service) http.Handler {
	type object = map[string]any
	containers := []object{}
	for i, s := range services {
		containers = append(containers, object{
			"Id": fmt.Sprint("container-", i), "Names": []string{"/" + s.name}, "Image": "web:1", "State": "running", "Status": "Up",
			"Labels": map[string]string{"isthmus.io/export": "true", "isthmus.io/ports": fmt.Sprintf("%d/%s", s.at.Port(), s.app)},
			"Ports":  []object{}, "HostConfig": object{"NetworkMode": "host"}, "NetworkSettings": object{"Networks": object{}},
		})
	}
	answers := map[string]any{
		"/_ping": "OK", "/containers/json": containers, "/networks": []object{},
		"/version": object{"Version": "28.0.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"},
		"/info":    object{"Name": "node-1", "NCPU": 2, "MemTotal": 1 << 30, "Swarm": object{"LocalNodeState": "inactive"}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.48")
		w.Header().Set("Content-Type", "application/json")
		path := strings.TrimPrefix(r.URL.Path, "/v1.48")
		if path == "/events" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		answer, ok := answers[path]
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			answer = object{"message": "This node is not a swarm manager."}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// tunnel opens raw TCP to a service of a peer through this gateway's edge.
func (s *site) tunnel(authority string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", s.edge)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	head := make([]byte, 0, 1024)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		b := make([]byte, 1)
		if _, err := conn.Read(b); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		head = append(head, b...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return nil, errors.Join(fmt.Errorf("answered %q", head), conn.Close())
	}
	return conn, nil
}
