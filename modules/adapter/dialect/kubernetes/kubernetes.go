// Package kubernetes is the dialect of the Kubernetes API: it names what kubectl and other clients ask, refuses in a
// metav1.Status, and operates a Kubernetes cluster on behalf of callers of any orchestrator.
package kubernetes

import (
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Dialect is the Kubernetes API. It has no state.
type Dialect struct{}

var (
	_ dialect.Dialect   = Dialect{}
	_ dialect.Connector = Dialect{}
)

// Orchestrator names the dialect.
func (Dialect) Orchestrator() neutral.Orchestrator { return neutral.Kubernetes }
