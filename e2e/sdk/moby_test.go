package sdk

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

func mobyClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.FromEnv)
	must(t, "client", err)
	t.Cleanup(func() { c.Close() })
	return c
}

// mobyContainer makes a container that the test's end removes.
func mobyContainer(t *testing.T, c *client.Client, options client.ContainerCreateOptions) string {
	t.Helper()
	options.Config.Image = target.image
	made, err := c.ContainerCreate(t.Context(), options)
	must(t, "create "+options.Name, err)
	t.Cleanup(func() {
		_, _ = c.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
	return made.ID
}

func mobyRunning(t *testing.T, c *client.Client, options client.ContainerCreateOptions) string {
	t.Helper()
	id := mobyContainer(t, c, options)
	_, err := c.ContainerStart(t.Context(), id, client.ContainerStartOptions{})
	must(t, "start "+options.Name, err)
	return id
}

func TestMobySystem(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	must(t, "ping", err)
	equal(t, "system", ping.OSType, "linux")
	equal(t, "the version agreed on", c.ClientVersion(), ping.APIVersion)
	equal(t, "a manager of a swarm", ping.SwarmStatus != nil && ping.SwarmStatus.ControlAvailable || target.engine, true)
	version, err := c.ServerVersion(ctx, client.ServerVersionOptions{})
	must(t, "version", err)
	equal(t, "API version", version.APIVersion, ping.APIVersion)
	info, err := c.Info(ctx, client.InfoOptions{})
	must(t, "info", err)
	equal(t, "processors are known", info.Info.NCPU > 0 && info.Info.MemTotal > 0 && info.Info.OSType == "linux", true)
	equal(t, "swarm", string(info.Info.Swarm.LocalNodeState), "active")
	nodes, err := c.NodeList(ctx, client.NodeListOptions{})
	must(t, "nodes", err)
	equal(t, "there are nodes", len(nodes.Items) > 0 && nodes.Items[0].Description.Hostname != "", true)
	image, err := c.ImageInspect(ctx, target.image)
	must(t, "inspect an image", err)
	equal(t, "the image has a name", len(image.RepoTags) > 0 && image.RepoTags[0] == target.image, true)
	images, err := c.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", target.image)})
	must(t, "images", err)
	equal(t, "images of that name", len(images.Items), 1)
	_, err = c.ImageInspect(ctx, "example.invalid/none:1")
	fails(t, "inspect an image that is not there", err, "No such image")
	if !target.engine { // an engine has no registry here
		pull, err := c.ImagePull(ctx, target.image, client.ImagePullOptions{})
		must(t, "pull", err)
		succeeds(t, "pull", pull.Wait(ctx))
	}
}

func TestMobyRun(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	name := named("run")
	id := mobyContainer(t, c, client.ContainerCreateOptions{Name: name, Config: &container.Config{
		Cmd: []string{"sh", "-c", "echo $WORD; sleep 0.3; echo bad >&2; exit 3"}, Env: []string{"WORD=out"}, Labels: map[string]string{"sdk": name}},
		HostConfig: &container.HostConfig{Resources: container.Resources{Memory: 64 << 20, NanoCPUs: 500e6}}})
	// As docker run: attached and waited for before it starts.
	attached, err := c.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	must(t, "attach", err)
	defer attached.Close()
	wait := c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = c.ContainerStart(ctx, id, client.ContainerStartOptions{})
	must(t, "start", err)
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, attached.Reader)
	succeeds(t, "read what it says", err)
	heard(t, "attached", stdout.String(), stderr.String(), "out\n", "bad\n")
	select {
	case end := <-wait.Result:
		equal(t, "exit code", end.StatusCode, 3)
	case err := <-wait.Error:
		t.Errorf("wait: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("wait does not end")
	}
	inspect, err := c.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	must(t, "inspect", err)
	it := inspect.Container
	equal(t, "id", it.ID, id)
	equal(t, "name", it.Name, "/"+name)
	equal(t, "state", it.State.Status, container.StateExited)
	equal(t, "exit code", it.State.ExitCode, 3)
	equal(t, "memory", it.HostConfig.Memory, 64<<20)
	equal(t, "processors", it.HostConfig.NanoCPUs, 500e6)
	equal(t, "image", it.Config.Image, target.image)
	equal(t, "command", strings.Join(it.Config.Cmd, " "), "sh -c echo $WORD; sleep 0.3; echo bad >&2; exit 3")
	logs, err := c.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Tail: "1"})
	must(t, "logs", err)
	defer logs.Close()
	stdout.Reset()
	_, err = stdcopy.StdCopy(&stdout, &stdout, logs)
	succeeds(t, "read logs", err)
	stamp, line, _ := strings.Cut(stdout.String(), " ")
	_, err = time.Parse(time.RFC3339Nano, stamp)
	succeeds(t, "the time of a line", err)
	equal(t, "the log's last line", line == "bad\n" || target.engine && line == "out\n", true)
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true,
		Filters: client.Filters{}.Add("label", "sdk="+name).Add("status", "exited").Add("exited", "3")})
	must(t, "list", err)
	equal(t, "containers by label, state and exit code", len(list.Items) == 1 && list.Items[0].ID == id && list.Items[0].Names[0] == "/"+name, true)
	list, err = c.ContainerList(ctx, client.ContainerListOptions{Filters: client.Filters{}.Add("name", name)})
	must(t, "list", err)
	equal(t, "containers that run", len(list.Items), 0)
	_, err = c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	must(t, "remove", err)
	_, err = c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	fails(t, "inspect what is gone", err, "No such container")
}

