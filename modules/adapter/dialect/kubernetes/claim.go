package kubernetes

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// toBeMade stands for a claim that has no name yet: of a workload's own templates, or of the Pod's.
const toBeMade = "<new>"

// unseenMounts are a container's claims by name, and volumes that a driver of the node makes of what it likes.
func unseenMounts(spec *corev1.PodSpec, c *corev1.Container) []string {
	names := make([]string, 0, len(c.VolumeMounts)+len(c.VolumeDevices))
	for _, m := range c.VolumeMounts {
		names = append(names, m.Name)
	}
	for _, d := range c.VolumeDevices {
		names = append(names, d.Name)
	}
	var unseen []string
	for _, name := range names {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		switch {
		case i < 0, spec.Volumes[i].Ephemeral != nil:
			unseen = append(unseen, toBeMade)
		case spec.Volumes[i].PersistentVolumeClaim != nil:
			unseen = append(unseen, spec.Volumes[i].PersistentVolumeClaim.ClaimName)
		case spec.Volumes[i].FlexVolume != nil:
			unseen = append(unseen, flexVolume+spec.Volumes[i].FlexVolume.Driver)
		}
	}
	return unseen
}

// flexVolume begins what is no claim.
const flexVolume = "flexVolume:"

// volumes are the cluster's, read once for one request. The gateway reads them as itself: of what it finds its peers learn
// no more than whether their policies' conditions hold.
type volumes struct {
	cluster *Cluster
	read    bool
	all     []corev1.PersistentVolume
	err     error
}

// paths are those of a host that a claim is. One that is bound to nothing yet may come to be any volume that is free; one
// that has no name yet, what waits for any claim of its namespace as well.
func (v *volumes) paths(ctx context.Context, namespace, claim string) ([]string, error) {
	if !v.read {
		v.read = true
		ctx, cancel := context.WithTimeout(asGateway(ctx), callTimeout)
		defer cancel()
		list, err := v.cluster.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if v.err = err; err == nil {
			v.all = list.Items
		}
	}
	if v.err != nil {
		return nil, v.err
	}
	var bound, possible []string
	named := false
	for i := range v.all {
		volume := &v.all[i].Spec
		ref, path := volume.ClaimRef, hostPathOf(volume)
		here := ref != nil && ref.Namespace == namespace
		switch {
		case here && ref.Name == claim:
			named = true
			bound = append(bound, path)
		case ref == nil, here && claim == toBeMade:
			possible = append(possible, path)
		}
	}
	if !named {
		bound = possible
	}
	return slices.DeleteFunc(bound, func(path string) bool { return path == "" }), nil
}

// hostPathOf is the path of a host that a volume is, "" for none.
func hostPathOf(volume *corev1.PersistentVolumeSpec) string {
	switch {
	case volume.HostPath != nil:
		return volume.HostPath.Path
	case volume.Local != nil:
		return volume.Local.Path
	}
	return ""
}

// resolve adds what of its host a container has by way of claims.
func (v *volumes) resolve(ctx context.Context, namespace string, c *neutral.Container) {
	if c == nil {
		return
	}
	var unseen []string
	for _, claim := range c.UnseenMounts {
		if strings.HasPrefix(claim, flexVolume) {
			unseen = append(unseen, claim)
			continue
		}
		paths, err := v.paths(ctx, namespace, claim)
		if err != nil {
			v.cluster.unread.Do(func() {
				v.cluster.log.Warn("the cluster's volumes cannot be read: no condition on object.hostMounts holds for what has a claim",
					"namespace", namespace, "claim", claim, "error", err)
			})
			return
		}
		for _, path := range paths {
			c.Mounts = append(slices.Clip(c.Mounts), neutral.Mount{Type: "bind", Source: path})
		}
	}
	c.UnseenMounts = unseen
}

// through asks about an object, and where that does not do about all that its container has by way of claims.
func (v *volumes) through(ctx context.Context, see func(neutral.Object) bool) func(neutral.Object) bool {
	return func(object neutral.Object) bool {
		if see(object) {
			return true
		}
		if object.Container == nil || len(object.Container.UnseenMounts) == 0 {
			return false
		}
		container := *object.Container
		v.resolve(ctx, object.Namespace, &container)
		object.Container = &container
		return see(object)
	}
}
