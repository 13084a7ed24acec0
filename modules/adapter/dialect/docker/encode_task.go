package docker

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// tasksToDocker renders GET /tasks.
func tasksToDocker(tasks []neutral.Task) []any {
	list := make([]any, 0, len(tasks))
	for i := range tasks {
		list = append(list, taskToDocker(&tasks[i]))
	}
	return list
}

func taskToDocker(t *neutral.Task) any {
	w := neutral.Workload{Name: t.Name, Template: t.Container}
	spec := specFromNeutral(&w).TaskTemplate
	task := swarm.Task{
		ID:           t.ID,
		Meta:         swarm.Meta{CreatedAt: t.Created.UTC(), UpdatedAt: t.Updated.UTC()},
		Annotations:  swarm.Annotations{Name: t.Name, Labels: map[string]string{}},
		Spec:         spec,
		ServiceID:    t.Workload,
		Slot:         t.Slot,
		NodeID:       t.NodeID,
		DesiredState: swarm.TaskState(t.Desired),
		Status: swarm.TaskStatus{
			Timestamp: t.Updated.UTC(),
			State:     swarm.TaskState(t.State),
			Message:   t.Message,
			Err:       t.Err,
		},
		Volumes: []swarm.VolumeAttachment{},
	}
	if task.NodeID == "" {
		task.NodeID = t.Node
	}
	if t.Container.ID != "" {
		task.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: t.Container.ID, ExitCode: t.ExitCode}
	}
	return task
}

// nodesToDocker renders GET /nodes, filtered as a swarm does.
func nodesToDocker(q *query, nodes []neutral.Node) []any {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	list := make([]any, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		if anyPrefix(set["id"], n.ID) && anyPrefix(set["name"], n.Hostname, n.Name) && labelsMatch(set["label"], n.Labels) &&
			labelsMatch(set["node.label"], n.Labels) && (len(set["role"]) == 0 || slices.Contains(set["role"], nodeRole(n))) &&
			(len(set["membership"]) == 0 || slices.Contains(set["membership"], "accepted")) {
			list = append(list, nodeToDocker(n))
		}
	}
	return list
}

// nodeRole is the node's role in a swarm's words.
func nodeRole(n *neutral.Node) string {
	if n.Role == string(swarm.NodeRoleManager) {
		return n.Role
	}
	return string(swarm.NodeRoleWorker)
}

// nodeToDocker renders a node. Its address stays empty.
func nodeToDocker(n *neutral.Node) any {
	hostname := n.Hostname
	if hostname == "" {
		hostname = n.Name
	}
	state := swarm.NodeStateDown
	if n.Ready {
		state = swarm.NodeStateReady
	}
	availability := swarm.NodeAvailability(n.Availability)
	if availability == "" {
		availability = swarm.NodeAvailabilityActive
	}
	node := swarm.Node{
		ID:   n.ID,
		Meta: swarm.Meta{CreatedAt: n.CreatedAt.UTC(), UpdatedAt: n.CreatedAt.UTC()},
		Spec: swarm.NodeSpec{Annotations: swarm.Annotations{Name: n.Name, Labels: labelled(n.Labels)},
			Role: swarm.NodeRole(nodeRole(n)), Availability: availability},
		Description: swarm.NodeDescription{
			Hostname:  hostname,
			Platform:  swarm.Platform{Architecture: machine(n.Architecture), OS: n.OS},
			Resources: swarm.Resources{NanoCPUs: n.MilliCPU * 1e6, MemoryBytes: n.Memory},
			Engine:    swarm.EngineDescription{EngineVersion: n.Engine},
		},
		Status: swarm.NodeStatus{State: state},
	}
	if nodeRole(n) == string(swarm.NodeRoleManager) {
		node.ManagerStatus = &swarm.ManagerStatus{Leader: n.Leader, Reachability: swarm.ReachabilityReachable}
		if !n.Ready {
			node.ManagerStatus.Reachability = swarm.ReachabilityUnreachable
		}
	}
	return node
}

// machine is an architecture as engines name it, "x86_64" for Go's "amd64".
func machine(architecture string) string {
	switch architecture {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return architecture
}

// anyPrefix tells whether one of the texts starts with one of the wanted; nothing wanted is all.
func anyPrefix(wanted []string, texts ...string) bool {
	if len(wanted) == 0 {
		return true
	}
	return slices.ContainsFunc(wanted, func(w string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.HasPrefix(t, w) })
	})
}

// labelsMatch tells whether labels hold all of the wanted, "key" or "key=value".
func labelsMatch(wanted []string, labels map[string]string) bool {
	for _, w := range wanted {
		key, value, valued := strings.Cut(w, "=")
		if have, ok := labels[key]; !ok || valued && have != value {
			return false
		}
	}
	return true
}
