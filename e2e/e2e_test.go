// Package e2e runs the scripts in testdata against real clusters: dockerd with Swarm, Kubernetes with a kubelet, Envoys,
// and unmodified clients. TestMain starts them once for all.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

var running *demo.Demo

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := testbed.Progress(os.Stderr)
	root, err := os.MkdirTemp("", "isthmus-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(root)
	flag.Parse()
	binary, err := binary()
	if err == nil {
		err = begun()
	}
	if err == nil {
		running, err = demo.Up(ctx, root, mesh.Options{Binary: binary, Collector: collectorAddress, Log: log, Through: wire.through})
	}
	if err == nil {
		err = wire.forbid(running)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "the clusters did not come up:", err)
	} else {
		done := make(chan int, 1)
		go func() { done <- m.Run() }()
		select {
		case code = <-done:
		case <-ctx.Done(): // the clusters end, and with them the tests
		}
	}
	if code != 0 {
		keep(root, log)
	}
	wire.tap.Close()
	end, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := demo.Down(end, root, log); err != nil {
		fmt.Fprintln(os.Stderr, "the clusters did not end:", err)
		return 1
	}
	return code
}

func binary() (string, error) { return mesh.RaceBinary("..") }

// keep shows the ends of the gateways' logs, for a failed run.
func keep(root string, log *slog.Logger) {
	logs, _ := filepath.Glob(filepath.Join(root, "*", "log", "isthmus.log"))
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) > 40 {
			lines = lines[len(lines)-40:]
		}
		log.Info("the log ends", "file", path)
		fmt.Fprintln(os.Stderr, strings.Join(lines, "\n"))
	}
}

func scripts(t *testing.T, folder string) {
	t.Helper()
	scripting(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", folder),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually,
			"isthmus":    isthmus,
			"gateway":    gateway,
			"in":         in,
			"postgres":   postgres,
			"curl":       curl,
			"scrape":     scrape,
			"process":    process,
			"write":      write,
			"restore":    restore,
			"part":       part,
			"unite":      unite,
			"exposing":   exposing,
			"crossed":    crossed,
			"image":      image,
			"way":        way,
		},
	})
}

