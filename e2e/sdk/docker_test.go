package sdk

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/docker/docker/pkg/stdcopy"
)

// dockerClient is the engine's client as it was until version 28, which most programs still use.
func dockerClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	must(t, "client", err)
	t.Cleanup(func() { c.Close() })
	return c
}

func dockerRunning(t *testing.T, c *client.Client, name string, config container.Config, host *container.HostConfig) string {
	t.Helper()
	config.Image = target.image
	made, err := c.ContainerCreate(t.Context(), &config, host, nil, nil, named(name))
	must(t, "create "+name, err)
	t.Cleanup(func() {
		_ = c.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	})
	must(t, "start "+name, c.ContainerStart(t.Context(), made.ID, container.StartOptions{}))
	return made.ID
}

func dockerEnds(t *testing.T, c *client.Client, id string, code int64) {
	t.Helper()
	ends, failed := c.ContainerWait(t.Context(), id, container.WaitConditionNotRunning)
	select {
	case end := <-ends:
		equal(t, "exit code", end.StatusCode, code)
	case err := <-failed:
		t.Errorf("wait: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("wait does not end")
	}
}

func TestDockerContainers(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dockerClient(t)
	ping, err := c.Ping(ctx)
	must(t, "ping", err)
	equal(t, "system", ping.OSType, "linux")
	_, err = c.ServerVersion(ctx)
	must(t, "version", err)
	equal(t, "the version agreed on", c.ClientVersion(), ping.APIVersion)
	info, err := c.Info(ctx)
	must(t, "info", err)
	equal(t, "a manager of a swarm", info.Swarm.ControlAvailable, true)
	_, err = c.ImageInspect(ctx, target.image)
	must(t, "inspect an image", err)
	_, err = c.ImageInspect(ctx, "example.invalid/none:1")
	equal(t, "an image that is not there is not found", errdefs.IsNotFound(err), true)
	if !target.engine {
		pull, err := c.ImagePull(ctx, target.image, image.PullOptions{})
		must(t, "pull", err)
		progress, err := io.ReadAll(pull)
		succeeds(t, "pull", err)
		equal(t, "a pull tells how it goes", strings.Contains(string(progress), `"status"`), true)
		pull.Close()
	}
	// An engine takes a name of a filter of events for the beginning of names, so no other's begins with this one.
	name, second := named("docker-run"), 1
	messages, broken := c.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("container", name), filters.Arg("event", "die"))})
	id := dockerRunning(t, c, "docker-run", container.Config{Labels: map[string]string{"sdk": name}, StopTimeout: &second,
		Cmd: []string{"sh", "-c", "trap 'exit 4' USR1 TERM; echo out; sleep 0.3; echo bad >&2; while true; do sleep 0.1; done"}}, nil)
	list, err := c.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "sdk="+name), filters.Arg("status", "running"))})
	must(t, "list", err)
	equal(t, "containers by label", len(list) == 1 && list[0].ID == id && list[0].State == "running", true)
	var stdout, stderr bytes.Buffer
	soon(t, "its log", func() bool {
		logs, err := c.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
		must(t, "logs", err)
		defer logs.Close()
		stdout.Reset()
		stderr.Reset()
		_, err = stdcopy.StdCopy(&stdout, &stderr, logs)
		must(t, "read logs", err)
		return stdout.Len()+stderr.Len() == len("out\nbad\n")
	})
	heard(t, "the log", stdout.String(), stderr.String(), "out\n", "bad\n")

	exec, err := c.ContainerExecCreate(ctx, id, container.ExecOptions{AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Cmd: []string{"sh", "-c", "cat; echo bad >&2; exit 7"}})
	must(t, "exec", err)
	session, err := c.ContainerExecAttach(ctx, exec.ID, container.ExecAttachOptions{})
	must(t, "attach to an exec", err)
	defer session.Close()
	_, err = io.WriteString(session.Conn, "typed\n")
	must(t, "type", err)
	must(t, "close stdin", session.CloseWrite())
	stdout.Reset()
	stderr.Reset()
	_, err = stdcopy.StdCopy(&stdout, &stderr, session.Reader)
	succeeds(t, "read an exec", err)
	equal(t, "an exec says", stdout.String()+stderr.String(), "typed\nbad\n")
	soon(t, "the exec ends", func() bool {
		now, err := c.ContainerExecInspect(ctx, exec.ID)
		must(t, "inspect an exec", err)
		return !now.Running && now.ExitCode == 7
	})

	must(t, "copy in", c.CopyToContainer(ctx, id, "/tmp", archive("page", "content\n"), container.CopyToContainerOptions{}))
	out, stat, err := c.CopyFromContainer(ctx, id, "/tmp/page")
	must(t, "copy out", err)
	defer out.Close()
	equal(t, "size", stat.Size, 8)
	equal(t, "what comes out", unpacked(t, out)["page"], "content\n")
	_, err = c.ContainerStatPath(ctx, id, "/none")
	equal(t, "a file that is not there is not found", errdefs.IsNotFound(err), true)
	stats, err := c.ContainerStatsOneShot(ctx, id)
	must(t, "stats", err)
	body, err := io.ReadAll(stats.Body)
	stats.Body.Close()
	equal(t, "stats tell of memory", err == nil && strings.Contains(string(body), `"memory_stats"`), true)
	top, err := c.ContainerTop(ctx, id, nil)
	equal(t, "top", err == nil && len(top.Processes) > 0, true)

	must(t, "kill", c.ContainerKill(ctx, id, "USR1"))
	dockerEnds(t, c, id, 4)
	select {
	case e := <-messages:
		equal(t, "the end that events tell", e.Actor.ID+" "+e.Actor.Attributes["exitCode"], id+" 4")
	case err := <-broken:
		t.Errorf("events: %v", err)
	case <-time.After(20 * time.Second):
		t.Error("events do not tell of the end")
	}
	must(t, "restart", c.ContainerRestart(ctx, id, container.StopOptions{Timeout: &second}))
	must(t, "stop", c.ContainerStop(ctx, id, container.StopOptions{Timeout: &second}))
	inspect, err := c.ContainerInspect(ctx, id)
	must(t, "inspect", err)
	equal(t, "it has ended", inspect.State.Status == "exited" && stopped(inspect.State.ExitCode, 4) && inspect.Name == "/"+name, true)
	refused(t, "rename", c.ContainerRename(ctx, id, name+"-2"), "a Pod's name is fixed")
	must(t, "remove", c.ContainerRemove(ctx, id, container.RemoveOptions{}))
	_, err = c.ContainerInspect(ctx, id)
	equal(t, "a container that is gone is not found", errdefs.IsNotFound(err), true)
	equal(t, "a container that is gone cannot be removed", errdefs.IsNotFound(c.ContainerRemove(ctx, id, container.RemoveOptions{})), true)
}

