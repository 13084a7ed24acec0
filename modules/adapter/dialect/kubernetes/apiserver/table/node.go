package table

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func nodeCells(n *corev1.Node, now time.Time) []any {
	info := n.Status.NodeInfo
	return []any{
		n.Name, nodeState(n), or(strings.Join(nodeRoles(n), ","), none), since(n.CreationTimestamp.Time, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		or(info.OSImage, absent), or(info.KernelVersion, absent), or(info.ContainerRuntimeVersion, absent),
	}
}

func nodeState(n *corev1.Node) string {
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		state = "NotReady"
		if c.Status == corev1.ConditionTrue {
			state = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	return state
}

// nodeRoles are told by labels: by the name of one, or by the value of another.
func nodeRoles(n *corev1.Node) []string {
	var roles []string
	for label, value := range n.Labels {
		role, named := strings.CutPrefix(label, "node-role.kubernetes.io/")
		if !named && label == "kubernetes.io/role" {
			role, named = value, true
		}
		if named && role != "" {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return none
}
