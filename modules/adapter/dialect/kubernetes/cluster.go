package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The client's own limit of requests. The API server has a fairer one (priority and fairness); ours only stops a loop
// gone mad.
const (
	clientQPS   = 300
	clientBurst = 600
)

// Cluster is the outbound half: one Kubernetes API that this gateway holds credentials for.
type Cluster struct {
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	rest      *rest.Config // for what the clients do not cover: exec, attach
	cluster   string       // this cluster's name
	namespace string       // where another orchestrator's containers land
	agents    string       // the namespace of the leases of nodes' agents
	log       *slog.Logger
	endDelay  time.Duration // how long after its log a container's end may become known

	impersonate bool // peers act in names of their own
	reviews     bool // of callers' tokens

	seal []byte // of journals

	unread sync.Once // that the volumes cannot be read is logged once

	access *access
	mapper meta.RESTMapper
	pods   *podCache

	ctx    context.Context // ends with Close; owns the caches
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	operations
}

var _ dialect.Cluster = (*Cluster)(nil)

// Connect opens the cluster that config names. It does not wait for the API to answer: a gateway starts, and says so,
// while its orchestrator is down.
func (Dialect) Connect(_ context.Context, config dialect.Config) (dialect.Cluster, error) {
	restConfig, err := loadConfig(config)
	if err != nil {
		return nil, err
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if config.Impersonate {
		restConfig.Wrap(func(next http.RoundTripper) http.RoundTripper { return impersonator{next} })
	}
	acc, err := newAccess(restConfig, log)
	if err != nil {
		return nil, err
	}
	httpClient, err := rest.HTTPClientFor(restConfig)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	typed := rest.CopyConfig(restConfig)
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfigAndClient(typed, httpClient)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	dynamicClient, err := dynamic.NewForConfigAndClient(restConfig, httpClient)
	if err != nil {
		return nil, fmt.Errorf("kubernetes dynamic client: %w", err)
	}
	metadataClient, err := metadata.NewForConfigAndClient(metadata.ConfigFor(restConfig), httpClient)
	if err != nil {
		return nil, fmt.Errorf("kubernetes metadata client: %w", err)
	}
	c := newCluster(client, dynamicClient, metadataClient, config, log)
	c.rest, c.access = restConfig, acc
	c.start()
	return c, nil
}

// newCluster assembles a cluster from its clients; start sets it going.
func newCluster(client kubernetes.Interface, dyn dynamic.Interface, partial metadata.Interface, config dialect.Config, log *slog.Logger) *Cluster {
	c := &Cluster{
		client: client, dynamic: dyn, metadata: partial,
		cluster: config.Cluster, namespace: config.Namespace, log: log, endDelay: endDelay,
		impersonate: config.Impersonate, reviews: config.ReviewTokens, seal: config.Seal,
		agents: cmp.Or(config.AgentNamespace, freezer.Namespace),
	}
	if c.namespace == "" {
		c.namespace = metav1.NamespaceDefault
	}
	// The caches live from Connect to Close, whatever becomes of Connect's own context.
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pods = newPodCache(client, log)
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return c
}

// start keeps the cache of pods warm.
func (c *Cluster) start() {
	c.tasks.Go(func() { c.pods.informer.RunWithContext(c.ctx) })
}

// Upstream tells Envoy where the API is. It is cheap, and its credentials are as fresh as their files: call it again
// rather than keep what it gave.
func (c *Cluster) Upstream() neutral.Upstream { return c.access.upstream() }

// Transport reaches the API for calls that are handed on unread.
func (c *Cluster) Transport() http.RoundTripper { return c.access }

// Close ends the caches and waits for them.
func (c *Cluster) Close() error {
	c.cancel()
	c.tasks.Wait()
	if c.access != nil {
		c.access.close()
	}
	return nil
}

// System asks the API who it is. What the gateway may not read is a warning, not an error.
func (c *Cluster) System(ctx context.Context) (neutral.System, error) {
	v, err := c.version(ctx)
	if err != nil {
		return neutral.System{}, nativeFault(err)
	}
	system := neutral.System{
		Name:       c.cluster,
		Version:    v.GitVersion,
		APIVersion: v.Major + "." + v.Minor,
		Platform:   "Kubernetes",
		Now:        time.Now(),
	}
	system.OS, system.Architecture, _ = strings.Cut(v.Platform, "/")
	// Any version of the list will do, so the API server answers from its own cache.
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		if ctx.Err() != nil {
			return neutral.System{}, nativeFault(err)
		}
		c.log.Debug("nodes are not readable", "error", err)
		system.Warnings = append(system.Warnings, "the gateway cannot read the nodes")
	} else {
		system.Nodes = len(nodes.Items)
		for i := range nodes.Items {
			n := &nodes.Items[i]
			system.MilliCPU += n.Status.Capacity.Cpu().MilliValue()
			system.Memory += n.Status.Capacity.Memory().Value()
			if i == 0 {
				info := n.Status.NodeInfo
				system.OS, system.Architecture, system.Kernel = info.OperatingSystem, info.Architecture, info.KernelVersion
			}
		}
	}
	c.pods.count(&system)
	return system, nil
}

// version asks for the API server's version.
func (c *Cluster) version(ctx context.Context) (*version.Info, error) {
	return discovery.ToDiscoveryInterfaceWithContext(c.client.Discovery()).ServerVersionWithContext(ctx)
}