func TestMobyTerminal(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	id := mobyContainer(t, c, client.ContainerCreateOptions{Name: named("tty"), Config: &container.Config{Tty: true, OpenStdin: true, AttachStdin: true,
		StdinOnce: true, AttachStdout: true, Cmd: []string{"sh", "-c", "stty -echo; read word; echo heard $word; sleep 1; stty size"}}})
	attached, err := c.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
	must(t, "attach", err)
	defer attached.Close()
	wait := c.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = c.ContainerStart(ctx, id, client.ContainerStartOptions{})
	must(t, "start", err)
	soon(t, "resize", func() bool {
		_, err := c.ContainerResize(ctx, id, client.ContainerResizeOptions{Height: 33, Width: 77})
		return err == nil
	})
	_, err = io.WriteString(attached.Conn, "typed\n")
	must(t, "type", err)
	said, err := io.ReadAll(attached.Reader)
	succeeds(t, "read what it says", err)
	if !strings.Contains(string(said), "heard typed\r\n") || !strings.Contains(string(said), "33 77\r\n") {
		t.Errorf("a terminal says %q", said)
	}
	select {
	case end := <-wait.Result:
		equal(t, "exit code", end.StatusCode, 0)
	case err := <-wait.Error:
		t.Errorf("wait: %v", err)
	}
	logs, err := c.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true})
	must(t, "logs", err)
	defer logs.Close()
	raw, err := io.ReadAll(logs)
	if err != nil || !strings.Contains(string(raw), "heard typed") || raw[0] == 1 {
		t.Errorf("the log of a terminal, which has no frames, is %q, %v", raw, err)
	}
}

func TestMobyExec(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	id := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("exec"), Config: &container.Config{Cmd: []string{"sleep", "600"}}})
	exec, err := c.ExecCreate(ctx, id, client.ExecCreateOptions{AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Env: []string{"WORD=env"}, WorkingDir: "/tmp", Cmd: []string{"sh", "-c", "cat; echo $WORD; pwd; echo bad >&2; exit 7"}})
	must(t, "exec", err)
	session, err := c.ExecAttach(ctx, exec.ID, client.ExecAttachOptions{})
	must(t, "attach to an exec", err)
	defer session.Close()
	_, err = io.WriteString(session.Conn, "typed\n")
	must(t, "type", err)
	must(t, "close stdin", session.CloseWrite())
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, session.Reader)
	succeeds(t, "read an exec", err)
	equal(t, "stdout", stdout.String(), "typed\nenv\n/tmp\n")
	equal(t, "stderr", stderr.String(), "bad\n")
	var now client.ExecInspectResult
	soon(t, "the exec ends", func() bool {
		now, err = c.ExecInspect(ctx, exec.ID, client.ExecInspectOptions{})
		return err != nil || !now.Running
	})
	must(t, "inspect an exec", err)
	equal(t, "exit code", now.ExitCode, 7)
	equal(t, "container", now.ContainerID, id)

	exec, err = c.ExecCreate(ctx, id, client.ExecCreateOptions{TTY: true, AttachStdout: true, ConsoleSize: client.ConsoleSize{Height: 33, Width: 77},
		Cmd: []string{"sh", "-c", "until stty size | grep '33 77'; do sleep 0.1; done"}})
	must(t, "exec with a terminal", err)
	session, err = c.ExecAttach(ctx, exec.ID, client.ExecAttachOptions{TTY: true, ConsoleSize: client.ConsoleSize{Height: 33, Width: 77}})
	must(t, "attach to a terminal", err)
	defer session.Close()
	_, _ = c.ExecResize(ctx, exec.ID, client.ExecResizeOptions{Height: 33, Width: 77})
	said, err := io.ReadAll(session.Reader)
	equal(t, "the terminal's size is told", strings.HasSuffix(string(said), "33 77\r\n"), true)
	succeeds(t, "read a terminal", err)

	exec, err = c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"touch", "/tmp/detached"}})
	must(t, "exec", err)
	_, err = c.ExecStart(ctx, exec.ID, client.ExecStartOptions{Detach: true})
	succeeds(t, "start an exec that nobody reads", err)
	soon(t, "a detached exec has run", func() bool {
		_, err := c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/tmp/detached"})
		return err == nil
	})
	_, err = c.ExecInspect(ctx, "0123", client.ExecInspectOptions{})
	fails(t, "inspect an exec that is not there", err, "No such exec instance")
}

