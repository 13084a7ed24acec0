package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// kubernetesVersion is the release that the module in kubernetes/ requires.
const kubernetesVersion = "v1.34.2"

// The module that links Kubernetes is a template and no part of this module:
// its requirements are its own.
var (
	//go:embed kubernetes/main.go.tmpl
	kubernetesMain []byte
	//go:embed kubernetes/go.mod.tmpl
	kubernetesMod []byte
	//go:embed kubernetes/go.sum.tmpl
	kubernetesSum []byte
)

// kubernetesFlags stamps the version, which clients and the components
// themselves go by.
func kubernetesFlags() string {
	const stamp = " -X k8s.io/component-base/version."
	parts := strings.Split(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	return "-s -w" + stamp + "gitVersion=" + kubernetesVersion + stamp + "gitMajor=" + parts[0] +
		stamp + "gitMinor=" + parts[1] + stamp + "gitTreeState=clean"
}

func kubernetesDir(cache string) string {
	sum := sha256.New()
	for _, part := range [][]byte{kubernetesMain, kubernetesMod, kubernetesSum, []byte(kubernetesFlags()), []byte(runtime.GOARCH)} {
		fmt.Fprintf(sum, "%d\n%s", len(part), part)
	}
	return filepath.Join(cache, "kubernetes-"+kubernetesVersion+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
}

// buildKubernetes builds apiserver, controller-manager, scheduler, kubelet,
// kube-proxy and kubectl as one program. It takes about twelve CPU minutes the
// first time, and says so as it goes.
func buildKubernetes(ctx context.Context, cache string, log *slog.Logger) error {
	dir := kubernetesDir(cache)
	if isExecutable(filepath.Join(dir, "kubectl")) {
		return nil
	}
	work, err := os.MkdirTemp(cache, ".kubernetes-*")
	if err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	err = compileKubernetes(ctx, work, dir, log)
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	return nil
}

func compileKubernetes(ctx context.Context, work, dir string, log *slog.Logger) error {
	for name, content := range map[string][]byte{"main.go": kubernetesMain, "go.mod": kubernetesMod, "go.sum": kubernetesSum} {
		if err := os.WriteFile(filepath.Join(work, name), content, 0o644); err != nil {
			return err
		}
	}
	gocmd, err := goCommand()
	if err != nil {
		return err
	}
	begin := time.Now()
	log.Info("building Kubernetes, about 12 CPU minutes the first time", "version", kubernetesVersion)
	goTool := func(arguments ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, gocmd, arguments...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
		return cmd
	}
	// How far the build is shows only against the number of all packages;
	// those that the Go cache holds pass without being counted.
	all, err := goTool("list", "-mod=readonly", "-deps", ".").Output()
	if err != nil {
		return fmt.Errorf("go list: %w: %s", err, stderrOf(err))
	}
	total := bytes.Count(all, []byte("\n"))
	cmd := goTool("build", "-v", "-mod=readonly", "-buildvcs=false", "-trimpath",
		"-ldflags", kubernetesFlags(), "-o", "kubernetes", ".")
	output := &buildOutput{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := every(15*time.Second, func() {
		log.Info("building Kubernetes", "elapsed", since(begin), "packages", output.lines.Load(), "of", total)
	})
	err = cmd.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("go build: %w: %s", err, output.tail)
	}
	ready := filepath.Join(work, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(work, "kubernetes"), filepath.Join(ready, "kubernetes")); err != nil {
		return err
	}
	if err := os.Symlink("kubernetes", filepath.Join(ready, "kubectl")); err != nil {
		return err
	}
	if _, err := run(ctx, filepath.Join(ready, "kubectl"), "version", "--client"); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(ready, dir); err != nil {
		return err
	}
	log.Info("Kubernetes is built", "took", since(begin))
	return nil
}

// stderrOf is what a failed command printed as its error.
func stderrOf(err error) []byte {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}

// buildOutput counts the compiled packages, a line each, and keeps the end,
// where an error would be.
type buildOutput struct {
	lines atomic.Int64
	tail  []byte
}

func (o *buildOutput) Write(p []byte) (int, error) {
	o.lines.Add(int64(bytes.Count(p, []byte("\n"))))
	o.tail = append(o.tail, p...)
	o.tail = o.tail[max(0, len(o.tail)-4096):]
	return len(p), nil
}

// every calls f at an interval until stop is called; f never runs after that.
func every(interval time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				f()
			}
		}
	}()
	return func() { close(quit); <-done }
}
