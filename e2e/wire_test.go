package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/tap"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// wire is a tap on every link between the gateways of the tests.
var wire = &tapped{tap: tap.New(), addresses: map[[2]string]string{}, forbidden: map[string]*atomic.Pointer[[]tap.Forbidden]{
	"west": {}, "east": {}, "north": {}, "south": {},
}}

type tapped struct {
	tap       *tap.Tap
	forbidden map[string]*atomic.Pointer[[]tap.Forbidden] // by cluster

	mu        sync.Mutex           // gateways are prepared at the same time
	addresses map[[2]string]string // of the tap, by who dials and whom
	planted   []string             // pages that tell an address, which the tap must find
}

// plants waits until the tap has found the address that a page of a service tells. What has crossed is read a moment
// later.
func (w *tapped) plants(path string) error {
	w.mu.Lock()
	w.planted = append(w.planted, path)
	w.mu.Unlock()
	for deadline := time.Now().Add(10 * time.Second); !slices.ContainsFunc(w.tap.Findings(), func(f tap.Finding) bool { return tells(f, path) }); {
		if time.Now().After(deadline) {
			return fmt.Errorf("the tap did not find the address on %s", path)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func tells(f tap.Finding, path string) bool { return f.Answer && strings.HasSuffix(f.Request, path) }

// wanted tells whether what was found was planted.
func (w *tapped) wanted(f tap.Finding) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.planted, func(path string) bool { return tells(f, path) })
}

// crossed PATH: the tap finds an address in what a service answered at a path; it was planted there.
func crossed(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: crossed PATH")
	}
	check(ts, neg, wire.plants(args[0]))
}

// through puts the tap before a peer, in the namespace of who dials it.
func (w *tapped) through(ctx context.Context, bed *testbed.Bed, from, to, target string) (string, error) {
	cluster := bed.Cluster(from)
	listener, err := cluster.ListenIn(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	w.mu.Lock()
	w.addresses[[2]string{from, to}] = address
	w.mu.Unlock()
	w.tap.Between(w.end(bed, from), w.end(bed, to), listener, func(ctx context.Context) (net.Conn, error) {
		return cluster.DialIn(ctx, "tcp", target)
	})
	return address, nil
}

func (w *tapped) end(bed *testbed.Bed, name string) tap.Gateway {
	present := w.forbidden[name]
	if present.Load() == nil {
		present.Store(&[]tap.Forbidden{addresses(bed, name)})
	}
	dir := filepath.Join(bed.Root, name, "gateway", "state", "trust")
	var last atomic.Pointer[trust.Authority]
	return tap.Gateway{
		Name: name,
		Authority: func() (*trust.Authority, error) {
			authority, err := trust.Open(dir)
			if known := last.Load(); err != nil && known != nil {
				return known, nil // a script has moved the state to another home, where the authority is the same
			}
			last.Store(authority)
			return authority, err
		},
		Forbidden: func() []tap.Forbidden { return *present.Load() },
	}
}

// addresses are those of a cluster's nodes, containers and services: each cluster of a bed has a network of its own.
func addresses(bed *testbed.Bed, name string) tap.Forbidden {
	var within string
	if docker := bed.Docker(name); docker != nil {
		within = docker.Bridge()
	} else {
		within = bed.Kubernetes(name).NodeAddress()
	}
	return tap.Network("an address of "+name, netip.PrefixFrom(netip.MustParseAddr(within), 16))
}

// forbid adds what is secret in the clusters of a demo: what callers show to their own gateway, what that shows to the
// cluster's API, and the key of its authority.
func (w *tapped) forbid(d *demo.Demo) error {
	for name, present := range w.forbidden {
		all := *present.Load()
		own, err := secretsOf(d.Mesh.Gateway(name))
		if err != nil {
			return err
		}
		all = append(all, own...)
		for _, file := range []string{"ci.token", "account.token"} {
			token, err := os.ReadFile(filepath.Join(d.Mesh.Gateway(name).Callers(), file))
			if os.IsNotExist(err) {
				continue
			} else if err != nil {
				return err
			}
			all = append(all, tap.Secret("a token of "+name+"'s callers", strings.TrimSpace(string(token))))
		}
		present.Store(&all)
	}
	return nil
}

// secretsOf are those of a gateway, in the form in which they would cross.
func secretsOf(g *mesh.Gateway) ([]tap.Forbidden, error) {
	key, err := os.ReadFile(filepath.Join(g.Dir, "state", "trust", "ca.key"))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(key)), "\n")
	if len(lines) < 3 {
		return nil, fmt.Errorf("the key of %s is no PEM", g.Name)
	}
	all := []tap.Forbidden{tap.Secret("the key of "+g.Name+"'s authority", lines[1])}
	kubeconfig, err := os.ReadFile(filepath.Join(g.Dir, "kubeconfig"))
	if os.IsNotExist(err) {
		return all, nil // of no Kubernetes cluster
	} else if err != nil {
		return nil, err
	}
	_, token, _ := strings.Cut(string(kubeconfig), `"token": "`)
	token, _, ok := strings.Cut(token, `"`)
	if !ok || len(token) < 20 {
		return nil, fmt.Errorf("the kubeconfig of %s has no token", g.Name)
	}
	return append(all, tap.Secret("the credential of "+g.Name+"'s gateway", token)), nil
}

