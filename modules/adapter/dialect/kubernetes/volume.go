package kubernetes

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A volume is a PersistentVolumeClaim, its driver a StorageClass. What stands in the label of those that callers made:
const (
	claimNamed     = "named"
	claimAnonymous = "anonymous"
)

// How a Pod calls the volumes that its caller named, and those that nobody named, before a hash of where they are
// mounted.
const (
	volumeNamed     = "volume-"
	volumeAnonymous = "anonymous-"
)

const (
	// driverLocal is docker's own driver; it stands for the cluster's default StorageClass.
	driverLocal = "local"
	// driverNone is shown of claims without a class.
	driverNone = "kubernetes"

	optionSize = "size"
	optionMode = "access-mode"

	// defaultSize is what a claim asks for whose caller named no size: docker's volumes have none, and a claim must.
	defaultSize = "1Gi"

	// claimPatience is how long a removal waits for a claim to be gone, which a node may still unmount.
	claimPatience = 20 * time.Second
)

// legalVolume is the claim's name for a caller's name of a volume.
func legalVolume(name string) (legal string, kept bool) {
	return legalName(name, validation.IsDNS1123Subdomain, validation.DNS1123SubdomainMaxLength)
}

// volumeFromClaim reads a claim as a volume.
func volumeFromClaim(claim *corev1.PersistentVolumeClaim) neutral.Volume {
	v := neutral.Volume{Name: claim.Name, Driver: driverNone, Scope: "global", Labels: labelsFromMeta(claim.ObjectMeta),
		Created: claim.CreationTimestamp.Time, Anonymous: claim.Labels[labelVolume] == claimAnonymous}
	if name := claim.Annotations[annotationName]; name != "" {
		v.Name = name
	}
	if class := claim.Spec.StorageClassName; class != nil && *class != "" {
		v.Driver = *class
	}
	if text := claim.Annotations[annotationOptions]; text != "" && json.Unmarshal([]byte(text), &v.Options) != nil {
		v.Options = nil // somebody broke the annotation
	}
	return v
}

// claimFromVolume writes a volume as a claim.
func claimFromVolume(v *neutral.Volume, namespace string) (*corev1.PersistentVolumeClaim, error) {
	legal, kept := legalVolume(v.Name)
	claim := &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: legal, Namespace: namespace, Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse(defaultSize)}}},
	}
	if err := labelMeta(&claim.ObjectMeta, v.Labels); err != nil {
		return nil, err
	}
	claim.Labels[labelVolume] = claimNamed
	if v.Anonymous {
		claim.Labels[labelVolume] = claimAnonymous
	}
	if !kept {
		claim.Annotations[annotationName] = v.Name
	}
	if v.Driver != "" && v.Driver != driverLocal {
		if len(validation.IsDNS1123Subdomain(v.Driver)) > 0 {
			return nil, refuse("Driver", "a driver is a StorageClass of the cluster, and none can have the name %q", v.Driver)
		}
		claim.Spec.StorageClassName = &v.Driver
	}
	for name, value := range v.Options {
		if err := claimOption(claim, name, value); err != nil {
			return nil, err
		}
	}
	if len(v.Options) == 0 {
		return claim, nil
	}
	text, err := json.Marshal(v.Options)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a volume's options cannot be written")
	}
	claim.Annotations[annotationOptions] = string(text)
	return claim, nil
}

// claimOption reads one option of a volume. Those of an engine's own driver (type, device, o) name devices and paths of
// its host.
func claimOption(claim *corev1.PersistentVolumeClaim, name, value string) error {
	field := "DriverOpts." + name
	switch name {
	case optionSize:
		size, err := resource.ParseQuantity(value)
		if err != nil || size.Sign() <= 0 {
			return invalid(field, "invalid size %q: give it as Kubernetes writes it, 10Gi", value)
		}
		claim.Spec.Resources.Requests[corev1.ResourceStorage] = size
	case optionMode:
		mode := corev1.PersistentVolumeAccessMode(value)
		if !slices.Contains([]corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany,
			corev1.ReadOnlyMany, corev1.ReadWriteOncePod}, mode) {
			return invalid(field, "invalid access mode %q", value)
		}
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
	default:
		return refuse(field, "of a volume's options, %s and %s are known to Kubernetes", optionSize, optionMode)
	}
	return nil
}

