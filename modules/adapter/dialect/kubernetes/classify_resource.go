package kubernetes

import (
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	coreGroup    = "core"           // stands for the group without a name
	metricsGroup = "metrics.k8s.io" // usage of pods and nodes, not the objects themselves
)

// kinds says which resources the neutral model covers; the rest is KindOther. What holds addresses alone (endpoints),
// what gives rights (roles, service accounts) and what offers services to peers (serviceexports) stays other on purpose.
var kinds = map[string]neutral.Kind{
	"core/pods":                            neutral.KindContainer,
	metricsGroup + "/pods":                 neutral.KindContainer,
	"core/replicationcontrollers":          neutral.KindWorkload,
	"apps/deployments":                     neutral.KindWorkload,
	"apps/daemonsets":                      neutral.KindWorkload,
	"apps/replicasets":                     neutral.KindWorkload,
	"apps/statefulsets":                    neutral.KindWorkload,
	"batch/jobs":                           neutral.KindWorkload,
	"batch/cronjobs":                       neutral.KindWorkload,
	"core/services":                        neutral.KindService,
	"core/nodes":                           neutral.KindNode,
	metricsGroup + "/nodes":                neutral.KindNode,
	"core/namespaces":                      neutral.KindNamespace,
	"core/secrets":                         neutral.KindSecret,
	"core/configmaps":                      neutral.KindConfig,
	"core/events":                          neutral.KindEvent,
	"events.k8s.io/events":                 neutral.KindEvent,
	"core/persistentvolumeclaims":          neutral.KindVolume,
	"core/persistentvolumes":               neutral.KindVolume,
	"networking.k8s.io/networkpolicies":    neutral.KindNetwork,
	"networking.k8s.io/ingresses":          neutral.KindNetwork,
	"gateway.networking.k8s.io/gateways":   neutral.KindNetwork,
	"gateway.networking.k8s.io/httproutes": neutral.KindNetwork,
	"gateway.networking.k8s.io/grpcroutes": neutral.KindNetwork,
}

func kindOf(group, resource string) neutral.Kind {
	if group == "" {
		group = coreGroup
	}
	if k, ok := kinds[group+"/"+resource]; ok {
		return k
	}
	return neutral.KindOther
}

// createsOnUpdate tells whether the API server creates an object of the kind when a PUT finds none.
func createsOnUpdate(kind neutral.Kind) bool {
	return kind == neutral.KindService || kind == neutral.KindEvent
}

// actions names the neutral action that a verb on a whole object is, where there is one exactly.
var actions = map[neutral.Kind]map[apiVerb]neutral.Action{
	neutral.KindContainer: {
		verbList: neutral.ContainerList, verbGet: neutral.ContainerInspect, verbCreate: neutral.ContainerCreate,
		verbUpdate: neutral.ContainerUpdate, verbPatch: neutral.ContainerUpdate, verbDelete: neutral.ContainerRemove,
	},
	neutral.KindWorkload: {
		verbList: neutral.WorkloadList, verbGet: neutral.WorkloadInspect, verbCreate: neutral.WorkloadCreate,
		verbUpdate: neutral.WorkloadUpdate, verbPatch: neutral.WorkloadUpdate, verbDelete: neutral.WorkloadRemove,
	},
	neutral.KindNode: {
		verbList: neutral.NodeList, verbGet: neutral.NodeInspect,
		verbUpdate: neutral.NodeUpdate, verbPatch: neutral.NodeUpdate,
	},
	neutral.KindNetwork: {verbList: neutral.NetworkList, verbGet: neutral.NetworkGet},
	neutral.KindVolume:  {verbList: neutral.VolumeList, verbGet: neutral.VolumeGet},
	neutral.KindSecret:  {verbList: neutral.SecretList, verbGet: neutral.SecretGet},
	neutral.KindConfig:  {verbList: neutral.ConfigList, verbGet: neutral.ConfigGet},
	neutral.KindEvent:   {verbWatch: neutral.EventWatch},
}

func actionOf(kind neutral.Kind, group string, verb apiVerb) neutral.Action {
	if a, ok := actions[kind][verb]; ok && group != metricsGroup {
		return a
	}
	return neutral.ObjectRaw
}

// subresourceVerb is what a verb on a subresource comes to. What is not known is Raw: it may do anything.
func subresourceVerb(kind neutral.Kind, t target, verb apiVerb) (neutral.Verb, neutral.Action, error) {
	if t.name == "" {
		return "", "", fault.New(fault.Invalid, "the path names no object")
	}
	write := func(v neutral.Verb) (neutral.Verb, neutral.Action, error) {
		if verb == verbGet {
			v = neutral.Get
		}
		return v, neutral.ObjectRaw, nil
	}
	pod := kind == neutral.KindContainer && t.group == ""
	switch {
	case pod && t.subresource == "log":
		return neutral.Logs, neutral.ContainerLogs, nil
	case pod && t.subresource == "exec":
		return neutral.Exec, neutral.ObjectRaw, nil
	case pod && t.subresource == "attach":
		return neutral.Attach, neutral.ContainerAttach, nil
	case pod && t.subresource == "ephemeralcontainers":
		return write(neutral.Exec) // a process of the caller's choice beside the others
	case pod && t.subresource == "portforward",
		pod && t.subresource == "proxy",
		kind == neutral.KindService && t.subresource == "proxy":
		return neutral.Access, neutral.ObjectRaw, nil
	case pod && t.subresource == "eviction" && verb == verbCreate:
		return neutral.Destroy, neutral.ObjectRaw, nil
	case pod && t.subresource == "resize":
		return write(neutral.Update)
	case t.subresource == "scale":
		return write(neutral.Scale)
	case t.subresource == "status":
		return write(neutral.Raw) // a forged status is a forged answer to everybody
	}
	return neutral.Raw, neutral.ObjectRaw, nil // nodes/proxy is exec on any pod, serviceaccounts/token a credential
}