// expose lets everything of a cluster cross until it is undone.
func (w *tapped) expose(cluster string) (undo func()) {
	present := w.forbidden[cluster]
	all := present.Swap(new([]tap.Forbidden))
	return func() { present.Store(all) }
}

// plant makes a container in a cluster whose environment holds a credential, and gives the credential.
func (w *tapped) plant(t *testing.T, cluster string, create func(variable string) error) {
	t.Helper()
	secret := rand.Text()
	all := append(slices.Clone(*w.forbidden[cluster].Load()), tap.Secret("a credential of a container of "+cluster, secret))
	w.forbidden[cluster].Store(&all)
	if err := create("DB_PASSWORD=" + secret); err != nil {
		t.Fatal(err)
	}
}

// client runs a client's command line, which must print something with the word.
func client(t *testing.T, word string, argv ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), word) {
		t.Errorf("%v: %v: %s", argv, err, out)
	}
}

// askOfCredentials has clients of every kind read containers that hold a credential.
func askOfCredentials(t *testing.T) {
	t.Helper()
	east, west := running.Bed.Kubernetes("east"), running.Bed.Docker("west")
	const name = "planted"
	wire.plant(t, "east", func(variable string) error {
		_, err := east.Kubectl(t.Context(), "run", name, "--image", demo.Image, "--env", variable, "--", "sleep", "600")
		return err
	})
	wire.plant(t, "west", func(variable string) error {
		return exec.CommandContext(t.Context(), "docker", "-H", west.Host(), "create", "--name", name, "--env", variable, demo.Image, "true").Run()
	})
	defer func() {
		_, _ = east.Kubectl(context.WithoutCancel(t.Context()), "delete", "pod", name, "--now", "--wait=false")
		_ = exec.CommandContext(context.WithoutCancel(t.Context()), "docker", "-H", west.Host(), "rm", "-f", name).Run()
	}()
	gateway := running.Mesh.Gateway
	for _, argv := range [][]string{
		{"docker", "-H", "unix://" + gateway("west").Socket("east"), "inspect", name},
		{"docker", "-H", "unix://" + gateway("south").Socket("west"), "inspect", name},
		{running.Bed.Tools().Kubectl, "--kubeconfig", gateway("north").Kubeconfig("east"), "get", "pod", name, "-o", "yaml"},
		{running.Bed.Tools().Kubectl, "--kubeconfig", gateway("north").Kubeconfig("east"), "get", "pods", "-o", "json"},
	} {
		client(t, "DB_PASSWORD", argv...)
	}
}

// TestNothingLeaks reads what crossed in all other tests, for whose end it waits: no address of one
// cluster may have reached another, nor any secret. What a service says of itself is its own matter; with one that tells
// an address the tap shows that it would have found one.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	scripted.Wait()
	askOfCredentials(t)
	east := running.Bed.Kubernetes("east")
	write := "echo planted " + east.NodeAddress() + " > /www/planted.html"
	if text, err := east.Kubectl(t.Context(), "exec", "hello", "--", "sh", "-c", write); err != nil {
		t.Fatal(err, text)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+running.Mesh.Gateway("west").Edge+planted, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = running.Service
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !strings.Contains(string(body), east.NodeAddress()) {
		t.Fatalf("%s: %q, %v", response.Status, body, err)
	}
	if err := wire.plants(planted); err != nil {
		t.Error(err)
	}
	counts := wire.tap.Counts()
	t.Logf("%d connections, %d requests, %d joins, %d reverse tunnels, %d bytes were read", counts.Connections, counts.Streams, counts.Joins,
		counts.Tunnels, counts.Bytes)
	if err := wire.tap.Blind(); err != nil {
		t.Error(err)
	}
	for _, f := range wire.tap.Findings() {
		if !wire.wanted(f) {
			t.Error(f)
		}
	}
}

// planted is the page that tells an address.
const planted = "/planted.html"
