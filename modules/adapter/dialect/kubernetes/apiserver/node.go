package apiserver

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// nodeKind is the machines. Their addresses are not told.
type nodeKind struct{ *Server }

func (nodeKind) project(w *world) []entry {
	all := make([]entry, 0, len(w.nodes))
	for _, n := range w.nodes {
		o := nodeOf(n)
		placed(o, w, nodeResource.Resource, n.ID, "", nodeName(n), n.CreatedAt)
		all = append(all, entry{object: o, native: native{id: n.ID}})
	}
	return all
}

// nodeName is how Pods and Nodes name a machine.
func nodeName(n neutral.Node) string {
	if n.Hostname != "" {
		return n.Hostname
	}
	return n.Name
}

func nodeOf(n neutral.Node) *corev1.Node {
	o := &corev1.Node{}
	o.Labels = map[string]string{corev1.LabelHostname: nodeName(n), corev1.LabelOSStable: n.OS, corev1.LabelArchStable: n.Architecture}
	for key, value := range n.Labels {
		o.Labels[key] = value
	}
	if n.Role == "manager" {
		o.Labels["node-role.kubernetes.io/control-plane"] = ""
	}
	o.Spec.Unschedulable = n.Availability == "drain" || n.Availability == "pause"
	if o.Spec.Unschedulable {
		o.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
	}
	resources := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(n.MilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(n.Memory, resource.BinarySI),
	}
	o.Status.Capacity, o.Status.Allocatable = resources, resources.DeepCopy()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady",
		Message: "the orchestrator says that the node is not ready", LastTransitionTime: metav1.NewTime(n.CreatedAt)}
	if n.Ready {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionTrue, "NodeReady", "the orchestrator says that the node is ready"
	}
	o.Status.Conditions = []corev1.NodeCondition{ready}
	o.Status.NodeInfo = corev1.NodeSystemInfo{OperatingSystem: n.OS, Architecture: n.Architecture,
		ContainerRuntimeVersion: "docker://" + strings.TrimPrefix(n.Engine, "docker "), KubeletVersion: "docker-" + strings.TrimPrefix(n.Engine, "docker ")}
	return o
}
