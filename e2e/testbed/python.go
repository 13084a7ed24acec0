package testbed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// dockerPyVersion is that of Python's library of the Docker Engine API.
const dockerPyVersion = "7.2.0"

// dockerPyDir is a folder for PYTHONPATH.
func dockerPyDir(cache string) string { return filepath.Join(cache, "docker-py-"+dockerPyVersion) }

func installDockerPy(ctx context.Context, cache string, log *slog.Logger) error {
	if _, err := os.Stat(dockerPyDir(cache)); err == nil {
		return nil
	}
	begin := time.Now()
	work, err := os.MkdirTemp(cache, ".docker-py-*")
	if err != nil {
		return fmt.Errorf("install docker-py: %w", err)
	}
	site, err := pipInstall(ctx, work, log, "docker=="+dockerPyVersion)
	if err == nil {
		err = os.Rename(site, dockerPyDir(cache))
	}
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return fmt.Errorf("install docker-py: %w", err)
	}
	log.Info("docker-py is installed", "took", since(begin))
	return nil
}

// pipInstall puts Python packages into a folder of work, by way of a virtual environment, the one place where Debian lets
// pip install.
func pipInstall(ctx context.Context, work string, log *slog.Logger, packages ...string) (site string, err error) {
	venv := filepath.Join(work, "venv")
	python := "python3"
	if _, err := run(ctx, python, "-c", "import venv, ensurepip"); err != nil {
		if err := aptInstall(ctx, log, "python3", "python3-venv"); err != nil {
			return "", err
		}
		python = "/usr/bin/python3"
	}
	if _, err := run(ctx, python, "-m", "venv", venv); err != nil {
		return "", err
	}
	site = filepath.Join(work, "site")
	_, err = run(ctx, append([]string{filepath.Join(venv, "bin", "pip"), "install", "--quiet", "--no-input",
		"--disable-pip-version-check", "--target", site}, packages...)...)
	return site, err
}
