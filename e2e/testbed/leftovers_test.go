package testbed

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// snapshot is what a bed could leave on the machine.
type snapshot map[string][]string

// leftoverDirs are places where the engines write, whatever they are told.
var leftoverDirs = []string{
	namespaceDir, "/run/containerd", "/run/docker", "/run/isthmus",
	"/var/lib/cni", "/var/lib/docker", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods",
	"/etc/docker", "/etc/cni", "/opt/containerd", "/usr/libexec/kubernetes",
}

func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	command := func(argv ...string) []string {
		out, err := run(t.Context(), argv...)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{
		"interfaces": command("ip", "-o", "link"),
		"rules":      command("iptables-save"),
		"namespaces": command("ip", "netns", "list"),
		"sysctls":    machineSysctls(),
		"mounts":     strings.Split(strings.TrimSpace(string(mounts)), "\n"),
	}
	// /proc holds no list of commands; each process has its own.
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() {
			// The command and the cgroups tell whose it is.
			command, _ := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
			groups, _ := os.ReadFile("/proc/" + entry.Name() + "/cgroup")
			if len(command) > 0 {
				s["processes"] = append(s["processes"], entry.Name()+" "+strings.ReplaceAll(string(command), "\x00", " ")+strings.ReplaceAll(string(groups), "\n", " "))
			}
		}
	}
	for _, dir := range leftoverDirs {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				s["files"] = append(s["files"], path)
			}
			return nil
		})
	}
	for _, hierarchy := range hierarchies() {
		groups, err := filepath.Glob(filepath.Join(hierarchy, "*"))
		if err != nil {
			t.Fatal(err)
		}
		s["cgroups"] = append(s["cgroups"], groups...)
	}
	return s
}

func machineSysctls() []string {
	var all []string
	for _, name := range sysctls {
		value, _ := os.ReadFile(filepath.Join("/proc/sys", name))
		all = append(all, name+" "+strings.TrimSpace(string(value)))
	}
	return all
}

// compare fails for whatever is there now and was not before. While another
// bed is up, only what names this one can be told apart.
func (s snapshot) compare(t *testing.T, root, id string) {
	t.Helper()
	if otherBeds(id) {
		t.Log("another bed is up: only what names this bed is looked for")
	}
	// Another bed may just be coming or going; what this one left stays.
	var left []string
	for range 20 {
		if left = s.leftovers(t, root, id); len(left) == 0 {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	for _, line := range left {
		t.Errorf("left of the bed, %s", line)
	}
	if entries, err := os.ReadDir(root); err == nil && len(entries) > 0 {
		t.Errorf("left in the root: %v", entries)
	}
}

func (s snapshot) leftovers(t *testing.T, root, id string) []string {
	t.Helper()
	now := takeSnapshot(t)
	alone := !otherBeds(id)
	var left []string
	for kind, lines := range now {
		for _, line := range lines {
			named := strings.Contains(line, root) || strings.Contains(line, id)
			isNew := !slices.Contains(s[kind], line)
			// Other programs of the machine come and go.
			if named || (isNew && alone && kind != "processes") {
				left = append(left, kind+": "+line)
			}
		}
	}
	return left
}
