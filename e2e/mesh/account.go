package mesh

import (
	"context"
	_ "embed"
	"path/filepath"
	"strings"
)

// The manifests of docs/examples/kubernetes: what is shown there is what the gateways here run with.
var (
	//go:embed manifests/rbac.yaml
	gatewayManifest string
	//go:embed manifests/peer-west.yaml
	peerManifest string
)

// kubeconfig is the gateway's own, of an account with the least rights.
func (g *Gateway) kubeconfig() string { return filepath.Join(g.Dir, "kubeconfig") }

// account makes the account that a Kubernetes cluster's gateway runs as, and gives its peers their rights.
func (g *Gateway) account(ctx context.Context) error {
	cluster := g.mesh.options.Bed.Kubernetes(g.Name)
	if cluster == nil {
		return nil
	}
	manifests := []string{gatewayManifest}
	for _, peer := range g.peers {
		manifests = append(manifests, strings.ReplaceAll(peerManifest, "west", peer))
	}
	if more := g.mesh.options.Rights[g.Name]; more != "" {
		manifests = append(manifests, more)
	}
	if err := cluster.Apply(ctx, strings.Join(manifests, "\n---\n")); err != nil {
		return err
	}
	return cluster.AccountKubeconfig(ctx, "isthmus", "isthmus", g.kubeconfig())
}
