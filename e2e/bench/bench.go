// Package bench measures what Isthmus costs: the same requests, on the same machine and in turns, through its gateways,
// through plain Envoys, and through plain Envoys that ask a stock external-processing server.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// Options say how a measurement is made.
type Options struct {
	Binary string // isthmus
	// Self is the program that runs this package, and serves when its first argument is BackendCommand or NoopCommand.
	Self string
	Log  *slog.Logger
	// Rounds is how often each arm is measured.
	Rounds int
	// Saturation and Latency are how long one measurement of each sort takes; Saturation counts in whole seconds.
	Saturation, Latency time.Duration
	Keep                bool // leave the bed as it is
}

// Commands of the program that runs this package.
const (
	BackendCommand = "backend" // ADDRESS
	NoopCommand    = "noop"    // SOCKET
)

// Run brings clusters, gateways and plain Envoys up, measures, and leaves nothing of them.
func Run(ctx context.Context, options Options) (report Report, err error) {
	root, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return Report{}, fmt.Errorf("bench: %w", err)
	}
	defer func() {
		if options.Keep {
			options.Log.Info("kept", "root", root)
			return
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, testbed.Down(end, root, options.Log), os.RemoveAll(root))
	}()
	s, err := newSite(ctx, root, options)
	if err != nil {
		return Report{}, err
	}
	defer s.release()
	requests, err := s.requests(ctx)
	if err != nil {
		return Report{}, err
	}
	lists, err := s.lists(ctx)
	if err != nil {
		return Report{}, err
	}
	for _, g := range []*group{requests, lists} {
		if err := g.check(ctx); err != nil {
			return Report{}, err
		}
	}
	if err := s.confine(); err != nil {
		return Report{}, err
	}
	if err := requests.measure(ctx, options); err != nil {
		return Report{}, err
	}
	if err := s.unconfine(); err != nil {
		return Report{}, err
	}
	if err := lists.measure(ctx, options); err != nil {
		return Report{}, err
	}
	return newReport(s.divided, requests, lists)
}