func TestMobyFiles(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	id := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("files"), Config: &container.Config{Cmd: []string{"sleep", "600"}}})
	_, err := c.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/tmp", Content: archive("page", "content\n")})
	must(t, "copy in", err)
	stat, err := c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/tmp/page"})
	must(t, "stat", err)
	equal(t, "name", stat.Stat.Name, "page")
	equal(t, "size", stat.Stat.Size, 8)
	out, err := c.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/tmp/page"})
	must(t, "copy out", err)
	defer out.Content.Close()
	equal(t, "what comes out", unpacked(t, out.Content)["page"], "content\n")
	_, err = c.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/none"})
	fails(t, "stat what is not there", err, "")
	_, err = c.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/none"})
	fails(t, "copy out what is not there", err, "Could not find the file /none in container")
	_, err = c.ContainerDiff(ctx, id, client.ContainerDiffOptions{})
	refused(t, "diff", err, "only an engine knows")
}

func TestMobyLifecycle(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	name, second := named("life"), 1
	events := c.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("container", name).Add("type", "container")})
	id := mobyRunning(t, c, client.ContainerCreateOptions{Name: name, Config: &container.Config{StopTimeout: &second,
		Cmd: []string{"sh", "-c", "trap 'exit 4' USR1; trap 'exit 5' TERM; while true; do sleep 0.1; done"}}})
	state := func() *container.State {
		t.Helper()
		inspect, err := c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		must(t, "inspect", err)
		return inspect.Container.State
	}
	_, err := c.ContainerStart(ctx, id, client.ContainerStartOptions{})
	succeeds(t, "start what runs", err)
	top, err := c.ContainerTop(ctx, id, client.ContainerTopOptions{})
	must(t, "top", err)
	equal(t, "there are processes", len(top.Processes) > 0 && len(top.Titles) == len(top.Processes[0]), true)
	stats, err := c.ContainerStats(ctx, id, client.ContainerStatsOptions{IncludePreviousSample: true})
	must(t, "stats", err)
	defer stats.Body.Close()
	body, err := io.ReadAll(stats.Body)
	must(t, "stats", err)
	equal(t, "stats name the container and its memory", strings.Contains(string(body), id) && strings.Contains(string(body), `"usage":`), true)
	_, err = c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "SIGUSR1"})
	must(t, "kill", err)
	soon(t, "it ends", func() bool { return !state().Running })
	equal(t, "exit code", state().ExitCode, 4)
	_, err = c.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "SIGUSR1"})
	fails(t, "kill what does not run", err, "is not running")
	_, err = c.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: &second})
	must(t, "restart", err)
	equal(t, "it runs", state().Running, true)
	_, err = c.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{Resources: &container.Resources{NanoCPUs: 250e6}})
	refused(t, "limit what was made without limits", err, "it was made without limits of CPU and memory")
	_, err = c.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &second})
	must(t, "stop", err)
	equal(t, "exit code", stopped(state().ExitCode, 5), true)
	_, err = c.ContainerPause(ctx, id, client.ContainerPauseOptions{})
	fails(t, "pause what does not run", err, "")
	_, err = c.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name + "-2"})
	refused(t, "rename", err, "a Pod's name is fixed")
	_, err = c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	must(t, "remove", err)
	var words []string
	for len(words) == 0 || words[len(words)-1] != "destroy" {
		select {
		case e := <-events.Messages:
			equal(t, "an event's container", e.Actor.ID, id)
			if word := string(e.Action); word == "create" || word == "start" || word == "die" || word == "destroy" {
				words = append(words, word)
			}
		case err := <-events.Err:
			t.Fatalf("events: %v, after %v", err, words)
		case <-time.After(30 * time.Second):
			t.Fatalf("events stop after %v", words)
		}
	}
	equal(t, "events", strings.Join(words, " "), "create start die start die destroy")
}

