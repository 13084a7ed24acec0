package podspec

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
)

// What Swarm calls labels of nodes that Kubernetes knows by names of its own.
var constraintNames = map[string]string{corev1.LabelHostname: "node.hostname", corev1.LabelOSStable: "node.platform.os",
	corev1.LabelArchStable: "node.platform.arch"}

// machines are Swarm's words for what Kubernetes names as Go does.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

const (
	manager = "manager"
	worker  = "worker"
)

// roles are the labels of nodes that say their role.
var roles = map[string]string{"node-role.kubernetes.io/control-plane": manager, "node-role.kubernetes.io/worker": worker}

var otherRole = map[string]string{manager: worker, worker: manager}

// What a constraint can be made of; a key has no "/", which most labels of Kubernetes have.
var (
	constraintKey   = regexp.MustCompile(`^(?i)[a-z_][a-z0-9\-_.]+$`)
	constraintValue = regexp.MustCompile(`^(?i)[a-z0-9:\-_.]+$`)
)

func constraintName(label string) string {
	if name := constraintNames[label]; name != "" {
		return name
	}
	return "node.labels." + label
}
