package docker

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// cli is the real docker client against a facade.
type cli struct {
	t     *testing.T
	host  string
	world *world
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no docker client on this machine")
	}
	w := newWorld()
	server := httptest.NewUnstartedServer(w)
	server.Config.ErrorLog = nil
	server.Start()
	t.Cleanup(server.Close)
	return &cli{t: t, host: "tcp://" + server.Listener.Addr().(*net.TCPAddr).String(), world: w}
}

// run gives what the client printed and its exit code.
func (c *cli) run(stdin string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = []string{"DOCKER_HOST=" + c.host, "HOME=" + c.t.TempDir(), "PATH=/usr/bin:/bin:/usr/local/bin", "DOCKER_BUILDKIT=0"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		c.t.Fatalf("docker %v hangs; stdout %q stderr %q", args, out.String(), errs.String())
	}
	if err != nil && cmd.ProcessState == nil {
		c.t.Fatalf("docker %v: %v", args, err)
	}
	c.t.Logf("$ docker %s\n%s%s[%d]", strings.Join(args, " "), out.String(), errs.String(), cmd.ProcessState.ExitCode())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// want runs a command that must succeed and whose output must hold each of the texts.
func (c *cli) want(args []string, texts ...string) string {
	c.t.Helper()
	out, errs, code := c.run("", args...)
	if code != 0 {
		c.t.Errorf("docker %v: exit %d: %s", args, code, errs)
	}
	for _, text := range texts {
		if !strings.Contains(out+errs, text) {
			c.t.Errorf("docker %v: no %q in\n%s%s", args, text, out, errs)
		}
	}
	return out
}

// refused runs a command that must fail and say why.
func (c *cli) refused(args []string, text string) {
	c.t.Helper()
	out, errs, code := c.run("", args...)
	if code == 0 || !strings.Contains(errs, text) {
		c.t.Errorf("docker %v: exit %d, no %q in\n%s%s", args, code, text, out, errs)
	}
}

func TestClientSystem(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.want([]string{"version"}, "Isthmus (Kubernetes)", "1.34.1", "API version:      1.49 (minimum version 1.24)")
	c.want([]string{"version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}"}, "1.34.1 1.49")
	c.want([]string{"info"}, "Server Version: 1.34.1", "Swarm: active", "Is Manager: true", "Running: 1", "Name: east")
	c.want([]string{"images"}, "busybox", "1.36")
	c.want([]string{"image", "inspect", "busybox:1.36", "--format", "{{.ID}}"}, "sha256:1111")
	c.want([]string{"network", "ls"}, "bridge", "host", "none")
	c.want([]string{"network", "inspect", "host", "--format", "{{.Driver}}"}, "host")
	for _, name := range []string{"bridge", "host", "none"} {
		id := strings.TrimSpace(c.want([]string{"network", "inspect", name, "--format", "{{.Id}}"}))
		listed := strings.TrimSpace(c.want([]string{"network", "ls", "-q", "--no-trunc", "-f", "name=" + name}))
		if id == "" || id != listed {
			t.Errorf("network %s: inspected as %q, listed as %q", name, id, listed)
		}
		c.want([]string{"network", "inspect", id[:12], "--format", "{{.Name}}"}, name)
	}
	c.want([]string{"volume", "ls"}, "data")
	c.want([]string{"pull", "busybox:1.36"}, "the nodes pull")
	c.refused([]string{"build", "-"}, "build: images are built")
	c.refused([]string{"login", "-u", "a", "-p", "very-secret"}, "login: credentials are not handed")
	c.want([]string{"secret", "ls"}, "NAME")
}

func TestClientVolumes(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.want([]string{"volume", "create", "--label", "a=b", "shop_data"}, "shop_data")
	c.want([]string{"volume", "inspect", "data", "--format", "{{.Name}} {{.Driver}}"}, "data local")
	c.want([]string{"volume", "rm", "data"}, "data")
	c.refused([]string{"volume", "rm", "nope"}, "get nope: no such volume")
	c.want([]string{"volume", "prune", "-f", "--all"}, "old", "Total reclaimed space: 0B")
}

func TestClientStats(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.want([]string{"stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}", "web"},
		"web 50.00% 2MiB / 8MiB 25.00% 2kB / 3kB 1kB / 0B 4")
}

func TestClientCopy(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	dir := t.TempDir()
	c.want([]string{"cp", "web:/a", dir + "/b"}, "")
	if got, err := os.ReadFile(dir + "/b"); err != nil || string(got) != "what is in a" {
		t.Errorf("%q %v", got, err)
	}
	c.refused([]string{"cp", "web:/nope", dir}, "Could not find the file /nope in container web")
	c.want([]string{"cp", dir + "/b", "web:/tmp"}, "")
	if got := c.world.files["/tmp/b"]; got != "what is in a" {
		t.Errorf("%q", got)
	}
}

func TestClientContainers(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.want([]string{"ps"}, "web", `"sleep 60"`, "Up 5 seconds (healthy)", "0.0.0.0:8080->80/tcp", "53/udp")
	all := c.want([]string{"ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.State}}"}, "web|Up 5 seconds", "job|Exited (7) 3 seconds ago|exited",
		"fresh|Created|created")
	if lines := strings.Split(strings.TrimSpace(all), "\n"); !strings.HasPrefix(lines[0], "web|") {
		t.Errorf("the newest container is not first: %q", lines)
	}
	if out := c.want([]string{"ps", "-aq", "--no-trunc", "-f", "name=^/?job$"}); strings.TrimSpace(out) != c.world.containers[1].ID {
		t.Errorf("name filter: %q", out)
	}
	c.want([]string{"inspect", "web", "--format", "{{.State.Status}} {{.State.Running}} {{.Name}} {{.NetworkSettings.IPAddress}}|{{.HostConfig.NetworkMode}} {{(index .Mounts 0).Name}}"},
		"running true /web |bridge data")
	c.want([]string{"inspect", "job", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}"}, "7 true")
	c.want([]string{"inspect", "shop", "--format", "{{.Spec.Name}}"}, "shop") // a service: all kinds before it say no
	c.refused([]string{"inspect", "nobody"}, "No such object: nobody")
	c.want([]string{"port", "web"}, "80/tcp -> 0.0.0.0:8080")
	c.want([]string{"top", "web"}, "PID", "sleep 60")
	c.want([]string{"stop", "web"}, "web")
	c.want([]string{"rm", "job"}, "job")
	c.want([]string{"rename", "web", "other"}, "")
	c.want([]string{"container", "prune", "-f"}, "Deleted Containers", "fresh")
	c.refused([]string{"pause", "web"}, "pause: not on this cluster")
	c.refused([]string{"stop", "nobody"}, "No such container: nobody")
	c.want([]string{"start", "web"}, "web") // already running: 304
	c.want([]string{"rm", "-f", "nobody"})
	out, errs, code := c.run("", "wait", "job")
	if strings.TrimSpace(out) != "7" || code != 0 {
		t.Errorf("wait: %q %q %d", out, errs, code)
	}
	c.want([]string{"logs", "web"}, "one\n", "two\n")
	c.want([]string{"logs", "-t", "--tail", "1", "web"}, "2026-11-24T10:00:02.000000000Z two")
	c.want([]string{"logs", "tty"}, "raw\r\n")
	c.refused([]string{"logs", "-f", "broken"}, "the pod is gone")
	c.refused([]string{"logs", "-f", "brokentty"}, "unexpected EOF")
	c.want([]string{"events", "--until", "1s", "-f", "type=container", "-f", "event=start"}, "container start", "name=web")
}

func TestClientRun(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	out, errs, code := c.run("", "run", "-d", "--name", "new", "--cpu-shares", "512", "-p", "8080:80", "-e", "A=1", "busybox", "sleep", "5")
	if code != 0 || !strings.HasPrefix(out, "ffff") {
		t.Fatalf("run -d: %q %q %d", out, errs, code)
	}
	if !strings.Contains(errs, "HostConfig.CpuShares: dropped") {
		t.Errorf("no warning of what was lost: %q", errs)
	}
	c.want([]string{"inspect", "new", "--format", `{{json .Config.Env}} {{json .HostConfig.PortBindings}} {{.HostConfig.CpuShares}} {{index .Config.Labels "isthmus.io/losses"}}`},
		`["A=1"] {"80/tcp":[{"HostIp":"","HostPort":"8080"}]} 512 HostConfig.CpuShares: dropped`)
	c.refused([]string{"run", "-v", "/etc:/etc", "busybox"}, "bind mount of /etc")
	c.refused([]string{"run", "--device", "/dev/kvm", "busybox"}, "HostConfig.Devices")
	c.refused([]string{"run", "--security-opt", "seccomp=unconfined", "--pid", "container:x", "busybox"}, "HostConfig.SecurityOpt")
	c.want([]string{"run", "--rm", "--name", "fore", "busybox", "echo"}, "attached output")
	out, errs, code = c.run("hi there", "run", "-i", "--name", "fore2", "busybox", "cat")
	if out != "attached output\nhi there" || code != 3 {
		t.Errorf("run -i: %q %q %d", out, errs, code)
	}
	out, errs, code = c.run("hi", "exec", "-i", "-w", "/tmp", "-e", "B=2", "-u", "9", "web", "cat")
	if out != "hi" || !strings.Contains(errs, "err:/tmp [B=2] 9") || code != 4 {
		t.Errorf("exec: %q %q %d", out, errs, code)
	}
	if out := c.want([]string{"exec", "-d", "web", "sleep", "1"}); out != "" {
		t.Errorf("exec -d: %q", out)
	}
	c.refused([]string{"exec", "nobody", "ls"}, "No such container: nobody")
}

func TestClientServices(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.want([]string{"service", "ls"}, "shop", "replicated", "1/2", "*:30080->80/tcp")
	c.want([]string{"service", "ps", "shop"}, "shop.1", "node-a", "Running")
	c.want([]string{"service", "inspect", "--pretty", "shop"}, "Name:\t\tshop", "Replicas:\t2", "nginx:1")
	c.want([]string{"service", "scale", "-d", "shop=5"}, "shop scaled to 5")
	if n := c.world.service(0).Replicas; n != 5 {
		t.Errorf("replicas %d", n)
	}
	c.want([]string{"service", "update", "-d", "--image", "nginx:2", "--env-add", "X=y", "--force", "shop"}, "shop")
	if w := c.world.service(0); w.Template.Image != "nginx:2" || len(w.Template.Env) != 1 || w.Force != 1 || w.Replicas != 5 {
		t.Errorf("updated %+v", w)
	}
	c.want([]string{"service", "create", "-d", "--name", "made", "--replicas", "3", "--limit-pids", "9", "-p", "80:80", "--network", "host", "busybox", "sleep", "9"},
		"TaskTemplate.Resources.Limits.Pids: dropped")
	if w := c.world.service(1); w.Replicas != 3 || w.Template.Network != "host" || w.Template.Command[1] != "9" {
		t.Errorf("made %+v", w)
	}
	c.want([]string{"service", "update", "-d", "--replicas", "4", "made"}, "made")
	c.want([]string{"service", "logs", "shop"}, "shop.1", "line of a task")
	c.want([]string{"node", "ls"}, "node-a", "Ready", "Active", "Leader")
	c.want([]string{"node", "inspect", "node-a", "--format", "{{.Status.Addr}}|{{.Description.Hostname}}"}, "|node-a")
	c.want([]string{"stack", "ls"}, "NAME")
	c.want([]string{"service", "rollback", "-d", "made"}, "made")
	if w := c.world.service(1); w.Replicas != 3 {
		t.Errorf("rolled back to %+v", w)
	}
	c.refused([]string{"service", "inspect", "nobody"}, "no such service: nobody")
	c.want([]string{"service", "rm", "shop"}, "shop")
}

// TestClientListsJobs lists services whose callers left out a part of the mode, which the client does not look for.
func TestClientListsJobs(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	service := func(name, mode string, m neutral.Mode) neutral.Workload {
		w := neutral.Workload{ID: "id-of-" + name, Name: name, Mode: m, Replicas: 3, Running: 1, Desired: 3, Completed: 2, CreatedAt: epoch,
			Template: neutral.Container{Image: "busybox"}}
		if mode != "" {
			w.Origin = &neutral.Origin{Dialect: neutral.Docker, Spec: []byte(`{"Name":"` + name + `","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}},"Mode":` + mode + `}`)}
		}
		return w
	}
	c.world.mu.Lock()
	c.world.workloads = append(c.world.workloads, service("native", "", neutral.ModeJob), service("bare", `{"ReplicatedJob":{}}`, neutral.ModeJob),
		service("total", `{"ReplicatedJob":{"TotalCompletions":3}}`, neutral.ModeJob), service("each", `{"GlobalJob":{}}`, neutral.ModeGlobalJob),
		service("unsaid", `{}`, neutral.ModeReplicated), service("uncounted", `{"Replicated":{}}`, neutral.ModeReplicated))
	c.world.mu.Unlock()
	out := c.want([]string{"service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"})
	for _, line := range []string{"native replicated job 1/3 (2/3 completed)", "bare replicated job 1/3 (2/3 completed)",
		"total replicated job 1/3 (2/3 completed)", "each global job 1/1 (2/3 completed)", "unsaid replicated 1/3", "uncounted replicated 1/3"} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	for _, name := range []string{"bare", "total", "each", "uncounted"} {
		c.want([]string{"service", "inspect", "--pretty", name}, name)
		c.want([]string{"service", "ps", name})
	}
}

// TestClientWaitsForService follows a rollout as the client does without -d: it polls tasks until all run for a while.
func TestClientWaitsForService(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the client watches for five seconds")
	}
	c := newCLI(t)
	c.want([]string{"service", "scale", "shop=1"}, "overall progress: 1 out of 1 tasks", "Service shop converged")
}

// TestClientVersions asks with the API versions of old and new clients.
func TestClientVersions(t *testing.T) {
	t.Parallel()
	w := newWorld()
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	for path, want := range map[string]int{"/version": 200, "/v1.24/version": 200, "/v1.49/info": 200, "/v1.50/info": 400,
		"/v1.23/info": 400, "/v1.49/nothing": 404, "/_ping": 200, "/v1.30/_ping": 200} {
		res, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
		if res.StatusCode >= 400 && res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: content type %q", path, res.Header.Get("Content-Type"))
		}
	}
}
