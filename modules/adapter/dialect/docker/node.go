package docker

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// nodeFromSwarm reads a node. Its addresses are not told, nor what repeats them.
func nodeFromSwarm(native swarm.Node) neutral.Node {
	d := native.Description
	n := neutral.Node{
		ID: native.ID, Name: d.Hostname, Hostname: d.Hostname, Role: string(native.Spec.Role),
		Ready:        native.Status.State == swarm.NodeStateReady,
		Availability: string(native.Spec.Availability),
		OS:           d.Platform.OS, Architecture: goArchitecture(d.Platform.Architecture),
		Engine:   strings.TrimSpace("docker " + d.Engine.EngineVersion),
		MilliCPU: d.Resources.NanoCPUs / 1e6, Memory: d.Resources.MemoryBytes,
		Labels: map[string]string{}, CreatedAt: native.CreatedAt,
	}
	addresses := []string{native.Status.Addr}
	if m := native.ManagerStatus; m != nil {
		n.Leader = m.Leader
		host, _, _ := strings.Cut(m.Addr, ":")
		addresses = append(addresses, m.Addr, host)
	}
	tells := func(text string) bool { return text != "" && slices.Contains(addresses, text) }
	if tells(n.Name) || n.Name == "" {
		n.Name = "node-" + shortened(n.ID)
		n.Hostname = n.Name
	}
	for key, value := range native.Spec.Labels {
		if !tells(value) {
			n.Labels[key] = value
		}
	}
	return n
}

// nodeFromEngine is the one node of an engine that manages no swarm.
func nodeFromEngine(info system.Info) neutral.Node {
	n := neutral.Node{
		ID: info.Swarm.NodeID, Name: info.Name, Hostname: info.Name, Role: string(swarm.NodeRoleManager), Leader: true, Ready: true,
		Availability: string(swarm.NodeAvailabilityActive), OS: info.OSType, Architecture: goArchitecture(info.Architecture),
		Engine: strings.TrimSpace("docker " + info.ServerVersion), MilliCPU: int64(info.NCPU) * 1000, Memory: info.MemTotal,
		Labels: map[string]string{},
	}
	if n.ID == "" {
		n.ID = swarmID("node", info.ID)
	}
	for _, label := range info.Labels {
		key, value, _ := strings.Cut(label, "=")
		n.Labels[key] = value
	}
	return n
}

// goArchitecture is an architecture as Go names it, "amd64" for an engine's "x86_64".
func goArchitecture(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return machine
}

func shortened(id string) string { return id[:min(len(id), shortID)] }

// nodes are those of the swarm, or the engine's own where it manages none.
func (a *action) nodes(ctx context.Context) ([]neutral.Node, error) {
	info, err := a.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, faultOf(err)
	}
	if !managesSwarm(info.Info) {
		return []neutral.Node{nodeFromEngine(info.Info)}, nil
	}
	list, err := a.api.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return nil, faultOf(err)
	}
	nodes := make([]neutral.Node, 0, len(list.Items))
	for _, native := range list.Items {
		nodes = append(nodes, nodeFromSwarm(native))
	}
	slices.SortFunc(nodes, func(x, y neutral.Node) int { return strings.Compare(x.Name+x.ID, y.Name+y.ID) })
	return nodes, nil
}

func nodeObject(n *neutral.Node) neutral.Object {
	return neutral.Object{Kind: neutral.KindNode, Namespace: defaultNamespace, Name: n.Name, Labels: n.Labels}
}

func (a *action) listNodes(ctx context.Context) (neutral.Result, error) {
	nodes, err := a.nodes(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	filter := a.op.Filter
	return neutral.Result{Nodes: slices.DeleteFunc(nodes, func(n neutral.Node) bool {
		return !anyPrefix(filter.IDs, n.ID) || !anyContains(filter.Names, n.Name) || !labelsMatch(filter.Labels, n.Labels) ||
			a.permit(nodeObject(&n)) != nil
	})}, nil
}

func (a *action) inspectNode(ctx context.Context) (neutral.Result, error) {
	nodes, err := a.nodes(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	all := make([]named, len(nodes))
	for i, n := range nodes {
		all[i] = named{id: n.ID, docker: n.Name, namespace: defaultNamespace, name: n.Name}
		if a.op.Ref == "self" && n.Leader {
			a.op.Ref = n.ID
		}
	}
	i, err := find("node", "", a.op.Ref, all)
	if err != nil {
		return neutral.Result{}, fault.New(fault.NotFound, "node %s not found", a.op.Ref)
	}
	if err := a.permit(nodeObject(&nodes[i])); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Node: &nodes[i]}, nil
}

// anyContains tells whether a text holds one of the wanted; nothing wanted is all.
func anyContains(wanted []string, text string) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(w string) bool { return strings.Contains(text, w) })
}
