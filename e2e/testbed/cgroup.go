package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupName is the bed's folder in every hierarchy. Engines are told to put
// their containers below it, so membership is what tells the bed's processes,
// whatever became of their parents.
func cgroupName(id string) string { return "isthmus-" + id }

// hierarchies returns the mount points of all cgroup hierarchies: one with
// cgroup v2, one a controller with v1, both with the hybrid.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil
	}
	var all []string
	for _, entry := range entries {
		dir := filepath.Join(cgroupRoot, entry.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && entry.Type()&fs.ModeSymlink == 0 {
			all = append(all, dir)
		}
	}
	return all
}

// trackingHierarchy is the one that every process of the bed is put into:
// version 2 where there is one, since its membership is inherited by
// containers of version 1 too.
func trackingHierarchy() string {
	all := hierarchies()
	for _, name := range []string{"unified", "freezer", "pids", "memory"} {
		if dir := filepath.Join(cgroupRoot, name); slices.Contains(all, dir) {
			return dir
		}
	}
	return cgroupRoot
}

// processCgroup is the file through which a process enters the bed's cgroup.
// It is a leaf, because version 2 wants processes in leaves only.
func processCgroup(id string) string {
	return filepath.Join(trackingHierarchy(), cgroupName(id), "processes", "cgroup.procs")
}

func makeCgroups(id string) error {
	if len(hierarchies()) == 0 {
		return fmt.Errorf("no cgroup hierarchy is mounted at %s", cgroupRoot)
	}
	return makeCgroup(trackingHierarchy(), filepath.Join(cgroupName(id), "processes"))
}

// makeClusterCgroup makes the folder in which an engine makes those of its
// containers; the kubelet wants it to exist.
func (c *Cluster) makeClusterCgroup() error {
	for _, hierarchy := range hierarchies() {
		if err := makeCgroup(hierarchy, c.cgroup()); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) cgroup() string { return "/" + cgroupName(c.bed.ID) + "/" + c.Name }

func makeCgroup(hierarchy, path string) error {
	dir := hierarchy
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
		// A new cpuset of version 1 is empty, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if own, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(own)) != "" {
				continue
			}
			value, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil || strings.TrimSpace(string(value)) == "" {
				continue // version 2 inherits
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
		// Version 2 hands controllers down by name; those it lacks are not an
		// error here, the engine that needs one says so.
		if controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers")); err == nil {
			for controller := range strings.FieldsSeq(string(controllers)) {
				_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
			}
		}
	}
	return nil
}

// cgroupDirs lists a cgroup and its subgroups, parents first.
func cgroupDirs(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // a group that has gone meanwhile is none
	})
	return dirs
}

// cgroupProcesses lists the processes of a cgroup and its subgroups.
func cgroupProcesses(dir string) []int {
	var pids []int
	for _, group := range cgroupDirs(dir) {
		// What cannot be read has gone meanwhile.
		raw, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killCgroup ends all processes of a bed's cgroup in every hierarchy.
func killCgroup(name string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		alive := 0
		for _, hierarchy := range hierarchies() {
			thaw(filepath.Join(hierarchy, name))
			for _, pid := range cgroupProcesses(filepath.Join(hierarchy, name)) {
				if state, _ := processStat(pid); state == 'Z' || state == 0 {
					continue
				}
				alive++
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill %d: %w", pid, err)
				}
			}
		}
		if alive == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of cgroup %s outlive SIGKILL", alive, name)
		}
		time.Sleep(pollInterval)
	}
}

// thaw makes what stands still in a cgroup of version 1 go on: no signal ends it before. Version 2 needs no help.
func thaw(dir string) {
	for _, group := range cgroupDirs(dir) {
		file := filepath.Join(group, "freezer.state")
		if state, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(state)) != "THAWED" {
			_ = os.WriteFile(file, []byte("THAWED"), 0o644) // its processes are killed in either case, or reported
		}
	}
}

// removeCgroup removes the folders of a bed, deepest first.
func removeCgroup(name string) error {
	var failed []error
	for _, hierarchy := range hierarchies() {
		for _, dir := range slices.Backward(cgroupDirs(filepath.Join(hierarchy, name))) {
			var err error
			// The kernel forgets a dead process a moment after its death.
			for range 40 {
				if err = syscall.Rmdir(dir); !errors.Is(err, syscall.EBUSY) {
					break
				}
				time.Sleep(pollInterval)
			}
			if err != nil && !errors.Is(err, syscall.ENOENT) {
				failed = append(failed, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(failed...)
}
