package podspec

import (
	"regexp"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/placement"
)

const (
	manager = "manager"
	worker  = "worker"
)

// roles are the labels of nodes that say their role.
var roles = map[string]string{placement.ControlPlane: manager, "node-role.kubernetes.io/worker": worker}

var otherRole = map[string]string{manager: worker, worker: manager}

// What a constraint can be made of; a key has no "/", which most labels of Kubernetes have.
var (
	constraintKey   = regexp.MustCompile(`^(?i)[a-z_][a-z0-9\-_.]+$`)
	constraintValue = regexp.MustCompile(`^(?i)[a-z0-9:\-_.]+$`)
)
