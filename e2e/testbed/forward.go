package testbed

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Forward is a TCP address of the machine that leads into a cluster.
type Forward struct {
	// Listen is the address on the machine, with the port that was chosen.
	Listen string
	// Target is the address inside of the cluster's namespace.
	Target string

	Process *Process
}

// Forward makes target, an address within the cluster's namespace, reachable
// at listen on the machine; port 0 picks one. The forwarder outlives the
// caller.
func (c *Cluster) Forward(ctx context.Context, listen, target string) (*Forward, error) {
	if err := literal("tcp", target); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	// The listener is made here and handed down: nobody can take the port
	// meanwhile, and connections queue up from now on.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", target, err)
	}
	defer func() { _ = listener.Close() }()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", target, err)
	}
	defer func() { _ = file.Close() }()
	address := listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	process, err := c.bed.Start(ctx, Command{
		Name:  "forward-" + c.Name + "-" + port,
		Argv:  []string{c.bed.tools.Forward, filepath.Join(namespaceDir, c.Namespace), target},
		Files: []*os.File{file},
	})
	if err != nil {
		return nil, err
	}
	err = c.bed.update(func(st *state) {
		st.Forwards = append(st.Forwards, forwardState{Process: process.Name, Cluster: c.Name, Listen: address, Target: target})
	})
	if err != nil {
		return nil, err
	}
	return &Forward{Listen: address, Target: target, Process: process}, nil
}

// Close ends the forwarder.
func (f *Forward) Close(ctx context.Context) error { return f.Process.Stop(ctx, time.Second) }

// Forwards returns the forwards into a cluster that run.
func (c *Cluster) Forwards() []*Forward {
	st, err := readState(c.bed.Root)
	if err != nil {
		return nil
	}
	var all []*Forward
	for _, f := range slices.Backward(st.Forwards) {
		if f.Cluster != c.Name {
			continue
		}
		if p := c.bed.Process("", f.Process); p != nil && p.Running() {
			all = append(all, &Forward{Listen: f.Listen, Target: f.Target, Process: p})
		}
	}
	return all
}
