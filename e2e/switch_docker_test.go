package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestSwitchDocker changes the network modes of containers of a real engine, and changes them back.
func TestSwitchDocker(t *testing.T) {
	scripting(t)
	defer turn("switch-docker")()
	e := switchedOn(t, "south")
	for _, test := range []struct {
		name string
		test func(*switched)
	}{
		{"none", (*switched).testNone}, {"none cut", (*switched).testNoneCut}, {"none and an operator", (*switched).testNoneOperator},
		{"bridge to host", (*switched).testBridgeToHost}, {"host to bridge", (*switched).testHostToBridge},
		{"bridge to host cut", (*switched).testCut}, {"failing", (*switched).testFailing}, {"layer", (*switched).testLayer},
		{"operator", (*switched).testOperator}, {"keep", (*switched).testKeep}, {"refusals", (*switched).testRefusals},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) { test.test(e.in(t)) })
	}
}

var (
	anyMode  = neutral.NetworkNeed{Port: 8080}
	toHost   = neutral.NetworkNeed{Port: 8080, Mode: neutral.NetworkHost}
	toBridge = neutral.NetworkNeed{Port: 8080, Mode: neutral.NetworkBridge}
)

func (e *switched) page(name, text string) {
	e.t.Helper()
	e.run("exec", name, "sh", "-c", "echo "+text+" > /www/page")
}

// A container without a network is joined to one with this host alone, while it runs.
func (e *switched) testNone() {
	e.make("sw-none", "--network", "none")
	e.page("sw-none", "none")
	before := e.inspect("sw-none")
	j := e.planned("live1", "sw-none", anyMode)
	if p := j.Plan; !p.Live || p.Away != 0 || p.From != neutral.NetworkNone || p.To != neutral.NetworkBridge || len(p.Lost) == 0 || len(p.Recreated) != 0 ||
		p.Object.Container == nil || p.Object.Container.ID == "" {
		e.t.Errorf("plan %+v", p)
	}
	pid := e.run("inspect", "-f", "{{.State.Pid}}", "sw-none")
	e.switches(j)
	e.serves("sw-none", "none")
	if now := e.run("inspect", "-f", "{{.State.Pid}}", "sw-none"); now != pid {
		e.t.Errorf("it was started anew: process %s, then %s", pid, now)
	}
	other := e.make("sw-other")
	e.page("sw-other", "other")
	address := e.run("inspect", "-f", "{{.NetworkSettings.IPAddress}}", other)
	if out, err := e.docker(e.t.Context(), "exec", "sw-none", "wget", "-T", "2", "-qO-", "http://"+address+":8080/page"); err == nil {
		e.t.Errorf("it reaches another container: %s", out)
	}
	e.run("restart", "-t", "1", "sw-none")
	e.serves("sw-none", "none")
	e.restores(j)
	e.unchanged("sw-none", "live1", before, ofNoneJoin)
	e.restores(j) // which finds nothing to do
	e.unchanged("sw-none", "live1", before, ofNoneJoin)
	if networks := e.run("inspect", "-f", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{end}}", "sw-none"); networks != "none" {
		e.t.Errorf("networks %s", networks)
	}
}

// Wherever the gateway ends, another one brings the container back to none.
func (e *switched) testNoneCut() {
	e.make("sw-nonecut", "--network", "none")
	e.page("sw-nonecut", "cut")
	before := e.inspect("sw-nonecut")
	for cut := 1; cut <= 4; cut++ {
		j := e.planned("livecut", "sw-nonecut", anyMode)
		j.cut = cut
		if _, err := e.switcher().Switch(e.t.Context(), &j.Switching); (err == nil) != (cut == 4) {
			e.t.Fatalf("cut at %d: %v", cut, err)
		}
		e.restores(j)
		e.unchanged("sw-nonecut", "livecut", before, ofNoneJoin)
	}
}

