package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// gatewayImage is what the scripts' values name.
const gatewayImage = "isthmus.local/isthmus:e2e"

// image CLUSTER: gives a Kubernetes cluster the image of a gateway, with the isthmus under test.
func image(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: image CLUSTER")
	}
	program, err := binary()
	ts.Check(err)
	archive := filepath.Join(ts.Getenv("WORK"), "isthmus-image.tar")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// Without the race detector, and not in this process, whose clusters and gateways would wait for it.
	made := exec.CommandContext(ctx, "go", "run", "./testbed/cmd/testbed", "image", "--isthmus", program, "--reference", gatewayImage, "--output", archive)
	if said, err := made.CombinedOutput(); err != nil {
		ts.Fatalf("the image was not made: %v: %s", err, said)
	}
	ts.Check(running.Bed.Kubernetes(args[0]).LoadImage(ctx, archive))
}

// way FROM CLUSTER NAMESPACE/SERVICE:PORT: carries connections from the network of one cluster to a Service of another,
// and has $WAY be where they are taken. On the links between the clusters themselves only the gateways' own port is open.
func way(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 || neg {
		ts.Fatalf("usage: way FROM CLUSTER NAMESPACE/SERVICE:PORT")
	}
	from, to := running.Bed.Cluster(args[0]), running.Bed.Kubernetes(args[1])
	service, port, _ := strings.Cut(args[2], ":")
	namespace, name, _ := strings.Cut(service, "/")
	ctx, cancel := context.WithCancel(context.Background())
	address, err := to.Kubectl(ctx, "get", "service", name, "--namespace", namespace, "--output", "jsonpath={.spec.clusterIP}")
	ts.Check(err)
	listener, err := from.ListenIn(ctx, "tcp", "127.0.0.1:0")
	ts.Check(err)
	var carried sync.WaitGroup
	carried.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // closed
			}
			carried.Go(func() {
				far, err := to.DialIn(ctx, "tcp", net.JoinHostPort(address, port))
				if err != nil {
					_ = near.Close() // who dialled sees a connection that ends
					return
				}
				defer context.AfterFunc(ctx, func() { _ = errors.Join(near.Close(), far.Close()) })()
				carried.Go(func() {
					_, _ = io.Copy(far, near)
					_ = far.Close()
				})
				_, _ = io.Copy(near, far)
				_ = near.Close()
			})
		}
	})
	ts.Defer(func() {
		cancel()
		_ = listener.Close()
		carried.Wait()
	})
	ts.Setenv("WAY", listener.Addr().String())
}
