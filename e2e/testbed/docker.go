package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// DockerCluster is a Docker engine, which is a Swarm of one node unless the bed says otherwise.
type DockerCluster struct {
	Cluster
	// Socket is the path of the engine's API.
	Socket string

	plain  bool // no Swarm
	daemon *Process
}

func newDockerCluster(cluster Cluster) *DockerCluster {
	return &DockerCluster{Cluster: cluster, Socket: filepath.Join(cluster.Dir, "docker.sock")}
}

// Host is the value for DOCKER_HOST.
func (d *DockerCluster) Host() string { return "unix://" + d.Socket }

// Run executes the docker CLI against the engine and returns what it printed.
func (d *DockerCluster) Run(ctx context.Context, arguments ...string) (string, error) {
	env := []string{"DOCKER_CONFIG=" + filepath.Join(d.Dir, "cli"), "DOCKER_HOST=" + d.Host()}
	return runWith(ctx, env, nil, append([]string{d.bed.tools.Docker}, arguments...)...)
}

// Bridge is the address of the engine's default bridge.
func (d *DockerCluster) Bridge() string { return fmt.Sprintf("172.%d.0.1", dockerNetwork+d.index) }

// LoadImage gives the engine the images of an archive made by `docker save`.
func (d *DockerCluster) LoadImage(ctx context.Context, archive string) error {
	_, err := d.Run(ctx, "load", "--quiet", "--input", archive)
	return err
}

// dockerNetwork is the second byte of the first Docker cluster's addresses;
// each cluster has its own, so that none answers in the place of another.
const dockerNetwork = 20

func (d *DockerCluster) start(ctx context.Context) error {
	begin := time.Now()
	if err := d.makeClusterCgroup(); err != nil {
		return err
	}
	config := filepath.Join(d.Dir, "daemon.json")
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	// An own configuration keeps that of the machine's engine out, and the
	// engine's identity in the bed.
	content := fmt.Sprintf("{\"deprecated-key-path\": %q}\n", filepath.Join(d.Dir, "key.json"))
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	containerd, err := d.startContainerd(ctx, "")
	if err != nil {
		return err
	}
	d.daemon, err = d.Start(ctx, Command{Name: "dockerd", Argv: []string{
		d.bed.tools.Dockerd,
		"--config-file", config,
		"--containerd", d.ContainerdSocket(),
		"--host", d.Host(),
		"--data-root", filepath.Join(d.Dir, "data"),
		"--exec-root", filepath.Join(d.Dir, "exec"),
		"--pidfile", filepath.Join(d.Dir, "dockerd.pid"),
		"--group", "root",
		"--bip", d.Bridge() + "/24",
		"--default-address-pool", fmt.Sprintf("base=172.%d.128.0/17,size=24", dockerNetwork+d.index),
		"--cgroup-parent", d.cgroup(),
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--oom-score-adjust", "0",
	}})
	if err != nil {
		return err
	}
	if err := d.ready(ctx, d.daemon, containerd); err != nil {
		return err
	}
	if err := d.LoadImage(ctx, d.bed.tools.BusyboxImage); err != nil {
		return err
	}
	if !d.plain {
		if _, err := d.Run(ctx, "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377"); err != nil {
			return err
		}
	}
	d.bed.log.Info("docker engine is up", "cluster", d.Name, "took", since(begin))
	return nil
}

func (d *DockerCluster) ready(ctx context.Context, on ...*Process) error {
	return waitReady(ctx, "the docker engine", time.Minute, func(ctx context.Context) error {
		_, err := d.Run(ctx, "version", "--format", "{{.Server.Version}}")
		return err
	}, on...)
}

// Crash kills the engine, which this very process started. Its containers run on until it is back, which ends them, and
// starts again those whose restart policy says so.
func (d *DockerCluster) Crash(ctx context.Context) error { return d.crash(ctx, d.daemon) }

// Recover starts the engine again after Crash, and waits until it answers.
func (d *DockerCluster) Recover(ctx context.Context) (err error) {
	if d.daemon, err = d.again(ctx, d.daemon); err != nil {
		return err
	}
	return d.ready(ctx, d.daemon)
}