// What an operator does to the container meanwhile stays.
func (e *switched) testNoneOperator() {
	e.make("sw-noneop", "--network", "none")
	j := e.planned("liveop", "sw-noneop", anyMode)
	e.switches(j)
	e.run("network", "connect", "bridge", "sw-noneop")
	e.conflicts(j, "stays there")
	if mode := e.mode("sw-noneop"); mode != neutral.NetworkBridge {
		e.t.Errorf("mode %s", mode)
	}
	e.nothingLeft("liveop")
	e.run("network", "disconnect", "bridge", "sw-noneop")
	e.run("network", "connect", "none", "sw-noneop")
	j = e.planned("liveop", "sw-noneop", anyMode)
	e.switches(j)
	e.run("rm", "-f", "sw-noneop")
	e.conflicts(j, "was removed")
	e.nothingLeft("liveop")
}

func (e *switched) conflicts(j *journal, text string) {
	e.t.Helper()
	j.steps, j.cut = nil, 0
	if err := e.switcher().Restore(e.t.Context(), &j.Switching); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), text) {
		e.t.Errorf("restore: %v, want a conflict: %s", err, text)
	}
}

// full makes a container that uses what a container can have.
func (e *switched) full(name string) {
	folder := e.t.TempDir()
	if err := os.WriteFile(folder+"/given", []byte("given\n"), 0o644); err != nil {
		e.t.Fatal(err)
	}
	e.run("network", "create", "--subnet", "10.97.0.0/24", name+"-net")
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, _ = e.docker(ctx, "rm", "-fv", name)
		_, _ = e.docker(ctx, "network", "rm", name+"-net")
		_, _ = e.docker(ctx, "volume", "rm", name+"-named")
	})
	e.make(name, "--network", name+"-net", "--ip", "10.97.0.9", "--network-alias", "database", "--network-alias", "db",
		"-v", name+"-named:/var/lib/data/one", "--mount", "type=volume,dst=/var/lib/data/two", "-v", folder+":/given:ro", "--tmpfs", "/scratch:size=1m",
		"--mount", "type=tmpfs,dst=/scratch2,tmpfs-size=65536", "--label", "tier=data", "--label", "com.docker.compose.project=shop", "--label",
		"com.docker.compose.service=db", "-e", "COLOR=blue", "--memory", "64m", "--memory-reservation", "32m", "--cpu-shares", "512", "--pids-limit", "60", "--cap-add", "NET_ADMIN",
		"--cap-drop", "MKNOD", "--device", "/dev/null:/dev/xnull", "--health-cmd", "wget -qO- http://127.0.0.1:8080/page", "--health-interval", "500ms",
		"--health-retries", "8", "--log-opt", "max-size=1m", "--ulimit", "nofile=512:1024", "--sysctl", "kernel.msgmax=65535", "--sysctl", "net.ipv4.ip_default_ttl=77",
		"--add-host", "elsewhere:10.1.2.3", "--restart", "unless-stopped", "--hostname", "custom", "--stop-signal", "SIGINT", "--dns", "10.97.0.250", "--dns-search",
		"shop.example", "--shm-size", "8m", "--group-add", "7", "--read-only", "-p", "18080:8080", "--expose", "9999", "--security-opt", "no-new-privileges", "--user", "0",
		"--workdir", "/given", "--oom-score-adj", "100", "--entrypoint", "")
	e.page(name, "full")
	e.run("exec", name, "sh", "-c", "echo one > /var/lib/data/one/f; echo two > /var/lib/data/two/f")
	e.healthy(name)
}

func (e *switched) healthy(name string) {
	e.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); e.run("inspect", "-f", "{{.State.Health.Status}}", name) != "healthy"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatalf("%s does not become healthy", name)
		}
	}
}

// data holds a container to what is in its volumes.
func (e *switched) data(name, one string) {
	e.t.Helper()
	if got := strings.Fields(e.run("exec", name, "cat", "/var/lib/data/one/f", "/var/lib/data/two/f", "/given/given", "/www/page")); !slices.Equal(got, []string{one, "two", "given", "full"}) {
		e.t.Errorf("the volumes hold %q", got)
	}
}

