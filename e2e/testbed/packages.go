package testbed

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"
)

// debianPackage is a package and a file that tells whether it, or what stands
// in for it, is there.
type debianPackage struct {
	name string
	// program is looked up in PATH; file, when given, is looked at instead.
	program, file string
	// static wants a program without shared libraries, for an image.
	static bool
}

const busyboxProgram = "/bin/busybox"

const cniDir = "/usr/lib/cni"

var packages = []debianPackage{
	{name: "busybox-static", file: busyboxProgram, static: true},
	{name: "conntrack", program: "conntrack"},
	{name: "containerd", program: "containerd"},
	{name: "containernetworking-plugins", file: cniDir + "/ptp"},
	{name: "docker.io", program: "dockerd"},
	{name: "docker.io", program: "docker"},
	{name: "etcd-server", program: "etcd"},
	{name: "iproute2", program: "ip"},
	{name: "iptables", program: "iptables"},
	{name: "mount", program: "mount"},
	{name: "runc", program: "runc"},
	{name: "socat", program: "socat"},
	{name: "util-linux", program: "nsenter"},
	{name: "wrk", program: "wrk"},
}

func (p debianPackage) present() bool {
	if p.file != "" {
		return isExecutable(p.file) && (!p.static || isStatic(p.file))
	}
	_, err := lookPath(p.program)
	return err == nil
}

// isStatic tells whether a program runs without a dynamic linker.
func isStatic(path string) bool {
	program, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = program.Close() }()
	return !slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// installPackages installs what is missing, and starts none of the services:
// every bed runs its own.
func installPackages(ctx context.Context, log *slog.Logger) error {
	var missing []string
	for _, p := range packages {
		if !p.present() && !slices.Contains(missing, p.name) {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return aptInstall(ctx, log, missing...)
}

func aptInstall(ctx context.Context, log *slog.Logger, names ...string) error {
	begin := time.Now()
	log.Info("installing packages", "packages", names)
	allow, err := forbidServices()
	if err != nil {
		return err
	}
	defer allow()
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	options := []string{"-qq", "-o", "DPkg::Lock::Timeout=300"}
	update := append(append([]string{"apt-get"}, options...), "update")
	if _, err := runWith(ctx, env, nil, update...); err != nil {
		return fmt.Errorf("install packages: %w", err)
	}
	install := append(append([]string{"apt-get"}, options...), "install", "-y", "--no-install-recommends")
	if _, err := runWith(ctx, env, nil, append(install, names...)...); err != nil {
		return fmt.Errorf("install packages: %w", err)
	}
	log.Info("packages are installed", "took", since(begin))
	return nil
}

// forbidServices makes packages leave their services alone while they are
// installed, unless the machine has a policy of its own.
func forbidServices() (allow func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	file, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err == nil {
		_, err = file.WriteString("#!/bin/sh\nexit 101\n")
		err = errors.Join(err, file.Chmod(0o755), file.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("service policy: %w", err)
	}
	return func() { _ = os.Remove(policy) }, nil
}
