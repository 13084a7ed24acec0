package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const (
	storageNamespace = "local-path-storage"
	storageConfig    = "local-path-config"
)

// storageManifest makes a default StorageClass, whose volumes are folders of
// the node. A helper pod makes and removes each.
const storageManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: ` + storageNamespace + `}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ` + storageConfig + `, namespace: ` + storageNamespace + `}
data:
  setup: mkdir -m 0777 -p "$VOL_DIR"
  teardown: rm -rf "$VOL_DIR"
`

// startStorage starts what makes volumes. It runs beside the control plane and
// not in a pod, for no image of it is there.
func (k *KubernetesCluster) startStorage(ctx context.Context) error {
	if err := k.Apply(ctx, storageManifest); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	config, err := json.Marshal(map[string]any{"nodePathMap": []any{map[string]any{
		"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": []string{filepath.Join(k.Dir, "volumes")}}}})
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	helper, err := k.writeConfig("volume-helper.yaml", map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "helper"},
		"spec": map[string]any{"terminationGracePeriodSeconds": 0, "containers": []any{map[string]any{
			"name": "helper", "image": Image, "imagePullPolicy": "Never"}}},
	})
	if err != nil {
		return err
	}
	path := filepath.Join(k.Dir, "volumes.json")
	if err := os.WriteFile(path, config, 0o644); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	_, err = k.Start(ctx, Command{Name: "local-path-provisioner", Argv: []string{
		k.bed.tools.Provisioner, "start",
		"--kubeconfig", k.Kubeconfig, "--config", path, "--helper-pod-file", helper, "--helper-image", Image,
		"--namespace", storageNamespace, "--configmap-name", storageConfig, "--service-account-name", "default",
		"--provisioner-name", "rancher.io/local-path", "--worker-threads", "8",
	}})
	return err
}
