// Package mesh joins the clusters of a testbed: it writes the documents of each cluster's gateway, exchanges trust, and
// starts isthmus, which starts Envoy. Tests and the demo use it.
package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// Options say which gateways are made.
type Options struct {
	Bed    *testbed.Bed
	Binary string // isthmus
	Log    *slog.Logger
	// Policies are AccessPolicy documents by cluster; a cluster without one allows nothing.
	Policies map[string]string
	// Rights are manifests by Kubernetes cluster, beside those that every gateway and every peer gets.
	Rights map[string]string
	// Collector is where the gateways send traces, host:port within their namespaces; "" for nowhere.
	Collector string
	// Through gives the address, in the namespace of the cluster from, at which its gateway dials that of the cluster to,
	// which is at target; nil for target itself.
	Through func(ctx context.Context, bed *testbed.Bed, from, to, target string) (string, error)
	// Before gives what a gateway takes for its orchestrator's API: the path of an engine's socket, or that of a kubeconfig,
	// in the place of the one at direct; nil for that one itself.
	Before func(ctx context.Context, bed *testbed.Bed, cluster, direct string) (string, error)
	// Linger is how long a network mode stays switched; 6 seconds if it is zero.
	Linger time.Duration
}

// Mesh is a bed with a running gateway for each cluster.
type Mesh struct {
	options  Options
	gateways map[string]*Gateway
}

// Gateway is one cluster's gateway.
type Gateway struct {
	Name    string
	Cluster *testbed.Cluster
	Dir     string // of documents, state and sockets
	Admin   string // host:port on this machine
	Edge    string // host:port on this machine of the HTTP edge
	// APIs are, by peer, host:port on this machine of the peer's orchestrator API.
	APIs    map[string]string
	Process *testbed.Process

	kind  string
	api   string // the path of the engine's socket, or of a kubeconfig
	peers []string
	mesh  *Mesh
}

// apiPort is where a gateway offers the API of its n-th peer, inside its namespace.
const apiPort = 16443