func (a *action) volumeObject(v *neutral.Volume) neutral.Object {
	return neutral.Object{Kind: neutral.KindVolume, Namespace: a.namespace, Name: v.Name, Labels: v.Labels}
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

func (a *action) planVolumeList() (dialect.Plan, error) {
	if a.op.Filter.Dangling != nil {
		return dialect.Plan{Program: a.listDangling}, nil
	}
	return a.volumesCall(func(volumes []neutral.Volume) (neutral.Result, error) {
		return neutral.Result{Volumes: slices.DeleteFunc(volumes, func(v neutral.Volume) bool { return !a.lists(&v) })}, nil
	}), nil
}

// lists tells whether a list holds a volume.
func (a *action) lists(v *neutral.Volume) bool {
	filter := a.op.Filter
	return oneOf(filter.Names, func(name string) bool { return strings.Contains(v.Name, name) }) &&
		matchLabels(filter.Labels, v.Labels) && a.permit(a.volumeObject(v)) == nil
}

// listDangling lists the volumes that no container has, or those that one has.
func (a *action) listDangling(ctx context.Context) (neutral.Result, error) {
	claims, users, err := a.claims(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{Volumes: []neutral.Volume{}}
	for i := range claims {
		v := volumeFromClaim(&claims[i])
		if (users[claims[i].Name] == nil) == *a.op.Filter.Dangling && a.lists(&v) {
			result.Volumes = append(result.Volumes, v)
		}
	}
	return result, nil
}

// claims gives the namespace's claims and, by their names, a Pod that has each.
func (a *action) claims(ctx context.Context) ([]corev1.PersistentVolumeClaim, map[string]*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := a.client.CoreV1().PersistentVolumeClaims(a.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, nativeFault(err)
	}
	users, err := a.volumeUsers(ctx, a.namespace, "")
	return list.Items, users, err
}

// volumeUsers gives, by the names of claims, a Pod that has each, but for the Pod except.
func (c *Cluster) volumeUsers(ctx context.Context, namespace string, except types.UID) (map[string]*corev1.Pod, error) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nativeFault(err)
	}
	users := map[string]*corev1.Pod{}
	for i := range pods.Items {
		if except != "" && pods.Items[i].UID == except {
			continue
		}
		for _, claim := range claimsOf(&pods.Items[i].Spec) {
			users[claim] = &pods.Items[i]
		}
	}
	return users, nil
}

