package testbed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"
)

// goTool is a program of another module, built from source in a fixed version.
type goTool struct {
	// pkg is the package of the program, version that of its module.
	pkg, version string
}

// provisioner makes the volumes that claims ask for, as folders of the node.
var provisioner = goTool{pkg: "github.com/rancher/local-path-provisioner", version: "v0.0.30"}

// nameServer is a cluster's name server.
var nameServer = goTool{pkg: "github.com/coredns/coredns", version: "v1.15.0"}

var goTools = []goTool{provisioner, nameServer}

func (t goTool) name() string { return path.Base(t.pkg) }

func (t goTool) dir(cache string) string { return filepath.Join(cache, t.name()+"-"+t.version) }

func (t goTool) path(cache string) string { return filepath.Join(t.dir(cache), t.name()) }

// installGoTools builds them one after the other: Kubernetes is built at the
// same time.
func installGoTools(ctx context.Context, cache string, log *slog.Logger) error {
	for _, t := range goTools {
		if err := t.install(ctx, cache, log); err != nil {
			return fmt.Errorf("install %s: %w", t.name(), err)
		}
	}
	return nil
}

func (t goTool) install(ctx context.Context, cache string, log *slog.Logger) error {
	if isExecutable(t.path(cache)) {
		return nil
	}
	begin := time.Now()
	log.Info("building "+t.name(), "version", t.version)
	work, err := os.MkdirTemp(cache, "."+t.name()+"-*")
	if err != nil {
		return err
	}
	if err = t.build(ctx, work); err == nil {
		err = errors.Join(os.RemoveAll(t.dir(cache)), os.Chmod(work, 0o755), os.Rename(work, t.dir(cache)))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	log.Info(t.name()+" is built", "took", since(begin))
	return nil
}

func (t goTool) build(ctx context.Context, dir string) error {
	gocmd, err := goCommand()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, gocmd, "install", "-trimpath", "-ldflags", "-s -w", t.pkg+"@"+t.version)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOBIN="+dir)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install: %w: %s", err, output)
	}
	return nil
}
