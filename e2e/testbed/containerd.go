package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ContainerdSocket is that of the cluster's own containerd.
func (c *Cluster) ContainerdSocket() string { return filepath.Join(c.Dir, "containerd.sock") }

func (c *Cluster) ctr(ctx context.Context, arguments ...string) (string, error) {
	return run(ctx, append([]string{c.bed.tools.Ctr, "--address", c.ContainerdSocket()}, arguments...)...)
}

// startContainerd starts a containerd whose files are all in the cluster's
// folder. The CRI plugin's configuration is for a node's; the one of a Docker
// engine has none, and no such plugin.
func (c *Cluster) startContainerd(ctx context.Context, cri string) (*Process, error) {
	config := filepath.Join(c.Dir, "containerd.toml")
	disabled := ""
	if cri == "" {
		disabled = `"io.containerd.grpc.v1.cri",`
	}
	content := strings.NewReplacer(
		"DISABLED", disabled,
		"ROOT", filepath.Join(c.Dir, "containerd"),
		"STATE", filepath.Join(c.Dir, "run"),
		"SOCKET", c.ContainerdSocket(),
	).Replace(containerdConfig + cri)
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	containerd, err := c.Start(ctx, Command{Name: "containerd", Argv: []string{c.bed.tools.Containerd, "--config", config}})
	if err != nil {
		return nil, err
	}
	err = waitReady(ctx, "containerd", time.Minute, func(ctx context.Context) error {
		_, err := c.ctr(ctx, "version")
		return err
	}, containerd)
	return containerd, err
}

const containerdConfig = `version = 2
root = "ROOT"
state = "STATE"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  DISABLED
]

[grpc]
  address = "SOCKET"

[plugins."io.containerd.internal.v1.opt"]
  path = "ROOT/opt"
`

// nodeContainerdConfig serves a kubelet. Without restrict_oom_score_adj no
// container starts where root lacks CAP_SYS_RESOURCE.
const nodeContainerdConfig = `
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "SNAPSHOTTER"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "STATE/runc"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "CNIBIN"
    conf_dir = "CNICONF"
`

// snapshotter is overlayfs where the file system can carry one; native copies
// every layer, and works everywhere.
func snapshotter(dir string) string {
	probe, err := os.MkdirTemp(dir, ".overlay-*")
	if err != nil {
		return "native"
	}
	defer func() { _ = os.RemoveAll(probe) }()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(probe, name), 0o755); err != nil {
			return "native"
		}
	}
	merged := filepath.Join(probe, "merged")
	data := "lowerdir=" + probe + "/lower,upperdir=" + probe + "/upper,workdir=" + probe + "/work"
	if err := unix.Mount("overlay", merged, "overlay", 0, data); err != nil {
		return "native"
	}
	if err := unix.Unmount(merged, 0); err != nil {
		return "native"
	}
	return "overlayfs"
}
