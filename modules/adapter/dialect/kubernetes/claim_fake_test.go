package kubernetes

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func hostVolume(name, path, namespace, claim string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: path}
	if claim != "" {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: namespace, Name: claim}
	}
	return v
}

// withVolumes is a Pod whose one container mounts these volumes.
func withVolumes(name string, sources ...corev1.VolumeSource) *corev1.Pod {
	pod := newPod(name, "10.0.0.1")
	pod.Spec.Volumes, pod.Spec.Containers[0].VolumeMounts = nil, nil
	for i, source := range sources {
		volume := "v" + string(rune('0'+i))
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: source})
		pod.Spec.Containers[0].VolumeMounts = append(pod.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: "/" + volume})
	}
	return pod
}

func claim(name string) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

func hostPaths(c *neutral.Container) []string {
	var paths []string
	for _, m := range c.Mounts {
		if m.Type == "bind" {
			paths = append(paths, m.Source)
		}
	}
	slices.Sort(paths)
	return paths
}

// What is behind a claim is seen, and where it cannot be, that is.
func TestHostPathsByClaimInFakeCluster(t *testing.T) {
	t.Parallel()
	far := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "far"}}
	far.Spec.NFS, far.Spec.ClaimRef = &corev1.NFSVolumeSource{}, &corev1.ObjectReference{Namespace: "a", Name: "far"}
	disk := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk"}}
	disk.Spec.Local = &corev1.LocalVolumeSource{Path: "/mnt/disk"}
	volumes := []runtime.Object{hostVolume("bound", "/etc", "a", "bound"), hostVolume("other", "/other", "b", "bound"), far, disk, hostVolume("kept", "/kept", "a", "web-0")}
	unnamed := newPod("unnamed", "10.0.0.1")
	unnamed.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "of-a-template", MountPath: "/x"}}
	flex := corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{Driver: "x/y"}}
	for name, tt := range map[string]struct {
		pod    *corev1.Pod
		want   []string
		unseen []string
	}{
		"nothing":       {withVolumes("p", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), nil, nil},
		"a path":        {withVolumes("p", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}), []string{"/srv"}, nil},
		"a claim":       {withVolumes("p", claim("bound")), []string{"/etc"}, nil},
		"of a server":   {withVolumes("p", claim("far")), nil, nil},
		"bound to none": {withVolumes("p", claim("new")), []string{"/mnt/disk"}, nil},
		"still unnamed": {unnamed, []string{"/etc", "/kept", "/mnt/disk"}, nil},
		"of the Pod":    {withVolumes("p", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), []string{"/etc", "/kept", "/mnt/disk"}, nil},
		"of a driver":   {withVolumes("p", flex, claim("bound")), []string{"/etc"}, []string{"flexVolume:x/y"}},
	} {
		f := newFakeCluster(t, append(slices.Clone(volumes), tt.pod)...)
		object, err := f.Lookup(t.Context(), neutral.Operation{Object: neutral.Object{Kind: neutral.KindContainer, Resource: "core/pods", Namespace: "a", Name: tt.pod.Name}, Extra: map[string]string{extraVersion: "v1"}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, hostPaths(object.Container)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(tt.unseen, object.Container.UnseenMounts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	f := newFakeCluster(t, append(volumes, withVolumes("p", claim("bound")))...)
	f.react("list", "persistentvolumes", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("forbidden") })
	object, err := f.Lookup(t.Context(), neutral.Operation{Object: neutral.Object{Kind: neutral.KindContainer, Resource: "core/pods", Namespace: "a", Name: "p"}, Extra: map[string]string{extraVersion: "v1"}})
	if err != nil || !slices.Equal(object.Container.UnseenMounts, []string{"bound"}) {
		t.Errorf("%+v, %v", object.Container, err)
	}
}

// A list asks for volumes only where the answer depends on them, and once.
func TestListSeesThroughClaimsInFakeCluster(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, hostVolume("bound", "/etc", "a", "bound"))
	lists := 0
	f.react("list", "persistentvolumes", func(k8stesting.Action) (bool, runtime.Object, error) { lists++; return false, nil, nil })
	v := &volumes{cluster: f.Cluster}
	none := func(o neutral.Object) bool {
		return len(o.Container.UnseenMounts) == 0 && len(hostPaths(o.Container)) == 0
	}
	for range 3 {
		for name, want := range map[string]bool{"bound": false, "new": true, "": true} {
			pod := withVolumes("p")
			if name != "" {
				pod = withVolumes("p", claim(name))
			}
			c := containerFromPod("", pod, 0, time.Time{})
			if got := v.through(t.Context(), none)(neutral.Object{Namespace: "a", Container: &c}); got != want {
				t.Errorf("%q: %v", name, got)
			}
		}
	}
	if lists != 1 {
		t.Errorf("%d lists of volumes", lists)
	}
}

func TestSecurityFromContainer(t *testing.T) {
	t.Parallel()
	yes, unmasked := true, corev1.UnmaskedProcMount
	local := "a/b.json"
	seccomp := func(kind corev1.SeccompProfileType, name *string) *corev1.SeccompProfile {
		return &corev1.SeccompProfile{Type: kind, LocalhostProfile: name}
	}
	appArmor := func(kind corev1.AppArmorProfileType, name *string) *corev1.AppArmorProfile {
		return &corev1.AppArmorProfile{Type: kind, LocalhostProfile: name}
	}
	usual := neutral.Security{Seccomp: neutral.ProfileUnconfined, AppArmor: neutral.ProfileDefault}
	with := func(change func(*neutral.Security)) neutral.Security {
		s := usual
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		change func(*corev1.Pod, *corev1.Container, *corev1.SecurityContext)
		want   neutral.Security
	}{
		"nothing": {func(*corev1.Pod, *corev1.Container, *corev1.SecurityContext) {}, usual},
		"of the Pod": {func(p *corev1.Pod, _ *corev1.Container, _ *corev1.SecurityContext) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: seccomp(corev1.SeccompProfileTypeRuntimeDefault, nil),
				AppArmorProfile: appArmor(corev1.AppArmorProfileTypeUnconfined, nil), Sysctls: []corev1.Sysctl{{Name: "a", Value: "1"}}}
		}, with(func(s *neutral.Security) {
			s.Seccomp, s.AppArmor, s.Sysctls = neutral.ProfileDefault, neutral.ProfileUnconfined, map[string]string{"a": "1"}
		})},
		"of the container": {func(p *corev1.Pod, _ *corev1.Container, s *corev1.SecurityContext) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: seccomp(corev1.SeccompProfileTypeRuntimeDefault, nil), AppArmorProfile: appArmor(corev1.AppArmorProfileTypeUnconfined, nil)}
			s.SeccompProfile, s.AppArmorProfile = seccomp(corev1.SeccompProfileTypeLocalhost, &local), appArmor(corev1.AppArmorProfileTypeLocalhost, &local)
		}, with(func(s *neutral.Security) { s.Seccomp, s.AppArmor = neutral.Local(local), neutral.Local(local) })},
		"privileged": {func(_ *corev1.Pod, _ *corev1.Container, s *corev1.SecurityContext) {
			s.Privileged, s.SeccompProfile = &yes, seccomp(corev1.SeccompProfileTypeRuntimeDefault, nil)
		}, with(func(s *neutral.Security) { s.Privileged = true })},
		"a process of its host": {func(p *corev1.Pod, _ *corev1.Container, _ *corev1.SecurityContext) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: &yes}}
		}, with(func(s *neutral.Security) { s.Privileged = true })},
		"of a later API": {func(_ *corev1.Pod, _ *corev1.Container, s *corev1.SecurityContext) {
			s.SeccompProfile, s.AppArmorProfile = seccomp("New", nil), appArmor("New", nil)
		}, with(func(s *neutral.Security) { s.Seccomp, s.AppArmor = "", "" })},
		"annotated": {func(p *corev1.Pod, c *corev1.Container, _ *corev1.SecurityContext) {
			p.Annotations = map[string]string{corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name: "unconfined"}
		}, with(func(s *neutral.Security) { s.AppArmor = neutral.ProfileUnconfined })},
		"annotated with a name": {func(p *corev1.Pod, c *corev1.Container, _ *corev1.SecurityContext) {
			p.Annotations = map[string]string{corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name: "localhost/x"}
		}, with(func(s *neutral.Security) { s.AppArmor = neutral.Local("x") })},
		"unmasked": {func(_ *corev1.Pod, _ *corev1.Container, s *corev1.SecurityContext) { s.ProcMount = &unmasked },
			with(func(s *neutral.Security) { s.UnmaskedPaths = true })},
		"devices": {func(p *corev1.Pod, c *corev1.Container, _ *corev1.SecurityContext) {
			p.Spec.Volumes = []corev1.Volume{{Name: "raw", VolumeSource: claim("disk")}}
			c.VolumeDevices = []corev1.VolumeDevice{{Name: "raw", DevicePath: "/dev/x"}, {Name: "made"}}
			c.Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1"), "cpu": resource.MustParse("1"), "hugepages-2Mi": resource.MustParse("2Mi")}
			c.Resources.Requests = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1"), "attachable.kubernetes.io/x": resource.MustParse("1")}
			c.Resources.Claims = []corev1.ResourceClaim{{Name: "fpga"}}
		}, with(func(s *neutral.Security) {
			s.Devices = []string{"claim:disk", "claim:fpga", "claim:made", "nvidia.com/gpu"}
		})},
	} {
		pod := newPod("p", "10.0.0.1")
		c := &pod.Spec.Containers[0]
		c.SecurityContext = &corev1.SecurityContext{}
		tt.change(pod, c, c.SecurityContext)
		if diff := cmp.Diff(tt.want, securityFromContainer(pod.ObjectMeta, &pod.Spec, c)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
