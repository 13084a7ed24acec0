package mesh

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// ServiceAccount is a caller of each Kubernetes cluster, in namespace default.
const ServiceAccount = "caller"

// Callers is the folder of what the gateway's callers show: ca.crt with alice.crt and alice.key, the file tokens with the
// token of ci, which is in ci.token, and on Kubernetes account.token of ServiceAccount.
func (g *Gateway) Callers() string { return filepath.Join(g.Dir, "callers") }

// Kubeconfig is the file by which ServiceAccount of a Kubernetes cluster uses the API of a peer, on this machine.
func (g *Gateway) Kubeconfig(peer string) string { return filepath.Join(g.Dir, peer+".kubeconfig") }

// callers makes what callers show.
func (g *Gateway) callers() error {
	if err := testbed.CallerCertificates(g.Callers(), "alice"); err != nil {
		return err
	}
	token := rand.Text()
	if err := os.WriteFile(filepath.Join(g.Callers(), "ci.token"), []byte(token), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.Callers(), "tokens"), []byte("# of the tests\n"+token+",ci\n"), 0o600)
}

// kubeconfigs writes a kubeconfig for each peer, in a Kubernetes cluster.
func (g *Gateway) kubeconfigs(ctx context.Context) error {
	cluster := g.mesh.options.Bed.Kubernetes(g.Name)
	if cluster == nil {
		return nil
	}
	if _, err := cluster.Kubectl(ctx, "create", "serviceaccount", ServiceAccount); err != nil {
		return err
	}
	token, err := cluster.Kubectl(ctx, "create", "token", ServiceAccount, "--duration", "24h")
	if err != nil {
		return err
	}
	file := filepath.Join(g.Callers(), "account.token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	for _, peer := range g.peers {
		text, err := g.CLI(ctx, "kubeconfig", peer, "--server", "https://"+g.APIs[peer], "--token-file", file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(g.Kubeconfig(peer), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
