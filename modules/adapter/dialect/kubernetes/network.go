package kubernetes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// networks are the two that every cluster has: the Pods' own, which docker's callers know as their bridge, and the
// nodes'. Docker's "none" is not among them, for no Pod is without a network. They have no ids here: a dialect whose
// callers want one derives it from the name.
func networks() []neutral.Network {
	return []neutral.Network{
		{Name: "bridge", Driver: "bridge", Scope: "local"},
		{Name: "host", Driver: "host", Scope: "local"},
	}
}

func networkObject(n *neutral.Network) neutral.Object {
	return neutral.Object{Kind: neutral.KindNetwork, Name: n.Name, Labels: n.Labels}
}

func (a *action) planNetworkList() (dialect.Plan, error) {
	filter := a.op.Filter
	result := neutral.Result{Networks: []neutral.Network{}}
	for _, n := range networks() {
		if oneOf(filter.Names, func(name string) bool { return strings.Contains(n.Name, name) }) &&
			matchLabels(filter.Labels, n.Labels) && a.permit(networkObject(&n)) == nil {
			result.Networks = append(result.Networks, n)
		}
	}
	return dialect.Plan{Answer: &result}, nil
}

func (a *action) planNetworkInspect() (dialect.Plan, error) {
	all := networks()
	i := slices.IndexFunc(all, func(n neutral.Network) bool { return n.Name == a.op.Ref })
	if i < 0 {
		return dialect.Plan{}, fault.New(fault.NotFound, "network %s not found", a.op.Ref)
	}
	if err := a.permit(networkObject(&all[i])); err != nil {
		return dialect.Plan{}, err
	}
	return dialect.Plan{Answer: &neutral.Result{Network: &all[i]}}, nil
}

// volumeFromClaim reads a claim as a named volume.
func volumeFromClaim(claim *corev1.PersistentVolumeClaim) neutral.Volume {
	v := neutral.Volume{Name: claim.Name, Driver: "kubernetes", Scope: "global", Labels: labelsFromMeta(claim.ObjectMeta),
		Created: claim.CreationTimestamp.Time}
	if class := claim.Spec.StorageClassName; class != nil && *class != "" {
		v.Driver = *class
	}
	return v
}

// volumesCall asks for the namespace's claims.
//
// https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/persistent-volume-claim-v1/#list
func (a *action) volumesCall(decode func([]neutral.Volume) (neutral.Result, error)) dialect.Plan {
	return get("/api/v1/namespaces/"+a.namespace+"/persistentvolumeclaims", func(response dialect.Response) (neutral.Result, error) {
		var list corev1.PersistentVolumeClaimList
		if err := decodeObject(response, &list); err != nil {
			return neutral.Result{}, err
		}
		volumes := make([]neutral.Volume, 0, len(list.Items))
		for i := range list.Items {
			volumes = append(volumes, volumeFromClaim(&list.Items[i]))
		}
		return decode(volumes)
	})
}

func (a *action) volumeObject(v *neutral.Volume) neutral.Object {
	return neutral.Object{Kind: neutral.KindVolume, Namespace: a.namespace, Name: v.Name, Labels: v.Labels}
}

func (a *action) planVolumeList() (dialect.Plan, error) {
	filter := a.op.Filter
	return a.volumesCall(func(volumes []neutral.Volume) (neutral.Result, error) {
		return neutral.Result{Volumes: slices.DeleteFunc(volumes, func(v neutral.Volume) bool {
			return !oneOf(filter.Names, func(name string) bool { return strings.Contains(v.Name, name) }) ||
				!matchLabels(filter.Labels, v.Labels) || a.permit(a.volumeObject(&v)) != nil
		})}, nil
	}), nil
}

func (a *action) planVolumeInspect() (dialect.Plan, error) {
	return a.volumesCall(func(volumes []neutral.Volume) (neutral.Result, error) {
		for i := range volumes {
			if volumes[i].Name != a.op.Ref {
				continue
			}
			if err := a.permit(a.volumeObject(&volumes[i])); err != nil {
				return neutral.Result{}, err
			}
			return neutral.Result{Volumes: volumes[i : i+1]}, nil
		}
		return neutral.Result{}, fault.New(fault.NotFound, "get %s: no such volume", a.op.Ref)
	}), nil
}
