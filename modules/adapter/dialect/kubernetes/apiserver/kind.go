package apiserver

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// kind is what the objects of one resource are in the orchestrator.
type kind interface {
	// project gives the objects as they are.
	project(w *world) []entry
}

// writer is a kind whose objects can be written.
type writer interface {
	kind
	// complete sets what a caller left out, and what it cannot set, by the object as it was; old is nil for a new one.
	complete(next, old object)
	// validate says what is wrong with an object.
	validate(next, old object) field.ErrorList
	// create, update and remove do it, and tell what of an object the orchestrator does not have.
	create(ctx context.Context, d deed) ([]neutral.Loss, error)
	update(ctx context.Context, d deed) ([]neutral.Loss, error)
	remove(ctx context.Context, d deed) error
}

// deed is one object that is written.
type deed struct {
	peer  string
	dry   bool // all but the doing
	anew  bool // nothing of the object is changed, and what it comes to may be another thing now
	old   *entry
	next  object
	grace *int64 // of a removal, seconds
}

var (
	namespaceResource  = schema.GroupResource{Resource: "namespaces"}
	nodeResource       = schema.GroupResource{Resource: "nodes"}
	podResource        = schema.GroupResource{Resource: "pods"}
	serviceResource    = schema.GroupResource{Resource: "services"}
	configMapResource  = schema.GroupResource{Resource: "configmaps"}
	secretResource     = schema.GroupResource{Resource: "secrets"}
	claimResource      = schema.GroupResource{Resource: "persistentvolumeclaims"}
	eventResource      = schema.GroupResource{Resource: "events"}
	deploymentResource = schema.GroupResource{Group: "apps", Resource: "deployments"}
	daemonSetResource  = schema.GroupResource{Group: "apps", Resource: "daemonsets"}
	replicaSetResource = schema.GroupResource{Group: "apps", Resource: "replicasets"}
	jobResource        = schema.GroupResource{Group: "batch", Resource: "jobs"}
	sliceResource      = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
)

// kindsOf are all kinds that are served.
func kindsOf(s *Server, config Config) map[schema.GroupResource]kind {
	return map[schema.GroupResource]kind{
		namespaceResource:  namespaceKind{s},
		nodeResource:       nodeKind{s},
		podResource:        podKind{s},
		serviceResource:    serviceKind{s},
		sliceResource:      sliceKind{s},
		configMapResource:  configMapKind{s},
		secretResource:     secretKind{s, config.Seal, config.Unseal},
		claimResource:      claimKind{s},
		eventResource:      eventKind{s},
		deploymentResource: workloadKind{s, deploymentForm{}},
		daemonSetResource:  workloadKind{s, daemonSetForm{}},
		jobResource:        workloadKind{s, jobForm{}},
		replicaSetResource: replicaSetKind{s},
	}
}
