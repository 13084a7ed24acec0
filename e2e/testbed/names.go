package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const clusterDomain = "cluster.local"

// startNames starts the cluster's name server, on the node's address. It knows
// the cluster's own names: there is no other network to ask.
func (k *KubernetesCluster) startNames(ctx context.Context) error {
	path := filepath.Join(k.Dir, "Corefile")
	config := fmt.Sprintf(`%[1]s:53 {
	bind %[2]s
	errors
	kubernetes %[1]s {
		kubeconfig %[3]s
		ttl 0
	}
}
`, clusterDomain, k.NodeAddress(), k.Kubeconfig)
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	server, err := k.Start(ctx, Command{Name: "coredns", Argv: []string{k.bed.tools.CoreDNS, "-conf", path}})
	if err != nil {
		return err
	}
	return waitReady(ctx, "the name server", 30*time.Second, func(ctx context.Context) error {
		return k.canDial(ctx, k.NodeAddress()+":53")
	}, server)
}
