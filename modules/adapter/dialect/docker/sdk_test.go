package docker

import (
	"bytes"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// TestSDK uses the engine's own Go client, as Testcontainers and many tools do: it negotiates, and it is stricter about
// answers than the CLI.
func TestSDK(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newWorld())
	t.Cleanup(server.Close)
	ctx := t.Context()
	c, err := client.New(client.WithHost("tcp://" + server.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil || ping.APIVersion != APIVersion || c.ClientVersion() != APIVersion || ping.OSType != "linux" {
		t.Fatalf("%+v %s %v", ping, c.ClientVersion(), err)
	}
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("name", "^/web$")})
	if err != nil || len(list.Items) != 1 || list.Items[0].Names[0] != "/web" || list.Items[0].Ports[0].PublicPort != 8080 {
		t.Errorf("%+v %v", list, err)
	}
	made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "sdk", Config: &container.Config{Image: "busybox", Cmd: []string{"ls"}},
		HostConfig: &container.HostConfig{Resources: container.Resources{CPUShares: 3}}})
	if err != nil || len(made.Warnings) != 1 || !strings.HasPrefix(made.Warnings[0], "HostConfig.CpuShares") {
		t.Errorf("%+v %v", made, err)
	}
	inspect, err := c.ContainerInspect(ctx, "sdk", client.ContainerInspectOptions{})
	if err != nil || inspect.Container.ID != made.ID || inspect.Container.HostConfig.CPUShares != 3 || inspect.Container.Config.Cmd[0] != "ls" {
		t.Errorf("%+v %v", inspect.Container, err)
	}
	wait := c.ContainerWait(ctx, "job", client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case end := <-wait.Result:
		if end.StatusCode != 7 {
			t.Errorf("%+v", end)
		}
	case err := <-wait.Error:
		t.Error(err)
	}
	logs, err := c.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, logs); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("%q %v", out.String(), err)
	}
	exec, err := c.ExecCreate(ctx, "web", client.ExecCreateOptions{AttachStdin: true, AttachStdout: true, Cmd: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	session, err := c.ExecAttach(ctx, exec.ID, client.ExecAttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if media, _ := session.MediaType(); media != mediaMultiplexed {
		t.Errorf("media type %q", media)
	}
	if _, err := session.Conn.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	if err := session.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if _, err := stdcopy.StdCopy(&out, io.Discard, session.Reader); err != nil || out.String() != "typed" {
		t.Errorf("%q %v", out.String(), err)
	}
	services, err := c.ServiceList(ctx, client.ServiceListOptions{Status: true})
	if err != nil || services.Items[0].ServiceStatus.RunningTasks != 1 || services.Items[0].Version.Index != 41 {
		t.Errorf("%+v %v", services, err)
	}
	if _, err := c.Info(ctx, client.InfoOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.ContainerInspect(ctx, "nobody", client.ContainerInspectOptions{}); err == nil || !strings.Contains(err.Error(), "No such container: nobody") {
		t.Errorf("%v", err)
	}
	events := c.Events(ctx, client.EventsListOptions{})
	select {
	case e := <-events.Messages:
		if e.Action != "create" || e.Actor.Attributes["name"] != "web" {
			t.Errorf("%+v", e)
		}
	case err := <-events.Err:
		t.Error(err)
	}
}
