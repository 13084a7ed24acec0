package apiserver

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// labelClaim keeps the claim that a volume was made for: a volume is never changed, and neither is its claim.
const labelClaim = "isthmus.io/claim"

// claimKind is the volumes that somebody named. Each is its own claim, and bound.
type claimKind struct{ *Server }

func (claimKind) project(w *world) []entry {
	var all []entry
	for _, v := range w.volumes {
		if v.Anonymous {
			continue
		}
		o := &corev1.PersistentVolumeClaim{}
		name := v.Name
		if text := v.Labels[labelClaim]; text != "" && json.Unmarshal([]byte(text), o) == nil && o.Name != "" {
			name = o.Name
		} else {
			*o = corev1.PersistentVolumeClaim{}
			o.Labels = visible(v.Labels)
			o.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		}
		o.SetGroupVersionKind(noKind)
		placed(o, w, claimResource.Resource, v.Namespace+"/"+v.Name, v.Namespace, name, v.Created)
		o.Spec.VolumeName = v.Name
		o.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: o.Spec.AccessModes, Capacity: o.Spec.Resources.Requests}
		all = append(all, entry{object: o, native: native{id: v.Name}})
	}
	return all
}

func (claimKind) complete(next, _ object) {
	o := next.(*corev1.PersistentVolumeClaim)
	if o.Spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		o.Spec.VolumeMode = &mode
	}
}

func (claimKind) validate(next, _ object) field.ErrorList {
	o := next.(*corev1.PersistentVolumeClaim)
	path := field.NewPath("spec")
	var problems field.ErrorList
	if len(o.Spec.AccessModes) == 0 {
		problems = append(problems, field.Required(path.Child("accessModes"), "at least 1 access mode is required"))
	}
	if _, ok := o.Spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		problems = append(problems, field.Required(path.Child("resources").Key("storage"), ""))
	}
	refuse := func(name string, there bool) {
		if there {
			problems = append(problems, field.Forbidden(path.Child(name), "a volume of Docker is made empty, by its own driver"))
		}
	}
	refuse("volumeMode", *o.Spec.VolumeMode != corev1.PersistentVolumeFilesystem)
	refuse("dataSource", o.Spec.DataSource != nil)
	refuse("dataSourceRef", o.Spec.DataSourceRef != nil)
	refuse("volumeName", o.Spec.VolumeName != "" && o.UID == "")
	refuse("selector", o.Spec.Selector != nil)
	return problems
}

func (k claimKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	o := d.next.(*corev1.PersistentVolumeClaim)
	kept := o.DeepCopy()
	kept.Status, kept.UID, kept.CreationTimestamp = corev1.PersistentVolumeClaimStatus{}, "", metav1.Time{}
	text, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	losses := []neutral.Loss{{Field: "spec.resources.requests.storage", Change: "not enforced", Reason: "a volume of Docker is as large as the disk that it is on"}}
	if class := o.Spec.StorageClassName; class != nil && *class != "" {
		losses = append(losses, neutral.Loss{Field: "spec.storageClassName", Change: "dropped", Reason: "the engine's local driver makes the volume"})
	}
	if d.dry {
		return losses, nil
	}
	_, err = k.under.Do(ctx, neutral.Operation{Action: neutral.VolumeCreate, Verb: neutral.Create, Peer: d.peer,
		Object: neutral.Object{Kind: neutral.KindVolume, Namespace: o.Namespace, Name: o.Name, Labels: o.Labels},
		Volume: &neutral.Volume{Name: o.Name, Namespace: o.Namespace, Driver: "local", Labels: map[string]string{labelClaim: string(text)}}})
	if err != nil {
		return losses, err
	}
	more, err := k.awaken(ctx, d)
	return append(losses, more...), err
}

func (claimKind) update(context.Context, deed) ([]neutral.Loss, error) { return nil, errImmutableClaim }

func (k claimKind) remove(ctx context.Context, d deed) error {
	if d.dry {
		return nil
	}
	_, err := k.under.Do(ctx, neutral.Operation{Action: neutral.VolumeRemove, Verb: neutral.Destroy, Peer: d.peer, Ref: d.old.native.id,
		Object: neutral.Object{Kind: neutral.KindVolume, Namespace: d.old.object.GetNamespace()}, Remove: &neutral.RemoveOptions{}})
	return err
}
