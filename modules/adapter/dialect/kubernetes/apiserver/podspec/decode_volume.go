package podspec

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// volumes reads what is mounted. A volume that is of no known kind is left, and refused.
func (d *decoding) volumes(c *corev1.Container, at *field.Path) {
	mounted := map[string]int{}
	for i := range c.VolumeMounts {
		mounted[c.VolumeMounts[i].Name]++
	}
	read := map[string]corev1.Volume{} // as they were
	for i := range d.spec.Volumes {
		v, path := &d.spec.Volumes[i], d.path.Child("volumes").Index(i)
		read[v.Name] = *v.DeepCopy()
		if mounted[v.Name] == 0 {
			if !d.mounted[v.Name] {
				d.lose(path, "dropped", "no container mounts it")
			}
			*v = corev1.Volume{}
			continue
		}
		d.volume(v, path, mounted[v.Name])
	}
	for i := range c.VolumeMounts {
		m, mountPath := &c.VolumeMounts[i], at.Child("volumeMounts").Index(i)
		v, ok := read[m.Name]
		if !ok {
			d.errs = append(d.errs, field.NotFound(mountPath.Child("name"), m.Name))
			*m = corev1.VolumeMount{}
			continue
		}
		m.Name = ""
		d.mount(m, mountPath, &v)
	}
}

// volume takes what a volume says of itself; its mounts follow.
func (d *decoding) volume(v *corev1.Volume, at *field.Path, mounts int) {
	v.Name = "" // it is what mounts call it
	switch {
	case v.EmptyDir != nil:
		dir := v.EmptyDir
		switch {
		case d.mounted != nil:
			if dir.Medium == corev1.StorageMediumMemory || dir.Medium == corev1.StorageMediumDefault {
				dir.Medium, dir.SizeLimit = "", nil
			}
		case mounts > 1:
			d.refuse(at.Child("emptyDir"), "an engine's unnamed volume is mounted once; mount a claim where it is to be in two places")
		case dir.Medium == corev1.StorageMediumMemory:
			dir.Medium, dir.SizeLimit = "", nil
		case dir.Medium == corev1.StorageMediumDefault:
			change := "an unnamed volume"
			if d.target.Swarm {
				change += " that ends with its task"
			}
			d.lose(at.Child("emptyDir"), change, "it begins with what the image has there, and with its owner and mode")
			dir.SizeLimit = nil
		}
		if dir.Mode == nil && dir.Medium == "" {
			v.EmptyDir = nil
		}
	case v.HostPath != nil:
		v.HostPath.Path = ""
		plainly(&v.HostPath.Type, corev1.HostPathUnset)
	case v.PersistentVolumeClaim != nil:
		claim := take(&v.PersistentVolumeClaim)
		d.out.Claims = append(d.out.Claims, Claim{Name: claim.ClaimName, Path: at.Child("persistentVolumeClaim", "claimName")})
	case v.ConfigMap != nil:
		v.ConfigMap.Name, v.ConfigMap.Optional, v.ConfigMap.DefaultMode = "", nil, nil
		d.items(v.ConfigMap.Items, at.Child("configMap", "items"))
	case v.Secret != nil:
		v.Secret.SecretName, v.Secret.Optional, v.Secret.DefaultMode = "", nil, nil
		d.items(v.Secret.Items, at.Child("secret", "items"))
	case v.Projected != nil:
		v.Projected.DefaultMode = nil
		for i := range v.Projected.Sources {
			source, path := &v.Projected.Sources[i], at.Child("projected", "sources").Index(i)
			if source.ConfigMap != nil {
				source.ConfigMap.Name, source.ConfigMap.Optional = "", nil
				d.items(source.ConfigMap.Items, path.Child("configMap", "items"))
			}
			if source.Secret != nil {
				source.Secret.Name, source.Secret.Optional = "", nil
				d.items(source.Secret.Items, path.Child("secret", "items"))
			}
		}
	}
}

// items takes what is said of single files.
func (d *decoding) items(items []corev1.KeyToPath, at *field.Path) {
	for i := range items {
		if !within(items[i].Path) {
			d.errs = append(d.errs, field.Invalid(at.Index(i).Child("path"), items[i].Path, "must be a relative path that does not lead out of the volume"))
		}
		items[i].Key, items[i].Path, items[i].Mode = "", "", nil
	}
}

// within tells whether a path leads to something in its folder.
func within(p string) bool {
	clean := path.Clean(p)
	return p != "" && clean != "." && clean != ".." && !strings.HasPrefix(clean, "../") && !path.IsAbs(p)
}