func setup(env *testscript.Env) error {
	isthmus, err := binary()
	if err != nil {
		return err
	}
	sdk, err := filepath.Abs("sdk")
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	takesTurns(env)
	examples, err := filepath.Abs(filepath.Join("..", "docs", "examples", "kubernetes"))
	if err != nil {
		return err
	}
	chart, err := filepath.Abs(filepath.Join("..", "charts", "isthmus"))
	if err != nil {
		return err
	}
	gateway := running.Mesh.Gateway
	tools := running.Bed.Tools()
	for name, value := range map[string]string{
		"PATH": filepath.Dir(tools.Kubectl) + ":" + filepath.Dir(tools.Helm) + ":" + filepath.Dir(tools.Psql) + ":" + os.Getenv("PATH"),
		// West's docker client reaches east; the real engines are beside it.
		"DOCKER_HOST":       "unix://" + gateway("west").Socket("east"),
		"DOCKER_WEST":       running.Bed.Docker("west").Host(),
		"DOCKER_SOUTH":      running.Bed.Docker("south").Host(),
		"DOCKER_SOUTH_WEST": "unix://" + gateway("south").Socket("west"),
		"DOCKER_WEST_SOUTH": "unix://" + gateway("west").Socket("south"),
		"KUBECONFIG":        running.Bed.Kubernetes("east").HostKubeconfig,
		"EAST_WEST":         gateway("east").Kubeconfig("west"),
		"EAST_SOUTH":        gateway("east").Kubeconfig("south"),
		"AUDIT_SOUTH":       filepath.Join(gateway("south").Dir, "state", "audit.log"),
		"EAST_WEST_ADDRESS": gateway("east").APIs["west"],
		"NORTH_EAST":        gateway("north").Kubeconfig("east"),
		"NORTH_EAST_SERVER": "https://" + gateway("north").APIs["east"],
		"SOUTH_WEST":        gateway("south").APIs["west"],
		"CALLERS_EAST":      gateway("east").Callers(),
		"CALLERS_NORTH":     gateway("north").Callers(),
		"CALLERS_WEST":      gateway("west").Callers(),
		"CALLERS_SOUTH":     gateway("south").Callers(),
		"CA_EAST":           filepath.Join(gateway("east").Dir, "state", "trust", "ca.crt"),
		"CA_NORTH":          filepath.Join(gateway("north").Dir, "state", "trust", "ca.crt"),
		"CA_SOUTH":          filepath.Join(gateway("south").Dir, "state", "trust", "ca.crt"),
		"AUDIT_WEST":        filepath.Join(gateway("west").Dir, "state", "audit.log"),
		"EDGE_WEST":         gateway("west").Edge,
		"ADMIN_EAST":        gateway("east").Admin,
		"ADMIN_WEST":        gateway("west").Admin,
		"EDGE_EAST":         gateway("east").Edge,
		"SERVICE":           running.Service,
		"ACCESS":            running.Access,
		"IMAGE":             demo.Image,
		"POSTGRES":          testbed.PostgresImage,
		"ZONE":              "east.isthmus.internal",
		"NETNS_WEST":        "/run/netns/" + running.Bed.Cluster("west").Namespace,
		"NETNS_EAST":        "/run/netns/" + running.Bed.Cluster("east").Namespace,
		"AUDIT_EAST":        filepath.Join(gateway("east").Dir, "state", "audit.log"),
		"LOG_WEST":          filepath.Join(running.Bed.Root, "west", "log", "isthmus.log"),
		"DOCKER_SOCKET":     gateway("west").Socket("east"),
		"ADMIN_SOUTH":       gateway("south").Admin,
		"DIR_WEST":          gateway("west").Dir,
		"DIR_EAST":          gateway("east").Dir,
		"ISTHMUS":           isthmus, // the binary, for commands that ask no gateway
		"DIR_SOUTH":         gateway("south").Dir,
		"LINK_WEST":         running.Bed.Link("south", "west").Address("west"),
		"LINK_SOUTH":        running.Bed.Link("south", "west").Address("south"),
		"ADMIN_NORTH":       gateway("north").Admin,
		"DIR_NORTH":         gateway("north").Dir,
		"LINK_NORTH":        running.Bed.Link("north", "east").Address("north"),
		"LINK_EAST_NORTH":   running.Bed.Link("north", "east").Address("east"),
		// Where a gateway reaches another one through the tap.
		"SOUTH_TO_WEST":   wire.addresses[[2]string{"south", "west"}],
		"WEST_TO_SOUTH":   wire.addresses[[2]string{"west", "south"}],
		"NORTH_TO_EAST":   wire.addresses[[2]string{"north", "east"}],
		"EAST_TO_NORTH":   wire.addresses[[2]string{"east", "north"}],
		"KUBECONFIG_EAST": running.Bed.Kubernetes("east").Kubeconfig, // in east's own network
		"EAST_TO_WEST":    wire.addresses[[2]string{"east", "west"}],
		"LINK_WEST_EAST":  running.Bed.Link("west", "east").Address("west"),
		"LINK_EAST":       running.Bed.Link("west", "east").Address("east"),
		"HOME":            env.WorkDir,
		"COMPOSE":         tools.Compose,
		"GO_CACHE":        filepath.Join(cache, "go-build"), // for programs of scripts
		// Docker's libraries, and where what uses them is.
		"PYTHON":     tools.Python,
		"PYTHONPATH": tools.DockerPy,
		"SDK":        sdk,
		// What a node's agent is given.
		"CONTAINERD_EAST": running.Bed.Kubernetes("east").ContainerdSocket(),
		"CTR":             tools.Ctr,
		"EXAMPLES":        examples,
		"CHART":           chart,
		// Names of one run of one script.
		"ID": strings.ToLower(strings.NewReplacer("_", "-", "script-", "").Replace(filepath.Base(env.WorkDir))),
	} {
		env.Setenv(name, value)
	}
	return nil
}

// eventually DURATION program ...: runs the program until it succeeds.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually DURATION PROGRAM ...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	deadline := time.Now().Add(limit)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %v", limit, err)
		}
		time.Sleep(150 * time.Millisecond)
	}
}

// isthmus GATEWAY command ...: runs an isthmus command against a gateway.
func isthmus(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: isthmus GATEWAY COMMAND ...")
	}
	path, err := binary()
	ts.Check(err)
	g := running.Mesh.Gateway(args[0])
	check(ts, neg, ts.Exec(path, append(slices.Clone(args[1:]), "--admin", g.Admin)...))
}

// gateway kill|stop|start|envoy-kill NAME ...: start waits until all that it started have joined their peers.
func gateway(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 2 && args[0] != "start" {
		ts.Fatalf("usage: gateway kill|stop|start|envoy-kill NAME, gateway start NAME ...")
	}
	g := running.Mesh.Gateway(args[1])
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	switch args[0] {
	case "kill":
		err = g.Kill(ctx)
	case "stop":
		err = g.Process.Stop(ctx, 40*time.Second)
	case "start":
		for _, step := range []func(*mesh.Gateway) error{
			func(g *mesh.Gateway) error { return g.Start(ctx) },
			func(g *mesh.Gateway) error { return g.Ready(ctx) },
			func(g *mesh.Gateway) error { return g.Joined(ctx) },
		} {
			for _, name := range args[1:] {
				err = errors.Join(err, step(running.Mesh.Gateway(name)))
			}
			if err != nil {
				break
			}
		}
	case "envoy-kill":
		var pid int
		if pid, err = g.EnvoyPID(); err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
	default:
		ts.Fatalf("gateway %s is unknown", args[0])
	}
	check(ts, neg, err)
}

