package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const namespaceDir = "/run/netns"

// enter is the command line prefix that runs a program in the namespace. It
// is nsenter, because `ip netns exec` mounts a fresh /sys, without the cgroups
// that the engines need.
func (c *Cluster) enter() []string {
	return []string{"nsenter", "--net=" + filepath.Join(namespaceDir, c.Namespace), "--"}
}

// Exec runs a short command in the cluster's network namespace and returns
// what it printed.
func (c *Cluster) Exec(ctx context.Context, argv ...string) (string, error) {
	return run(ctx, append(c.enter(), argv...)...)
}

func (c *Cluster) makeNamespace(ctx context.Context) error {
	if _, err := run(ctx, "ip", "netns", "add", c.Namespace); err != nil {
		return fmt.Errorf("namespace of %s: %w", c.Name, err)
	}
	if _, err := run(ctx, "ip", "-n", c.Namespace, "link", "set", "lo", "up"); err != nil {
		return fmt.Errorf("namespace of %s: %w", c.Name, err)
	}
	return nil
}

// DialIn dials from within the cluster's network namespace. The address is an
// IP address and a port, or the path of a Unix socket: names would be resolved
// on other threads, outside of the namespace.
func (c *Cluster) DialIn(ctx context.Context, network, address string) (net.Conn, error) {
	if err := literal(network, address); err != nil {
		return nil, err
	}
	return inNamespace(c.Namespace, func() (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
}

// ListenIn listens within the cluster's network namespace.
func (c *Cluster) ListenIn(ctx context.Context, network, address string) (net.Listener, error) {
	if err := literal(network, address); err != nil {
		return nil, err
	}
	return inNamespace(c.Namespace, func() (net.Listener, error) {
		var listen net.ListenConfig
		return listen.Listen(ctx, network, address)
	})
}

func literal(network, address string) error {
	if network == "unix" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if host != "" && net.ParseIP(host) == nil {
		return fmt.Errorf("address %q: want an IP address, not a name", address)
	}
	return nil
}

// inNamespace makes a socket on a thread that has entered the namespace. The
// goroutine ends with its thread still locked, so the thread dies with it and
// nothing else ever runs there.
func inNamespace[T any](namespace string, open func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		var r result
		if r.err = enterNamespace(namespace); r.err == nil {
			r.value, r.err = open()
		}
		results <- r
	}()
	r := <-results
	return r.value, r.err
}

func enterNamespace(namespace string) error {
	path := filepath.Join(namespaceDir, namespace)
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(fmt.Errorf("enter network namespace %s: %w", namespace, err), file.Close())
	}
	return file.Close()
}

// canDial tells whether a TCP connection from within the namespace succeeds.
func (c *Cluster) canDial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := c.DialIn(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