// A container that has all that a container can have is on the host's network for a while.
func (e *switched) testBridgeToHost() {
	e.full("sw-full")
	before := e.inspect("sw-full")
	j := e.planned("full1", "sw-full", toHost)
	if p := j.Plan; p.Live || p.Away == 0 || p.From != neutral.NetworkBridge || p.To != neutral.NetworkHost || !slices.Equal(p.Recreated, []string{"sw-full"}) {
		e.t.Errorf("plan %+v", p)
	}
	for _, lost := range []string{"net.ipv4.ip_default_ttl", "published port 8080/tcp", "network sw-full-net", "database, db", "static address", "tmpfs"} {
		if !strings.Contains(strings.Join(j.Plan.Lost, "\n"), lost) {
			e.t.Errorf("nothing is said of %s: %q", lost, j.Plan.Lost)
		}
	}
	e.switches(j)
	if mode := e.mode("sw-full"); mode != neutral.NetworkHost {
		e.t.Errorf("mode %s", mode)
	}
	e.serves("sw-full", "full")
	e.data("sw-full", "one")
	diff := differences("", before, e.inspect("sw-full"), ofStart)
	for _, path := range diff {
		if !slices.ContainsFunc([]string{".Id: ", ".Created: ", ".HostConfig.NetworkMode: ", ".HostConfig.Binds: ", ".HostConfig.Mounts: ", ".HostConfig.Sysctls.net.", ".Config.MacAddress: ",
			".Config.Labels.isthmus.io/", ".NetworkSettings.", ".Mounts: ", ".HostnamePath: ", ".HostsPath: ", ".ResolvConfPath: ", ".LogPath: ", ".Config.Entrypoint: ", ".GraphDriver."},
			func(begin string) bool { return strings.HasPrefix(path, begin) }) {
			e.t.Errorf("the new container differs: %s", path)
		}
	}
	e.run("exec", "sw-full", "sh", "-c", "echo anew > /var/lib/data/one/f")
	if again := e.plan("sw-full", toBridge); len(again.Refusals) == 0 || again.Object.Container.ID != j.Plan.Object.Container.ID {
		e.t.Errorf("another switch of it: %+v", again)
	}
	e.restores(j)
	e.unchanged("sw-full", "full1", before)
	e.data("sw-full", "anew")
	e.healthy("sw-full")
	e.serves("sw-full", "full")
	e.restores(j)
	e.unchanged("sw-full", "full1", before)
}

func (e *switched) testHostToBridge() {
	e.make("sw-host", "--network", "host", "--restart", "always")
	e.page("sw-host", "host")
	before := e.inspect("sw-host")
	j := e.planned("host1", "sw-host", toBridge)
	e.switches(j)
	if mode := e.mode("sw-host"); mode != neutral.NetworkBridge {
		e.t.Errorf("mode %s", mode)
	}
	if policy := e.run("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "sw-host"); policy != "always" {
		e.t.Errorf("it restarts by %s", policy)
	}
	e.serves("sw-host", "host")
	e.restores(j)
	e.unchanged("sw-host", "host1", before)
	e.serves("sw-host", "host")
}

// Wherever a switch or a restoration is cut off, the next gateway ends it with the old container.
func (e *switched) testCut() {
	e.make("sw-cut", "--restart", "always")
	e.page("sw-cut", "cut")
	before := e.inspect("sw-cut")
	whole := e.planned("cut0", "sw-cut", toHost)
	e.switches(whole)
	forth, there := len(whole.steps), e.away(whole, "sw-cut")
	e.restores(whole)
	back, here := len(whole.steps), e.away(whole, "sw-cut")
	began := time.Now()
	e.run("restart", "sw-cut")
	e.t.Logf("away %s there and %s back; the engine's own restart takes %s", there, here, time.Since(began).Round(time.Millisecond))
	if most := 5 * whole.Plan.Away; there > most || here > most {
		e.t.Errorf("it is said to be away for about %s", whole.Plan.Away)
	}
	e.unchanged("sw-cut", "cut0", before, ofAddress)
	for cut := 1; cut <= forth; cut++ {
		lease := fmt.Sprintf("cutf%d", cut)
		j := e.planned(lease, "sw-cut", toHost)
		j.cut = cut
		if _, err := e.switcher().Switch(e.t.Context(), &j.Switching); err == nil {
			e.t.Fatalf("cut at %d, it went on", cut)
		}
		e.t.Logf("cut after %q", j.steps)
		e.restores(j)
		e.unchanged("sw-cut", lease, before, ofAddress)
		e.serves("sw-cut", "cut")
	}
	for cut := 1; cut <= back; cut++ {
		lease := fmt.Sprintf("cutb%d", cut)
		j := e.planned(lease, "sw-cut", toHost)
		e.switches(j)
		j.steps, j.cut = nil, cut
		if err := e.switcher().Restore(e.t.Context(), &j.Switching); err == nil {
			e.t.Fatalf("cut at %d on the way back, it went on", cut)
		}
		e.t.Logf("cut after %q", j.steps)
		e.restores(j)
		e.unchanged("sw-cut", lease, before, ofAddress)
		e.serves("sw-cut", "cut")
	}
}