// mount writes one mount. What is left of m is refused.
func (d *decoding) mount(m *corev1.VolumeMount, at *field.Path, v *corev1.Volume) {
	out := &d.out.Container
	target := take(&m.MountPath)
	plainly(&m.MountPropagation, corev1.MountPropagationNone)
	plainly(&m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled)
	if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyIfPossible {
		d.lose(at.Child("recursiveReadOnly"), "dropped", "an engine decides by itself what is below a mount that is read-only")
		m.RecursiveReadOnly = nil
	}
	if target == "" || !path.IsAbs(target) {
		if target == "" {
			d.errs = append(d.errs, field.Required(at.Child("mountPath"), ""))
			return
		}
		target = path.Join("/", target)
	}
	mount := neutral.Mount{Target: target, ReadOnly: take(&m.ReadOnly)}
	switch {
	case v.EmptyDir != nil && d.mounted != nil:
		d.share(v, &mount)
	case v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory:
		mount.Type = "tmpfs"
		if limit := v.EmptyDir.SizeLimit; limit != nil {
			mount.Size = limit.Value()
		}
	case v.EmptyDir != nil:
		mount.Type = "volume"
		if v.EmptyDir.SizeLimit != nil {
			d.unlimited(v.Name)
		}
	case v.HostPath != nil:
		mount.Type, mount.Source = "bind", v.HostPath.Path
	case v.PersistentVolumeClaim != nil:
		mount.Type, mount.Source = "volume", v.PersistentVolumeClaim.ClaimName
		mount.ReadOnly = mount.ReadOnly || v.PersistentVolumeClaim.ReadOnly
	default:
		d.files(m, at, v, target)
		return
	}
	out.Mounts = append(out.Mounts, mount)
}

func (d *decoding) unlimited(name string) {
	index := slices.IndexFunc(d.written.Volumes, func(w corev1.Volume) bool { return w.Name == name })
	d.lose(d.path.Child("volumes").Index(index).Child("emptyDir", "sizeLimit"), "dropped", "an engine does not limit the size of a volume")
}

// share writes the mount of a volume that the Pod itself has, for all of its containers.
func (d *decoding) share(v *corev1.Volume, mount *neutral.Mount) {
	held := neutral.Mount{Type: "volume", Target: "/" + v.Name}
	limit := v.EmptyDir.SizeLimit
	switch {
	case v.EmptyDir.Medium == corev1.StorageMediumMemory:
		held.Type = "tmpfs"
		if limit != nil {
			held.Size = limit.Value()
		}
	case limit != nil:
		d.unlimited(v.Name)
	}
	mount.Type, mount.Source = neutral.MountShared, held.Target
	if !slices.Contains(d.shared, held) {
		d.shared = append(d.shared, held)
	}
}

// projection is one source of a volume of files.
type projection struct {
	Reference
	items []corev1.KeyToPath
	mode  int32
}

// modeOf is a mode that has its default; a volume of two kinds, which is refused elsewhere, has only that of one.
func modeOf(mode *int32) int32 {
	if mode == nil {
		return 0
	}
	return *mode
}

// projections are the sources of a volume of files; none of a volume of another kind.
func (d *decoding) projections(v *corev1.Volume) []projection {
	at := d.path.Child("volumes").Index(slices.IndexFunc(d.written.Volumes, func(w corev1.Volume) bool { return w.Name == v.Name }))
	switch {
	case v.ConfigMap != nil:
		return []projection{{Reference{Kind: neutral.KindConfig, Name: v.ConfigMap.Name, Optional: said(v.ConfigMap.Optional),
			Path: at.Child("configMap")}, v.ConfigMap.Items, modeOf(v.ConfigMap.DefaultMode)}}
	case v.Secret != nil:
		return []projection{{Reference{Kind: neutral.KindSecret, Name: v.Secret.SecretName, Optional: said(v.Secret.Optional),
			Path: at.Child("secret")}, v.Secret.Items, modeOf(v.Secret.DefaultMode)}}
	case v.Projected != nil:
		var list []projection
		for i, source := range v.Projected.Sources {
			path := at.Child("projected", "sources").Index(i)
			if s := source.ConfigMap; s != nil {
				list = append(list, projection{Reference{Kind: neutral.KindConfig, Name: s.Name, Optional: said(s.Optional),
					Path: path.Child("configMap")}, s.Items, modeOf(v.Projected.DefaultMode)})
			}
			if s := source.Secret; s != nil {
				list = append(list, projection{Reference{Kind: neutral.KindSecret, Name: s.Name, Optional: said(s.Optional),
					Path: path.Child("secret")}, s.Items, modeOf(v.Projected.DefaultMode)})
			}
		}
		return list
	}
	return nil
}

// files writes one mount of a volume of files. A part of it is the file of a key, or what items put into a folder.
func (d *decoding) files(m *corev1.VolumeMount, at *field.Path, v *corev1.Volume, target string) {
	sources := d.projections(v)
	if len(sources) == 0 {
		return
	}
	part := path.Clean(m.SubPath)
	if m.SubPath == "" {
		part = ""
		d.lose(at, "files of their own, as they are when the container is made",
			"an engine mounts each by itself, over what the image has there, and never changes it")
	}
	found := false
	for _, source := range sources {
		add := func(key, target string, mode int32) {
			file := File{Reference: source.Reference, Target: target, Mode: uint32(mode)}
			file.Key = key
			d.out.Files = append(d.out.Files, file)
			found = true
		}
		for _, item := range source.items {
			mode := source.mode
			if item.Mode != nil {
				mode = *item.Mode
			}
			switch rest, below := strings.CutPrefix(path.Clean(item.Path), part+"/"); {
			case part == "":
				add(item.Key, path.Join(target, item.Path), mode)
			case path.Clean(item.Path) == part:
				add(item.Key, target, mode)
			case below:
				add(item.Key, path.Join(target, rest), mode)
			}
		}
		switch {
		case len(source.items) > 0:
		case part == "":
			add("", target, source.mode)
		case len(sources) == 1 && !strings.Contains(part, "/"):
			add(part, target, source.mode)
		}
	}
	if found {
		m.SubPath = ""
	}
}
