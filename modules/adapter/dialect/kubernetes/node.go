package kubernetes

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// nodeID is a node's id as Swarm's are.
func nodeID(cluster, name string) string { return shortID("node", cluster, name) }

// nodeFromNative reads a node. Its addresses are not read at all, and labels that repeat them are left out.
func nodeFromNative(cluster string, native *corev1.Node) neutral.Node {
	info := native.Status.NodeInfo
	node := neutral.Node{
		ID: nodeID(cluster, native.Name), Name: native.Name, Hostname: native.Name, Role: "worker",
		Availability: "active", OS: info.OperatingSystem, Architecture: info.Architecture,
		Engine:    strings.TrimSpace("kubelet " + info.KubeletVersion + ", " + strings.ReplaceAll(info.ContainerRuntimeVersion, "://", " ")),
		MilliCPU:  native.Status.Capacity.Cpu().MilliValue(),
		Memory:    native.Status.Capacity.Memory().Value(),
		CreatedAt: native.CreationTimestamp.Time, Labels: map[string]string{},
	}
	addresses := map[string]bool{}
	for _, address := range native.Status.Addresses {
		if address.Type != corev1.NodeHostName {
			addresses[address.Address] = true
		}
	}
	for key, value := range native.Labels {
		if !addresses[value] {
			node.Labels[key] = value
		}
		if key == "node-role.kubernetes.io/control-plane" || key == "node-role.kubernetes.io/master" {
			node.Role = "manager"
		}
	}
	if addresses[node.Name] { // a cluster that names its nodes by address
		node.Name = "node-" + node.ID[:12]
		node.Hostname = node.Name
	}
	if native.Spec.Unschedulable {
		node.Availability = "drain"
	}
	for _, condition := range native.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			node.Ready = condition.Status == corev1.ConditionTrue
		}
	}
	return node
}

func (a *action) nodeObject(node *neutral.Node) neutral.Object {
	return neutral.Object{Kind: neutral.KindNode, Name: node.Name, Labels: node.Labels}
}

func nodesFromNative(cluster string, natives []corev1.Node) []neutral.Node {
	nodes := make([]neutral.Node, 0, len(natives))
	for i := range natives {
		nodes = append(nodes, nodeFromNative(cluster, &natives[i]))
	}
	leader := -1
	for i := range nodes {
		if nodes[i].Role == "manager" && leader < 0 {
			leader = i
		}
	}
	if leader < 0 && len(nodes) > 0 { // the control plane runs elsewhere; docker's callers look for one manager
		leader = 0
		nodes[0].Role = "manager"
	}
	if leader >= 0 {
		nodes[leader].Leader = true
	}
	return nodes
}

func (a *action) planNodeList() (dialect.Plan, error) {
	return nodesCall(func(natives []corev1.Node) (neutral.Result, error) {
		result := neutral.Result{Nodes: []neutral.Node{}}
		filter := a.op.Filter
		for _, node := range nodesFromNative(a.cluster, natives) {
			if !oneOf(filter.IDs, func(id string) bool { return strings.HasPrefix(node.ID, id) }) ||
				!oneOf(filter.Names, func(name string) bool { return strings.Contains(node.Name, name) }) ||
				!matchLabels(filter.Labels, node.Labels) || a.permit(a.nodeObject(&node)) != nil {
				continue
			}
			result.Nodes = append(result.Nodes, node)
		}
		return result, nil
	}), nil
}

func (a *action) planNodeInspect() (dialect.Plan, error) {
	return nodesCall(func(natives []corev1.Node) (neutral.Result, error) {
		nodes := nodesFromNative(a.cluster, natives)
		if a.op.Ref == "self" {
			for i := range nodes {
				if nodes[i].Leader {
					a.op.Ref = nodes[i].ID
				}
			}
		}
		i, err := matchReference(a.op.Ref, "node", len(nodes), func(i int) string { return nodes[i].ID },
			func(i int) string { return nodes[i].Name })
		if err != nil {
			return neutral.Result{}, fault.New(fault.NotFound, "node %s not found", a.op.Ref)
		}
		if err := a.permit(a.nodeObject(&nodes[i])); err != nil {
			return neutral.Result{}, err
		}
		return neutral.Result{Node: &nodes[i]}, nil
	}), nil
}
