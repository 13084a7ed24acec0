package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopGrace is what the programs that tests started get to end by themselves.
// The engines get none: their data is removed anyway.
const stopGrace = 5 * time.Second

// purge ends the bed of a root, by its record and by its names: the record
// may be lost, the names follow from the root. There is one way to end a bed,
// whole or crashed, so that the way is walked every time.
func purge(ctx context.Context, root string, log *slog.Logger) error {
	ids := bedIDs(root)
	if len(ids) == 0 {
		return nil
	}
	unlock, err := lockFile(filepath.Join(root, "bed.lock"))
	if errors.Is(err, fs.ErrNotExist) {
		unlock, err = func() {}, nil // the root is gone, its processes may not be
	}
	if err != nil {
		return err
	}
	defer unlock()
	start := time.Now()
	st, stateErr := readState(root)
	if stateErr == nil {
		stopProcesses(ctx, st)
	}
	clusters := map[string]bool{}
	for _, c := range st.Clusters {
		clusters[c.Name] = true
	}
	var failed []error
	for _, id := range ids {
		for _, namespace := range namespacesOf(id) {
			clusters[strings.TrimPrefix(namespace, id+"-")] = true
		}
		failed = append(failed, purgeID(ctx, root, id))
	}
	failed = append(failed, removeFiles(root, clusters))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	log.Info("bed is down", "root", root, "took", since(start))
	return nil
}

