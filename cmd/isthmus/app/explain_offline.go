package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// offlineTarget opens the orchestrator of a gateway's documents without reaching it: its plans are pure, and its
// address is replaced by one that never answers. end gives everything back.
func offlineTarget(ctx context.Context, set *manifest.Set) (target dialect.Cluster, end func(), err error) {
	dir, err := os.MkdirTemp("", "isthmus-explain")
	if err != nil {
		return nil, nil, err
	}
	silence, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	discard := func() {
		_ = silence.Close() // nothing was accepted on it
		_ = os.RemoveAll(dir)
	}
	config := dialect.Config{
		Cluster: set.Gateway.Metadata.Name, Namespace: namespaceFor(set), Log: slog.New(slog.DiscardHandler),
		Endpoint: "tcp://" + silence.Addr().String(), Kubeconfig: filepath.Join(dir, "target"),
	}
	if err := writeKubeconfig(config.Kubeconfig, silence.Addr().String()); err != nil {
		discard()
		return nil, nil, err
	}
	if _, target, err = connect(ctx, neutral.Orchestrator(set.Gateway.Spec.Orchestrator.Type), config); err != nil {
		discard()
		return nil, nil, err
	}
	return target, func() {
		_ = target.Close() // it was never used
		discard()
	}, nil
}

// writeKubeconfig writes a kubeconfig without credentials.
func writeKubeconfig(path, address string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: explain
  cluster: {server: "http://%s"}
contexts:
- name: explain
  context: {cluster: explain, user: nobody}
users:
- name: nobody
  user: {}
current-context: explain
`, address)
	return os.WriteFile(path, []byte(text), 0o600)
}
