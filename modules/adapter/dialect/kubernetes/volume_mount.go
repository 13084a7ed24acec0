package kubernetes

import (
	"context"
	"encoding/json"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// volume writes one mount of a volume. A volume that nobody named is the container's own, and outlives it.
func (t *podTemplate) volume(m neutral.Mount) error {
	at := digest(path.Clean(m.Target))[:10]
	volume := corev1.Volume{Name: volumeNamed + at}
	switch {
	case m.Source != "":
		legal, kept := legalVolume(m.Source)
		if !kept {
			noteVolume(&t.out.ObjectMeta, legal, m.Source)
		}
		volume.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: legal}
	default:
		volume.Name = volumeAnonymous + at
		volume.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: digest("volume", t.nonce, m.Target)}
	}
	t.out.Spec.Volumes = append(t.out.Spec.Volumes, volume)
	t.container.VolumeMounts = append(t.container.VolumeMounts, corev1.VolumeMount{Name: volume.Name,
		MountPath: path.Clean(m.Target), SubPath: m.Subpath, ReadOnly: m.ReadOnly})
	return nil
}

// unnamedVolumes makes the volumes that nobody named those of each task of a service, of which there may be many.
func unnamedVolumes(template *corev1.PodTemplateSpec) []neutral.Loss {
	var losses []neutral.Loss
	for i := range template.Spec.Volumes {
		v := &template.Spec.Volumes[i]
		if v.PersistentVolumeClaim == nil || !strings.HasPrefix(v.Name, volumeAnonymous) {
			continue
		}
		v.VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		losses = append(losses, neutral.Loss{Field: "HostConfig.Mounts", Change: "a volume that ends with its task",
			Reason: "it has no name by which it could be found again"})
	}
	return losses
}

// volumeNames are the callers' names of volumes, by those of their claims, where the two differ.
func volumeNames(meta metav1.ObjectMeta) map[string]string {
	names := map[string]string{}
	if text := meta.Annotations[annotationVolumes]; text != "" && json.Unmarshal([]byte(text), &names) != nil {
		return map[string]string{} // somebody broke the annotation
	}
	return names
}

// noteVolume keeps the caller's name of a volume.
func noteVolume(meta *metav1.ObjectMeta, claim, name string) {
	names := volumeNames(*meta)
	names[claim] = name
	text, err := json.Marshal(names)
	if err == nil { // strings always marshal
		metav1.SetMetaDataAnnotation(meta, annotationVolumes, string(text))
	}
}

// claimName is how a caller knows a claim.
func claimName(meta metav1.ObjectMeta, claim string) string {
	if name := volumeNames(meta)[claim]; name != "" {
		return name
	}
	return claim
}

// missingVolumes asks policy about the volumes that a Pod mounts, to each of which it must let the caller do what it
// does to who mounts it, and gives those that are not there.
func (a *action) missingVolumes(ctx context.Context, meta metav1.ObjectMeta, spec *corev1.PodSpec) ([]*corev1.PersistentVolumeClaim, error) {
	var missing []*corev1.PersistentVolumeClaim
	for _, mounted := range spec.Volumes {
		if mounted.PersistentVolumeClaim == nil {
			continue
		}
		v := neutral.Volume{Name: claimName(meta, mounted.PersistentVolumeClaim.ClaimName),
			Anonymous: strings.HasPrefix(mounted.Name, volumeAnonymous)}
		claim, err := a.findClaim(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		if claim != nil {
			v = volumeFromClaim(claim)
		}
		if err := a.permit(a.volumeObject(&v)); err != nil {
			return nil, err
		}
		switch {
		case claim == nil:
			if claim, err = claimFromVolume(&v, a.namespace); err != nil {
				return nil, err
			}
			missing = append(missing, claim)
		case claim.DeletionTimestamp != nil:
			return nil, leaving(v.Name)
		}
	}
	return missing, nil
}

// makeVolumes makes volumes, all or none. One that somebody else made meanwhile is as good.
func (a *action) makeVolumes(ctx context.Context, claims []*corev1.PersistentVolumeClaim) error {
	for i, claim := range claims {
		leftBy(ctx, &claim.ObjectMeta)
		made, err := a.client.CoreV1().PersistentVolumeClaims(a.namespace).Create(ctx, claim, metav1.CreateOptions{FieldManager: fieldManager})
		if err == nil {
			claims[i] = made
			continue
		}
		if !apierrors.IsAlreadyExists(err) {
			a.undoVolumes(ctx, claims[:i])
			return nativeFault(err)
		}
	}
	return nil
}

// dropAnonymous removes the volumes of a container that nobody named, but for those that another one mounts.
func (c *Cluster) dropAnonymous(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil || !strings.HasPrefix(v.Name, volumeAnonymous) {
			continue
		}
		claims := c.client.CoreV1().PersistentVolumeClaims(pod.Namespace)
		claim, err := claims.Get(ctx, v.PersistentVolumeClaim.ClaimName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nativeFault(err)
		}
		if claim.Labels[labelVolume] != claimAnonymous {
			continue
		}
		users, err := c.volumeUsers(ctx, pod.Namespace, pod.UID)
		if err != nil {
			return err
		}
		if users[claim.Name] != nil {
			continue
		}
		if err := c.deleteClaim(ctx, claim); err != nil {
			return err
		}
	}
	return nil
}
