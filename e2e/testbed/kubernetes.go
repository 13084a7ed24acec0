package testbed

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// KubernetesOptions says what a Kubernetes cluster consists of.
type KubernetesOptions struct {
	Name string
	// ControlPlaneOnly leaves out the node: etcd, API server, controller
	// manager and scheduler run, pods stay pending.
	ControlPlaneOnly bool
}

// KubernetesCluster is a Kubernetes cluster of one node, or of none.
type KubernetesCluster struct {
	Cluster
	// ControlPlaneOnly is true for a cluster without a node.
	ControlPlaneOnly bool
	// Kubeconfig is an administrator's, for use within the namespace.
	Kubeconfig string
	// HostKubeconfig is an administrator's, for use on the machine.
	HostKubeconfig string
	// Node is the name of the only node.
	Node string

	components []*Process
}

// Each cluster has a /16 of its own, so that none answers in the place of
// another.
const kubernetesNetwork = 100

func newKubernetesCluster(cluster Cluster, controlPlaneOnly bool) *KubernetesCluster {
	return &KubernetesCluster{
		Cluster: cluster, ControlPlaneOnly: controlPlaneOnly,
		Kubeconfig:     filepath.Join(cluster.Dir, "kubeconfig"),
		HostKubeconfig: filepath.Join(cluster.Dir, "host.kubeconfig"),
		Node:           cluster.Name + "-node",
	}
}

// NodeAddress is the IP address of the node and of the API server.
func (k *KubernetesCluster) NodeAddress() string { return k.address("0.1") }

// Server is the API server's address within the namespace.
func (k *KubernetesCluster) Server() string { return net.JoinHostPort(k.NodeAddress(), "6443") }

func (k *KubernetesCluster) podNetwork() string     { return k.address("128.0") + "/18" }
func (k *KubernetesCluster) serviceNetwork() string { return k.address("192.0") + "/20" }

func (k *KubernetesCluster) address(host string) string {
	return fmt.Sprintf("10.%d.%s", kubernetesNetwork+k.index, host)
}

// Kubectl runs kubectl as the administrator, from the machine, and returns
// what it printed.
func (k *KubernetesCluster) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	return k.kubectl(ctx, "", arguments...)
}

// Apply creates or changes the objects of a manifest.
func (k *KubernetesCluster) Apply(ctx context.Context, manifest string) error {
	_, err := k.kubectl(ctx, manifest, "apply", "--filename", "-")
	return err
}

// Replace removes the objects of a manifest and makes them again.
func (k *KubernetesCluster) Replace(ctx context.Context, manifest string) error {
	_, err := k.kubectl(ctx, manifest, "replace", "--force", "--filename", "-")
	return err
}

//go:embed manifests/serviceexport.yaml
var serviceExportCRD string

// ApplyServiceExportCRD installs the multi-cluster services API's
// ServiceExport and waits until the API server serves it.
func (k *KubernetesCluster) ApplyServiceExportCRD(ctx context.Context) error {
	if err := k.Apply(ctx, serviceExportCRD); err != nil {
		return err
	}
	_, err := k.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd/serviceexports.multicluster.x-k8s.io")
	return err
}

func (k *KubernetesCluster) kubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	env := []string{"KUBECONFIG=" + k.HostKubeconfig, "KUBECACHEDIR=" + filepath.Join(k.Dir, "kubectl")}
	return runWith(ctx, env, strings.NewReader(stdin), append([]string{k.bed.tools.Kubectl}, arguments...)...)
}

