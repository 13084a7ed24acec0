package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// startRuntime starts the node's containerd and gives it the bed's images.
func (k *KubernetesCluster) startRuntime(ctx context.Context) (*Process, error) {
	if err := k.makeClusterCgroup(); err != nil {
		return nil, err
	}
	if err := k.writePodNetwork(); err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	config := strings.NewReplacer(
		"PAUSE", pauseImage,
		"SNAPSHOTTER", snapshotter(k.Dir),
		"CNIBIN", cniDir,
		"CNICONF", k.podNetworkDir(),
	).Replace(nodeContainerdConfig)
	containerd, err := k.startContainerd(ctx, config)
	if err != nil {
		return nil, err
	}
	// Without its CRI plugin containerd runs on, of no use to a kubelet.
	err = waitReady(ctx, "containerd's CRI plugin", 30*time.Second, func(ctx context.Context) error {
		plugins, err := k.Ctr(ctx, "plugins", "list")
		if err != nil {
			return err
		}
		for line := range strings.Lines(plugins) {
			if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "cri" && fields[3] == "ok" {
				return nil
			}
		}
		return errors.New("it is not loaded")
	}, containerd)
	if err != nil {
		return nil, err
	}
	for _, image := range []string{k.bed.tools.PauseImage, k.bed.tools.BusyboxImage} {
		if err := k.LoadImage(ctx, image); err != nil {
			return nil, err
		}
	}
	return containerd, nil
}

// Ctr runs containerd's client against the node's runtime.
func (k *KubernetesCluster) Ctr(ctx context.Context, arguments ...string) (string, error) {
	return k.ctr(ctx, append([]string{"--namespace", "k8s.io"}, arguments...)...)
}

// LoadImage gives the node the images of an archive made by `docker save`.
func (k *KubernetesCluster) LoadImage(ctx context.Context, archive string) error {
	_, err := k.Ctr(ctx, "images", "import", archive)
	return err
}

func (k *KubernetesCluster) podNetworkDir() string { return filepath.Join(k.Dir, "cni") }

// writePodNetwork configures the pods' network. Every pod has a routed veth of
// its own: without a bridge, traffic between pods passes the rules of services
// too.
func (k *KubernetesCluster) writePodNetwork() error {
	dir := k.podNetworkDir()
	network, err := json.MarshalIndent(map[string]any{
		"cniVersion": "0.4.0",
		// The library keeps its results for all networks of a machine in one
		// folder, under their names.
		"name": k.Namespace,
		"plugins": []any{
			map[string]any{"type": "ptp", "ipMasq": false, "ipam": map[string]any{
				"type":    "host-local",
				"dataDir": filepath.Join(dir, "leases"),
				"ranges":  []any{[]any{map[string]any{"subnet": k.podNetwork()}}},
				"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
			}},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "10-pods.conflist"), network, 0o644))
}

// startNode starts kubelet and kube-proxy and waits until the node is ready.
func (k *KubernetesCluster) startNode(ctx context.Context, keys *clusterKeys, containerd *Process) error {
	kubeletConfig, err := k.writeConfig("kubelet.yaml", map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  "0.0.0.0",
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true}, "x509": map[string]any{"clientCAFile": filepath.Join(k.Dir, "pki", "ca.crt")}},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              keys.kubelet.certificateFile,
		"tlsPrivateKeyFile":        keys.kubelet.keyFile,
		"containerRuntimeEndpoint": "unix://" + k.ContainerdSocket(),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               k.cgroup(),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{},
		"oomScoreAdj":              0,
		"maxPods":                  500,
		"clusterDNS":               []string{k.NodeAddress()},
		"clusterDomain":            clusterDomain,
		"podLogsDir":               filepath.Join(k.Dir, "pods"),
		"volumePluginDir":          filepath.Join(k.Dir, "volumeplugins"),
		"registerWithTaints":       []any{},
		// Images cannot be pulled again, and the disk is the machine's.
		"imageGCHighThresholdPercent": 100,
		"evictionHard":                map[string]any{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
		// Tests wait for what these let through.
		"kubeAPIQPS":   100,
		"kubeAPIBurst": 200,
	})
	if err != nil {
		return err
	}
	proxyConfig, err := k.writeConfig("kube-proxy.yaml", map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "iptables",
		"clientConnection":   map[string]any{"kubeconfig": keys.kubeProxyFile},
		"clusterCIDR":        k.podNetwork(),
		"hostnameOverride":   k.Node,
		"bindAddress":        "0.0.0.0",
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj":        0,
		// The limit is the machine's, and not a namespace's to set.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0},
	})
	if err != nil {
		return err
	}
	kubelet, err := k.component(ctx, "kubelet",
		"--config="+kubeletConfig,
		"--kubeconfig="+keys.kubeletKubeconfig,
		"--root-dir="+filepath.Join(k.Dir, "kubelet"),
		"--cert-dir="+filepath.Join(k.Dir, "pki"),
		"--hostname-override="+k.Node,
		"--node-ip="+k.NodeAddress(),
	)
	if err != nil {
		return err
	}
	proxy, err := k.component(ctx, "kube-proxy", "--config="+proxyConfig)
	if err != nil {
		return err
	}
	return waitReady(ctx, "the node", 90*time.Second, func(ctx context.Context) error {
		status, err := k.Kubectl(ctx, "get", "node", k.Node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}{.spec.taints}`)
		if err != nil {
			return err
		}
		if !strings.Contains(status, `"status":"True"`) || strings.Contains(status, "NoSchedule") {
			return fmt.Errorf("node %s: %s", k.Node, status)
		}
		return nil
	}, kubelet, containerd, proxy)
}

// writeConfig writes a component's configuration. JSON is YAML.
func (k *KubernetesCluster) writeConfig(name string, config map[string]any) (string, error) {
	raw, err := json.MarshalIndent(config, "", "  ")
	path := filepath.Join(k.Dir, name)
	if err == nil {
		err = os.WriteFile(path, raw, 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return path, nil
}
