package testbed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// enginePrograms are the processes that are part of a cluster. They hold
// nothing worth saving when a bed ends.
var enginePrograms = map[string]bool{
	"dockerd": true, "containerd": true, "etcd": true, "kubelet": true, "kube-proxy": true,
	"kube-apiserver": true, "kube-controller-manager": true, "kube-scheduler": true,
	"local-path-provisioner": true, "coredns": true,
}

func (k *KubernetesCluster) startControlPlane(ctx context.Context, keys *clusterKeys) error {
	etcd, err := k.Start(ctx, Command{Name: "etcd", Argv: []string{
		k.bed.tools.Etcd,
		"--name", k.Name,
		"--data-dir", filepath.Join(k.Dir, "etcd"),
		"--listen-client-urls", "http://127.0.0.1:2379",
		"--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380",
		"--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", k.Name + "=http://127.0.0.1:2380",
		// What a crash could lose is removed after it anyway.
		"--unsafe-no-fsync",
		"--logger", "zap",
	}})
	if err != nil {
		return err
	}
	if err := waitReady(ctx, "etcd", 30*time.Second, func(ctx context.Context) error {
		return k.canDial(ctx, "127.0.0.1:2379")
	}, etcd); err != nil {
		return err
	}
	server, err := k.component(ctx, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+k.NodeAddress(),
		"--bind-address=0.0.0.0",
		"--secure-port=6443",
		"--cert-dir="+filepath.Join(k.Dir, "pki"),
		"--tls-cert-file="+keys.server.certificateFile,
		"--tls-private-key-file="+keys.server.keyFile,
		"--client-ca-file="+filepath.Join(k.Dir, "pki", "ca.crt"),
		"--kubelet-certificate-authority="+filepath.Join(k.Dir, "pki", "ca.crt"),
		"--kubelet-client-certificate="+keys.kubeletClient.certificateFile,
		"--kubelet-client-key="+keys.kubeletClient.keyFile,
		// A node's name resolves nowhere.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-cluster-ip-range="+k.serviceNetwork(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+keys.serviceAccount.keyFile,
		"--service-account-signing-key-file="+keys.serviceAccount.keyFile,
		"--authorization-mode=Node,RBAC",
		"--allow-privileged",
	)
	if err != nil {
		return err
	}
	// Both retry until the API server answers.
	manager, err := k.component(ctx, "kube-controller-manager",
		"--kubeconfig="+keys.controllerManager,
		"--bind-address=127.0.0.1",
		"--cert-dir="+filepath.Join(k.Dir, "pki"),
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--root-ca-file="+filepath.Join(k.Dir, "pki", "ca.crt"),
		"--service-account-private-key-file="+keys.serviceAccount.keyFile,
		"--cluster-signing-cert-file="+filepath.Join(k.Dir, "pki", "ca.crt"),
		"--cluster-signing-key-file="+filepath.Join(k.Dir, "pki", "ca.key"),
		// Volume plugins of the user would be looked for outside of the bed.
		"--flex-volume-plugin-dir="+filepath.Join(k.Dir, "volumeplugins"),
	)
	if err != nil {
		return err
	}
	scheduler, err := k.component(ctx, "kube-scheduler",
		"--kubeconfig="+keys.scheduler,
		"--bind-address=127.0.0.1",
		"--cert-dir="+filepath.Join(k.Dir, "pki"),
		"--leader-elect=false",
	)
	if err != nil {
		return err
	}
	ready, done, err := k.readyCheck(keys)
	if err != nil {
		return err
	}
	defer done()
	if err := waitReady(ctx, "the API server", 90*time.Second, ready, server, etcd); err != nil {
		return err
	}
	// Pods are refused until their namespace has its service account, which
	// also shows that the controller manager works.
	return waitReady(ctx, "the default service account", time.Minute, func(ctx context.Context) error {
		_, err := k.Kubectl(ctx, "get", "serviceaccount", "default")
		return err
	}, manager, scheduler)
}

// Crash kills all of Kubernetes that this very process started: API server, controllers, scheduler, kubelet and kube-proxy.
// Containers run on.
func (k *KubernetesCluster) Crash(ctx context.Context) error {
	for _, p := range k.components {
		if err := k.crash(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Recover starts all that Crash has killed, and waits until the API server is ready and has heard of the node.
func (k *KubernetesCluster) Recover(ctx context.Context) (err error) {
	begun := time.Now()
	for i, p := range k.components {
		if k.components[i], err = k.again(ctx, p); err != nil {
			return err
		}
	}
	return waitReady(ctx, "Kubernetes", 90*time.Second, func(ctx context.Context) error {
		if k.ControlPlaneOnly {
			_, err := k.Kubectl(ctx, "get", "--raw", "/readyz")
			return err
		}
		said, err := k.Kubectl(ctx, "get", "lease", k.Node, "--namespace", "kube-node-lease", "--output", "jsonpath={.spec.renewTime}")
		if err != nil {
			return err
		}
		renewed, err := time.Parse(time.RFC3339Nano, said)
		if err == nil && renewed.Before(begun) {
			err = fmt.Errorf("node %s was heard of at %s", k.Node, said)
		}
		return err
	}, k.components...)
}

// component starts one component of the Kubernetes program.
func (k *KubernetesCluster) component(ctx context.Context, name string, flags ...string) (*Process, error) {
	p, err := k.Start(ctx, Command{Name: name, Argv: append([]string{k.bed.tools.Kubernetes, name}, flags...)})
	if err == nil {
		k.components = append(k.components, p)
	}
	return p, err
}

// readyCheck asks the API server's /readyz, which anyone may.
func (k *KubernetesCluster) readyCheck(keys *clusterKeys) (check func(context.Context) error, done func(), err error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(keys.ca.pem) {
		return nil, nil, fmt.Errorf("authority of %s: no certificate", k.Name)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return k.DialIn(ctx, network, address)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	check = func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+k.Server()+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
			return fmt.Errorf("readyz: %s: %s", response.Status, body)
		}
		return nil
	}
	return check, transport.CloseIdleConnections, nil
}
