// Command bench measures what Isthmus costs against plain Envoys, a stock external-processing server, and kube-apiserver
// asked directly. It prints a table and writes .bench/results.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/bench"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case bench.BackendCommand:
			return bench.ServeBackend(ctx, os.Args[2])
		case bench.NoopCommand:
			return bench.ServeNoop(ctx, os.Args[2])
		}
	}
	binary := os.Getenv("ISTHMUS_BINARY")
	if binary == "" {
		binary = "bin/isthmus"
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&binary, "binary", binary, "the isthmus that is measured; ISTHMUS_BINARY says so too")
	out := flags.String("out", ".bench/results.json", "the file of results")
	rounds := flags.Int("rounds", 9, "how often each arm is measured")
	saturation := flags.Duration("saturation", 2*time.Second, "length of one measurement of throughput, in whole seconds")
	latency := flags.Duration("latency", 2*time.Second, "length of one measurement of latency")
	keep := flags.Bool("keep", false, "leave clusters and gateways as they are")
	large := flags.Int("large", 0, "measure lists of so many pods and containers, and nothing else")
	making := flags.Duration("making", 5*time.Minute, "how long the making of those may take, each")
	if err := flags.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 || *rounds < 1 || *saturation < time.Second || *latency <= 0 {
		return errors.New("want flags only, a round at least, and a second of saturation at least")
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("isthmus: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if *large > 0 {
		return bench.Large(ctx, bench.LargeOptions{
			Options: bench.Options{Binary: binary, Log: testbed.Progress(os.Stderr)},
			Pods:    *large, Containers: *large, Limit: *making,
		}, os.Stdout)
	}
	report, err := bench.Run(ctx, bench.Options{
		Binary: binary, Self: self, Log: testbed.Progress(os.Stdout),
		Rounds: *rounds, Saturation: *saturation, Latency: *latency, Keep: *keep,
	})
	if err != nil {
		return err
	}
	fmt.Println()
	if err := report.Print(os.Stdout); err != nil {
		return err
	}
	return report.Write(*out)
}