// A container that does not run in the new mode is put back.
func (e *switched) testFailing() {
	// It is well as long as it has an address of its own, and ends or is unwell on the host's network.
	for name, command := range map[string]string{
		"unhealthy": "sleep 600", "ending": "if [ -e /sys/class/net/docker0 ]; then exit 3; fi; sleep 600",
	} {
		name = "sw-" + name
		e.end(name)
		e.run("run", "-d", "--name", name, "--stop-timeout", "1", "--init", "--health-cmd", "[ ! -e /sys/class/net/docker0 ]", "--health-interval", "300ms",
			"--health-retries", "2", "isthmus.local/busybox:1", "sh", "-c", command)
		e.healthy(name)
		before := e.inspect(name)
		j := e.planned("fails", name, toHost)
		_, err := e.switcher().Switch(e.t.Context(), &j.Switching)
		if !fault.Is(err, fault.Conflict) {
			e.t.Errorf("switch: %v", err)
		}
		e.t.Logf("it failed: %v", err)
		e.restores(j)
		e.unchanged(name, "fails", before, ofAddress)
	}
}

// Files beside the volumes are refused, carried along, or left to the old container.
func (e *switched) testLayer() {
	e.make("sw-layer")
	e.page("sw-layer", "layer")
	e.run("exec", "sw-layer", "sh", "-c", "echo mine > /etc/mine; rm /etc/shadow 2>/dev/null; true")
	before := e.inspect("sw-layer")
	if plan := e.plan("sw-layer", toHost); len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0], "/etc/mine") {
		e.t.Errorf("refusals %q", plan.Refusals)
	}
	for _, tt := range []struct {
		layer neutral.LayerMode
		want  string
	}{{neutral.LayerCommit, "mine"}, {neutral.LayerDiscard, ""}} {
		need := toHost
		need.Layer = tt.layer
		j := e.planned("layer1", "sw-layer", need)
		e.switches(j)
		if got := e.run("exec", "sw-layer", "sh", "-c", "cat /etc/mine 2>/dev/null || true"); got != tt.want {
			e.t.Errorf("%s: the file holds %q", tt.layer, got)
		}
		e.serves("sw-layer", "layer")
		e.restores(j)
		e.unchanged("sw-layer", "layer1", before, ofAddress)
		if got := e.run("exec", "sw-layer", "cat", "/etc/mine"); got != "mine" {
			e.t.Errorf("%s: afterwards the file holds %q", tt.layer, got)
		}
	}
}

