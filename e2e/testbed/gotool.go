package testbed

import (
	"cmp"
	"context"
	"encoding/json"
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
	// module is set where the program can only be built inside its module.
	module string
	// as is the program's name, where it is not its package's.
	as string
}

// provisioner makes the volumes that claims ask for, as folders of the node.
var provisioner = goTool{pkg: "github.com/rancher/local-path-provisioner", version: "v0.0.30"}

// nameServer is a cluster's name server.
var nameServer = goTool{pkg: "github.com/coredns/coredns", version: "v1.15.0"}

// compose is a plugin of docker's client.
var compose = goTool{pkg: "github.com/docker/compose/v5/cmd", version: "v5.0.0", module: "github.com/docker/compose/v5", as: "docker-compose"}

// helm is a client of the Kubernetes API.
var helm = goTool{pkg: "helm.sh/helm/v3/cmd/helm", version: "v3.22.0"}

var goTools = []goTool{provisioner, nameServer, compose, helm}

func (t goTool) name() string { return cmp.Or(t.as, path.Base(t.pkg)) }

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
	env := append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOBIN="+dir)
	cmd := exec.CommandContext(ctx, gocmd, "install", "-trimpath", "-ldflags", "-s -w", t.pkg+"@"+t.version)
	cmd.Dir, cmd.Env = dir, env
	if t.module != "" {
		source, err := t.source(ctx, gocmd, dir, env)
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(source) }()
		cmd = exec.CommandContext(ctx, gocmd, "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -X "+t.module+"/internal.Version="+t.version,
			"-o", filepath.Join(dir, t.name()), t.pkg)
		cmd.Dir, cmd.Env = source, env
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// source is a copy of the module: "go install" takes no module whose go.mod
// says something that holds for a main module alone, and nothing is written
// where Go keeps its modules.
func (t goTool) source(ctx context.Context, gocmd, dir string, env []string) (string, error) {
	cmd := exec.CommandContext(ctx, gocmd, "mod", "download", "-json", t.module+"@"+t.version)
	cmd.Dir, cmd.Env = dir, env
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download: %w: %s", err, stderrOf(err))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	source := filepath.Join(dir, "source")
	return source, os.CopyFS(source, os.DirFS(module.Dir))
}
