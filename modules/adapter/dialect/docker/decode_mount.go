package docker

import (
	"path/filepath"
	"slices"
	"strings"

	units "github.com/docker/go-units"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	reasonBind = "it is a path of the caller's host, which is not there on the target; put the files into the image, " +
		"or mount a tmpfs"
	reasonCopied  = "only an engine fills a new volume from the image"
	reasonSubpath = "only an engine wants it to be there already"
	// defaultShm is what an engine gives without being asked.
	defaultShm = 64 << 20
)

// mountsFromTree joins the four places where a create says what is mounted. Binds of host paths are refused here; what
// is left unread of the rest is settled by containerDisposals.
func mountsFromTree(t, host *tree) []neutral.Mount {
	var mounts []neutral.Mount
	for _, bind := range host.get("Binds").items() {
		if m, ok := bindFromTree(bind); ok {
			mounts = append(mounts, m)
		}
	}
	listed := mountListFromTree(host.get("Mounts"), false)
	for i, item := range host.get("Mounts").items() {
		if listed[i].Type == "volume" {
			listed[i].Subpath = subpathFromTree(item.get("VolumeOptions").get("Subpath"))
		}
	}
	mounts = append(mounts, listed...)
	for _, entry := range host.get("Tmpfs").entries() {
		mounts = append(mounts, tmpfsFromTree(entry))
	}
	taken := func(target string) bool {
		return slices.ContainsFunc(mounts, func(m neutral.Mount) bool { return m.Target == target })
	}
	for _, entry := range t.get("Volumes").entries() {
		entry.understood()
		if !taken(entry.name) {
			mounts = append(mounts, neutral.Mount{Type: "volume", Target: entry.name})
			entry.uncopied(entry.name)
		}
	}
	if shm := host.get("ShmSize").integer(); shm > 0 && shm != defaultShm && !taken("/dev/shm") {
		mounts = append(mounts, neutral.Mount{Type: "tmpfs", Target: "/dev/shm", Size: shm})
	} else if shm < 0 {
		host.get("ShmSize").fail(fault.Invalid, "SHM size can not be less than 0")
	}
	checkTargets(host, mounts)
	slices.SortStableFunc(mounts, func(a, b neutral.Mount) int { return strings.Compare(a.Target, b.Target) })
	return mounts
}

func checkTargets(host *tree, mounts []neutral.Mount) {
	seen := map[string]bool{}
	for _, m := range mounts {
		switch {
		case !strings.HasPrefix(m.Target, "/"), strings.TrimRight(m.Target, "/") == "":
			host.fail(fault.Invalid, "invalid mount target %q: it must be an absolute path below '/'", shorten(m.Target))
		case seen[m.Target]:
			host.fail(fault.Invalid, "Duplicate mount point: %s", shorten(m.Target))
		}
		seen[m.Target] = true
	}
}

// bindFromTree reads "volume:/target[:options]".
func bindFromTree(t *tree) (neutral.Mount, bool) {
	text := t.str()
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		t.fail(fault.Invalid, "invalid volume specification: '%s'", shorten(text))
		return neutral.Mount{}, false
	}
	source := parts[0]
	switch {
	case t.native() && strings.HasPrefix(source, "/"):
		m := neutral.Mount{Type: "bind", Source: source, Target: parts[1]}
		m.ReadOnly = len(parts) == 3 && slices.Contains(strings.Split(parts[2], ","), "ro")
		return m, true
	case strings.HasPrefix(source, "/") || strings.HasPrefix(source, ".") || strings.HasPrefix(source, "~"):
		t.fail(fault.Unsupported, "bind mount of %s: %s", shorten(source), reasonBind)
		return neutral.Mount{}, false
	}
	if !validName(source) {
		t.fail(fault.Invalid, "invalid volume specification: '%s': the volume's name is not valid", shorten(text))
		return neutral.Mount{}, false
	}
	m := neutral.Mount{Type: "volume", Source: source, Target: parts[1]}
	var dropped []string
	copied := true
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				m.ReadOnly = true
			case "rw", "":
			case "nocopy":
				copied = false
			case "z", "Z":
				dropped = append(dropped, option)
			default:
				t.fail(fault.Invalid, "invalid mode: %s", shorten(option))
			}
		}
	}
	t.without(dropped)
	if copied {
		t.uncopied(m.Target)
	}
	return m, true
}

