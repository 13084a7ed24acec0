package docker

import (
	"path"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// remote are file systems that are no path of the host.
var remote = map[string]bool{"tmpfs": true, "ramfs": true, "nfs": true, "nfs4": true, "cifs": true, "smb3": true}

// layerless are options of a mount of overlay that name no path. Others may, as lowerdir+ does.
var layerless = map[string]bool{"": true, "ro": true, "rw": true, "noatime": true, "nodev": true, "noexec": true, "nosuid": true,
	"index": true, "metacopy": true, "nfs_export": true, "redirect_dir": true, "userxattr": true, "volatile": true, "xino": true}

// volumeSource is what of its host a volume is that is made with a driver's options. The driver that engines have mounts
// what they say, as mount(8) does; what another driver makes of its options nobody knows.
// See https://docs.docker.com/reference/cli/docker/volume/create/#driver-specific-options
func volumeSource(driver string, options map[string]string) neutral.VolumeSource {
	if len(options) == 0 {
		return neutral.VolumeSource{}
	}
	if driver != "" && driver != "local" {
		return neutral.VolumeSource{Unseen: true}
	}
	kind, device := options["type"], options["device"]
	var bind, odd bool
	var layers []string
	for option := range strings.SplitSeq(options["o"], ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "bind", "rbind":
			bind = true
		case "lowerdir", "upperdir", "workdir":
			layers = append(layers, strings.Split(value, ":")...)
			odd = odd || strings.Contains(value, `\`) // a colon of a path's own
		default:
			odd = odd || !layerless[name]
		}
	}
	switch {
	case bind:
		return neutral.VolumeSource{HostPaths: []string{path.Join("/", device)}}
	case kind == "" && device == "" || remote[kind]:
		return neutral.VolumeSource{}
	case kind == "overlay" && (odd || len(layers) == 0):
		return neutral.VolumeSource{Unseen: true}
	case kind == "overlay":
		for i, layer := range layers {
			layers[i] = path.Join("/", layer)
		}
		return neutral.VolumeSource{HostPaths: layers}
	case strings.HasPrefix(device, "/"): // a disk
		return neutral.VolumeSource{HostPaths: []string{device}}
	}
	return neutral.VolumeSource{Unseen: true}
}

// madeVolume is a volume that is mounted, with its source.
type madeVolume struct {
	neutral.Mount
	source neutral.VolumeSource
}

// mounted adds what of the host volumes bring into a container.
func mounted(c *neutral.Container, volumes []madeVolume) {
	for _, v := range volumes {
		for _, p := range v.source.HostPaths {
			c.Mounts = append(slices.Clip(c.Mounts), neutral.Mount{Type: "bind", Source: p, Target: v.Target, ReadOnly: v.ReadOnly})
		}
		if v.source.Unseen {
			c.UnseenMounts = append(slices.Clip(c.UnseenMounts), v.Source)
		}
	}
}
