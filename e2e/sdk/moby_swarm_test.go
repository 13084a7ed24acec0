package sdk

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

func TestMobyService(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), mobyClient(t)
	name, replicas, grace := named("svc"), uint64(1), time.Second
	gone := context.WithoutCancel(ctx)
	secret, err := c.SecretCreate(ctx, client.SecretCreateOptions{Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: named("key")}, Data: []byte("hunter2")}})
	must(t, "create a secret", err)
	config, err := c.ConfigCreate(ctx, client.ConfigCreateOptions{Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: named("conf")}, Data: []byte("setting=1")}})
	must(t, "create a config", err)
	t.Cleanup(func() {
		_, _ = c.ServiceRemove(gone, name, client.ServiceRemoveOptions{})
		_, _ = c.SecretRemove(gone, secret.ID, client.SecretRemoveOptions{})
		_, _ = c.ConfigRemove(gone, config.ID, client.ConfigRemoveOptions{})
	})
	secrets, err := c.SecretList(ctx, client.SecretListOptions{Filters: client.Filters{}.Add("name", named("key"))})
	must(t, "list secrets", err)
	equal(t, "secrets of the name, without what is in them", len(secrets.Items) == 1 && secrets.Items[0].ID == secret.ID && secrets.Items[0].Spec.Data == nil, true)
	kept, err := c.ConfigInspect(ctx, config.ID, client.ConfigInspectOptions{})
	must(t, "inspect a config", err)
	equal(t, "what is in a config", string(kept.Config.Spec.Data), "setting=1")

	made, err := c.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name, Labels: map[string]string{"sdk": name}},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: target.image, StopGracePeriod: &grace,
			Command: []string{"sh", "-c", "cat /run/secrets/key /conf; echo; exec sleep 600"},
			Secrets: []*swarm.SecretReference{{SecretID: secret.ID, SecretName: named("key"), File: &swarm.SecretReferenceFileTarget{Name: "key", UID: "0", GID: "0", Mode: 0o444}}},
			Configs: []*swarm.ConfigReference{{ConfigID: config.ID, ConfigName: named("conf"), File: &swarm.ConfigReferenceFileTarget{Name: "/conf", UID: "0", GID: "0", Mode: 0o444}}}}},
	}})
	must(t, "create a service", err)
	running := func(want uint64) bool {
		list, err := c.ServiceList(ctx, client.ServiceListOptions{Status: true, Filters: client.Filters{}.Add("label", "sdk="+name)})
		must(t, "list services", err)
		return len(list.Items) == 1 && list.Items[0].ID == made.ID && list.Items[0].ServiceStatus != nil && list.Items[0].ServiceStatus.RunningTasks == want
	}
	soon(t, "the service runs", func() bool { return running(1) })
	var said bytes.Buffer
	soon(t, "its log", func() bool {
		logs, err := c.ServiceLogs(ctx, name, client.ServiceLogsOptions{ShowStdout: true, ShowStderr: true})
		must(t, "logs of a service", err)
		defer logs.Close()
		said.Reset()
		_, err = stdcopy.StdCopy(&said, &said, logs)
		must(t, "read logs of a service", err)
		return strings.Contains(said.String(), "hunter2setting=1\n")
	})
	service, err := c.ServiceInspect(ctx, name, client.ServiceInspectOptions{})
	must(t, "inspect a service", err)
	spec := service.Service.Spec
	replicas = 2
	spec.Mode.Replicated.Replicas = &replicas
	spec.TaskTemplate.ContainerSpec.Env = []string{"COLOUR=blue"}
	_, err = c.ServiceUpdate(ctx, made.ID, client.ServiceUpdateOptions{Version: service.Service.Version, Spec: spec})
	must(t, "update a service", err)
	_, err = c.ServiceUpdate(ctx, made.ID, client.ServiceUpdateOptions{Version: service.Service.Version, Spec: spec})
	fails(t, "update what has changed meanwhile", err, "update out of sequence")
	soon(t, "two run", func() bool { return running(2) })
	soon(t, "both are of the new spec", func() bool {
		tasks, err := c.TaskList(ctx, client.TaskListOptions{Filters: client.Filters{}.Add("service", name).Add("desired-state", "running")})
		must(t, "list tasks", err)
		blue := 0
		for _, task := range tasks.Items {
			if task.Status.State == swarm.TaskStateRunning && strings.Join(task.Spec.ContainerSpec.Env, " ") == "COLOUR=blue" && task.ServiceID == made.ID {
				blue++
			}
		}
		return blue == 2
	})
	_, err = c.SecretRemove(ctx, secret.ID, client.SecretRemoveOptions{})
	fails(t, "remove a secret in use", err, "is in use by the following service")
	_, err = c.ServiceRemove(ctx, name, client.ServiceRemoveOptions{})
	must(t, "remove a service", err)
	_, err = c.ServiceInspect(ctx, made.ID, client.ServiceInspectOptions{})
	fails(t, "inspect a service that is gone", err, "not found")
	_, err = c.SecretRemove(ctx, secret.ID, client.SecretRemoveOptions{})
	succeeds(t, "remove a secret", err)
	_, err = c.ConfigRemove(ctx, config.ID, client.ConfigRemoveOptions{})
	succeeds(t, "remove a config", err)
}
