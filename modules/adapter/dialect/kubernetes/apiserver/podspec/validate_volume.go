package podspec

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// modeMessage says what a file's mode can be.
const modeMessage = "must be a number between 0 and 0777 (octal), both inclusive"

// volumes gives the names that can be mounted: those of volumes with which nothing is wrong.
func (v *validator) volumes(volumes []corev1.Volume, at *field.Path) map[string]bool {
	names := map[string]bool{}
	for i := range volumes {
		one := &validator{}
		one.source(&volumes[i].VolumeSource, at.Index(i))
		one.label(at.Index(i).Child("name"), volumes[i].Name)
		if names[volumes[i].Name] {
			one.add(field.Duplicate(at.Index(i).Child("name"), volumes[i].Name))
		}
		if len(one.errs) == 0 {
			names[volumes[i].Name] = true
		}
		v.add(one.errs...)
	}
	return names
}

// sourceOrder is the order in which kinds of volumes are looked at, of those that an engine can have.
var sourceOrder = []string{"EmptyDir", "HostPath", "GitRepo", "GCEPersistentDisk", "AWSElasticBlockStore", "Secret", "NFS", "ISCSI", "Glusterfs",
	"Flocker", "PersistentVolumeClaim", "RBD", "Cinder", "CephFS", "Quobyte", "DownwardAPI", "FC", "FlexVolume", "ConfigMap", "AzureFile",
	"VsphereVolume", "PhotonPersistentDisk", "PortworxVolume", "AzureDisk", "StorageOS", "Projected", "ScaleIO", "CSI", "Ephemeral", "Image"}

func (v *validator) source(s *corev1.VolumeSource, at *field.Path) {
	kinds := 0
	for _, kind := range sourceOrder {
		structure, _ := reflect.TypeFor[corev1.VolumeSource]().FieldByName(kind)
		if reflect.ValueOf(s).Elem().FieldByName(kind).IsNil() {
			continue
		}
		name, _ := jsonName(structure)
		if kinds++; kinds > 1 {
			v.add(field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
			continue
		}
		v.kind(s, at)
	}
}

func (v *validator) kind(s *corev1.VolumeSource, at *field.Path) {
	switch {
	case s.EmptyDir != nil:
		if limit := s.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
			v.add(field.Forbidden(at.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	case s.HostPath != nil:
		path := at.Child("hostPath")
		if s.HostPath.Path == "" {
			v.required(path.Child("path"), "")
			return
		}
		v.noBacksteps(path.Child("path"), s.HostPath.Path)
		oneOf(v, path.Child("type"), *s.HostPath.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
	case s.Secret != nil:
		v.files(at.Child("secret"), "secretName", s.Secret.SecretName, s.Secret.DefaultMode, s.Secret.Items)
	case s.PersistentVolumeClaim != nil:
		if s.PersistentVolumeClaim.ClaimName == "" {
			v.required(at.Child("persistentVolumeClaim", "claimName"), "")
		}
	case s.ConfigMap != nil:
		v.files(at.Child("configMap"), "name", s.ConfigMap.Name, s.ConfigMap.DefaultMode, s.ConfigMap.Items)
	case s.Projected != nil:
		v.projected(s.Projected, at.Child("projected"))
	}
}

func (v *validator) files(at *field.Path, nameField, name string, mode *int32, items []corev1.KeyToPath) {
	if name == "" {
		v.required(at.Child(nameField), "")
	}
	v.mode(at.Child("defaultMode"), mode)
	for i, item := range items {
		path := at.Child("items").Index(i)
		if item.Key == "" {
			v.required(path.Child("key"), "")
		}
		if item.Path == "" {
			v.required(path.Child("path"), "")
		}
		v.relative(path.Child("path"), item.Path)
		if strings.HasPrefix(item.Path, "..") && !strings.HasPrefix(item.Path, "../") {
			v.invalid(path.Child("path"), item.Path, "must not start with '..'")
		}
		v.mode(path.Child("mode"), item.Mode)
	}
}

func (v *validator) mode(at *field.Path, mode *int32) {
	if mode != nil && (*mode > 0o777 || *mode < 0) {
		v.invalid(at, *mode, modeMessage)
	}
}

func (v *validator) projected(p *corev1.ProjectedVolumeSource, at *field.Path) {
	v.mode(at.Child("defaultMode"), p.DefaultMode)
	seen := map[string]bool{}
	unique := func(name string, items []corev1.KeyToPath) {
		for _, item := range items {
			if item.Path != "" && seen[item.Path] {
				v.invalid(at, name, "conflicting duplicate paths")
			}
			seen[item.Path] = true
		}
	}
	for i, source := range p.Sources {
		path, kinds := at.Child("sources").Index(i), 0
		if source.Secret != nil {
			kinds++
			v.files(path.Child("secret"), "name", source.Secret.Name, nil, source.Secret.Items)
			unique(source.Secret.Name, source.Secret.Items)
		}
		if source.ConfigMap != nil {
			kinds++
			v.files(path.Child("configMap"), "name", source.ConfigMap.Name, nil, source.ConfigMap.Items)
			unique(source.ConfigMap.Name, source.ConfigMap.Items)
		}
		for _, is := range []bool{source.DownwardAPI != nil, source.ServiceAccountToken != nil, source.ClusterTrustBundle != nil, source.PodCertificate != nil} {
			if is {
				kinds++
			}
		}
		if kinds > 1 {
			v.add(field.Forbidden(path, "may not specify more than 1 volume type per source"))
		}
	}
}

func (v *validator) mounts(c *corev1.Container, volumes map[string]bool, at *field.Path) {
	paths := map[string]bool{}
	for i, m := range c.VolumeMounts {
		path := at.Index(i)
		if m.Name == "" {
			v.required(path.Child("name"), "")
		}
		if !volumes[m.Name] {
			v.add(field.NotFound(path.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			v.required(path.Child("mountPath"), "")
		}
		if paths[m.MountPath] {
			v.invalid(path.Child("mountPath"), m.MountPath, "must be unique")
		}
		paths[m.MountPath] = true
		// An API server names these without the mount's number.
		if m.SubPath != "" {
			v.relative(at.Child("subPath"), m.SubPath)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				v.invalid(path.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
			}
			v.relative(at.Child("subPathExpr"), m.SubPathExpr)
		}
		if m.MountPropagation != nil {
			oneOf(v, at.Child("mountPropagation"), *m.MountPropagation, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer,
				corev1.MountPropagationNone)
			if *m.MountPropagation == corev1.MountPropagationBidirectional && (c.SecurityContext == nil || !said(c.SecurityContext.Privileged)) {
				v.add(field.Forbidden(at.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
			}
		}
		if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
			continue
		}
		path = at.Child("recursiveReadOnly")
		switch *m.RecursiveReadOnly {
		case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
			if !m.ReadOnly {
				v.add(field.Forbidden(path, "may only be specified when readOnly is true"))
			}
			if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
				v.add(field.Forbidden(path, "may only be specified when mountPropagation is None or not specified"))
			}
		default:
			oneOf(v, path, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
		}
	}
}