// What an operator did meanwhile stays, and nothing of anybody is removed.
func (e *switched) testOperator() {
	const lease = "oper1"
	spare, draft := "sw-oper-isthmus-"+lease, "sw-oper-isthmus-"+lease+"-new"
	for _, tt := range []struct {
		does  func()
		text  string
		stays []string
	}{
		{func() { e.run("rm", "-f", "sw-oper") }, "was removed", []string{spare}},
		{func() { e.run("rename", "sw-oper", "sw-oper2") }, "renamed", []string{spare, "sw-oper2"}},
		{func() {
			e.run("rm", "-f", "sw-oper")
			e.run("run", "-d", "--name", "sw-oper", "isthmus.local/busybox:1", "sleep", "600")
		}, "another container has the name", []string{spare, "sw-oper"}},
		{func() { e.run("start", spare) }, "was started by somebody", []string{spare, "sw-oper"}},
		{func() { e.run("rm", spare) }, "was removed; what is in its place stays", []string{"sw-oper"}},
		{func() { e.run("rename", spare, "sw-oper3") }, "renamed", []string{"sw-oper", "sw-oper3"}},
	} {
		e.end(spare, draft, "sw-oper2", "sw-oper3")
		e.make("sw-oper")
		j := e.planned(lease, "sw-oper", toHost)
		e.switches(j)
		tt.does()
		e.conflicts(j, tt.text)
		names := strings.Fields(e.run("ps", "-a", "--filter", "name=sw-oper", "--format", "{{.Names}}"))
		slices.Sort(names)
		slices.Sort(tt.stays)
		if !slices.Equal(names, tt.stays) {
			e.t.Errorf("%s: %q are there, want %q", tt.text, names, tt.stays)
		}
		for _, name := range names {
			e.run("rm", "-fv", name)
		}
	}
	e.make("sw-oper") // the new one is gone and the old one was put back by hand: it is as it should be
	before := e.inspect("sw-oper")
	j := e.planned(lease, "sw-oper", toHost)
	e.switches(j)
	e.run("rm", "-f", "sw-oper")
	e.run("rename", spare, "sw-oper")
	e.run("start", "sw-oper")
	e.restores(j)
	e.unchanged("sw-oper", lease, before, ofAddress)
}

func (e *switched) testKeep() {
	e.make("sw-keep", "--restart", "unless-stopped")
	e.page("sw-keep", "keep")
	j := e.planned("keep1", "sw-keep", toHost)
	e.switches(j)
	for range 2 {
		if err := e.switcher().Keep(e.t.Context(), &j.Switching); err != nil {
			e.t.Fatal(err)
		}
	}
	e.serves("sw-keep", "keep")
	if mode := e.mode("sw-keep"); mode != neutral.NetworkHost {
		e.t.Errorf("mode %s", mode)
	}
	if all := e.run("ps", "-a", "--filter", "name=sw-keep", "--format", "{{.Names}}"); all != "sw-keep" {
		e.t.Errorf("%s are there", all)
	}
	if policy := e.run("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "sw-keep"); policy != "unless-stopped" {
		e.t.Errorf("it restarts by %s", policy)
	}
	before := e.inspect("sw-keep")
	back := e.planned("keep2", "sw-keep", toBridge) // it is a container like any other
	e.switches(back)
	e.serves("sw-keep", "keep")
	e.restores(back)
	e.unchanged("sw-keep", "keep2", before)
	e.serves("sw-keep", "keep")
}

// All that stands against a switch is told at once.
func (e *switched) testRefusals() {
	e.make("sw-taken", "-p", "18081:8080", "--name", "sw-taken")
	e.end("sw-rm", "sw-joined", "sw-stopped")
	e.run("run", "-d", "--rm", "--name", "sw-rm", "--link", "sw-taken:other", "--expose", "18081", "isthmus.local/busybox:1", "sh", "-c", "touch /changed; sleep 600")
	e.run("run", "-d", "--name", "sw-joined", "--network", "container:sw-rm", "isthmus.local/busybox:1", "sleep", "600")
	time.Sleep(200 * time.Millisecond)
	told := strings.Join(e.plan("sw-rm", toHost).Refusals, "\n")
	for _, want := range []string{"--rm", "--link", "sw-joined shares the network", "port 18081/tcp of the host is taken", "/changed"} {
		if !strings.Contains(told, want) {
			e.t.Errorf("nothing is said of %s:\n%s", want, told)
		}
	}
	e.run("create", "--name", "sw-stopped", "isthmus.local/busybox:1", "true")
	for _, tt := range []struct {
		name string
		need neutral.NetworkNeed
		want string
	}{
		{"sw-joined", anyMode, "shares another container's network"}, {"sw-stopped", toHost, "does not run"}, {"sw-taken", anyMode, "already"},
		{"sw-taken", toBridge, "already"}, {"sw-taken", neutral.NetworkNeed{Mode: "pod", Port: 8080}, "none that a container is brought into"},
	} {
		if told := strings.Join(e.plan(tt.name, tt.need).Refusals, "\n"); !strings.Contains(told, tt.want) {
			e.t.Errorf("%s to %q: %q, want %s", tt.name, tt.need.Mode, told, tt.want)
		}
	}
}