// claimsOf are the claims that a Pod mounts.
func claimsOf(spec *corev1.PodSpec) []string {
	var claims []string
	for _, v := range spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims = append(claims, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return claims
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

// findClaim gives the claim of a caller's volume, nil where there is none.
func (a *action) findClaim(ctx context.Context, name string) (*corev1.PersistentVolumeClaim, error) {
	legal, _ := legalVolume(name)
	claim, err := a.client.CoreV1().PersistentVolumeClaims(a.namespace).Get(ctx, legal, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // that there is none is an answer
	case err != nil:
		return nil, nativeFault(err)
	}
	return claim, nil
}

// createVolume makes a claim. One that is there already is the answer, as an engine has it.
func (a *action) createVolume(ctx context.Context) (neutral.Result, error) {
	if a.op.Volume == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no volume is asked for")
	}
	v := *a.op.Volume
	if v.Name == "" {
		nonce, err := newNonce()
		if err != nil {
			return neutral.Result{}, err
		}
		v.Name, v.Anonymous = digest("volume", nonce), true
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	wanted, err := claimFromVolume(&v, a.namespace)
	if err != nil {
		return neutral.Result{}, err
	}
	there, err := a.findClaim(ctx, v.Name)
	if err != nil {
		return neutral.Result{}, err
	}
	if there != nil {
		now := volumeFromClaim(there)
		if err := a.permit(a.volumeObject(&now)); err != nil {
			return neutral.Result{}, err
		}
		if there.DeletionTimestamp != nil {
			return neutral.Result{}, leaving(v.Name)
		}
		if class := wanted.Spec.StorageClassName; class != nil && *class != now.Driver {
			return neutral.Result{}, fault.New(fault.Conflict, "create %s: conflict: volume name must be unique: a volume named %s "+
				"already exists with another driver. Choose a different volume name.", v.Name, v.Name)
		}
		return neutral.Result{Volumes: []neutral.Volume{now}}, nil
	}
	if err := a.permit(a.volumeObject(&v)); err != nil {
		return neutral.Result{}, err
	}
	leftBy(ctx, &wanted.ObjectMeta)
	made, err := a.client.CoreV1().PersistentVolumeClaims(a.namespace).Create(ctx, wanted, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	return neutral.Result{Volumes: []neutral.Volume{volumeFromClaim(made)}}, nil
}

func leaving(name string) error {
	return fault.New(fault.Conflict, "volume %s is being removed", name)
}

// removeVolume deletes a claim that no container has, and waits until it is gone.
func (a *action) removeVolume(ctx context.Context) (neutral.Result, error) {
	force := a.op.Remove != nil && a.op.Remove.Force
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	claim, err := a.findClaim(call, a.op.Ref)
	if err != nil {
		return neutral.Result{}, err
	}
	if claim == nil {
		if force {
			return neutral.Result{}, nil
		}
		return neutral.Result{}, fault.New(fault.NotFound, "get %s: no such volume", a.op.Ref)
	}
	v := volumeFromClaim(claim)
	if err := a.permit(a.volumeObject(&v)); err != nil {
		return neutral.Result{}, err
	}
	users, err := a.volumeUsers(call, a.namespace, "")
	if err != nil {
		return neutral.Result{}, err
	}
	if pod := users[claim.Name]; pod != nil {
		u := &user{object: a.podObject(pod), name: containerID(a.cluster, pod, "")}
		return neutral.Result{}, fault.New(fault.Conflict, "remove %s: volume is in use%s", v.Name,
			a.toldUser(call, u, " - [%s]", a.volumeObject(&v)))
	}
	if err := a.deleteClaim(call, claim); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Removed: []string{v.Name}}, a.awaitNoClaim(ctx, claim)
}

// deleteClaim deletes exactly this claim; one that is gone already is no error.
func (c *Cluster) deleteClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Delete(ctx, claim.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &claim.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return nativeFault(err)
}

// awaitNoClaim waits until a claim that was deleted is gone: the cluster keeps it until no Pod has it any more.
func (a *action) awaitNoClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	ctx, cancel := context.WithTimeout(ctx, claimPatience)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		now, err := a.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && now.UID != claim.UID:
			return nil
		case err != nil:
			return nativeFault(err)
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "volume %s is being removed, and is still there", a.op.Ref)
		case <-time.After(pause):
		}
	}
}

// pruneVolumes removes the volumes that callers made and that no container has.
func (a *action) pruneVolumes(ctx context.Context) (neutral.Result, error) {
	claims, users, err := a.claims(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var result neutral.Result
	for i := range claims {
		claim := &claims[i]
		v := volumeFromClaim(claim)
		if claim.Labels[labelVolume] == "" || a.op.Filter.Anonymous && !v.Anonymous || users[claim.Name] != nil ||
			claim.DeletionTimestamp != nil || !a.lists(&v) {
			continue
		}
		if err := a.deleteClaim(ctx, claim); err != nil {
			return result, err
		}
		result.Removed = append(result.Removed, v.Name)
	}
	return result, nil
}
