package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A swarm's secrets and configs are Secrets and ConfigMaps with one file. Callers see and use those alone that callers
// made: the others hold what the cluster's own people keep there. Of a secret nothing but its metadata is ever read.

const (
	// storedKey is the one file's.
	storedKey = "data"
	// volumeFile begins what a Pod calls a mounted file.
	volumeFile = "file-"
)

var secretResource = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

func legalStored(name string) (legal string, kept bool) {
	return legalName(name, validation.IsDNS1123Subdomain, validation.DNS1123SubdomainMaxLength)
}

func (c *Cluster) storedFromMeta(kind neutral.Kind, meta metav1.ObjectMeta) neutral.StoredFile {
	f := neutral.StoredFile{Name: meta.Name, Labels: labelsFromMeta(meta), Version: meta.ResourceVersion, Created: meta.CreationTimestamp.Time}
	if name := meta.Annotations[annotationName]; name != "" {
		f.Name = name
	}
	f.ID = shortID(c.cluster, meta.Namespace, string(kind), f.Name, string(meta.UID))
	return f
}

func (a *action) storedObject(f *neutral.StoredFile) neutral.Object {
	return neutral.Object{Kind: a.op.Object.Kind, Namespace: a.namespace, Name: f.Name, Labels: f.Labels}
}

// stored lists the callers' secrets or configs.
func (a *action) stored(ctx context.Context, kind neutral.Kind) ([]neutral.StoredFile, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	options := metav1.ListOptions{LabelSelector: labelStored}
	var files []neutral.StoredFile
	if kind == neutral.KindSecret {
		list, err := a.metadata.Resource(secretResource).Namespace(a.namespace).List(ctx, options)
		if err != nil {
			return nil, nativeFault(err)
		}
		for i := range list.Items {
			files = append(files, a.storedFromMeta(kind, list.Items[i].ObjectMeta))
		}
		return files, nil
	}
	list, err := a.client.CoreV1().ConfigMaps(a.namespace).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	for i := range list.Items {
		f := a.storedFromMeta(kind, list.Items[i].ObjectMeta)
		f.Data = list.Items[i].BinaryData[storedKey]
		files = append(files, f)
	}
	return files, nil
}

func (a *action) listStored(ctx context.Context) (neutral.Result, error) {
	all, err := a.stored(ctx, a.op.Object.Kind)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{Stored: []neutral.StoredFile{}}
	for i := range all {
		if a.permit(a.storedObject(&all[i])) == nil {
			result.Stored = append(result.Stored, all[i])
		}
	}
	return result, nil
}

// findStored finds one by name, id or the beginning of its id.
func (a *action) findStored(ctx context.Context) (*neutral.StoredFile, error) {
	all, err := a.stored(ctx, a.op.Object.Kind)
	if err != nil {
		return nil, err
	}
	i, err := matchReference(a.op.Ref, string(a.op.Object.Kind), len(all), func(i int) string { return all[i].ID },
		func(i int) string { return all[i].Name })
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "%s %s not found", a.op.Object.Kind, a.op.Ref)
	}
	if err != nil {
		return nil, err
	}
	return &all[i], a.permit(a.storedObject(&all[i]))
}

func (a *action) inspectStored(ctx context.Context) (neutral.Result, error) {
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Stored: []neutral.StoredFile{*found}}, nil
}

// createStored makes one that is never changed, as a swarm's are not.
func (a *action) createStored(ctx context.Context) (neutral.Result, error) {
	f, kind := a.op.File, a.op.Object.Kind
	if f == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no %s is asked for", kind)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.permit(a.storedObject(f)); err != nil {
		return neutral.Result{}, err
	}
	legal, kept := legalStored(f.Name)
	yes := true
	meta := metav1.ObjectMeta{Name: legal, Namespace: a.namespace, Annotations: map[string]string{}}
	if !kept {
		meta.Annotations[annotationName] = f.Name
	}
	if err := labelMeta(&meta, f.Labels); err != nil {
		return neutral.Result{}, err
	}
	meta.Labels[labelStored] = "true"
	leftBy(ctx, &meta)
	var made metav1.ObjectMeta
	var err error
	if kind == neutral.KindSecret {
		var secret *corev1.Secret
		secret, err = a.client.CoreV1().Secrets(a.namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta, Immutable: &yes,
			Type: corev1.SecretTypeOpaque, Data: map[string][]byte{storedKey: f.Data}}, metav1.CreateOptions{FieldManager: fieldManager})
		if err == nil {
			made = secret.ObjectMeta
		}
	} else {
		var config *corev1.ConfigMap
		config, err = a.client.CoreV1().ConfigMaps(a.namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Immutable: &yes,
			BinaryData: map[string][]byte{storedKey: f.Data}}, metav1.CreateOptions{FieldManager: fieldManager})
		if err == nil {
			made = config.ObjectMeta
		}
	}
	if apierrors.IsAlreadyExists(err) {
		return neutral.Result{}, fault.New(fault.Conflict, "rpc error: code = AlreadyExists desc = %s %s already exists", kind, f.Name)
	}
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	return neutral.Result{ID: a.storedFromMeta(kind, made).ID}, nil
}

