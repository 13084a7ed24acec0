package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testRoot is a short path: Unix sockets lie below it.
func testRoot(t *testing.T) string {
	t.Helper()
	if err := requireRoot(); err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "bed-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return root
}

func testContext(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// TestBed brings a bed up once, tries all that it offers, and takes it down.
func TestBed(t *testing.T) {
	root := testRoot(t)
	ctx := testContext(t, 5*time.Minute)
	// The first build of Kubernetes has its own time.
	log := Progress(t.Output())
	if _, err := Install(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	before := takeSnapshot(t)
	bed, err := Up(ctx, Options{
		Root: root, Name: "test", Log: log,
		Docker:     []string{"west"},
		Kubernetes: []KubernetesOptions{{Name: "east"}, {Name: "north", ControlPlaneOnly: true}},
		Links:      [][2]string{{"west", "east"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	down := sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return bed.Down(ctx)
	})
	t.Cleanup(func() { _ = down() })

	t.Run("clusters", func(t *testing.T) {
		t.Run("docker", func(t *testing.T) { t.Parallel(); testDocker(t, bed) })
		t.Run("swarm", func(t *testing.T) { t.Parallel(); testSwarm(t, bed) })
		t.Run("kubernetes", func(t *testing.T) { t.Parallel(); testKubernetes(t, bed) })
		t.Run("control plane", func(t *testing.T) { t.Parallel(); testControlPlane(t, bed) })
		t.Run("api", func(t *testing.T) { t.Parallel(); testAPI(t, bed) })
		t.Run("process", func(t *testing.T) { t.Parallel(); testProcess(t, bed) })
		t.Run("forward", func(t *testing.T) { t.Parallel(); testForward(t, bed) })
		t.Run("reattach", func(t *testing.T) { t.Parallel(); testReattach(t, bed) })
	})
	t.Run("isolation", func(t *testing.T) { testIsolation(t, bed) })
	t.Run("cut", func(t *testing.T) { testCut(t, bed) })

	sockets := shimSockets(cgroupName(bed.ID))
	if len(sockets) == 0 {
		t.Error("no shim runs at the end: the proof that none is left shows nothing")
	}
	if err := down(); err != nil {
		t.Fatalf("Down: %v", err)
	}
	for _, socket := range sockets {
		if _, err := os.Stat(socket); err == nil {
			t.Errorf("%s is left", socket)
		}
	}
	before.compare(t, root, bed.ID)
}

// TestCrash ends a bed whose record is lost and whose engine was killed.
func TestCrash(t *testing.T) {
	root := testRoot(t)
	ctx := testContext(t, 2*time.Minute)
	if _, err := Install(t.Context(), Progress(t.Output())); err != nil {
		t.Fatal(err)
	}
	before := takeSnapshot(t)
	bed, err := Up(ctx, Options{Root: root, Name: "crash", Log: Progress(t.Output()), Docker: []string{"west"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Down(context.WithoutCancel(ctx), root, nil) })
	if _, err := bed.Docker("west").Run(ctx, "run", "-d", Image, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dockerd", "containerd"} {
		if err := bed.Process("west", name).Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(stateFile(root)); err != nil {
		t.Fatal(err)
	}
	if err := Down(ctx, root, Progress(t.Output())); err != nil {
		t.Fatalf("Down: %v", err)
	}
	bed.reap()
	before.compare(t, root, bed.ID)
	if err := Down(ctx, root, nil); err != nil {
		t.Errorf("Down of a bed that is down: %v", err)
	}
}

func testDocker(t *testing.T, bed *Bed) {
	ctx, west := testContext(t, time.Minute), bed.Docker("west")
	id, err := west.Run(ctx, "run", "-d", "--name", "web", "-p", "8088:80", Image, "httpd", "-f", "-p", "80")
	if err != nil {
		t.Fatal(err)
	}
	out, err := west.Run(ctx, "exec", strings.TrimSpace(id), "sh", "-c", "id -u")
	if err != nil || out != "0\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
	// A container's address answers from the cluster's namespace.
	if err := west.canDial(ctx, net.JoinHostPort(containerIP(t, bed, "web"), "80")); err != nil {
		t.Errorf("container from its namespace: %v", err)
	}
	if _, err := west.Run(ctx, "run", "--rm", Image, "sh", "-c", "exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("run of exit 3: %v", err)
	}
}

func testSwarm(t *testing.T, bed *Bed) {
	ctx, west := testContext(t, time.Minute), bed.Docker("west")
	_, err := west.Run(ctx, "service", "create", "--quiet", "--name", "api", "--endpoint-mode", "dnsrr",
		"--publish", "mode=host,target=80,published=8089", Image, "httpd", "-f", "-p", "80")
	if err != nil {
		t.Fatal(err)
	}
	if err := west.canDial(ctx, "127.0.0.1:8089"); err != nil {
		t.Errorf("published port of a service: %v", err)
	}
	if _, err := west.Run(ctx, "service", "rm", "api"); err != nil {
		t.Error(err)
	}
}

func testKubernetes(t *testing.T, bed *Bed) {
	ctx, east := testContext(t, 2*time.Minute), bed.Kubernetes("east")
	kubectl := func(arguments ...string) string {
		t.Helper()
		out, err := east.Kubectl(ctx, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kubectl("run", "web", "--image", Image, "--port", "80", "--expose", "--", "sh", "-c", "echo started; exec httpd -f -p 80")
	kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
	if out := kubectl("logs", "web"); out != "started\n" {
		t.Errorf("logs: %q", out)
	}
	out, err := east.kubectl(ctx, "hi", "exec", "-i", "web", "--", "cat")
	if err != nil || out != "hi" {
		t.Errorf("exec: %q, %v", out, err)
	}
	for what, address := range map[string]string{
		"pod":     kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}"),
		"service": kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"),
	} {
		err := waitReady(ctx, what, 10*time.Second, func(ctx context.Context) error {
			return east.canDial(ctx, net.JoinHostPort(address, "80"))
		})
		if err != nil {
			t.Errorf("from the namespace: %v", err)
		}
	}
	portForward, err := bed.Start(ctx, Command{
		Name: "port-forward",
		Argv: []string{bed.tools.Kubectl, "port-forward", "pod/web", ":80"},
		Env:  []string{"KUBECONFIG=" + east.HostKubeconfig},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = waitReady(ctx, "port-forward", 10*time.Second, func(ctx context.Context) error {
		_, rest, _ := strings.Cut(portForward.Tail(5), "127.0.0.1:")
		port, _, found := strings.Cut(rest, " ")
		if !found {
			return fmt.Errorf("no address in %q", portForward.Tail(5))
		}
		return getHTTP(ctx, "127.0.0.1:"+port)
	}, portForward)
	if err != nil {
		t.Error(err)
	}
	if err := portForward.Stop(ctx, 5*time.Second); err != nil {
		t.Error(err)
	}
	if err := east.ApplyServiceExportCRD(ctx); err != nil {
		t.Fatal(err)
	}
	err = east.Apply(ctx, "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {name: web}\n")
	if err != nil {
		t.Error(err)
	}
}

// getHTTP wants any HTTP answer.
func getHTTP(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.") {
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	return nil
}

func testControlPlane(t *testing.T, bed *Bed) {
	ctx, north := testContext(t, time.Minute), bed.Kubernetes("north")
	if _, err := north.Kubectl(ctx, "create", "deployment", "web", "--image", Image); err != nil {
		t.Fatal(err)
	}
	// The controllers make the pod; there is no node to run it.
	err := waitReady(ctx, "the pod", 20*time.Second, func(ctx context.Context) error {
		phase, err := north.Kubectl(ctx, "get", "pods", "-o", "jsonpath={.items[*].status.phase}")
		if err == nil && phase != "Pending" {
			err = fmt.Errorf("phase %q", phase)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func testProcess(t *testing.T, bed *Bed) {
	ctx, west := testContext(t, 30*time.Second), bed.Docker("west")
	p, err := west.Start(ctx, Command{
		Name: "server", Env: []string{"ANSWER=7"},
		Argv: []string{"/bin/sh", "-c", `trap 'echo ending; exit $ANSWER' TERM; echo started; while :; do sleep 0.05; done`},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := west.Start(ctx, Command{Name: "server", Argv: []string{"true"}}); err == nil {
		t.Error("a second process of the same name was started")
	}
	err = waitReady(ctx, "server", 5*time.Second, func(context.Context) error {
		if p.Tail(1) != "started" {
			return fmt.Errorf("log %q", p.Tail(1))
		}
		return nil
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	if inside, own := namespaceOf(t, p.PID), namespaceOf(t, os.Getpid()); inside == own {
		t.Error("the process runs in the machine's network namespace")
	}
	if err := p.Stop(ctx, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if code, ok := p.ExitCode(); !ok || code != 7 {
		t.Errorf("exit code %d, %v, want 7", code, ok)
	}
	if p.Tail(1) != "ending" {
		t.Errorf("log ends %q", p.Tail(1))
	}
	again, err := west.Start(ctx, Command{Name: "server", Argv: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := again.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if code, ok := again.ExitCode(); !ok || code != 137 {
		t.Errorf("exit code %d, %v, want 137", code, ok)
	}
}

func namespaceOf(t *testing.T, pid int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func testForward(t *testing.T, bed *Bed) {
	ctx, west := testContext(t, 30*time.Second), bed.Docker("west")
	listener, err := west.ListenIn(ctx, "tcp", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	// The server answers when the client has finished sending.
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			var all []byte
			if all, err = io.ReadAll(conn); err == nil {
				_, err = conn.Write(append([]byte("got "), all...))
			}
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	forward, err := west.Forward(ctx, "127.0.0.1:0", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", forward.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "all"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || string(answer) != "got all" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := west.Forwards(); !slices.ContainsFunc(got, func(f *Forward) bool { return f.Listen == forward.Listen }) {
		t.Errorf("Forwards() = %v lacks %s", got, forward.Listen)
	}
	if err := forward.Close(ctx); err != nil {
		t.Error(err)
	}
}

func testReattach(t *testing.T, bed *Bed) {
	ctx := testContext(t, 30*time.Second)
	other, err := Open(bed.Root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := other.Clusters(), []string{"east", "north", "west"}; !slices.Equal(got, want) {
		t.Errorf("Clusters() = %v, want %v", got, want)
	}
	if p := other.Process("west", "dockerd"); p == nil || !p.Running() {
		t.Errorf("dockerd of the reopened bed: %+v", p)
	}
	if link := other.Link("east", "west"); link == nil || link.Address("east") != bed.Link("west", "east").Address("east") {
		t.Errorf("link of the reopened bed: %+v", link)
	}
	if _, err := other.Docker("west").Run(ctx, "info"); err != nil {
		t.Error(err)
	}
	if _, err := other.Kubernetes("east").Kubectl(ctx, "get", "nodes"); err != nil {
		t.Error(err)
	}
}

func containerIP(t *testing.T, bed *Bed, container string) string {
	t.Helper()
	out, err := bed.Docker("west").Run(t.Context(), "inspect", "-f", "{{.NetworkSettings.IPAddress}}", container)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