// uncopied reports what an engine does to a new volume and nobody else does.
func (t *tree) uncopied(target string) {
	t.note("without the files that the image has at "+shorten(target), reasonCopied)
}

// mountListFromTree reads the Mounts of an engine's create and of a swarm's spec, which are the same. An update sends
// back all mounts that an inspect showed, whatever they are of; what it adds is for the outbound half to judge, which
// knows them.
func mountListFromTree(t *tree, update bool) []neutral.Mount {
	var mounts []neutral.Mount
	for _, item := range t.items() {
		m := neutral.Mount{Type: item.get("Type").str(), Source: item.get("Source").str(), Target: item.get("Target").str(),
			ReadOnly: item.get("ReadOnly").boolean()}
		switch m.Type {
		case "volume":
			options := item.get("VolumeOptions")
			driver := options.get("DriverConfig")
			if !options.get("NoCopy").boolean() && !update {
				item.uncopied(m.Target)
			}
			if name := driver.get("Name"); name != nil && name.text == "local" {
				name.understood()
			}
			if t.native() && driver != nil {
				t.root.volumes = append(t.root.volumes, madeVolume{m, volumeSource(driver.get("Name").str(), driver.get("Options").strMap())})
			}
			if m.Source != "" && !validName(m.Source) {
				item.fail(fault.Invalid, "invalid volume name %q", shorten(m.Source))
			}
		case "tmpfs":
			if m.Source != "" {
				item.fail(fault.Invalid, "invalid mount config for type \"tmpfs\": field Source must not be specified")
			}
			m.Size = item.get("TmpfsOptions").get("SizeBytes").integer()
		case "bind":
			if update || t.native() {
				item.get("BindOptions")
				break
			}
			item.fail(fault.Unsupported, "bind mount of %s: %s", shorten(m.Source), reasonBind)
		case "npipe", "cluster", "image":
			item.fail(fault.Unsupported, "mounts of type %s have no form on another orchestrator", m.Type)
		default:
			item.fail(fault.Invalid, "mount type unknown: %q", shorten(m.Type))
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// subpathFromTree reads which folder of a volume is mounted. Services have none: clients that do not know the field would
// send their mounts back without it.
func subpathFromTree(t *tree) string {
	part := t.str()
	if part == "" {
		return ""
	}
	if !filepath.IsLocal(part) {
		t.fail(fault.Invalid, "invalid mount config for type \"volume\": subpath must be a relative path within the volume")
	}
	t.note("the folder "+shorten(part)+" is made where the volume has none", reasonSubpath)
	return part
}

// tmpfsFromTree reads one entry of Tmpfs, "/run": "size=64m,mode=1777". Of its options, the size is carried.
func tmpfsFromTree(entry *tree) neutral.Mount {
	m := neutral.Mount{Type: "tmpfs", Target: entry.name}
	if entry.kind == treeNull {
		return m
	}
	var dropped []string
	for option := range strings.SplitSeq(entry.str(), ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "", "rw":
		case "ro":
			m.ReadOnly = true
		case "size":
			size, err := units.RAMInBytes(value)
			if err != nil || size < 0 {
				entry.fail(fault.Invalid, "invalid tmpfs size %q", shorten(value))
			}
			m.Size = size
		default:
			dropped = append(dropped, option)
		}
	}
	entry.without(dropped)
	return m
}

// without reports the options that a mount is made without.
func (t *tree) without(options []string) {
	if len(options) > 0 {
		t.note("mounted without "+shorten(strings.Join(options, ",")), reasonOptions)
	}
}
