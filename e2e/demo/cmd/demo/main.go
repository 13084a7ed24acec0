// Command demo brings the demonstration up, takes it down, or gives the tour.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := testbed.Progress(os.Stdout)
	root, err := filepath.Abs(".demo")
	if err != nil {
		return err
	}
	binary, err := filepath.Abs("bin/isthmus")
	if err != nil {
		return err
	}
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: demo up|down|tour")
	}
	begin := time.Now()
	switch os.Args[1] {
	case "up":
		if _, err := demo.Up(ctx, root, mesh.Options{Binary: binary, Log: log}); err != nil {
			return err
		}
		log.Info("up; . .demo/env and try docker ps, make down ends it", "took", time.Since(begin).Round(time.Second))
		return nil
	case "down":
		return demo.Down(ctx, root, log)
	case "tour":
		return tour(ctx, root, binary, log)
	}
	return fmt.Errorf("%q is neither up nor down nor tour", os.Args[1])
}

// tour is up, the tour, and down whatever happened.
func tour(ctx context.Context, root, binary string, log *slog.Logger) (err error) {
	begin := time.Now()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if downErr := demo.Down(end, root, log); err == nil {
			err = downErr
		}
		if err == nil {
			log.Info("the tour is over", "took", time.Since(begin).Round(time.Second))
		}
	}()
	d, err := demo.Up(ctx, root, mesh.Options{Binary: binary, Log: log})
	if err != nil {
		return err
	}
	return d.Tour(ctx, os.Stdout)
}
