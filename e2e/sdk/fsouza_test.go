package sdk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	docker "github.com/fsouza/go-dockerclient"
)

// fsouzaClient is the client of github.com/fsouza/go-dockerclient, which has requests, hijacking and events of its own. It
// knows nothing of services.
func fsouzaClient(t *testing.T) *docker.Client {
	t.Helper()
	c, err := docker.NewVersionedClientFromEnv("1.41")
	must(t, "client", err)
	return c
}

func fsouzaContainer(t *testing.T, c *docker.Client, name string, config docker.Config, host *docker.HostConfig) string {
	t.Helper()
	config.Image = target.image
	made, err := c.CreateContainer(docker.CreateContainerOptions{Name: named(name), Config: &config, HostConfig: host})
	must(t, "create "+name, err)
	t.Cleanup(func() {
		_ = c.RemoveContainer(docker.RemoveContainerOptions{ID: made.ID, Force: true, RemoveVolumes: true})
	})
	return made.ID
}

func TestFsouzaContainers(t *testing.T) {
	t.Parallel()
	c := fsouzaClient(t)
	must(t, "ping", c.Ping())
	version, err := c.Version()
	must(t, "version", err)
	equal(t, "system", version.Get("Os"), "linux")
	info, err := c.Info()
	must(t, "info", err)
	equal(t, "processors are known", info.NCPU > 0, true)
	image, err := c.InspectImage(target.image)
	must(t, "inspect an image", err)
	equal(t, "the image has a name", len(image.RepoTags) > 0, true)
	_, err = c.InspectImage("example.invalid/none:1")
	equal(t, "an image that is not there is none", errors.Is(err, docker.ErrNoSuchImage), true)
	if !target.engine {
		name, tag := docker.ParseRepositoryTag(target.image)
		var progress bytes.Buffer
		must(t, "pull", c.PullImage(docker.PullImageOptions{Repository: name, Tag: tag, OutputStream: &progress}, docker.AuthConfiguration{}))
	}

	name := named("fsouza")
	events := make(chan *docker.APIEvents, 100)
	must(t, "events", c.AddEventListenerWithOptions(docker.EventsOptions{Filters: map[string][]string{"container": {name}, "type": {"container"}}}, events))
	id := fsouzaContainer(t, c, "fsouza", docker.Config{Labels: map[string]string{"sdk": name}, StopTimeout: 1,
		Cmd: []string{"sh", "-c", "trap 'exit 4' USR1 TERM; echo out; sleep 0.3; echo bad >&2; while true; do sleep 0.1; done"}},
		&docker.HostConfig{Memory: 64 << 20})
	_, err = c.CreateContainer(docker.CreateContainerOptions{Name: name, Config: &docker.Config{Image: target.image}})
	equal(t, "a container of the same name is refused", errors.Is(err, docker.ErrContainerAlreadyExists), true)
	must(t, "start", c.StartContainer(id, nil))
	var running *docker.ContainerAlreadyRunning
	equal(t, "what runs cannot be started", errors.As(c.StartContainer(id, nil), &running), true)
	list, err := c.ListContainers(docker.ListContainersOptions{Filters: map[string][]string{"label": {"sdk=" + name}, "status": {"running"}}})
	must(t, "list", err)
	equal(t, "containers by label", len(list) == 1 && list[0].ID == id && list[0].State == "running", true)
	var stdout, stderr bytes.Buffer
	soon(t, "its log", func() bool {
		stdout.Reset()
		stderr.Reset()
		must(t, "logs", c.Logs(docker.LogsOptions{Container: id, OutputStream: &stdout, ErrorStream: &stderr, Stdout: true, Stderr: true, Tail: "all"}))
		return stdout.Len()+stderr.Len() == len("out\nbad\n")
	})
	heard(t, "the log", stdout.String(), stderr.String(), "out\n", "bad\n")

	exec, err := c.CreateExec(docker.CreateExecOptions{Container: id, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Cmd: []string{"sh", "-c", "cat; echo bad >&2; exit 7"}})
	must(t, "exec", err)
	stdout.Reset()
	stderr.Reset()
	must(t, "start an exec", c.StartExec(exec.ID, docker.StartExecOptions{InputStream: strings.NewReader("typed\n"), OutputStream: &stdout, ErrorStream: &stderr}))
	equal(t, "an exec says", stdout.String()+stderr.String(), "typed\nbad\n")
	soon(t, "the exec ends", func() bool {
		now, err := c.InspectExec(exec.ID)
		must(t, "inspect an exec", err)
		return !now.Running && now.ExitCode == 7
	})

	must(t, "copy in", c.UploadToContainer(id, docker.UploadToContainerOptions{InputStream: archive("page", "content\n"), Path: "/tmp"}))
	var out bytes.Buffer
	must(t, "copy out", c.DownloadFromContainer(id, docker.DownloadFromContainerOptions{OutputStream: &out, Path: "/tmp/page"}))
	equal(t, "what comes out", unpacked(t, &out)["page"], "content\n")
	fails(t, "copy out what is not there", c.DownloadFromContainer(id, docker.DownloadFromContainerOptions{OutputStream: &out, Path: "/none"}), "Could not find the file /none")

	measuring, done := context.WithCancel(t.Context())
	stats, measured := make(chan *docker.Stats, 10), make(chan error, 1)
	go func() {
		measured <- c.Stats(docker.StatsOptions{ID: id, Stats: stats, Stream: true, Context: measuring})
	}()
	for range 2 {
		select {
		case s := <-stats:
			equal(t, "memory is measured", s != nil && s.MemoryStats.Usage > 0 && s.MemoryStats.Limit == 64<<20, true)
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is measured")
		}
	}
	done()
	equal(t, "the end of measuring", errors.Is(<-measured, context.Canceled), true)
	top, err := c.TopContainer(id, "")
	equal(t, "top", err == nil && len(top.Processes) > 0, true)
	succeeds(t, "update", c.UpdateContainer(id, docker.UpdateContainerOptions{Memory: 96 << 20, MemorySwap: 96 << 20}))

	must(t, "kill", c.KillContainer(docker.KillContainerOptions{ID: id, Signal: docker.SIGUSR1}))
	code, err := c.WaitContainer(id)
	equal(t, "exit code", err == nil && code == 4, true)
	must(t, "restart", c.RestartContainer(id, 1))
	must(t, "stop", c.StopContainer(id, 1))
	var ended *docker.ContainerNotRunning
	equal(t, "what has ended cannot be stopped", errors.As(c.StopContainer(id, 1), &ended), true)
	inspect, err := c.InspectContainerWithOptions(docker.InspectContainerOptions{ID: id})
	must(t, "inspect", err)
	equal(t, "it has ended", inspect.State.Status == "exited" && stopped(inspect.State.ExitCode, 4) && inspect.Name == "/"+name && inspect.HostConfig.Memory == 96<<20, true)
	refused(t, "rename", c.RenameContainer(docker.RenameContainerOptions{ID: id, Name: name + "-2"}), "a Pod's name is fixed")
	_, err = c.ContainerChanges(id)
	refused(t, "diff", err, "only an engine knows")
	must(t, "remove", c.RemoveContainer(docker.RemoveContainerOptions{ID: id}))
	var none *docker.NoSuchContainer
	_, err = c.InspectContainerWithOptions(docker.InspectContainerOptions{ID: id})
	equal(t, "a container that is gone is none", errors.As(err, &none), true)
	var words []string
	for len(words) == 0 || words[len(words)-1] != "destroy" {
		select {
		case e := <-events:
			if e != nil && (e.Action == "create" || e.Action == "start" || e.Action == "die" || e.Action == "destroy") && e.Actor.ID == id {
				words = append(words, e.Action)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("events stop after %v", words)
		}
	}
	equal(t, "events", strings.Join(words, " "), "create start die start die destroy")
}

func TestFsouzaAttach(t *testing.T) {
	t.Parallel()
	c := fsouzaClient(t)
	for name, terminal := range map[string]bool{"fsouza-pipe": false, "fsouza-tty": true} {
		id := fsouzaContainer(t, c, name, docker.Config{Tty: terminal, OpenStdin: true, AttachStdin: true, StdinOnce: true,
			Cmd: []string{"sh", "-c", "read word; echo heard $word; sleep 0.5; echo bad >&2; exit 2"}}, nil)
		var stdout, stderr bytes.Buffer
		attached := make(chan struct{})
		// The end of a terminal's input is its end, so there is none.
		input, typing := io.Pipe()
		go func() {
			_, _ = io.WriteString(typing, "typed\n")
			if !terminal {
				_ = typing.Close()
			}
		}()
		waiter, err := c.AttachToContainerNonBlocking(docker.AttachToContainerOptions{Container: id, InputStream: input,
			OutputStream: &stdout, ErrorStream: &stderr, Stream: true, Stdin: true, Stdout: true, Stderr: true, RawTerminal: terminal, Success: attached})
		must(t, "attach", err)
		<-attached
		attached <- struct{}{}
		must(t, "start", c.StartContainer(id, nil))
		succeeds(t, "read what it says", waiter.Wait())
		if terminal {
			equal(t, "a terminal's last words", strings.TrimPrefix(stdout.String(), "typed\r\n"), "heard typed\r\nbad\r\n")
		} else {
			heard(t, "attached", stdout.String(), stderr.String(), "heard typed\n", "bad\n")
		}
		_ = typing.Close()
		code, err := c.WaitContainer(id)
		equal(t, "exit code", err == nil && code == 2, true)
	}
}

func TestFsouzaObjects(t *testing.T) {
	t.Parallel()
	c := fsouzaClient(t)
	name := named("fsouza-objects")
	made, err := c.CreateNetwork(docker.CreateNetworkOptions{Name: name, Driver: "bridge", CheckDuplicate: true, Labels: map[string]string{"sdk": name}})
	must(t, "create a network", err)
	t.Cleanup(func() { _ = c.RemoveNetwork(made.ID) })
	_, err = c.CreateNetwork(docker.CreateNetworkOptions{Name: name, Driver: "bridge", CheckDuplicate: true})
	fails(t, "create a network twice", err, "already exists")
	networks, err := c.FilteredListNetworks(docker.NetworkFilterOpts{"label": {"sdk=" + name: true}})
	must(t, "list networks", err)
	equal(t, "networks of the label", len(networks) == 1 && networks[0].ID == made.ID, true)
	_, err = c.CreateVolume(docker.CreateVolumeOptions{Name: name, Labels: map[string]string{"sdk": name}})
	must(t, "create a volume", err)
	t.Cleanup(func() { _ = c.RemoveVolumeWithOptions(docker.RemoveVolumeOptions{Name: name}) })
	volumes, err := c.ListVolumes(docker.ListVolumesOptions{Filters: map[string][]string{"label": {"sdk=" + name}}})
	must(t, "list volumes", err)
	equal(t, "volumes of the label", len(volumes) == 1 && volumes[0].Name == name, true)
	id := fsouzaContainer(t, c, "fsouza-writes", docker.Config{Cmd: []string{"sleep", "600"}, StopTimeout: 1},
		&docker.HostConfig{NetworkMode: name, Mounts: []docker.HostMount{{Type: "volume", Source: name, Target: "/data"}}})
	must(t, "start", c.StartContainer(id, nil))
	second, err := c.CreateNetwork(docker.CreateNetworkOptions{Name: name + "-2", Driver: "bridge"})
	must(t, "create another network", err)
	t.Cleanup(func() { _ = c.RemoveNetwork(second.ID) })
	must(t, "connect", c.ConnectNetwork(second.ID, docker.NetworkConnectionOptions{Container: id, EndpointConfig: &docker.EndpointConfig{Aliases: []string{"shop"}}}))
	inspect, err := c.InspectContainerWithOptions(docker.InspectContainerOptions{ID: id})
	must(t, "inspect", err)
	_, connected := inspect.NetworkSettings.Networks[name+"-2"]
	equal(t, "it is on both networks", connected && len(inspect.NetworkSettings.Networks) == 2, true)
	equal(t, "its volume", len(inspect.Mounts) == 1 && inspect.Mounts[0].Name == name && inspect.Mounts[0].Destination == "/data", true)
	must(t, "disconnect", c.DisconnectNetwork(second.ID, docker.NetworkConnectionOptions{Container: id}))
	equal(t, "a volume in use cannot be removed", errors.Is(c.RemoveVolumeWithOptions(docker.RemoveVolumeOptions{Name: name}), docker.ErrVolumeInUse), true)
	must(t, "remove", c.RemoveContainer(docker.RemoveContainerOptions{ID: id, Force: true}))
	must(t, "remove a network", c.RemoveNetwork(second.ID))
	must(t, "remove a network", c.RemoveNetwork(made.ID))
	var none *docker.NoSuchNetwork
	_, err = c.NetworkInfo(made.ID)
	equal(t, "a network that is gone is none", errors.As(err, &none), true)
	must(t, "remove a volume", c.RemoveVolumeWithOptions(docker.RemoveVolumeOptions{Name: name}))
	_, err = c.InspectVolume(name)
	equal(t, "a volume that is gone is none", errors.Is(err, docker.ErrNoSuchVolume), true)
}