// Up starts a gateway for each cluster and waits until all are ready and have shaken hands.
func Up(ctx context.Context, options Options) (*Mesh, error) {
	m := &Mesh{options: options, gateways: map[string]*Gateway{}}
	for _, name := range options.Bed.Clusters() {
		g := &Gateway{Name: name, Cluster: options.Bed.Cluster(name), mesh: m, kind: "docker", APIs: map[string]string{},
			Dir: filepath.Join(options.Bed.Root, name, "gateway")}
		if options.Bed.Kubernetes(name) != nil {
			g.kind, g.api = "kubernetes", g.kubeconfig()
		} else {
			g.api = options.Bed.Docker(name).Socket
		}
		for _, l := range options.Bed.Links() {
			a, b := l.Ends()
			if a == name {
				g.peers = append(g.peers, b)
			} else if b == name {
				g.peers = append(g.peers, a)
			}
		}
		slices.Sort(g.peers)
		m.gateways[name] = g
	}
	begin := time.Now()
	if err := m.each(func(g *Gateway) error { return g.prepare(ctx) }); err != nil {
		return nil, err
	}
	if err := m.each(func(g *Gateway) error {
		for _, peer := range g.peers {
			if err := g.trust(ctx, m.gateways[peer]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := m.each(func(g *Gateway) error { return g.Start(ctx) }); err != nil {
		return nil, err
	}
	if err := m.each(func(g *Gateway) error { return g.Ready(ctx) }); err != nil {
		return nil, err
	}
	if err := m.each(func(g *Gateway) error { return g.Joined(ctx) }); err != nil {
		return nil, err
	}
	if err := m.each(func(g *Gateway) error { return g.kubeconfigs(ctx) }); err != nil {
		return nil, err
	}
	options.Log.Info("gateways have shaken hands", "gateways", len(m.gateways), "took", time.Since(begin).Round(100*time.Millisecond))
	return m, nil
}

// Gateway gives the gateway of a cluster.
func (m *Mesh) Gateway(cluster string) *Gateway { return m.gateways[cluster] }

func (m *Mesh) each(do func(*Gateway) error) error {
	var wait sync.WaitGroup
	errs := make(chan error, len(m.gateways))
	for _, g := range m.gateways {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if err := do(g); err != nil {
				errs <- fmt.Errorf("gateway %s: %w", g.Name, err)
			}
		}()
	}
	wait.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Config is the folder of the gateway's documents.
func (g *Gateway) Config() string { return filepath.Join(g.Dir, "config") }

// Socket is the Unix socket of a peer's API on a Docker gateway.
func (g *Gateway) Socket(peer string) string { return filepath.Join(g.Dir, "run", peer+".sock") }

// prepare writes the documents and makes the certificate authority.
func (g *Gateway) prepare(ctx context.Context) error {
	if err := os.MkdirAll(g.Config(), 0o755); err != nil {
		return err
	}
	if err := g.callers(); err != nil {
		return err
	}
	if err := g.account(ctx); err != nil {
		return err
	}
	if before := g.mesh.options.Before; before != nil {
		var err error
		if g.api, err = before(ctx, g.mesh.options.Bed, g.Name, g.api); err != nil {
			return err
		}
	}
	if err := g.Write("gateway.yaml", g.document()); err != nil {
		return err
	}
	for i, peer := range g.peers {
		bed := g.mesh.options.Bed
		address := net.JoinHostPort(bed.Link(g.Name, peer).Address(peer), strconv.Itoa(bed.PeerPort))
		if through := g.mesh.options.Through; through != nil {
			var err error
			if address, err = through(ctx, bed, g.Name, peer, address); err != nil {
				return err
			}
		}
		doc := fmt.Sprintf("apiVersion: isthmus.io/v1alpha1\nkind: Peer\nmetadata: {name: %s}\nspec:\n  addresses: [%q]\n", peer, address)
		doc += fmt.Sprintf("  api: {listen: \"127.0.0.1:%d\"}\n", apiPort+i)
		if err := g.Write("peer-"+peer+".yaml", doc); err != nil {
			return err
		}
	}
	if policies := g.mesh.options.Policies[g.Name]; policies != "" {
		if err := g.Write("policies.yaml", policies); err != nil {
			return err
		}
	}
	_, err := g.isthmus(ctx, nil, "trust", "init", "--config", g.Config())
	return err
}

func (g *Gateway) document() string {
	orchestrator := fmt.Sprintf("type: docker\n    docker: {endpoint: \"unix://%s\"}", g.api)
	if g.kind == "kubernetes" {
		orchestrator = fmt.Sprintf("type: kubernetes\n    kubernetes: {kubeconfig: %s, namespace: default}", g.api)
	}
	review := ""
	if g.kind == "kubernetes" {
		review = "\n    tokenReview: {}"
	}
	tracing := ""
	if c := g.mesh.options.Collector; c != "" {
		tracing = fmt.Sprintf("  tracing: {otlp: %q}\n", c)
	}
	return fmt.Sprintf(`apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: %s}
spec:
  stateDir: %s
  runDir: %s
  orchestrator:
    %s
  listeners:
    peer: 0.0.0.0:%d
    http: 127.0.0.1:15080
    admin: 127.0.0.1:15000
  admin: {copies: true}
  leases: {linger: %s}
  callers:
    tokens: {file: %s}
    clientCA: %s%s
    unauthenticated: [services, accesses]
  envoy: {path: %s, concurrency: 1}
`, g.Name, filepath.Join(g.Dir, "state"), filepath.Join(g.Dir, "run"), orchestrator, g.mesh.options.Bed.PeerPort,
		cmp.Or(g.mesh.options.Linger, 6*time.Second), filepath.Join(g.Callers(), "tokens"), filepath.Join(g.Callers(), "ca.crt"), review,
		g.mesh.options.Bed.Tools().Envoy) + tracing
}

// Write puts a document into the gateway's folder, in one step: the gateway reads it again by itself.
func (g *Gateway) Write(name, text string) error {
	path := filepath.Join(g.Config(), name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// trust imports a peer's bundle.
func (g *Gateway) trust(ctx context.Context, peer *Gateway) error {
	bundle, err := g.isthmus(ctx, nil, "trust", "export", "--config", peer.Config())
	if err != nil {
		return err
	}
	_, err = g.isthmus(ctx, strings.NewReader(bundle), "trust", "import", "--config", g.Config(), "--peer", peer.Name, "-")
	return err
}

// isthmus runs the binary on this machine.
func (g *Gateway) isthmus(ctx context.Context, stdin io.Reader, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, g.mesh.options.Binary, arguments...)
	var out, errs strings.Builder
	command.Stdin, command.Stdout, command.Stderr = stdin, &out, &errs
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("isthmus %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// CLI runs an isthmus command against this gateway's admin address.
func (g *Gateway) CLI(ctx context.Context, arguments ...string) (string, error) {
	return g.isthmus(ctx, nil, append(arguments, "--admin", g.Admin)...)
}

// Start starts the gateway, and what makes it reachable from this machine unless that is there.
func (g *Gateway) Start(ctx context.Context) error {
	process, err := g.Cluster.Start(ctx, testbed.Command{
		Name: "isthmus", Argv: []string{g.mesh.options.Binary, "gateway", "--config", g.Config()},
	})
	if err != nil {
		return err
	}
	g.Process = process
	if g.Admin != "" {
		return nil
	}
	if g.Admin, err = g.forward(ctx, "127.0.0.1:15000"); err != nil {
		return err
	}
	if g.Edge, err = g.forward(ctx, "127.0.0.1:15080"); err != nil {
		return err
	}
	for i, peer := range g.peers {
		if g.APIs[peer], err = g.forward(ctx, fmt.Sprintf("127.0.0.1:%d", apiPort+i)); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) forward(ctx context.Context, target string) (string, error) {
	f, err := g.Cluster.Forward(ctx, "127.0.0.1:0", target)
	if err != nil {
		return "", err
	}
	return f.Listen, nil
}

// Forward makes an address of the gateway's namespace reachable on this machine.
func (g *Gateway) Forward(ctx context.Context, target string) (string, error) {
	return g.forward(ctx, target)
}

// Kill ends isthmus, and not its Envoy, at once.
func (g *Gateway) Kill(ctx context.Context) error {
	if err := g.Process.Kill(syscall.SIGKILL); err != nil {
		return err
	}
	return g.Process.Wait(ctx)
}

// EnvoyPID is the process id of the gateway's Envoy.
func (g *Gateway) EnvoyPID() (int, error) {
	data, err := os.ReadFile(filepath.Join(g.Dir, "run", "envoy-process.json"))
	if err != nil {
		return 0, err
	}
	var record struct{ PID int }
	if err := json.Unmarshal(data, &record); err != nil {
		return 0, fmt.Errorf("read Envoy's process record: %w", err)
	}
	return record.PID, nil
}

// Get asks the admin interface.
func (g *Gateway) Get(ctx context.Context, path string, out any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Admin+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// Ready waits until the gateway says that it is.
func (g *Gateway) Ready(ctx context.Context) error {
	return g.until(ctx, 40*time.Second, func(ctx context.Context) error { return g.Get(ctx, "/readyz", nil) })
}

// Joined waits until every peer has shaken hands.
func (g *Gateway) Joined(ctx context.Context) error {
	return g.until(ctx, 40*time.Second, func(ctx context.Context) error {
		var peers []struct{ Name, State, LastError string }
		if err := g.Get(ctx, "/peers", &peers); err != nil {
			return err
		}
		for _, p := range peers {
			if p.State != "ready" {
				return fmt.Errorf("peer %s is %s: %s", p.Name, p.State, p.LastError)
			}
		}
		return nil
	})
}

// until tries until it works, isthmus ends, or the time is up.
func (g *Gateway) until(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if !g.Process.Running() {
			return fmt.Errorf("isthmus ended: %s", g.Process.Tail(20))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; its log ends: %s", err, g.Process.Tail(15))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Part makes strangers of two gateways that the mesh joined: documents and trust are gone on both sides.
func (m *Mesh) Part(ctx context.Context, first, second string) error {
	for _, pair := range [][2]*Gateway{{m.gateways[first], m.gateways[second]}, {m.gateways[second], m.gateways[first]}} {
		g, peer := pair[0], pair[1]
		if err := os.Rename(filepath.Join(g.Config(), "peer-"+peer.Name+".yaml"), filepath.Join(g.Config(), "peer-"+peer.Name+".parted")); err != nil {
			return err
		}
		if _, err := g.isthmus(ctx, nil, "trust", "remove", peer.Name, "--config", g.Config()); err != nil {
			return err
		}
	}
	return nil
}

// Unite undoes Part. What the two joined by meanwhile must be gone.
func (m *Mesh) Unite(ctx context.Context, first, second string) error {
	for _, pair := range [][2]*Gateway{{m.gateways[first], m.gateways[second]}, {m.gateways[second], m.gateways[first]}} {
		g, peer := pair[0], pair[1]
		if err := os.Rename(filepath.Join(g.Config(), "peer-"+peer.Name+".parted"), filepath.Join(g.Config(), "peer-"+peer.Name+".yaml")); err != nil {
			return err
		}
		if err := g.trust(ctx, peer); err != nil {
			return err
		}
	}
	return m.each(func(g *Gateway) error { return g.Joined(ctx) })
}