// updateStored changes labels. What is in one is said once more, as docker does, or left out; that it stays the same is
// held by the API server, since the object is immutable: of a secret it is never read here.
func (a *action) updateStored(ctx context.Context) (neutral.Result, error) {
	f, kind := a.op.File, a.op.Object.Kind
	if f == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no %s is asked for", kind)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	if f.Name != found.Name {
		return neutral.Result{}, fault.New(fault.Invalid, "rpc error: code = InvalidArgument desc = only updates to Labels are allowed")
	}
	if err := a.permit(neutral.Object{Kind: kind, Namespace: a.namespace, Name: f.Name, Labels: f.Labels}); err != nil {
		return neutral.Result{}, err
	}
	if a.op.Version != "" && a.op.Version != found.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "rpc error: code = Unknown desc = update out of sequence")
	}
	legal, _ := legalStored(found.Name)
	patch, err := storedPatch(found, f, kind)
	if err != nil {
		return neutral.Result{}, err
	}
	if kind == neutral.KindSecret {
		_, err = a.metadata.Resource(secretResource).Namespace(a.namespace).Patch(ctx, legal, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: fieldManager})
	} else {
		_, err = a.client.CoreV1().ConfigMaps(a.namespace).Patch(ctx, legal, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: fieldManager})
	}
	switch {
	case apierrors.IsInvalid(err):
		return neutral.Result{}, fault.Wrap(fault.Invalid, err, "rpc error: code = InvalidArgument desc = only updates to Labels are allowed")
	case apierrors.IsConflict(err):
		return neutral.Result{}, fault.Wrap(fault.Conflict, err, "rpc error: code = Unknown desc = update out of sequence")
	case err != nil:
		return neutral.Result{}, nativeFault(err)
	}
	return neutral.Result{ID: found.ID}, nil
}

