package dialect

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TargetLister is a cluster that tells all containers that accesses may want, of one namespace or of all.
type TargetLister interface {
	// Targets are the containers as they are now, those that do not run among them, each as Locate finds it: of a Pod one for
	// each of its containers. They are in no order.
	Targets(ctx context.Context, namespace string) ([]neutral.Target, error)
}