// in CLUSTER program ...: runs a program in a cluster's network namespace.
func in(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: in CLUSTER PROGRAM ...")
	}
	namespace := running.Bed.Cluster(args[0]).Namespace
	check(ts, neg, ts.Exec("nsenter", append([]string{"--net=/run/netns/" + namespace, "--"}, args[1:]...)...))
}

// postgres CLUSTER: gives the cluster the image $POSTGRES.
func postgres(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: postgres CLUSTER")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	image := running.Bed.Tools().PostgresImage
	if engine := running.Bed.Docker(args[0]); engine != nil {
		ts.Check(engine.LoadImage(ctx, image))
		return
	}
	ts.Check(running.Bed.Kubernetes(args[0]).LoadImage(ctx, image))
}

// curl NAME [flags]: asks west's edge for a name; "curl URL" asks as it is.
func curl(ts *testscript.TestScript, neg bool, args []string) {
	flags := []string{"-sS", "--max-time", "20"}
	if name := args[0]; !strings.HasPrefix(name, "http") {
		host, path, _ := strings.Cut(name, "/")
		flags = append(flags, "-H", "Host: "+host, "http://"+ts.Getenv("EDGE_WEST")+"/"+path)
	} else {
		flags = append(flags, name)
	}
	check(ts, neg, ts.Exec("curl", append(flags, args[1:]...)...))
}

// scrape GATEWAY: reads its metrics.
func scrape(ts *testscript.TestScript, neg bool, args []string) {
	check(ts, neg, ts.Exec("curl", "-sS", "http://"+running.Mesh.Gateway(args[0]).Admin+"/metrics"))
}

// process stop|continue CLUSTER NAME: holds a process of a cluster, or lets it go on. The end of the script does as well.
func process(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: process stop|continue CLUSTER NAME")
	}
	p := running.Bed.Process(args[1], args[2])
	if p == nil {
		ts.Fatalf("cluster %s has no process %s", args[1], args[2])
	}
	signal := syscall.SIGSTOP
	if args[0] == "continue" {
		signal = syscall.SIGCONT
	} else {
		ts.Defer(func() { _ = p.Kill(syscall.SIGCONT) })
	}
	check(ts, neg, p.Kill(signal))
}

// write GATEWAY NAME FILE: puts the file in the place of one of the gateway's documents, which the end of the script
// puts back.
func write(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: write GATEWAY NAME FILE")
	}
	g := running.Mesh.Gateway(args[0])
	if before, err := os.ReadFile(filepath.Join(g.Config(), args[1])); err == nil {
		ts.Defer(func() {
			if now, err := os.ReadFile(filepath.Join(g.Config(), args[1])); err == nil && bytes.Equal(now, before) {
				return
			}
			_ = g.Write(args[1], string(before))
			time.Sleep(3 * time.Second) // the script has failed; the next one finds what it expects
		})
	}
	check(ts, neg, g.Write(args[1], ts.ReadFile(args[2])))
}

// restore GATEWAY NAME: puts the policies of the demo back.
func restore(ts *testscript.TestScript, neg bool, args []string) {
	check(ts, neg, running.Mesh.Gateway(args[0]).Write(args[1], demo.Policies[args[0]]))
}

// exposing CLUSTER: from here to the end of the script, which is alone, addresses of the cluster may cross.
func exposing(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: exposing CLUSTER")
	}
	ts.Defer(wire.expose(args[0]))
}

// part GATEWAY GATEWAY: makes strangers of two peers; unite undoes it.
func part(ts *testscript.TestScript, neg bool, args []string) {
	between(ts, neg, args, running.Mesh.Part)
}

func unite(ts *testscript.TestScript, neg bool, args []string) {
	between(ts, neg, args, running.Mesh.Unite)
}

func between(ts *testscript.TestScript, neg bool, args []string, do func(ctx context.Context, first, second string) error) {
	if len(args) != 2 {
		ts.Fatalf("usage: part|unite GATEWAY GATEWAY")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	check(ts, neg, do(ctx, args[0], args[1]))
}

func check(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	case err == nil && neg:
		ts.Fatalf("succeeded, and should not have")
	}
}

func TestQueries(t *testing.T)    { scripts(t, "queries") }
func TestOperations(t *testing.T) { scripts(t, "operations") }
func TestAccess(t *testing.T)     { scripts(t, "access") }
func TestKubectl(t *testing.T)    { scripts(t, "kubectl") }
func TestRefusals(t *testing.T)   { scripts(t, "refusals") }
func TestSameType(t *testing.T)   { scripts(t, "sametype") }
func TestJoining(t *testing.T)    { scripts(t, "joining") }
func TestFaults(t *testing.T)     { scripts(t, "faults") }
func TestCallers(t *testing.T)    { scripts(t, "callers") }
func TestSDK(t *testing.T)        { scripts(t, "sdk") }
func TestInstalling(t *testing.T) { scripts(t, "installing") }
func TestCopying(t *testing.T)    { scripts(t, "copying") }