// storedPatch puts labels in the place of those that there are.
func storedPatch(was, next *neutral.StoredFile, kind neutral.Kind) ([]byte, error) {
	meta := metav1.ObjectMeta{Annotations: map[string]string{}}
	if err := labelMeta(&meta, next.Labels); err != nil {
		return nil, err
	}
	labels, annotations := map[string]any{}, map[string]any{annotationLabels: nil}
	legal, _ := splitLabels(was.Labels)
	for key := range legal {
		labels[key] = nil
	}
	for key, value := range meta.Labels {
		labels[key] = value
	}
	for key, value := range meta.Annotations {
		annotations[key] = value
	}
	patch := map[string]any{"metadata": map[string]any{"resourceVersion": was.Version, "labels": labels, "annotations": annotations}}
	if next.Data != nil {
		field := "binaryData"
		if kind == neutral.KindSecret {
			field = "data"
		}
		patch[field] = map[string][]byte{storedKey: next.Data}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	return text, nil
}

// removeStored removes one that no service uses.
func (a *action) removeStored(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findStored(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	kind := a.op.Object.Kind
	natives, err := a.natives(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	for _, n := range natives {
		for _, f := range filesFromSpec(n.template.ObjectMeta, &n.template.Spec, 0) {
			if f.Kind == kind && f.Name == found.Name {
				w := workloadFromNative(a.cluster, n)
				return neutral.Result{}, fault.New(fault.Invalid, "rpc error: code = InvalidArgument desc = %s '%s' is in use by the following service%s", kind, found.Name,
					a.toldUser(ctx, &user{object: workloadObject(&w), name: n.meta.Name}, ": %s", a.storedObject(found)))
			}
		}
	}
	legal, _ := legalStored(found.Name)
	if kind == neutral.KindSecret {
		err = a.client.CoreV1().Secrets(a.namespace).Delete(ctx, legal, metav1.DeleteOptions{})
	} else {
		err = a.client.CoreV1().ConfigMaps(a.namespace).Delete(ctx, legal, metav1.DeleteOptions{})
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return neutral.Result{Removed: []string{found.Name}}, nativeFault(err)
}

// checkFiles wants the secrets and configs of a service to be there and to be callers'. Policy must let the caller do
// to each what it does to the service, as with volumes.
func (a *action) checkFiles(ctx context.Context, files []neutral.MountedFile) error {
	there := map[neutral.Kind][]neutral.StoredFile{}
	for _, f := range files {
		all, ok := there[f.Kind]
		if !ok {
			var err error
			if all, err = a.stored(ctx, f.Kind); err != nil {
				return err
			}
			there[f.Kind] = all
		}
		found := false
		for i := range all {
			if all[i].Name != f.Name {
				continue
			}
			found = true
			object := neutral.Object{Kind: f.Kind, Namespace: a.namespace, Name: f.Name, Labels: all[i].Labels}
			if err := a.permit(object); err != nil {
				return err
			}
		}
		if !found {
			return fault.New(fault.NotFound, "%s %s not found", f.Kind, f.Name)
		}
	}
	return nil
}

// files mounts secrets and configs, each as a file.
func (t *podTemplate) files() error {
	for _, f := range t.in.Files {
		legal, kept := legalStored(f.Name)
		if !kept {
			noteVolume(&t.out.ObjectMeta, string(f.Kind)+":"+legal, f.Name)
		}
		mode := int32(f.Mode)
		items := []corev1.KeyToPath{{Key: storedKey, Path: storedKey}}
		volume := corev1.Volume{Name: volumeFile + digest(f.Target)[:10]}
		switch f.Kind {
		case neutral.KindSecret:
			volume.Secret = &corev1.SecretVolumeSource{SecretName: legal, Items: items, DefaultMode: &mode}
		case neutral.KindConfig:
			volume.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: legal}, Items: items,
				DefaultMode: &mode}
		default:
			return fault.New(fault.Unsupported, "a %s is no file", f.Kind)
		}
		for _, other := range t.out.Spec.Volumes {
			if other.Name == volume.Name {
				return invalid("Secrets", "duplicate mount point: %s", f.Target)
			}
		}
		t.out.Spec.Volumes = append(t.out.Spec.Volumes, volume)
		t.container.VolumeMounts = append(t.container.VolumeMounts, corev1.VolumeMount{Name: volume.Name, MountPath: f.Target,
			SubPath: storedKey, ReadOnly: true})
	}
	return nil
}

// filesFromSpec reads them back.
func filesFromSpec(meta metav1.ObjectMeta, spec *corev1.PodSpec, index int) []neutral.MountedFile {
	if index >= len(spec.Containers) {
		return nil
	}
	var files []neutral.MountedFile
	for _, m := range spec.Containers[index].VolumeMounts {
		if !strings.HasPrefix(m.Name, volumeFile) || m.SubPath != storedKey {
			continue
		}
		for _, v := range spec.Volumes {
			if v.Name != m.Name {
				continue
			}
			f := neutral.MountedFile{Target: m.MountPath}
			var mode *int32
			switch {
			case v.Secret != nil:
				f.Kind, f.Name, mode = neutral.KindSecret, v.Secret.SecretName, v.Secret.DefaultMode
			case v.ConfigMap != nil:
				f.Kind, f.Name, mode = neutral.KindConfig, v.ConfigMap.Name, v.ConfigMap.DefaultMode
			default:
				continue
			}
			if name := volumeNames(meta)[fmt.Sprintf("%s:%s", f.Kind, f.Name)]; name != "" {
				f.Name = name
			}
			if mode != nil {
				f.Mode = uint32(*mode)
			}
			files = append(files, f)
		}
	}
	return files
}

// putFiles changes the secrets and configs.
func putFiles(c *corev1.Container, live, built *corev1.PodTemplateSpec) {
	var volumes []corev1.Volume
	for _, v := range live.Spec.Volumes {
		if !strings.HasPrefix(v.Name, volumeFile) {
			volumes = append(volumes, v)
		}
	}
	for _, v := range built.Spec.Volumes {
		if strings.HasPrefix(v.Name, volumeFile) {
			volumes = append(volumes, v)
		}
	}
	var mounts []corev1.VolumeMount
	for _, m := range c.VolumeMounts {
		if !strings.HasPrefix(m.Name, volumeFile) {
			mounts = append(mounts, m)
		}
	}
	for _, m := range built.Spec.Containers[0].VolumeMounts {
		if strings.HasPrefix(m.Name, volumeFile) {
			mounts = append(mounts, m)
		}
	}
	live.Spec.Volumes, c.VolumeMounts = volumes, mounts
	for claim, name := range volumeNames(built.ObjectMeta) {
		noteVolume(&live.ObjectMeta, claim, name)
	}
}
