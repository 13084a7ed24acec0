// Package placement knows what Swarm calls the labels of nodes that Kubernetes has names of its own for.
package placement

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ControlPlane is the label that marks a node as Swarm's managers are.
const ControlPlane = "node-role.kubernetes.io/control-plane"

// custom is how the key of a constraint on a label that somebody made up begins.
const custom = "node.labels."

var labels = map[string]string{"node.hostname": corev1.LabelHostname, "node.platform.os": corev1.LabelOSStable,
	"node.platform.arch": corev1.LabelArchStable}

var names = func() map[string]string {
	inverse := map[string]string{}
	for name, label := range labels {
		inverse[label] = name
	}
	return inverse
}()

// Name is the key of constraints on a label.
func Name(label string) string {
	if name := names[label]; name != "" {
		return name
	}
	return custom + label
}

// Label is what a constraint's key is about; ok is false where it is no label.
func Label(name string) (label string, ok bool) {
	if label, ok = labels[name]; ok {
		return label, true
	}
	return strings.CutPrefix(name, custom)
}

// architectures are Swarm's words for what Kubernetes names as Go does.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// Architecture is a machine as Kubernetes names it.
func Architecture(machine string) string {
	if name := architectures[machine]; name != "" {
		return name
	}
	return machine
}

// Machine is an architecture as Swarm names it.
func Machine(architecture string) string {
	for machine, name := range architectures {
		if name == architecture {
			return machine
		}
	}
	return architecture
}
