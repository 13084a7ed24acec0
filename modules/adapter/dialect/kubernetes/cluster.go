package kubernetes

import (
	"log/slog"
	"net/http"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Cluster is the outbound half: one Kubernetes API that this gateway holds credentials for.
type Cluster struct {
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	rest      *rest.Config
	transport http.RoundTripper
	upstream  neutral.Upstream
	cluster   string // this cluster's name
	namespace string // where another orchestrator's containers land
	log       *slog.Logger
}

var _ dialect.Cluster = (*Cluster)(nil)