func TestDockerTerminal(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dockerClient(t)
	made, err := c.ContainerCreate(ctx, &container.Config{Image: target.image, Tty: true, OpenStdin: true, AttachStdin: true, StdinOnce: true,
		Cmd: []string{"sh", "-c", "stty -echo; read word; echo heard $word; exit 2"}}, nil, nil, nil, named("docker-tty"))
	must(t, "create", err)
	t.Cleanup(func() {
		_ = c.ContainerRemove(context.WithoutCancel(ctx), made.ID, container.RemoveOptions{Force: true})
	})
	attached, err := c.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdin: true, Stdout: true})
	must(t, "attach", err)
	defer attached.Close()
	must(t, "start", c.ContainerStart(ctx, made.ID, container.StartOptions{}))
	_, err = io.WriteString(attached.Conn, "typed\n")
	must(t, "type", err)
	said, err := io.ReadAll(attached.Reader)
	if err != nil || !strings.Contains(string(said), "heard typed\r\n") {
		t.Errorf("a terminal says %q, %v", said, err)
	}
	dockerEnds(t, c, made.ID, 2)
}

func TestDockerObjects(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), dockerClient(t)
	name, gone := named("docker-objects"), context.WithoutCancel(t.Context())
	made, err := c.NetworkCreate(ctx, name, network.CreateOptions{Labels: map[string]string{"sdk": name}})
	must(t, "create a network", err)
	_, err = c.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge"})
	fails(t, "create a network twice", err, "already exists")
	_, err = c.VolumeCreate(ctx, volume.CreateOptions{Name: name})
	must(t, "create a volume", err)
	t.Cleanup(func() {
		_ = c.ServiceRemove(gone, name)
		_ = c.NetworkRemove(gone, name)
		_ = c.VolumeRemove(gone, name, true)
	})
	seen, err := c.NetworkInspect(ctx, name, network.InspectOptions{})
	must(t, "inspect a network", err)
	equal(t, "id", seen.ID, made.ID)
	kept, err := c.VolumeInspect(ctx, name)
	must(t, "inspect a volume", err)
	equal(t, "name", kept.Name, name)
	id := dockerRunning(t, c, "docker-writes", container.Config{Cmd: []string{"sh", "-c", "echo kept > /data/file; exec sleep 600"}},
		&container.HostConfig{Binds: []string{name + ":/data"}, NetworkMode: container.NetworkMode(name)})
	equal(t, "a volume in use cannot be removed", errdefs.IsConflict(c.VolumeRemove(ctx, name, false)), true)
	fails(t, "remove a network in use", c.NetworkRemove(ctx, name), "active endpoints")
	must(t, "remove", c.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))

	replicas := uint64(1)
	service, err := c.ServiceCreate(ctx, swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: target.image, Command: []string{"sh", "-c", "echo served; exec sleep 600"}}}},
		swarm.ServiceCreateOptions{})
	must(t, "create a service", err)
	soon(t, "its log", func() bool {
		logs, err := c.ServiceLogs(ctx, service.ID, container.LogsOptions{ShowStdout: true})
		must(t, "logs of a service", err)
		defer logs.Close()
		data, err := io.ReadAll(logs)
		return err == nil && bytes.Contains(data, []byte("served\n"))
	})
	now, _, err := c.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	must(t, "inspect a service", err)
	replicas = 0
	now.Spec.Mode.Replicated.Replicas = &replicas
	_, err = c.ServiceUpdate(ctx, service.ID, now.Version, now.Spec, swarm.ServiceUpdateOptions{})
	must(t, "scale a service", err)
	soon(t, "it is scaled", func() bool {
		list, err := c.ServiceList(ctx, swarm.ServiceListOptions{Status: true, Filters: filters.NewArgs(filters.Arg("name", name))})
		must(t, "list services", err)
		return len(list) == 1 && list[0].ServiceStatus.DesiredTasks == 0 && list[0].ServiceStatus.RunningTasks == 0
	})
	must(t, "remove a service", c.ServiceRemove(ctx, name))
	_, _, err = c.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	equal(t, "a service that is gone is not found", errdefs.IsNotFound(err), true)
	must(t, "remove a volume", c.VolumeRemove(ctx, name, false))
	must(t, "remove a network", c.NetworkRemove(ctx, name))
	_, err = c.SecretCreate(ctx, swarm.SecretSpec{Annotations: swarm.Annotations{Name: named("docker-key")}, Data: []byte("hunter2")})
	must(t, "create a secret", err)
	must(t, "remove a secret", c.SecretRemove(ctx, named("docker-key")))
	_, err = c.ConfigCreate(ctx, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: named("docker-conf")}, Data: []byte("a=b")})
	must(t, "create a config", err)
	must(t, "remove a config", c.ConfigRemove(ctx, named("docker-conf")))
}
