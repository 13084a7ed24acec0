package kubernetes

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// emulated is a Kubernetes API over another orchestrator, and the cluster that it looks like: what the gateway asks a
// Kubernetes for a caller of its own type, it asks this one.
type emulated struct {
	*Cluster
	api    *apiserver.Server
	socket string
}

// Emulate makes the API. It is reached at the socket once it is served there.
func (Dialect) Emulate(config dialect.Emulation) (dialect.Emulated, error) {
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	seal, unseal, err := sealing(config.Seal)
	if err != nil {
		return nil, err
	}
	names, err := hkdf.Key(sha256.New, config.Seal, nil, "isthmus emulated names", 32)
	if err != nil {
		return nil, err
	}
	api := apiserver.New(apiserver.Config{Cluster: config.Cluster, Orchestrator: config.Over, Log: log, Seal: seal, Unseal: unseal, Key: names})
	// The host is never resolved: connections go to the socket.
	restConfig := &rest.Config{Host: "http://localhost", QPS: clientQPS, Burst: clientBurst, UserAgent: "isthmus", WarningHandler: rest.NoWarnings{},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", config.Socket)
		}}
	restConfig.Wrap(func(next http.RoundTripper) http.RoundTripper { return impersonator{next} })
	acc, err := newAccess(restConfig, log)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	dynamicClient, err := dynamic.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	metadataClient, err := metadata.NewForConfig(metadata.ConfigFor(restConfig))
	if err != nil {
		return nil, err
	}
	c := newCluster(client, dynamicClient, metadataClient, dialect.Config{Cluster: config.Cluster, Impersonate: true}, log)
	c.rest, c.access = restConfig, acc
	api.Resume()
	return &emulated{Cluster: c, api: api, socket: config.Socket}, nil
}

// ServeHTTP is the API.
func (e *emulated) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.api.ServeHTTP(w, r) }

// Upstream is where Envoy finds the API.
func (e *emulated) Upstream() neutral.Upstream {
	return neutral.Upstream{Socket: e.socket, Host: "kubernetes"}
}

// Close ends what follows the orchestrator, and the clients.
func (e *emulated) Close() error {
	e.api.Close()
	return e.Cluster.Close()
}

// sealing gives what hides the documents of secrets in an orchestrator's labels from all but this gateway, and what reads
// them again. Without a key there is neither.
func sealing(key []byte) (seal, unseal func([]byte) ([]byte, error), err error) {
	if len(key) == 0 {
		return nil, nil, nil
	}
	own, err := hkdf.Key(sha256.New, key, nil, "isthmus emulated secrets", 32)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, nil, err
	}
	seal = func(plain []byte) ([]byte, error) { return aead.Seal(nil, nil, plain, nil), nil }
	unseal = func(sealed []byte) ([]byte, error) {
		plain, err := aead.Open(nil, nil, sealed, nil)
		if err != nil {
			return nil, errors.New("what was sealed is not of this gateway's")
		}
		return plain, nil
	}
	return seal, unseal, nil
}
