// Package loopback is what gateways of tests need that run on this machine's loopback network, without clusters: Envoy's
// binary, and addresses that nobody else takes.
package loopback

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// Envoy is the path of Envoy: what ISTHMUS_ENVOY says, or the testbed's. Without one the test is skipped; in CI it fails.
func Envoy(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ISTHMUS_ENVOY"); path != "" {
		return path
	}
	path, err := testbed.Envoy()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skipf("%v: set ISTHMUS_ENVOY, or start the testbed once", err)
	}
	return path
}

// hosts counts what NewHost gave.
var hosts atomic.Uint32

// NewHost is an address of the loopback network for one gateway: what it leaves free for a moment nobody takes, as
// others would on 127.0.0.1, this process or those beside it.
func NewHost() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&63, pid&255, hosts.Add(1)%254+1)
}

// Address is one of a host on which nothing listens now.
func Address(t testing.TB, host string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
