package testbed

import (
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
	"time"
)

// The small programs are packages of this module; their sources are embedded
// so that any program that uses this package can build them.
var (
	//go:embed pause/main.go
	pauseMain []byte
	//go:embed forward/main.go
	forwardMain []byte
	//go:embed forward/setns_amd64.go
	forwardAMD64 []byte
	//go:embed forward/setns_arm64.go
	forwardARM64 []byte
)

func programsDir(cache string) string {
	sum := sha256.New()
	busybox, _ := os.ReadFile(busyboxProgram)
	for _, part := range [][]byte{pauseMain, forwardMain, forwardAMD64, forwardARM64, busybox, []byte(runtime.GOARCH), []byte(imageFormat)} {
		fmt.Fprintf(sum, "%d\n%s", len(part), part)
	}
	return filepath.Join(cache, "programs-"+hex.EncodeToString(sum.Sum(nil)[:6]))
}

// buildPrograms builds the pause and forward programs and the image archives.
func buildPrograms(ctx context.Context, cache string, log *slog.Logger) error {
	dir := programsDir(cache)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	begin := time.Now()
	work, err := os.MkdirTemp(cache, ".programs-*")
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	err = fillPrograms(ctx, work)
	if err == nil {
		err = os.Rename(work, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("build programs: %w", err), os.RemoveAll(work))
	}
	log.Info("programs and images are built", "took", since(begin))
	return nil
}

func fillPrograms(ctx context.Context, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	programs := map[string]map[string][]byte{
		"pause":   {"main.go": pauseMain},
		"forward": {"main.go": forwardMain, "setns_amd64.go": forwardAMD64, "setns_arm64.go": forwardARM64},
	}
	for name, sources := range programs {
		if err := buildProgram(ctx, dir, name, sources); err != nil {
			return err
		}
	}
	pause, err := pauseRoot(filepath.Join(dir, "pause"))
	if err != nil {
		return err
	}
	if err := writeImage(filepath.Join(dir, "pause.tar"), pauseImage, imageConfig{Cmd: []string{"/pause"}, Env: searchPath}, pause); err != nil {
		return err
	}
	busybox, err := busyboxRoot(ctx)
	if err != nil {
		return err
	}
	return writeImage(filepath.Join(dir, "busybox.tar"), Image, imageConfig{Cmd: []string{"sh"}, Env: searchPath}, busybox)
}

func buildProgram(ctx context.Context, dir, name string, sources map[string][]byte) error {
	src, err := os.MkdirTemp(dir, ".src-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(src) }()
	for file, content := range sources {
		if err := os.WriteFile(filepath.Join(src, file), content, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module isthmus.local/"+name+"\n\ngo 1.25\n"), 0o644); err != nil {
		return err
	}
	gocmd, err := goCommand()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, gocmd, "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", name, err, output)
	}
	return nil
}
