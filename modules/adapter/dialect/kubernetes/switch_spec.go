package kubernetes

import (
	"fmt"
	"reflect"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A network mode is fields of a Pod's spec. Specs are kept as the API gave them, so that fields of which this program knows
// nothing come through a switch and its way back.

// hostPortKey is what two Pods on one host cannot both have.
type hostPortKey struct {
	port     int64
	protocol string
}

// modeOf is the network mode of a spec.
func modeOf(spec map[string]any) neutral.NetworkMode {
	if host, _ := spec["hostNetwork"].(bool); host {
		return neutral.NetworkHost
	}
	return neutral.NetworkPod
}

// withMode is a copy of a spec in another network mode.
func withMode(spec map[string]any, to neutral.NetworkMode) map[string]any {
	next, _ := replica.Clone(spec).(map[string]any)
	policy := replica.Text(next, "dnsPolicy")
	if to == neutral.NetworkHost {
		next["hostNetwork"] = true
		if policy == "" || policy == "ClusterFirst" { // which is the host's own in the host's network
			next["dnsPolicy"] = "ClusterFirstWithHostNet"
		}
	} else {
		delete(next, "hostNetwork")
		if policy == "ClusterFirstWithHostNet" {
			next["dnsPolicy"] = "ClusterFirst"
		}
	}
	eachPort(next, func(_ map[string]any, port map[string]any) {
		if to == neutral.NetworkHost {
			port["hostPort"] = port["containerPort"] // as the API demands
		} else {
			delete(port, "hostPort")
		}
	})
	return next
}

// eachPort visits the ports of all containers of a spec.
func eachPort(spec map[string]any, visit func(container, port map[string]any)) {
	for _, list := range []string{"containers", "initContainers"} {
		for _, element := range replica.List(spec, list) {
			container, _ := element.(map[string]any)
			for _, element := range replica.List(container, "ports") {
				if port, ok := element.(map[string]any); ok {
					visit(container, port)
				}
			}
		}
	}
}

// hostPortsOf are the ports that a spec takes of its host in the host's network.
func hostPortsOf(spec map[string]any, needed uint16) map[hostPortKey]bool {
	ports := map[hostPortKey]bool{}
	if needed != 0 {
		ports[hostPortKey{int64(needed), "TCP"}] = true
	}
	eachPort(spec, func(_, port map[string]any) {
		number, _ := port["containerPort"].(int64)
		protocol := replica.Text(port, "protocol")
		if protocol == "" {
			protocol = "TCP"
		}
		ports[hostPortKey{number, protocol}] = true
	})
	return ports
}

// movedPorts says which ports of the node are served no more in the host's network.
func movedPorts(spec map[string]any) []string {
	var moved []string
	eachPort(spec, func(_, port map[string]any) {
		host, _ := port["hostPort"].(int64)
		inside, _ := port["containerPort"].(int64)
		if host != 0 && host != inside {
			moved = append(moved, fmt.Sprintf("port %d of its node leads to port %d of the container, and does not meanwhile", host, inside))
		}
	})
	return moved
}

// sameNative tells whether two values of the API say the same: null is as good as nothing.
func sameNative(a, b any) bool {
	return reflect.DeepEqual(withoutNulls(a), withoutNulls(b))
}

func withoutNulls(value any) any {
	switch v := value.(type) {
	case map[string]any:
		kept := make(map[string]any, len(v))
		for key, inner := range v {
			if inner != nil {
				kept[key] = withoutNulls(inner)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(v))
		for i, inner := range v {
			kept[i] = withoutNulls(inner)
		}
		return kept
	}
	return value
}

// oldFirst is a strategy of rollouts by which an old Pod goes before its successor comes, as two on one host cannot have the
// same port. One that does so already is kept.
func oldFirst(kind string, was map[string]any) map[string]any {
	next, _ := replica.Clone(was).(map[string]any)
	if next == nil {
		next = map[string]any{}
	}
	if kind == kindStatefulSet || replica.Text(next, "type") != "RollingUpdate" {
		return next
	}
	surge, known := replica.Object(next, "rollingUpdate")["maxSurge"]
	if known && (surge == int64(0) || surge == "0%") {
		return next
	}
	next["rollingUpdate"] = map[string]any{"maxSurge": int64(0), "maxUnavailable": int64(1)}
	return next
}