func (k *KubernetesCluster) start(ctx context.Context) error {
	begin := time.Now()
	if err := k.makeNetwork(ctx); err != nil {
		return err
	}
	keys, err := k.makeKeys(ctx)
	if err != nil {
		return err
	}
	// The runtime does not need the control plane: both start at once.
	var (
		group      sync.WaitGroup
		runtimeErr error
		runtime    *Process
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !k.ControlPlaneOnly {
		group.Go(func() {
			if runtime, runtimeErr = k.startRuntime(ctx); runtimeErr != nil {
				cancel()
			}
		})
	}
	err = k.startControlPlane(ctx, keys)
	if err != nil {
		cancel()
	}
	group.Wait()
	if runtimeErr != nil && !errors.Is(runtimeErr, context.Canceled) {
		return runtimeErr
	}
	if err != nil {
		return err
	}
	k.bed.log.Info("control plane is up", "cluster", k.Name, "took", since(begin))
	if k.ControlPlaneOnly {
		return nil
	}
	if err := k.startNode(ctx, keys, runtime); err != nil {
		return err
	}
	if err := k.startNames(ctx); err != nil {
		return err
	}
	if err := k.startStorage(ctx); err != nil {
		return err
	}
	k.bed.log.Info("node is ready", "cluster", k.Name, "took", since(begin))
	return nil
}

// makeNetwork gives the node its address, on a bridge without ports: it needs
// no driver beyond the engines' own. The service network is routed there too,
// because a packet needs a route before its destination is translated.
func (k *KubernetesCluster) makeNetwork(ctx context.Context) error {
	for _, command := range []string{
		"link add node0 type bridge",
		"address add " + k.NodeAddress() + "/24 dev node0",
		"link set node0 up",
		"route add " + k.serviceNetwork() + " dev node0",
	} {
		if _, err := run(ctx, append([]string{"ip", "-n", k.Namespace}, strings.Fields(command)...)...); err != nil {
			return fmt.Errorf("node network: %w", err)
		}
	}
	_, err := k.Exec(ctx, "/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return fmt.Errorf("node network: %w", err)
	}
	return nil
}

// clusterKeys are the certificates and kubeconfigs of a cluster's components.
type clusterKeys struct {
	ca                               *authority
	server, kubelet, kubeletClient   *keyPair
	serviceAccount                   *keyPair
	controllerManager, scheduler     string
	kubeletKubeconfig, kubeProxyFile string
}

func (k *KubernetesCluster) makeKeys(ctx context.Context) (*clusterKeys, error) {
	dir := filepath.Join(k.Dir, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	ca, err := newAuthority(dir, k.Name+"-ca")
	if err != nil {
		return nil, err
	}
	keys := &clusterKeys{ca: ca}
	var failed []error
	pair := func(p *keyPair, err error) *keyPair {
		failed = append(failed, err)
		return p
	}
	keys.server = pair(ca.server("apiserver", "kube-apiserver",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "127.0.0.1", k.NodeAddress(), k.address("192.1")))
	keys.kubelet = pair(ca.server("kubelet", k.Node, k.Node, k.NodeAddress(), "127.0.0.1"))
	keys.kubeletClient = pair(ca.client("apiserver-kubelet", "kube-apiserver-kubelet", "system:masters"))
	keys.serviceAccount = pair(ca.client("service-account", "service-accounts"))
	admin := pair(ca.client("admin", "admin", "system:masters"))
	components := map[string]*keyPair{
		"system:kube-controller-manager": pair(ca.client("controller-manager", "system:kube-controller-manager")),
		"system:kube-scheduler":          pair(ca.client("scheduler", "system:kube-scheduler")),
		"system:kube-proxy":              pair(ca.client("proxy", "system:kube-proxy")),
		"system:node:" + k.Node:          pair(ca.client("node", "system:node:"+k.Node, "system:nodes")),
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for user, p := range components {
		files[user] = strings.TrimSuffix(p.certificateFile, ".crt") + ".kubeconfig"
		if err := k.writeKubeconfig(files[user], k.Server(), keys.ca.pem, user, p); err != nil {
			return nil, err
		}
	}
	keys.controllerManager = files["system:kube-controller-manager"]
	keys.scheduler = files["system:kube-scheduler"]
	keys.kubeProxyFile = files["system:kube-proxy"]
	keys.kubeletKubeconfig = files["system:node:"+k.Node]
	forward, err := k.Forward(ctx, "127.0.0.1:0", k.Server())
	if err != nil {
		return nil, err
	}
	return keys, errors.Join(
		k.writeKubeconfig(k.Kubeconfig, k.Server(), keys.ca.pem, "admin", admin),
		k.writeKubeconfig(k.HostKubeconfig, forward.Listen, keys.ca.pem, "admin", admin))
}

// AccountKubeconfig writes a kubeconfig of a service account, for use within
// the namespace.
func (k *KubernetesCluster) AccountKubeconfig(ctx context.Context, namespace, account, path string) error {
	token, err := k.Kubectl(ctx, "create", "token", account, "--namespace", namespace, "--duration", "24h")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(k.Dir, "pki", "ca.crt"))
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	raw, err := kubeconfig(k.Name, "https://"+k.Server(), ca, account, map[string]any{"token": strings.TrimSpace(token)})
	if err != nil {
		return err
	}
	if err := writeFileAtomic(path, raw, 0o600); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}

func (k *KubernetesCluster) writeKubeconfig(path, server string, ca []byte, user string, pair *keyPair) error {
	raw, err := kubeconfig(k.Name, "https://"+server, ca, user, map[string]any{
		"client-certificate-data": pair.certificate, "client-key-data": pair.key,
	})
	if err != nil {
		return err
	}
	if err := writeFileAtomic(path, raw, 0o600); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}
