package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// Tools are the paths of what a bed runs.
type Tools struct {
	Docker, Dockerd, Containerd, Ctr string
	Etcd                             string
	// Kubernetes is one program for all components, named by its first
	// argument; Kubectl is a link to it.
	Kubernetes, Kubectl string
	Envoy               string
	// Provisioner makes volumes for claims.
	Provisioner string
	// CoreDNS is the name server of Kubernetes.
	CoreDNS string
	// Compose is docker's plugin of that name.
	Compose string
	// Helm installs charts into Kubernetes.
	Helm string
	// Python runs docker's library for it, which PYTHONPATH finds in DockerPy.
	Python, DockerPy string
	// Forward joins a listener of the machine to an address in a namespace.
	Forward string
	// BusyboxImage and PauseImage are archives that docker and containerd load.
	BusyboxImage, PauseImage string
	// Psql is PostgreSQL's client, and PostgresImage an archive of its server.
	Psql, PostgresImage string
}

// Install brings onto a bare Debian 12 machine what a bed needs: packages,
// Envoy, Kubernetes with its volume provisioner and its name server built from
// source, and three images. What is there already
// costs nothing; what is built is kept in the user's cache folder.
func Install(ctx context.Context, log *slog.Logger) (*Tools, error) {
	if err := requireRoot(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.Default()
	}
	if tools, err := installed(); err == nil {
		return tools, nil
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	log.Info("installing the testbed's tools", "cache", cache)
	unlock, err := lockFileNoting(filepath.Join(cache, "install.lock"), func() {
		log.Info("waiting for another installation to end")
	})
	if err != nil {
		return nil, err
	}
	defer unlock()
	begin := time.Now()
	// What an interrupted installation left is of no use.
	stale, _ := filepath.Glob(filepath.Join(cache, ".*-*"))
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
	}
	// Packages first: the other steps use what they bring.
	if err := installPackages(ctx, log); err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error { // by apt, or by pip and perhaps by apt before
			return errors.Join(installEnvoy(ctx, cache, log), installDockerPy(ctx, cache, log), installPostgres(ctx, cache, log))
		},
		func() error { return buildKubernetes(ctx, cache, log) },
		func() error { return buildPrograms(ctx, cache, log) },
		func() error { return installGoTools(ctx, cache, log) },
	}
	failed := make([]error, len(steps))
	var group sync.WaitGroup
	for i, step := range steps {
		group.Go(func() { failed[i] = step() })
	}
	group.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	tools, err := installed()
	if err != nil {
		return nil, err
	}
	log.Info("the testbed's tools are installed", "took", since(begin))
	return tools, nil
}

// installed finds all tools, or tells which one is missing.
func installed() (*Tools, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	tools := &Tools{
		Kubernetes:   filepath.Join(kubernetesDir(cache), "kubernetes"),
		Kubectl:      filepath.Join(kubernetesDir(cache), "kubectl"),
		Envoy:        envoyPath(cache),
		Provisioner:  provisioner.path(cache),
		CoreDNS:      nameServer.path(cache),
		Compose:      compose.path(cache),
		Helm:         helm.path(cache),
		DockerPy:     dockerPyDir(cache),
		Forward:      filepath.Join(programsDir(cache), "forward"),
		BusyboxImage: filepath.Join(programsDir(cache), "busybox.tar"),
		PauseImage:   filepath.Join(programsDir(cache), "pause.tar"),

		Psql:          filepath.Join(postgresDir(cache), "bin", "psql"),
		PostgresImage: filepath.Join(postgresDir(cache), "postgres.tar"),
	}
	for _, path := range []string{tools.Kubernetes, tools.Kubectl, tools.Envoy, tools.Provisioner, tools.CoreDNS, tools.Compose, tools.Helm, tools.DockerPy, tools.Forward, tools.BusyboxImage, tools.PauseImage, tools.Psql, tools.PostgresImage} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("not installed: %w", err)
		}
	}
	for _, p := range packages {
		if !p.present() {
			return nil, fmt.Errorf("not installed: package %s", p.name)
		}
	}
	for name, path := range map[string]*string{
		"docker": &tools.Docker, "dockerd": &tools.Dockerd,
		"containerd": &tools.Containerd, "ctr": &tools.Ctr, "etcd": &tools.Etcd, "python3": &tools.Python,
	} {
		if *path, err = lookPath(name); err != nil {
			return nil, fmt.Errorf("not installed: %w", err)
		}
	}
	return tools, nil
}

// lookPath also looks where root's programs are, which PATH may lack.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path, nil
		}
	}
	return "", err
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// cacheDir is outside of the clone: what it holds is the same for every
// clone, and takes minutes to build.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	return filepath.Join(dir, "isthmus", "testbed"), nil
}

// goCommand is the Go toolchain that builds Kubernetes.
func goCommand() (string, error) {
	if path, err := exec.LookPath("go"); err == nil {
		return path, nil
	}
	if path := filepath.Join(runtime.GOROOT(), "bin", "go"); isExecutable(path) { //nolint:staticcheck // only when PATH has none
		return path, nil
	}
	return "", fmt.Errorf("go: %w", fs.ErrNotExist)
}