func TestMobyNetworks(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	name := named("net")
	made, err := c.NetworkCreate(ctx, name, client.NetworkCreateOptions{Labels: map[string]string{"sdk": name}})
	must(t, "create a network", err)
	t.Cleanup(func() {
		_, _ = c.NetworkRemove(context.WithoutCancel(ctx), name, client.NetworkRemoveOptions{})
	})
	list, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("label", "sdk="+name)})
	must(t, "list networks", err)
	equal(t, "networks of the label", len(list.Items) == 1 && list.Items[0].ID == made.ID, true)
	id := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("db"), Config: &container.Config{
		Cmd: []string{"sh", "-c", "mkdir /w; echo answered > /w/index.html; exec httpd -f -p 8080 -h /w"}},
		HostConfig:       &container.HostConfig{NetworkMode: container.NetworkMode(name)},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: {Aliases: []string{"shop"}}}}})
	asking := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("asks"), Config: &container.Config{
		Cmd: []string{"sh", "-c", "until wget -qO- http://shop:8080/; do sleep 0.2; done"}},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(name)}})
	wait := c.ContainerWait(ctx, asking, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case end := <-wait.Result:
		equal(t, "what asks by an alias ends with", end.StatusCode, 0)
	case err := <-wait.Error:
		t.Errorf("wait: %v", err)
	case <-time.After(30 * time.Second):
		t.Error("the alias is not found")
	}
	inspect, err := c.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	must(t, "inspect a network", err)
	equal(t, "its container", inspect.Network.Containers[id].Name, named("db"))
	_, err = c.NetworkConnect(ctx, "bridge", client.NetworkConnectOptions{Container: id})
	refused(t, "connect to the engine's own bridge", err, "bridge")
	_, err = c.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	fails(t, "remove a network in use", err, "active endpoints")
	for _, it := range []string{id, asking} {
		_, err = c.ContainerRemove(ctx, it, client.ContainerRemoveOptions{Force: true})
		must(t, "remove", err)
	}
	_, err = c.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	must(t, "remove a network", err)
	_, err = c.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	fails(t, "inspect a network that is gone", err, "not found")
}

func TestMobyVolumes(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	name := named("vol")
	made, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: map[string]string{"sdk": name}})
	must(t, "create a volume", err)
	equal(t, "name", made.Volume.Name, name)
	t.Cleanup(func() {
		_, _ = c.VolumeRemove(context.WithoutCancel(ctx), name, client.VolumeRemoveOptions{Force: true})
	})
	write := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("writes"), Config: &container.Config{Cmd: []string{"sh", "-c", "echo kept > /data/file"}},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: name, Target: "/data"}}}})
	wait := c.ContainerWait(ctx, write, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case end := <-wait.Result:
		equal(t, "exit code", end.StatusCode, 0)
	case err := <-wait.Error:
		t.Fatalf("wait: %v", err)
	}
	_, err = c.ContainerRemove(ctx, write, client.ContainerRemoveOptions{})
	must(t, "remove", err)
	read := mobyRunning(t, c, client.ContainerCreateOptions{Name: named("reads"), Config: &container.Config{Cmd: []string{"sleep", "600"}},
		HostConfig: &container.HostConfig{Binds: []string{name + ":/data:ro"}}})
	out, err := c.CopyFromContainer(ctx, read, client.CopyFromContainerOptions{SourcePath: "/data/file"})
	must(t, "copy out of a volume", err)
	defer out.Content.Close()
	equal(t, "what is in the volume", unpacked(t, out.Content)["file"], "kept\n")
	list, err := c.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", "sdk="+name)})
	must(t, "list volumes", err)
	equal(t, "volumes of the label", len(list.Items) == 1 && list.Items[0].Name == name, true)
	_, err = c.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	fails(t, "remove a volume in use", err, "volume is in use")
	_, err = c.ContainerRemove(ctx, read, client.ContainerRemoveOptions{Force: true})
	must(t, "remove", err)
	_, err = c.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	must(t, "remove a volume", err)
	_, err = c.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	fails(t, "inspect a volume that is gone", err, "no such volume")
}