// bedIDs finds the beds of a root: the recorded one and any whose names end
// in the root's hash.
func bedIDs(root string) []string {
	var ids []string
	if st, err := readState(root); err == nil {
		ids = append(ids, st.ID)
	} else if !errors.Is(err, fs.ErrNotExist) {
		// An unreadable record still means that there is something to remove.
		ids = append(ids, "bed-"+rootHash(root))
	}
	suffix := "-" + rootHash(root)
	for _, hierarchy := range hierarchies() {
		groups, _ := filepath.Glob(filepath.Join(hierarchy, cgroupName("*"+suffix)))
		for _, group := range groups {
			ids = append(ids, strings.TrimPrefix(filepath.Base(group), cgroupName("")))
		}
	}
	namespaces, _ := filepath.Glob(filepath.Join(namespaceDir, "*"+suffix+"-*"))
	for _, namespace := range namespaces {
		name := filepath.Base(namespace)
		ids = append(ids, name[:strings.LastIndexByte(name, '-')])
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// stopProcesses asks what tests and demos started to end, newest first, so
// that a gateway drains before its cluster goes.
func stopProcesses(ctx context.Context, st state) {
	if st.Boot != bootID() {
		return // another boot's ids mean other processes
	}
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var waiting []*Process
	for _, recorded := range slices.Backward(st.Processes) {
		if enginePrograms[recorded.Name] {
			continue
		}
		p := &Process{Name: recorded.Name, PID: recorded.PID, startTime: recorded.StartTime}
		if p.Kill(syscall.SIGTERM) == nil {
			waiting = append(waiting, p)
		}
	}
	for _, p := range waiting {
		_ = p.Wait(ctx) // what remains is killed with its cgroup
	}
}

// purgeID ends the processes of a bed and removes what they leave in the
// kernel and outside of the root.
func purgeID(ctx context.Context, root, id string) error {
	sockets := shimSockets(cgroupName(id))
	failed := []error{killCgroup(cgroupName(id)), unmountBelow(root)}
	for _, namespace := range namespacesOf(id) {
		failed = append(failed, killNamespace(ctx, namespace))
		_, err := run(ctx, "ip", "netns", "delete", namespace)
		failed = append(failed, err)
	}
	failed = append(failed, removeCgroup(cgroupName(id)))
	for _, socket := range sockets {
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	failed = append(failed, removeStrays(root, id))
	return errors.Join(failed...)
}

// namespacesOf lists the network namespaces of a bed.
func namespacesOf(id string) []string {
	paths, _ := filepath.Glob(filepath.Join(namespaceDir, id+"-*"))
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

// killNamespace ends what others started in a namespace of the bed, and what
// would keep it alive.
func killNamespace(ctx context.Context, namespace string) error {
	pids, err := run(ctx, "ip", "netns", "pids", namespace)
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(pids) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %d in namespace %s: %w", pid, namespace, err)
		}
	}
	return nil
}

// shimSockets lists the sockets of containerd's shims. They lie in a folder
// that all containerds of a machine share, under names that only the shims'
// open descriptors tell.
func shimSockets(cgroup string) []string {
	var found []string
	for _, pid := range cgroupProcesses(filepath.Join(trackingHierarchy(), cgroup)) {
		proc := "/proc/" + strconv.Itoa(pid)
		command, err := os.ReadFile(proc + "/cmdline")
		if err != nil || !strings.Contains(strings.SplitN(string(command), "\x00", 2)[0], "containerd-shim") {
			continue
		}
		own := map[string]bool{}
		descriptors, _ := os.ReadDir(proc + "/fd")
		for _, descriptor := range descriptors {
			if target, err := os.Readlink(proc + "/fd/" + descriptor.Name()); err == nil && strings.HasPrefix(target, "socket:[") {
				own[strings.Trim(target, "socket:[]")] = true
			}
		}
		table, err := os.ReadFile(proc + "/net/unix")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) == 8 && own[fields[6]] && strings.HasPrefix(fields[7], "/run/containerd/s/") {
				found = append(found, fields[7])
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// unmountBelow unmounts all that is mounted below the root, deepest first.
func unmountBelow(root string) error {
	var failed []error
	for range 3 { // a mount may lie on top of another
		points, err := mountsBelow(root)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return nil
		}
		failed = failed[:0]
		for _, point := range slices.Backward(points) {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				failed = append(failed, fmt.Errorf("unmount %s: %w", point, err))
			}
		}
	}
	return errors.Join(failed...)
}

func mountsBelow(root string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	defer func() { _ = file.Close() }()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`)
	var points []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 {
			if point := unescape.Replace(fields[4]); strings.HasPrefix(point, root+"/") {
				points = append(points, point)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	return points, nil
}

// removeStrays removes the few files that programs write at fixed places, the
// CNI library's results, the kubelet's links to container logs and its folder
// for device plugins, and puts back what the kubelet set.
func removeStrays(root, id string) error {
	var failed []error
	const resultDir = "/var/lib/cni/results/"
	results, _ := filepath.Glob(resultDir + id + "-*-eth0")
	for _, result := range results {
		failed = append(failed, os.Remove(result))
		// The loopback network of a pod has a name that all beds share.
		fields := strings.Split(filepath.Base(result), "-")
		loopback := resultDir + "cni-loopback-" + fields[len(fields)-2] + "-lo"
		if err := os.Remove(loopback); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, root+"/") {
			failed = append(failed, os.Remove(link))
		}
	}
	if otherBeds(id) {
		return errors.Join(failed...)
	}
	failed = append(failed, restoreSysctls())
	// The folder of a kubelet that is the machine's own holds more.
	const kubelet = "/var/lib/kubelet"
	if entries, err := os.ReadDir(kubelet); err == nil && len(entries) == 1 && entries[0].Name() == "device-plugins" {
		failed = append(failed, os.RemoveAll(kubelet))
	}
	for _, dir := range []string{"/var/log/containers", "/var/lib/cni/results", "/var/lib/cni", "/run/containerd/s", "/run/containerd", "/run/docker/plugins", "/run/docker"} {
		_ = syscall.Rmdir(dir) // only when empty
	}
	return errors.Join(failed...)
}

// otherBeds tells whether another bed is up, whose kubelet may use what is
// shared.
func otherBeds(id string) bool {
	groups, _ := filepath.Glob(filepath.Join(trackingHierarchy(), cgroupName("*")))
	return slices.ContainsFunc(groups, func(group string) bool { return filepath.Base(group) != cgroupName(id) })
}

// removeFiles removes what the bed wrote below its root, and the root itself
// when nothing else is in it.
func removeFiles(root string, clusters map[string]bool) error {
	var failed []error
	for name := range clusters {
		failed = append(failed, os.RemoveAll(filepath.Join(root, name)))
	}
	failed = append(failed, os.RemoveAll(filepath.Join(root, "log")))
	for _, name := range []string{"bed.json", "bed.lock"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	_ = syscall.Rmdir(root)
	return errors.Join(failed...)
}
