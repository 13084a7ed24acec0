package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/etcd"
	"github.com/isthmus-mesh/isthmus/modules/state/file"
	"github.com/isthmus-mesh/isthmus/modules/state/kubernetes"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// stateKinds are all kinds of state that a gateway keeps.
var stateKinds = []state.Kind{authorityKind, trust.Bundles, store.Kind, join.Kind, joinedKind, accessesKind, lease.Kind, maskKind}

// openHome opens the home of a gateway's state, for the replica of a name. A command has none: it takes no lease.
func openHome(set *manifest.Set, replica string) (state.Home, error) {
	return openHomeAt(set, set.Gateway.Spec.State, replica)
}

func openHomeAt(set *manifest.Set, at manifest.State, replica string) (state.Home, error) {
	gateway := set.Gateway.Metadata.Name
	switch at.Home {
	case manifest.StateKubernetes:
		return kubernetes.Open(kubernetes.Config{Kubeconfig: at.Kubernetes.Kubeconfig, Context: at.Kubernetes.Context,
			Namespace: at.Kubernetes.Namespace, Gateway: gateway, Holder: replica})
	case manifest.StateEtcd:
		return etcd.Open(etcd.Config{Endpoints: at.Etcd.Endpoints, Prefix: at.Etcd.Prefix, Gateway: gateway, Holder: replica,
			CA: at.Etcd.CA, Certificate: at.Etcd.Certificate, Key: at.Etcd.Key, Username: at.Etcd.Username, PasswordFile: at.Etcd.PasswordFile})
	}
	return file.Open(file.Config{Dir: set.Gateway.Spec.StateDir, Holder: replica}), nil
}

// homePatience is how long a gateway that starts waits for its state.
const homePatience = 30 * time.Second

// awaitHome opens the home once it answers: it may start beside the gateway.
func awaitHome(ctx context.Context, set *manifest.Set, replica string, log *slog.Logger) (state.Home, error) {
	ctx, cancel := context.WithTimeout(ctx, homePatience)
	defer cancel()
	for told := false; ; told = true {
		home, err := openHome(set, replica)
		if err == nil {
			if _, err = home.Get(ctx, joinedKind.Only()); err == nil || errors.Is(err, state.ErrNotFound) {
				return home, nil
			}
			err = errors.Join(err, home.Close())
		}
		if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Timeout) {
			return nil, err
		}
		if !told {
			log.Warn("the gateway's state is not there yet; waiting", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

// actingLease is the lease of the replica that acts.
const actingLease = "peering"

// replicaFile holds a replica's name, so that one that was killed has its lease back at once. No other process uses the
// folder.
const replicaFile = "replica"

// replicaName names this replica among those that share a home.
func replicaName(runDir string) (string, error) {
	path := filepath.Join(runDir, replicaFile)
	text, err := os.ReadFile(path)
	if err == nil && len(text) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the replica's name: %w", err)
	}
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("the replica's name: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	name := host + "-" + hex.EncodeToString(random)
	if err := durable.Replace(path, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("the replica's name: %w", err)
	}
	return name, nil
}
